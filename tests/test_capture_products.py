"""Products with a parameter outside layers: what is recorded of them, and what is reported."""

from __future__ import annotations

import functools
import gc
import json
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import command  # noqa: E402
from capture_models import ALL_KINDS, captured, fit, read_records, read_run, sgd, square  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.overrides import TorchFunctionMode  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import hqtool  # noqa: E402
from hqtool.capture.messages import closing_lines  # noqa: E402
from hqtool.trace.reader import TraceReader  # noqa: E402
from hqtool.traffic.layers import layer_from_json  # noqa: E402


class Product(nn.Module):
    """One function of an input and a parameter."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], *shape: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(shape))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.w)


def layers(path: Path) -> set[str]:
    return {key[0] for key in read_records(path)}


def unrecorded(path: Path) -> dict[str, str]:
    return dict(read_run(path).get("unrecorded_layers", {}))


class Bare(nn.Module):
    """A product without a layer, beside an embedding and a norm, which are none."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.norm = nn.LayerNorm((2, 4))
        self.weight = nn.Parameter(torch.randn(4, 3))
        self.head = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.embedding(x)) @ self.weight)


def test_products_without_a_layer_are_recorded(tmp_path: Path) -> None:
    with captured(tmp_path / "t.h5"):
        fit(Bare(), lambda model: square(model(torch.tensor([1, 2]))))
    assert layers(tmp_path / "t.h5") == {"bare.weight", "head"}
    assert unrecorded(tmp_path / "t.h5") == {}


def test_all_kinds_of_a_product_are_right(tmp_path: Path) -> None:
    """Y = X·W, G_X = G_Y·Wᵀ, G_W = Xᵀ·G_Y; each step has its own weight."""
    model = nn.ModuleDict({"block": Product(torch.matmul, 4, 3)})
    optimizer, weights = sgd(model), []
    x, factor = torch.randn(5, 4, requires_grad=True), torch.randn(5, 3)
    with captured(tmp_path / "t.h5", tensors=ALL_KINDS, every=1):
        for _ in range(2):
            optimizer.zero_grad()
            weights.append(model["block"].w.detach().clone())
            (model["block"](x) * factor).sum().backward()
            optimizer.step()
    records = read_records(tmp_path / "t.h5")
    assert {key[0] for key in records} == {"block.w"}
    for step, w in enumerate(weights):
        expected = {
            "output": x @ w,
            "input": x,
            "grad_input": factor @ w.T,
            "grad_output": factor,
            "weight": w,
            "grad_weight": x.T @ factor,
        }
        for kind, tensor in expected.items():
            found = records["block.w", kind, step, 0, 0].values
            assert found == pytest.approx(tensor.detach().numpy(), rel=1e-5, abs=1e-6), kind


#: Function, shape of the weight, shape of the input, elements of W, X and Y, how many such layers.
FUNCTIONS: dict[str, tuple[Any, tuple[int, ...], tuple[int, ...], tuple[int, int, int], int]] = {
    "operator": (lambda x, w: x @ w, (4, 3), (2, 5, 4), (12, 40, 30), 1),
    "method": (lambda x, w: x.matmul(w), (4, 3), (5, 4), (12, 20, 15), 1),
    "mm": (torch.mm, (4, 3), (5, 4), (12, 20, 15), 1),
    "named": (lambda x, w: torch.mm(mat2=w, input=x), (4, 3), (5, 4), (12, 20, 15), 1),
    "left": (lambda x, w: w @ x, (3, 4), (2, 4, 5), (12, 40, 30), 1),
    "vector": (lambda x, w: x @ w, (4,), (5, 4), (4, 20, 5), 1),
    "mv": (lambda x, w: torch.mv(w, x), (3, 4), (4,), (12, 4, 3), 1),
    "bmm": (torch.bmm, (6, 4, 3), (6, 5, 4), (12, 20, 15), 6),
    "spread": (torch.matmul, (6, 4, 3), (5, 4), (72, 20, 90), 1),
    "addmm": (lambda x, w: torch.addmm(x.new_zeros(3), x, w), (4, 3), (5, 4), (12, 20, 15), 1),
    "baddbmm": (
        lambda x, w: torch.baddbmm(x.new_zeros(1), x, w),
        (6, 4, 3),
        (6, 5, 4),
        (12, 20, 15),
        6,
    ),
    "transposed": (lambda x, w: x @ w.T, (3, 4), (5, 4), (12, 20, 15), 1),
    "part": (lambda x, w: x @ w[1].T, (2, 3, 4), (5, 4), (12, 20, 15), 1),
    "cast": (lambda x, w: x.double() @ w.double(), (4, 3), (5, 4), (12, 20, 15), 1),
    "linear": (F.linear, (3, 4), (2, 5, 4), (12, 40, 30), 1),
    "linear_named": (
        lambda x, w: F.linear(x, bias=None, weight=w),
        (3, 4),
        (5, 4),
        (12, 20, 15),
        1,
    ),
    "inner": (torch.inner, (3, 4), (5, 4), (12, 20, 15), 1),
    "tensordot": (
        lambda x, w: torch.tensordot(x, w, ([1, 2], [1, 0])),
        (3, 2, 4),
        (5, 2, 3),
        (24, 30, 20),
        1,
    ),
    "tensordot_of": (lambda x, w: torch.tensordot(x, w, dims=1), (4, 3), (5, 4), (12, 20, 15), 1),
    "einsum": (lambda x, w: torch.einsum("bij,jk->bik", x, w), (4, 3), (2, 5, 4), (12, 40, 30), 1),
    "einsum_list": (lambda x, w: torch.einsum("ij,jk", [x, w]), (4, 3), (5, 4), (12, 20, 15), 1),
    "einsum_dots": (
        lambda x, w: torch.einsum("...d, d e -> ...e", x, w),
        (4, 3),
        (2, 5, 4),
        (12, 40, 30),
        1,
    ),
    "einsum_heads": (
        lambda x, w: torch.einsum("bhi,hio->bho", x, w),
        (6, 4, 3),
        (5, 6, 4),
        (12, 20, 15),
        6,
    ),
    "conv1d": (lambda x, w: F.conv1d(x, w, None, 2, 0, 1, 2), (6, 2, 3), (5, 4, 7), None, 1),
    "conv2d": (
        lambda x, w: F.conv2d(x, w, padding="same", groups=2),
        (6, 2, 3, 3),
        (5, 4, 7, 7),
        None,
        1,
    ),
    "conv_transpose2d": (
        lambda x, w: F.conv_transpose2d(x, w, stride=2, output_padding=1),
        (4, 6, 3, 3),
        (5, 4, 7, 7),
        None,
        1,
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_product_is_recorded_with_its_geometry(name: str, tmp_path: Path) -> None:
    function, weight, shape, counts, repeat = FUNCTIONS[name]
    model = nn.ModuleDict({"block": Product(function, *weight)})
    x = torch.randn(shape, requires_grad=True)
    with captured(tmp_path / "t.h5", tensors=["output", "grad_input"]):
        y = model["block"](x)
        square(y).backward()
    records = read_records(tmp_path / "t.h5")
    assert set(records) == {("block.w", kind, 0, 0, 0) for kind in ("output", "grad_input")}
    assert np.array_equal(records["block.w", "output", 0, 0, 0].values, y.detach().numpy())
    gradient = records["block.w", "grad_input", 0, 0, 0]
    assert gradient.shape == tuple(shape)
    assert gradient.values == pytest.approx(x.grad.numpy(), rel=1e-6)
    with TraceReader(tmp_path / "t.h5") as trace:
        layer = layer_from_json(trace.geometry("block.w"))
    found = layer.counts()
    assert layer.repeat == repeat
    if counts is None:
        assert (layer.op, *found) == (name, model["block"].w.numel(), x.numel(), y.numel())
    else:
        assert (layer.op, *found) == ("linear", *counts)


class Normed(nn.Module):
    """Weights by hand: normed and scaled, rounded straight through, and with an adapter."""

    def __init__(self) -> None:
        super().__init__()
        self.v, self.g = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4, 1))
        self.k = nn.Parameter(torch.randn(4, 4, 1))
        self.w = nn.Parameter(torch.randn(4, 4))
        self.a, self.b = nn.Parameter(torch.randn(4, 1)), nn.Parameter(torch.randn(1, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(x, self.v / self.v.norm(dim=1, keepdim=True) * self.g)
        x = F.conv1d(x[..., None], self.k + (self.k.round() - self.k).detach())[..., 0]
        return x.relu() @ (self.w + self.a @ self.b).T


def test_computed_weights_are_named_after_their_parameter(tmp_path: Path) -> None:
    model = nn.ModuleDict({"block": Normed()})
    x = torch.randn(5, 4, requires_grad=True)
    with captured(tmp_path / "t.h5", tensors=["output", "grad_input", "weight"]):
        fit(model["block"], lambda block: square(block(x)))
    records = read_records(tmp_path / "t.h5")
    assert {key[0] for key in records} == {f"block.{name}" for name in "vkwb"}
    assert {key[0] for key in records if key[1] == "weight"} == {"block.b"}
    assert records["block.v", "grad_input", 2, 0, 0].shape == (5, 4)
    assert unrecorded(tmp_path / "t.h5") == {}
    with TraceReader(tmp_path / "t.h5") as trace:
        counts = {name: layer_from_json(trace.geometry(f"block.{name}")).counts() for name in "vkw"}
    assert set(counts.values()) == {(16, 20, 20)}


@pytest.mark.parametrize("batch", [1, 2])
def test_learned_positions_are_no_weight(batch: int, tmp_path: Path) -> None:
    """They are added to an activation, which then is multiplied with another."""
    model = nn.ModuleDict({"block": Product(lambda x, w: (x + w) @ (x + w).mT, 1, 4, 3)})
    with captured(tmp_path / "t.h5"):
        fit(model["block"], lambda block: square(block(torch.randn(batch, 4, 3))))
    assert layers(tmp_path / "t.h5") == set()
    assert set(unrecorded(tmp_path / "t.h5")) == {"block.w"}


def test_wrappers_leave_the_name_of_the_class(tmp_path: Path) -> None:
    with captured(tmp_path / "t.h5"):
        fit(
            torch.compile(Product(torch.matmul, 4, 4), backend="eager"),
            lambda model: square(model(torch.randn(2, 4))),
        )
    assert layers(tmp_path / "t.h5") == {"product.w"}


def test_leaves_of_an_optimizer_are_numbered(tmp_path: Path) -> None:
    """A network by hand, without any module: two micro-batches a step, a weight used twice."""
    w1 = torch.randn(4, 4, requires_grad=True)
    w2 = torch.randn(4, 1, requires_grad=True)
    with captured(tmp_path / "t.h5", tensors=["output", "grad_weight"], every=1) as session:
        optimizer = torch.optim.SGD([w1, w2], 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            for _ in range(2):
                square((torch.relu(torch.randn(5, 4) @ w1) @ w1) @ w2).backward()
            optimizer.step()
    records = read_records(tmp_path / "t.h5")
    places = [key[2:] for key in records if key[:2] == ("parameter0", "output")]
    assert places == [(s, micro, call) for s in range(3) for micro in (0, 1) for call in (0, 1)]
    places = [key[2:] for key in records if key[:2] == ("parameter1", "output")]
    assert places == [(s, micro, 0) for s in range(3) for micro in (0, 1)]
    last = records["parameter0", "grad_weight", 2, 0, 0].values
    assert np.array_equal(last, w1.grad.numpy())
    assert session.recorder.steps == 3
    assert unrecorded(tmp_path / "t.h5") == {}


def test_methods_called_past_the_module_are_seen(tmp_path: Path) -> None:
    model = nn.ModuleDict({"block": Product(torch.matmul, 4, 3), "head": nn.Linear(3, 1)})
    optimizer = sgd(model)
    with captured(tmp_path / "t.h5"):
        for _ in range(2):
            hidden = model["block"].forward(torch.randn(2, 4))
            square(F.linear(hidden, model["head"].weight)).backward()
            optimizer.step()
    assert layers(tmp_path / "t.h5") == {"block.w", "head.weight"}
    assert unrecorded(tmp_path / "t.h5") == {}


class Cube(torch.autograd.Function):
    """x·w, as extensions write it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return x @ w

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        return gradient @ w.T, x.T @ gradient


#: What trains out of sight, and how it is used.
OUT_OF_SIGHT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "function": Cube.apply,
    "three": lambda x, w: torch.einsum("ij,jk,kl->il", x, w, w),
    "attention": lambda x, w: F.multi_head_attention_forward(
        *[x[:, None]] * 3, 4, 2, w.repeat(3, 1), None, None, None, False, 0.0, w, None
    )[0],
}


@pytest.mark.parametrize("with_optimizer", [False, True])
@pytest.mark.parametrize("name", OUT_OF_SIGHT)
def test_what_trains_out_of_sight_is_told(name: str, with_optimizer: bool, tmp_path: Path) -> None:
    model = nn.Sequential(Product(OUT_OF_SIGHT[name], 4, 4))
    with captured(tmp_path / "t.h5"):
        if with_optimizer:
            fit(model, lambda model: square(model(torch.randn(2, 4))))
        else:
            square(model(torch.randn(2, 4))).backward()
    reason = "no recorded layer or product used it; see --module-types Product"
    assert unrecorded(tmp_path / "t.h5") == {"0.w": reason}
    assert layers(tmp_path / "t.h5") == set()


def test_leaves_out_of_sight_and_complex_products_are_told(tmp_path: Path) -> None:
    w = torch.randn(4, 4, requires_grad=True)
    v = nn.Parameter(torch.randn(4, 4, dtype=torch.cfloat))
    with captured(tmp_path / "t.h5"):
        optimizer = torch.optim.SGD([w, v], 0.1)
        for _ in range(2):
            square((Cube.apply(torch.randn(2, 4), w).cfloat() @ v).abs()).backward()
            optimizer.step()
    assert unrecorded(tmp_path / "t.h5") == {
        "parameter0": "its output is of type complex64",
        "parameter1": "no recorded layer or product used it",
    }


def test_globs_and_module_types_choose_products(tmp_path: Path) -> None:
    for number, options in enumerate([{"exclude": ["*.weight"]}, {"module_types": ["Linear"]}]):
        with captured(tmp_path / f"{number}.h5", **options):
            fit(Bare(), lambda model: square(model(torch.tensor([1, 2]))))
        assert layers(tmp_path / f"{number}.h5") == {"head"}
    assert unrecorded(tmp_path / "0.h5") == {"bare.weight": "not among the layers asked for"}


@pytest.mark.parametrize("reentrant", [False, True])
def test_products_within_a_checkpoint_are_recorded_once(reentrant: bool, tmp_path: Path) -> None:
    model = nn.ModuleList([Product(torch.matmul, 4, 4), Product(torch.matmul, 4, 4)])

    def loss_of(model: Any) -> Tensor:
        x = torch.randn(2, 4, requires_grad=True)
        return square(model[1](checkpoint(model[0], x, use_reentrant=reentrant)))

    with captured(tmp_path / "t.h5"):
        fit(model, loss_of)
    records = read_records(tmp_path / "t.h5")
    for name in ("0.w", "1.w"):
        for kind in ("output", "grad_input"):
            places = [key[2:] for key in records if key[:2] == (name, kind)]
            assert places == [(step, 0, 0) for step in range(3)], (name, kind)


def test_two_models_of_products_have_two_names(tmp_path: Path) -> None:
    models = [Product(torch.matmul, 4, 4), Product(torch.matmul, 4, 4)]
    with captured(tmp_path / "t.h5"):
        for model in models:
            fit(model, lambda model: square(model(torch.randn(2, 4))))
    assert layers(tmp_path / "t.h5") == {"product.w", "product2.w"}


def test_one_model_has_its_own_products_alone(tmp_path: Path) -> None:
    model, other = nn.Sequential(Product(torch.matmul, 4, 4)), Product(torch.matmul, 4, 4)
    loose = torch.randn(4, 4, requires_grad=True)
    with hqtool.capture(model, tmp_path / "t.h5"):
        optimizer = torch.optim.SGD([*model.parameters(), *other.parameters(), loose], 0.1)
        square(other(model(torch.randn(2, 4))) @ loose).backward()
        optimizer.step()
    assert layers(tmp_path / "t.h5") == {"0.w"}


def modes() -> list[Any]:
    size = torch._C._len_torch_function_stack()
    return [torch._C._get_function_stack_at(place) for place in range(size)]


class Foreign(TorchFunctionMode):
    """A mode of the script's own."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def test_modes_of_a_script_end_as_they_began(tmp_path: Path) -> None:
    """Ours comes while theirs are on, and goes while others are."""
    with captured(tmp_path / "t.h5"):
        with torch.device("cpu"), Foreign() as outer:
            model = nn.Sequential(Product(torch.matmul, 4, 4))
            optimizer = sgd(model)
            assert modes()[-1] is outer
        assert len(modes()) == 1
        with torch.device("cpu"):
            square(model(torch.randn(2, 4))).backward()
            optimizer.step()
        assert len(modes()) == 1
        torch.set_default_device("cpu")
        fit(Product(torch.matmul, 4, 4), lambda model: square(model(torch.randn(2, 4))))
        torch.set_default_device(None)
        optimizer.add_param_group({"params": [torch.zeros(1)]})
        foreign = Foreign()
        foreign.__enter__()
    assert modes() == [foreign]
    foreign.__exit__(None, None, None)
    assert modes() == []
    assert layers(tmp_path / "t.h5") == {"0.w", "product.w"}


def test_nothing_is_looked_for_once_all_is_known(tmp_path: Path) -> None:
    """Layers alone: each call would be slower for nothing. A new optimizer starts it again."""
    first, second = nn.Linear(2, 2), Product(torch.matmul, 4, 4)
    with captured(tmp_path / "t.h5"):
        optimizer = sgd(first)
        assert len(modes()) == 1
        for _ in range(2):
            square(first(torch.randn(1, 2))).backward()
            optimizer.step()
        assert modes() == []
        seen: list[int] = []
        second.function = lambda x, w: (seen.append(len(modes())), x @ w)[1]
        fit(second, lambda model: square(model(torch.randn(2, 4))))
        assert seen == [1, 1, 1]
        assert modes() == []  # they are within the module alone
    assert layers(tmp_path / "t.h5") == {"linear", "product.w"}


def test_each_thread_that_trains_is_seen(tmp_path: Path) -> None:
    model = nn.Sequential(Product(torch.matmul, 4, 4))
    train = functools.partial(fit, model, lambda model: square(model(torch.randn(2, 4))))
    with captured(tmp_path / "t.h5"):
        thread = threading.Thread(target=train)
        thread.start()
        thread.join()
    assert len([key for key in read_records(tmp_path / "t.h5") if key[1] == "output"]) == 3


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("eval_", [False, True])
def test_evaluation_takes_the_same_code(eval_: bool, tmp_path: Path) -> None:
    """A transformer in eval mode runs by kernels of its own, unless its functions are watched."""
    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1)
    model = nn.ModuleDict({"encoder": encoder, "head": Product(torch.matmul, 8, 2)})
    x, mask = torch.randn(3, 5, 8), torch.zeros(3, 5, dtype=torch.bool)
    mask[1, 3:] = True
    encoder.eval()
    with torch.no_grad():
        plain = encoder(x, src_key_padding_mask=mask)
    with captured(tmp_path / "t.h5", eval=eval_):
        model.train()
        fit(model["head"], lambda model: square(model(torch.randn(2, 8))))
        model.eval()
        with torch.no_grad():
            watched = encoder(x, src_key_padding_mask=mask)
    assert torch.equal(plain, watched)


class Tagged(torch.Tensor):
    """A subclass that sees every function for itself."""

    seen: ClassVar[list[Any]] = []

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.seen.append(func)
        return super().__torch_function__(func, types, args, kwargs)


def test_subclasses_see_what_they_saw_before(tmp_path: Path) -> None:
    w = nn.Parameter(torch.randn(4, 4))
    optimizer = torch.optim.SGD([w], 0.1)

    def train() -> list[Any]:
        Tagged.seen = []
        x = torch.ones(2, 4).as_subclass(Tagged)
        square((x @ w).as_subclass(Tensor)).backward()
        optimizer.step()
        return Tagged.seen

    plain = train()
    with captured(tmp_path / "t.h5"):
        assert train() == plain
    assert layers(tmp_path / "t.h5") == {"parameter0"}


@pytest.mark.parametrize("goes_back", [False, True])
def test_tensors_live_no_longer_than_their_graph(goes_back: bool, tmp_path: Path) -> None:
    model = nn.ModuleDict({"block": Product(lambda x, w: (x @ w).relu() @ w, 4, 4)})
    with captured(tmp_path / "t.h5", tensors=ALL_KINDS):
        x = torch.randn(2, 4, requires_grad=True)
        y = model["block"](x * 2)
        left = weakref.ref(x)
        if goes_back:
            y.sum().backward()
        del x, y
        gc.collect()
        assert left() is None


def test_nothing_recorded_says_what_is_looked_for(tmp_path: Path) -> None:
    """A network by hand whose updates are made by hand, too: neither a module nor an optimizer."""
    w = torch.randn(4, 1, requires_grad=True)
    with captured(tmp_path / "t.h5") as session:
        square(torch.randn(5, 4) @ w).backward()
    assert session.outcome is not None
    why = "no layer ran a forward pass, and no optimizer updates a tensor that is multiplied with"
    assert closing_lines("t.h5", session.outcome)[-1] == f"nothing recorded: {why}"


def test_copies_for_data_parallel_training_are_told(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    optimizer = sgd(model)
    with captured(tmp_path / "t.h5"):
        replica = model[0]._replicate_for_data_parallel()
        replica.weight, replica.bias = (each.clone() for each in model.parameters())
        square(replica(torch.randn(1, 2))).backward()
        optimizer.step()
    reason = "run by DataParallel in copies made for each pass"
    assert unrecorded(tmp_path / "t.h5") == {"0": reason}


def test_an_optimizer_s_own_copies_are_no_parameters_out_of_sight(tmp_path: Path) -> None:
    """Master weights: each update goes by them and is copied back."""
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1)).bfloat16()
    masters = [each.detach().float().requires_grad_() for each in model.parameters()]
    optimizer = torch.optim.SGD(masters, 0.1)
    with captured(tmp_path / "t.h5"):
        for _ in range(3):
            model.zero_grad()
            square(model(torch.randn(2, 4, dtype=torch.bfloat16))).backward()
            for master, each in zip(masters, model.parameters(), strict=True):
                master.grad = each.grad.float()
            optimizer.step()
            with torch.no_grad():
                for master, each in zip(masters, model.parameters(), strict=True):
                    each.copy_(master)
    assert layers(tmp_path / "t.h5") == {"0", "1"}
    assert unrecorded(tmp_path / "t.h5") == {}


def test_the_bill_of_a_product_is_that_of_its_layers(tmp_path: Path) -> None:
    """Experts: six products of (5, 4) and (4, 3), at 8 bits each."""
    model = nn.ModuleDict({"block": Product(torch.bmm, 6, 4, 3)})
    with captured(tmp_path / "t.h5"):
        fit(model["block"], lambda block: square(block(torch.randn(6, 5, 4))))
    done = command.hqtool("compare", "-q", "--json", "-", tmp_path / "t.h5")
    rows = json.loads(done.out)["summary"]
    assert {row["static_bytes"] for row in rows if row["layer"]} == {6 * (12 + 20 + 15)}
