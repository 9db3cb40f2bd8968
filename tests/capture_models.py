"""Models and training functions for the tests of capture, and functions to read its traces."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # an optimizer's first step would import it
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from hqtool.capture.session import Session
from hqtool.capture.settings import settings_of
from hqtool.trace.reader import TraceReader
from hqtool.trace.writer import TraceWriter
from hqtool.vocab import TENSOR_KINDS, Record

gc.freeze()  # each capture searches all objects for optimizers; those of torch would take 0.2 s

ALL_KINDS = tuple(TENSOR_KINDS)
STEPS = 3

#: layer, tensor kind, step, micro, call.
Key = tuple[str, str, int, int, int]


@contextmanager
def captured(path: Path, *, may_fail: bool = False, **options: Any) -> Iterator[Session]:
    """Capture any model that trains, as `hqtool capture` does; unless it may, nothing must fail."""
    settings = settings_of(options)
    session = Session(TraceWriter(path, channel_extremes=settings.per_channel), settings)
    session.attach()
    try:
        yield session
    finally:
        session.detach()
        session.close("complete")
    assert may_fail or "failed" not in read_run(path)


def read_records(path: Path) -> dict[Key, Record]:
    """All records of a trace."""
    with TraceReader(path) as trace:
        return {
            (site.layer, site.tensor, each.step, each.micro, each.call): each
            for site in trace.sites
            for each in trace.records(site)
        }


def read_run(path: Path) -> dict[str, Any]:
    """The provenance and notes of a trace."""
    with TraceReader(path) as trace:
        return dict(trace.run)


# --- models -------------------------------------------------------------------------------------


class Residual(nn.Module):
    """Convolutions, batch norm, ReLU in place, a residual fork, dropout and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(4, 4, 1, groups=2)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(self.stem(x)))
        y = self.relu(self.conv1(x))
        x = self.relu(x + self.conv2(y) + self.conv1(y))
        return self.head(self.dropout(x.mean((2, 3))))


class Tiny(nn.Module):
    """A transformer with tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 8)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, 0.1, batch_first=True)
        self.cross = nn.MultiheadAttention(8, 2, kdim=8, vdim=8)
        self.decoder = nn.Linear(8, 7, bias=False)
        self.decoder.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.encoder(self.embedding(tokens))
        x = x + self.cross(x, x * 2, x * 2)[0]
        return self.decoder(x)


class Recurrent(nn.Module):
    """An LSTM whose head is a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 5, batch_first=True)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(input=self.lstm(x)[0][:, -1])


class Checkpointed(nn.Module):
    """A segment, run twice, whose activations are computed again in the backward pass.

    With `reentrant` None nothing is computed again.
    """

    def __init__(self, *, reentrant: bool | None) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True))
        self.second = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.3), nn.Linear(6, 6), nn.Tanh())
        self.head = nn.Linear(6, 2)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for _ in range(2):
            if self.reentrant is None:
                x = self.second(x)
            else:
                x = checkpoint(self.second, x, use_reentrant=self.reentrant)
        return self.head(x)


def generator() -> nn.Module:
    """Transposed convolutions, as in a GAN."""
    return nn.Sequential(
        nn.ConvTranspose2d(3, 4, 3),
        nn.LeakyReLU(0.1, inplace=True),
        nn.ConvTranspose2d(4, 2, 3, stride=2, padding=1, output_padding=1),
        nn.Tanh(),
    )


def normed() -> nn.Module:
    """Weights that are computed from others, one of them with a state that changes each time."""
    return nn.Sequential(
        parametrizations.weight_norm(nn.Linear(4, 6)),
        nn.ReLU(),
        parametrizations.spectral_norm(nn.Linear(6, 6)),
        nn.Linear(6, 2),
    )


class Forked(nn.Module):
    """Four layers that read one tensor: the order in which their gradients are added matters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 8)
        self.readers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.stem(x))
        y = x
        for reader in self.readers:
            y = y + reader(x) * x
        return self.head(y)


class Frozen(nn.Module):
    """A frozen layer, whose input may be changed in place after the layer has read it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 6)
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.frozen(x)
        return self.head(x.mul_(0.5) + y)


# --- trainings ----------------------------------------------------------------------------------


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)


def fit(model: nn.Module, loss_of: Callable[[nn.Module], Tensor]) -> nn.Module:
    """An ordinary training loop."""
    optimizer = sgd(model)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
    return model


def square(output: Tensor) -> Tensor:
    return output.float().square().mean()


def train_cnn() -> nn.Module:
    return fit(Residual(), lambda model: F.cross_entropy(model(images()), torch.tensor([0, 1])))


def train_channels_last() -> nn.Module:
    model = Residual().to(memory_format=torch.channels_last)
    return fit(model, lambda m: square(m(images().to(memory_format=torch.channels_last))))


def train_transposed_input() -> nn.Module:
    """The layer reads memory that is not contiguous."""
    return fit(Residual(), lambda model: square(model(images().transpose(2, 3))))


def images() -> Tensor:
    return torch.randn(2, 1, 6, 5)


def train_mlp() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 2))
    return fit(model, lambda m: square(m(torch.randn(5, 4))))


def train_transformer() -> nn.Module:
    tokens = torch.arange(10).reshape(2, 5) % 7
    return fit(Tiny(), lambda m: F.cross_entropy(m(tokens).flatten(0, 1), tokens.flatten()))


def train_lstm() -> nn.Module:
    return fit(Recurrent(), lambda model: square(model(torch.randn(2, 4, 3))))


def train_generator() -> nn.Module:
    return fit(generator(), lambda model: square(model(torch.randn(2, 3, 4, 4))))


def train_normed() -> nn.Module:
    return fit(normed(), lambda model: square(model(torch.randn(3, 4))))


def train_forked() -> nn.Module:
    return fit(Forked(), lambda model: square(model(torch.randn(3, 4))))


def train_frozen() -> nn.Module:
    model = Frozen()
    trainable = nn.ModuleList([model.stem, model.head])
    optimizer = sgd(trainable)
    for _ in range(STEPS):
        square(model(torch.randn(3, 4))).backward()
        optimizer.step()
    return model


def train_accumulating() -> nn.Module:
    model = Residual()
    optimizer = sgd(model)
    for _ in range(STEPS):
        for _ in range(2):
            square(model(images())).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def train_checkpointed() -> nn.Module:
    return fit(Checkpointed(reentrant=False), lambda model: square(model(torch.randn(3, 4))))


def train_checkpointed_reentrant() -> nn.Module:
    return fit(Checkpointed(reentrant=True), lambda model: square(model(torch.randn(3, 4))))


def train_autocast() -> nn.Module:
    def loss_of(model: nn.Module) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return square(model(images()))

    return fit(Residual(), loss_of)


def train_penalty() -> nn.Module:
    """A gradient penalty: double backward."""
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def loss_of(model: nn.Module) -> Tensor:
        x = torch.randn(3, 4, requires_grad=True)
        (gradient,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        return (gradient.norm(dim=1) - 1).square().mean()

    return fit(model, loss_of)


def train_adversarial() -> nn.Module:
    """The input is a leaf whose own gradient is used."""
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def loss_of(model: nn.Module) -> Tensor:
        x = torch.randn(3, 4, requires_grad=True)
        square(model(x)).backward()
        assert x.grad is not None
        return square(model((x + x.grad.sign()).detach()))

    return fit(model, loss_of)


def train_gan() -> nn.Module:
    """Two models, two optimizers; the generator's forward pass precedes the first update."""
    models = nn.ModuleDict({"g": nn.Linear(2, 3), "d": nn.Linear(3, 1)})
    g, d = models["g"], models["d"]
    for_g, for_d = sgd(g), sgd(d)
    for _ in range(STEPS):
        fake = g(torch.randn(4, 2))
        for_d.zero_grad()
        (square(d(torch.randn(4, 3)) - 1) + square(d(fake.detach()))).backward()
        for_d.step()
        for_g.zero_grad()
        square(d(fake) - 1).backward()
        for_g.step()
    return models


def train_scaled() -> nn.Module:
    """A GradScaler; the gradients of step 1 overflow."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = sgd(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = square(model(torch.randn(3, 4))) * (torch.inf if step == 1 else 1)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    return model


TRAININGS: dict[str, Callable[[], nn.Module]] = {
    name.removeprefix("train_"): function
    for name, function in list(globals().items())
    if name.startswith("train_")
}
