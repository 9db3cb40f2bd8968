"""What is captured equals gradients and outputs that are computed independently."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from capture_models import (  # noqa: E402
    ALL_KINDS,
    TRAININGS,
    Checkpointed,
    Key,
    Residual,
    captured,
    images,
    read_records,
    square,
)
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from hqtool.vocab import Record  # noqa: E402


def values(records: dict[Key, Record], layer: str, kind: str, call: int = 0) -> Tensor:
    """The values of step 0."""
    found = records[layer, kind, 0, 0, call].values
    assert found is not None
    return torch.from_numpy(np.ascontiguousarray(found))


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected.detach(), rtol=1e-5, atol=1e-7)


def test_a_residual_network_by_hand(tmp_path: Path) -> None:
    """In-place ReLU, a fork and a shared layer: each G_X is that of one reader alone."""
    torch.manual_seed(1)
    model = Residual()
    model.dropout.p = 0.0
    x = images()
    with captured(tmp_path / "t.h5", tensors=ALL_KINDS):
        square(model(x)).backward()
    records = read_records(tmp_path / "t.h5")

    stem, conv1, conv2 = model.stem, model.conv1, model.conv2
    a = F.conv2d(x, stem.weight, stem.bias, padding=1)
    b = F.relu(F.batch_norm(a, None, None, model.bn.weight, model.bn.bias, training=True))
    c = F.conv2d(b, conv1.weight, padding=1)
    d = F.relu(c)
    e = F.conv2d(d, conv2.weight, conv2.bias, groups=2)
    f = F.conv2d(d, conv1.weight, padding=1)
    g = F.relu(b + e + f).mean((2, 3))
    h = g @ model.head.weight.T + model.head.bias
    at_a, at_c, at_e, at_f, at_h = torch.autograd.grad(square(h), (a, c, e, f, h))

    outputs = {("stem", 0): a, ("conv1", 0): c, ("conv2", 0): e, ("conv1", 1): f, ("head", 0): h}
    for (layer, call), expected in outputs.items():
        assert_close(values(records, layer, "output", call), expected)
    for (layer, call), expected in zip(outputs, (at_a, at_c, at_e, at_f, at_h), strict=True):
        assert_close(values(records, layer, "grad_output", call), expected)
    grad = torch.nn.grad.conv2d_input
    expected = grad(b.shape, conv1.weight, at_c, padding=1)
    assert_close(values(records, "conv1", "grad_input", 0), expected)
    expected = grad(d.shape, conv1.weight, at_f, padding=1)
    assert_close(values(records, "conv1", "grad_input", 1), expected)
    expected = grad(d.shape, conv2.weight, at_e, groups=2)
    assert_close(values(records, "conv2", "grad_input"), expected)
    assert_close(values(records, "head", "grad_input"), at_h @ model.head.weight)
    assert not any(layer == "stem" and kind == "grad_input" for layer, kind, *_ in records)


def test_the_bits_are_those_of_autograd(tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.ConvTranspose2d(3, 2, 2), nn.Tanh())
    x = images().requires_grad_()
    with captured(tmp_path / "t.h5", tensors=ALL_KINDS):
        square(model(x)).backward()
    records = read_records(tmp_path / "t.h5")
    a = F.conv2d(x, model[0].weight, model[0].bias)
    b = torch.tanh(a)
    c = F.conv_transpose2d(b, model[2].weight, model[2].bias)
    at_x, at_a, at_b, at_c = torch.autograd.grad(square(torch.tanh(c)), (x, a, b, c))
    assert torch.equal(x.grad, at_x)
    assert torch.equal(values(records, "0", "grad_input"), at_x)
    assert torch.equal(values(records, "0", "grad_output"), at_a)
    assert torch.equal(values(records, "2", "grad_input"), at_b)
    assert torch.equal(values(records, "2", "grad_output"), at_c)


@pytest.mark.parametrize("name", ["mlp", "transformer", "lstm", "checkpointed", "forked"])
def test_every_linear_layer_obeys_the_chain_rule(name: str, tmp_path: Path) -> None:
    """Y = X·Wᵀ + b up to the bias, G_X = G_Y·W, and G_W = Σ G_Yᵀ·X over calls."""
    torch.manual_seed(0)
    with captured(tmp_path / "t.h5", tensors=ALL_KINDS, every=1):
        TRAININGS[name]()
    records = read_records(tmp_path / "t.h5")
    weights = [key for key in records if key[1] == "weight"]
    assert weights
    for layer, _, step, _, _ in weights:
        weight = torch.tensor(records[layer, "weight", step, 0, 0].values)
        total = torch.zeros_like(weight)
        for call in range(sum(key[:3] == (layer, "output", step) for key in records)):
            x, y, g_y = (
                torch.tensor(records[layer, kind, step, 0, call].values).flatten(0, -2)
                for kind in ("input", "output", "grad_output")
            )
            bias = y - x @ weight.T
            assert_close(bias, bias[:1].expand_as(bias) if len(bias) else bias)
            total += g_y.T @ x
            if (layer, "grad_input", step, 0, call) in records:
                g_x = torch.tensor(records[layer, "grad_input", step, 0, call].values)
                assert_close(g_x.flatten(0, -2), g_y @ weight)
        tied = (name, layer) == ("transformer", "decoder")  # G_W has the embedding's share, too
        if not tied:
            assert_close(torch.tensor(records[layer, "grad_weight", step, 0, 0].values), total)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_changes_no_record(reentrant: bool, tmp_path: Path) -> None:
    """One record per call, as without; a reentrant checkpoint's calls are counted backward."""
    records = {}
    for mode in (None, reentrant):
        torch.manual_seed(3)
        model = Checkpointed(reentrant=mode)
        with captured(tmp_path / f"{mode}.h5", tensors=ALL_KINDS):
            square(model(torch.randn(3, 4))).backward()
        records[mode] = read_records(tmp_path / f"{mode}.h5")
    assert records[None].keys() == records[reentrant].keys()
    for (layer, kind, step, micro, call), expected in records[None].items():
        backward = reentrant and layer.startswith("second")
        found = records[reentrant][layer, kind, step, micro, 1 - call if backward else call]
        assert np.array_equal(found.values, expected.values)


def test_a_frozen_layer_passes_its_gradient_on(tmp_path: Path) -> None:
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 6).requires_grad_(False), nn.Linear(6, 2))
    with captured(tmp_path / "t.h5", tensors=ALL_KINDS):
        square(model(torch.randn(3, 4))).backward()
    records = read_records(tmp_path / "t.h5")
    expected = values(records, "1", "grad_output") @ model[1].weight
    assert_close(values(records, "1", "grad_input"), expected)


def test_nothing_is_made_to_require_a_gradient(tmp_path: Path) -> None:
    layer = nn.Linear(4, 2)
    x = torch.randn(3, 4)
    with captured(tmp_path / "t.h5", tensors=ALL_KINDS):
        square(layer(x)).backward()
    assert not x.requires_grad
    kinds = {kind for _, kind, *_ in read_records(tmp_path / "t.h5")}
    assert kinds == {"input", "output", "grad_output"}


class Twice(nn.Module):
    """Reads its input in several places, one of which leads nowhere; may change it, too."""

    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.in_place = in_place

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.in_place:
            y = x + 2 * x
            return y * x.mul_(3), x.sin()
        return self.linear(x) * x + x * x, x.sin()


@pytest.mark.parametrize(
    ("in_place", "leaf"),
    [(False, False), (False, True), (True, False)],  # no leaf changes in place
)
@pytest.mark.parametrize("steps", [1, 2])
def test_the_share_of_a_module_is_what_all_its_parts_add(
    in_place: bool, leaf: bool, steps: int, tmp_path: Path
) -> None:
    """Beside another reader of the same tensor; with no gradient for what leads nowhere."""
    torch.manual_seed(5)
    module, start = Twice(in_place=in_place), torch.randn(3, 4, requires_grad=True)
    path, types = tmp_path / "t.h5", ["Twice"]
    with captured(path, module_types=types, tensors=["grad_input"], every=1):
        for _ in range(steps):
            x = start if leaf else start * 1.5
            before = x.detach().clone().requires_grad_()
            other = x.sum()
            y = module(x)[0]
            (y.pow(3).sum() + other).backward()
    (expected,) = torch.autograd.grad(module(before * 1)[0].pow(3).sum(), before)
    records = read_records(path)
    assert len(records) == steps
    for record in records.values():
        assert record.values is not None
        assert_close(torch.from_numpy(record.values), expected)


def test_a_backward_pass_that_does_not_reach_the_input(tmp_path: Path) -> None:
    """Nothing is recorded then; a later one over the same graph is."""
    model, x = nn.Linear(4, 2), torch.randn(3, 4, requires_grad=True)
    with captured(tmp_path / "t.h5", tensors=["grad_input"]):
        loss = square(model(x))
        torch.autograd.grad(loss, model.weight, retain_graph=True)
        loss.backward()
    (record,) = read_records(tmp_path / "t.h5").values()
    assert np.array_equal(record.values, x.grad.numpy())
