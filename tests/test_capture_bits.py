"""Training under capture is bit-identical to training without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from capture_models import ALL_KINDS, TRAININGS, captured, read_records  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402


def outcome(train: Callable[[], torch.nn.Module]) -> dict[str, torch.Tensor]:
    """Everything that training leaves behind, and where the random numbers stand."""
    torch.manual_seed(0)
    model = train()
    gradients = {f"{name}.grad": p.grad for name, p in model.named_parameters()}
    left = {**model.state_dict(), **gradients, "random": torch.get_rng_state()}
    return {name: tensor for name, tensor in left.items() if tensor is not None}


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


LAYOUTS = {
    "contiguous": torch.randn(2, 3, 4, 5),
    "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "one_channel": torch.randn(2, 1, 4, 5).to(memory_format=torch.channels_last),
    "one_pixel": torch.randn(2, 3, 1, 1).to(memory_format=torch.channels_last),
    "transposed": torch.randn(2, 3, 5, 4).transpose(2, 3),
    "expanded": torch.randn(2, 3, 1, 5).expand(2, 3, 4, 5),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layer_reads_the_very_tensor(layout: str, tmp_path: Path) -> None:
    """A convolution chooses its kernel by strides; autograd adds gradients up by reader."""
    read: list[torch.Tensor] = []

    class Spy(torch.nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            read.append(x)
            return super().forward(x)

    x = LAYOUTS[layout].detach().requires_grad_()
    with captured(tmp_path / "t.h5"):
        Spy(x.shape[1], 1, 1)(x)
    (seen,) = read
    assert seen is x


def train_meta() -> torch.nn.Module:
    """Gradients of parameters are differentiated in turn, as in MAML."""
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(3):
        loss = model(torch.randn(4, 8)).square().mean()
        gradients = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
        optimizer.zero_grad()
        (loss + sum(each.square().sum() for each in gradients)).backward()
        optimizer.step()
    return model


class Products(torch.nn.Module):
    """Functions that multiply, in place of layers; one of them is computed again."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(5, 8)
        self.w = torch.nn.Parameter(torch.randn(8, 8) / 3)
        self.heads = torch.nn.ParameterList([torch.randn(2, 4, 3), torch.randn(3)])
        self.kernel = torch.nn.Parameter(torch.randn(2, 3, 3))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        for _ in range(2):
            x = torch.tanh(checkpoint(self.mix, x, use_reentrant=False) @ self.w.T)
        x = torch.einsum("bthi,hio->btho", x.view(2, 3, 2, 4), self.heads[0])
        x = torch.nn.functional.conv1d(x.flatten(2), self.kernel, padding=1, groups=1)
        return torch.dropout(x, 0.3, self.training) + self.embedding.weight.sum()

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return (x @ self.w).transpose(1, 2)[:, :3].relu() @ torch.ones(3, 8)


def train_products() -> torch.nn.Module:
    """With a gradient penalty, which differentiates the products twice."""
    model = Products()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(3):
        loss = model(torch.tensor([[0, 1, 2], [3, 4, 0]])).square().mean()
        (gradient,) = torch.autograd.grad(loss, model.w, create_graph=True)
        optimizer.zero_grad()
        (loss + gradient.square().sum()).backward()
        optimizer.step()
    return model


TRAININGS = {**TRAININGS, "meta": train_meta, "products": train_products}


@pytest.mark.parametrize("name", TRAININGS)
def test_capture_changes_no_bit(name: str, tmp_path: Path) -> None:
    plain = outcome(TRAININGS[name])
    with captured(tmp_path / "t.h5", tensors=ALL_KINDS, every=2, max_elements=7, eval=True):
        watched = outcome(TRAININGS[name])
    assert plain.keys() == watched.keys()
    assert [name for name in plain if bits(plain[name]) != bits(watched[name])] == []
    assert len(read_records(tmp_path / "t.h5")) > 0
