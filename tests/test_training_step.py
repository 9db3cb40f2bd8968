"""One step of a quantized network equals one derived by hand (figure 1 of the paper)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from training_by_hand import KINDS, Layer, symmetric4  # noqa: E402

import hqtool  # noqa: E402
from hqtool.errors import UsageError  # noqa: E402
from hqtool.recipes.recipe import Recipe  # noqa: E402
from hqtool.recipes.recipe_file import parse_recipe  # noqa: E402

FIXED = "fixed:lo=-1,hi=1@int4-symmetric"


def recipe(ste: str = "clipped", layers: str = "*", **quantizers: str) -> Recipe:
    lines = [f'{kind} = "{text}"' for kind, text in quantizers.items()]
    head = f'schema = "hqtool.recipe/1"\nste = "{ste}"\n[[rule]]\nlayers = ["{layers}"]\n'
    return parse_recipe(head + "\n".join(lines), "mine")


def close(found: torch.Tensor | None, wanted: torch.Tensor) -> None:
    assert found is not None
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


LAYERS = {
    "linear": (lambda: nn.Linear(5, 4), (6, 5)),
    "conv": (lambda: nn.Conv2d(3, 4, 3, stride=2, padding=1), (2, 3, 7, 7)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1), (2, 3, 4, 4)),
}


@pytest.mark.parametrize("ste", ["clipped", "full"])
@pytest.mark.parametrize("kinds", [*((kind,) for kind in KINDS), KINDS], ids="+".join)
@pytest.mark.parametrize("name", LAYERS)
def test_each_position(name: str, kinds: tuple[str, ...], ste: str) -> None:
    torch.manual_seed(1)
    make, shape = LAYERS[name]
    layer = make().double()
    with torch.no_grad():
        layer.weight.mul_(3)  # so that some of it is clipped
    x = (torch.randn(shape, dtype=torch.float64)).requires_grad_()
    by_hand = Layer(layer, dict.fromkeys(kinds, symmetric4), full=ste == "full")
    with hqtool.train(layer, recipe(ste, **dict.fromkeys(kinds, FIXED))):
        y = layer(x)
        g = torch.randn(y.shape, dtype=torch.float64)
        y.backward(g)
    close(y, by_hand.forward(x.detach()))
    gx, gw, gb = by_hand.backward(g)
    close(x.grad, gx)
    close(layer.weight.grad, gw)
    close(layer.bias.grad, gb)
    if "input" in kinds:
        assert by_hand.x_beyond.any()


class Fork(nn.Module):
    """A residual fork, and a layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Linear(4, 4)
        self.shared = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.conv(x)
        return self.shared(F.relu(self.shared(x), inplace=True))


@pytest.mark.parametrize("ste", ["clipped", "full"])
@pytest.mark.parametrize("kinds", [*((kind,) for kind in KINDS), KINDS], ids="+".join)
def test_a_residual_fork_and_a_shared_layer(kinds: tuple[str, ...], ste: str) -> None:
    """A gradient is quantized before anything is added to it; one update of SGD follows."""
    torch.manual_seed(2)
    model = Fork().double()
    before = [each.detach().clone() for each in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    g = torch.randn(3, 4, dtype=torch.float64)
    rounds = dict.fromkeys(kinds, symmetric4)
    modules = (model.conv, model.shared, model.shared)
    conv, first, second = (Layer(each, rounds, full=ste == "full") for each in modules)
    a = x.detach() + conv.forward(x.detach())
    b = first.forward(a)
    wanted = second.forward(b.clamp(min=0))
    gx, gw2, gb2 = second.backward(g)
    gx, gw1, gb1 = first.backward(gx * (b > 0))
    g_conv, gw, gb = conv.backward(gx)
    with hqtool.train(model, recipe(ste, **dict.fromkeys(kinds, FIXED))):
        y = model(x)
        y.backward(g)
        optimizer.step()
    close(y, wanted)
    close(x.grad, gx + g_conv)
    gradients = (gw, gb, gw1 + gw2, gb1 + gb2)
    for parameter, old, gradient in zip(model.parameters(), before, gradients, strict=True):
        close(parameter.grad, gradient)
        close(parameter.detach(), old - 0.1 * gradient)


def test_projections_of_attention() -> None:
    torch.manual_seed(3)
    attention = nn.MultiheadAttention(4, 2).double()
    x = torch.randn(5, 1, 4, dtype=torch.float64)
    with hqtool.train(attention, recipe(weight=FIXED, output=FIXED)) as session:
        found = attention(x, x, x)[0]
        evaluated = attention.eval()(x, x, x)[0].detach()
        with torch.no_grad():
            close(attention(x, x, x)[0], evaluated)
    w, out = (
        symmetric4(each.detach())[0]
        for each in (attention.in_proj_weight, attention.out_proj.weight)
    )
    q, k, v = (symmetric4(F.linear(x, part))[0] for part in w.chunk(3))
    heads = [each.reshape(5, 2, 2).transpose(0, 1) for each in (q, k, v)]
    mixed = F.scaled_dot_product_attention(*heads).transpose(0, 1).reshape(5, 1, 4)
    close(found, symmetric4(F.linear(mixed, out))[0])
    assert {each.layer.rpartition(".")[2] for each in session.trainer.sites} == {
        "in_proj",
        "out_proj",
    }


def test_input_and_output_of_a_recurrent_layer() -> None:
    torch.manual_seed(4)
    lstm = nn.LSTM(3, 2).double()
    x = 2 * torch.randn(4, 1, 3, dtype=torch.float64)
    wanted = symmetric4(lstm(symmetric4(x)[0])[0].detach())[0]
    with hqtool.train(lstm, recipe(input=FIXED, output=FIXED)) as session:
        close(lstm(x)[0], wanted)
    assert session.outcome is not None
    assert session.outcome.covers == 0  # its own products are out of reach


RECURRENT = {
    "lstm": lambda: nn.LSTM(3, 2, num_layers=2, bidirectional=True),
    "projected": lambda: nn.LSTM(3, 4, proj_size=2),
    "without biases": lambda: nn.LSTM(3, 2, bias=False),
    "gru": lambda: nn.GRU(3, 2),
    "rnn": lambda: nn.RNN(3, 2, nonlinearity="relu"),
    "lstm cell": lambda: nn.LSTMCell(3, 2),
    "gru cell": lambda: nn.GRUCell(3, 2),
    "rnn cell": lambda: nn.RNNCell(3, 2),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_weights_of_a_recurrent_layer(name: str) -> None:
    """As if its matrices held the quantized values; gradients pass straight through."""
    torch.manual_seed(4)
    layer = RECURRENT[name]().double()
    matrices = {name: each for name, each in layer.named_parameters() if each.dim() > 1}
    with torch.no_grad():
        for each in matrices.values():
            each.mul_(2)  # so that some of it is clipped
    same = copy.deepcopy(layer)
    beyond = {}
    with torch.no_grad():
        for name, each in same.named_parameters():
            if name in matrices:
                rounded, beyond[name] = symmetric4(each)
                each.copy_(rounded)
    x = torch.randn(4, 3, dtype=torch.float64)
    first(same(x)).square().sum().backward()
    both = recipe(weight=FIXED, grad_weight=FIXED)
    with hqtool.train(layer, both) as session:
        y = first(layer(x))
        y.square().sum().backward()
    close(y, first(same(x)))
    for name, each in same.named_parameters():
        wanted = each.grad
        if name in matrices:
            wanted = symmetric4(wanted)[0].masked_fill(beyond[name], 0)
        close(layer.get_parameter(name).grad, wanted)
    root = type(layer).__name__.lower()
    kinds = ("weight", "grad_weight")
    sites = {f"{root}.{name}/{kind}" for name in matrices for kind in kinds}
    assert {str(site) for site in session.trainer.sites} == sites
    assert session.outcome.covers == 1
    count = 4 * sum(map(torch.numel, matrices.values()))
    coverage = session.outcome.coverage
    assert coverage.quantized == coverage.weight_alone == count
    assert "  quantized: 100.0 % by their weights alone" in "\n".join(coverage.lines())


def first(result: Any) -> torch.Tensor:
    return result if isinstance(result, torch.Tensor) else result[0]


class Own(nn.Module):
    """Functions of a parameter, in several forms."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bi,io->bo", x, self.w) + x @ self.w + F.linear(x, self.w.t())


class Borrows(nn.Module):
    """Functions with the weight of a module that is not called."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.inner.weight) + x @ self.inner.weight.t()


class Tied(nn.Module):
    """A head whose weight is the embedding's, called as a module, and again as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 4)
        self.head = nn.Linear(4, 3, bias=False)
        self.head.weight = self.table.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x) + F.linear(x, self.table.weight)


class Shared(nn.Module):
    """One module at two places, called at both."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 3, bias=False)
        self.other = self.one

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.one(x) + self.other(x)


class Parametrized(nn.Module):
    """A weight computed from another tensor."""

    def __init__(self, make: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        self.inner = make(nn.Linear(4, 3, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


REACHED = {
    "function": (Own, lambda m: m.w.t(), 3, {"own.w"}),
    "borrowed": (Borrows, lambda m: m.inner.weight, 2, {"inner.weight"}),
    "tied": (Tied, lambda m: m.head.weight, 2, {"head", "table.weight"}),
    "shared": (Shared, lambda m: m.one.weight, 2, {"one"}),
    "weight_norm": (
        lambda: Parametrized(nn.utils.parametrizations.weight_norm),
        lambda m: m.inner.weight,
        1,
        {"inner"},
    ),
    "spectral_norm": (
        lambda: Parametrized(nn.utils.parametrizations.spectral_norm),
        lambda m: m.inner.weight,
        1,
        {"inner"},
    ),
    "orthogonal": (
        lambda: Parametrized(nn.utils.parametrizations.orthogonal),
        lambda m: m.inner.weight,
        1,
        {"inner"},
    ),
    "old spectral_norm": (
        lambda: Parametrized(nn.utils.spectral_norm),
        lambda m: m.inner.weight,
        1,
        {"inner"},
    ),
}


@pytest.mark.parametrize("name", REACHED)
def test_weights_wherever_they_stand(name: str) -> None:
    """Each product is reached, once, and coverage counts each: 2 × 4 × 3 multiplications."""
    torch.manual_seed(5)
    make, weight_of, times, layers = REACHED[name]
    model = make().double().eval()  # a spectral norm learns in training mode
    x = torch.randn(2, 4, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    with hqtool.train(model, recipe(weight=FIXED)) as session:
        y = model(x)
        y.sum().backward()
        optimizer.step()
    close(y, times * F.linear(x, symmetric4(weight_of(model).detach())[0]))
    assert {site.layer for site in session.trainer.sites} == layers
    coverage = session.outcome.coverage
    assert (coverage.quantized, coverage.excluded, coverage.unnamed) == (times * 24, 0, 0)
    assert not any(coverage.missed.values())
    assert not session.outcome.unreached
    assert all(each.grad is not None for each in model.parameters())


def test_half_types_are_quantized_in_float32() -> None:
    torch.manual_seed(6)
    layer = nn.Linear(4, 4).bfloat16()
    x = torch.randn(3, 4).bfloat16()
    with hqtool.train(layer, recipe(weight=FIXED)):
        y = layer(x)
    w = symmetric4(layer.weight.detach().float())[0].bfloat16()
    assert torch.equal(y, F.linear(x, w, layer.bias))


def test_gradients_of_gradients() -> None:
    """A straight-through gradient can be differentiated again, as a gradient penalty asks."""
    torch.manual_seed(7)
    layer = nn.Linear(3, 1).double()
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    with hqtool.train(layer, recipe(weight=FIXED, grad_input=FIXED)):
        (gx,) = torch.autograd.grad(layer(x).sum(), x, create_graph=True)
        gx.square().sum().backward()
    w = symmetric4(layer.weight.detach())[0]
    close(layer.weight.grad, 4 * symmetric4(w)[0])


def test_nan_and_infinities_stay() -> None:
    layer = nn.Linear(2, 2).double()
    x = torch.tensor([[float("inf"), 1.0], [float("nan"), 1.0]], dtype=torch.float64)
    with hqtool.train(layer, recipe(input="current@int8")) as session:
        y = layer(x)
        y.sum().backward()
        assert not y.isfinite().any()
    assert session.outcome is not None
    assert any("not finite: linear/input" in line for line in session.outcome.lines())


def test_it_can_stop_where_a_tensor_is_not_finite() -> None:
    from hqtool.training.trainer import NotFinite

    layer = nn.Linear(2, 2)
    with (
        pytest.raises(NotFinite, match="linear/input is not finite at step 0"),
        hqtool.train(layer, recipe(input="current@int8"), on_nonfinite="stop"),
    ):
        layer(torch.full((1, 2), float("nan")))


def test_nothing_is_put_around_what_has_no_quantizer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    x = torch.randn(4, 3)
    plain = model(x)
    with hqtool.train(model, recipe(layers="1", output=FIXED)):
        y = model(x)
        assert "AddmmBackward" in y.grad_fn.next_functions[0][0].name()
        assert torch.equal(model[0](x), model[0](x))
    assert torch.equal(model(x), plain)
    assert "Addmm" in model(x).grad_fn.name()


class Backward(nn.Module):
    """Its modules run in another order than they stand."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.body = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


@pytest.mark.parametrize("asks", ["last = true", 'layers = ["body"]'])
def test_a_layer_wrongly_taken_for_the_last_one_is_told(asks: str) -> None:
    head = 'schema = "hqtool.recipe/1"\n[[rule]]\n'
    found = parse_recipe(f'{head}{asks}\nweight = "current@int8"', "mine")
    model = Backward()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with hqtool.train(model, found) as session:
        model(torch.randn(2, 3)).sum().backward()
        optimizer.step()
    assert [str(site) for site in session.trainer.sites] == ["body/weight"]
    told = "taken for the last layer: body, by its place; head ran last"
    assert (told in session.outcome.lines()) == (asks == "last = true")


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ('layers = ["haed", "b*"]\nexclude = ["lm_*"]', "haed, lm_*"),
        ('types = ["Linear", "Conv2d", "matmul"]', "Conv2d, matmul"),
        ('layers = ["h*"]\nexclude = ["body"]\ntypes = ["Linear"]', None),
        ("last = true", None),
    ],
)
def test_what_rules_name_and_did_not_run_is_told(rule: str, told: str | None) -> None:
    every = '[[rule]]\noutput = "current@int8"\n'
    text = f'schema = "hqtool.recipe/1"\n{every}[[rule]]\n{rule}\nweight = "current@int8"'
    model = Backward()
    with hqtool.train(model, parse_recipe(text, "mine")) as session:
        model(torch.randn(2, 3)).sum().backward()
    assert session.outcome is not None
    lines = [line for line in session.outcome.lines() if "did not run" in line]
    expected = f"rule number 2 of mine names what did not run: {told}"
    assert lines == ([expected] if told else [])


class OwnProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        x, weight = ctx.saved_tensors
        return gradient @ weight, gradient.T @ x


class Multiplies(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return OwnProduct.apply(x, self.weight)


def test_products_in_functions_of_the_scripts_own_are_left_alone_and_told() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 3), Multiplies()), torch.randn(2, 3)
    found = recipe(layers="1*", output="current@int2", weight="current@int2")
    plain = model(x)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with hqtool.train(model, found) as session:
        y = model(x)
        y.sum().backward()
        optimizer.step()
    assert torch.equal(y, plain)
    assert not session.trainer.sites
    told = session.outcome.lines()
    assert "  out of reach: 50.0 % within functions of autograd of the script's own" in told
    assert "not quantized: 1.weight (no recorded layer or product used it)" in told


@pytest.mark.parametrize(
    ("model", "options", "cause"),
    [
        (3, {}, "3 is no torch.nn.Module"),
        (nn.Linear(2, 2), {"seed": "x"}, "seed='x' is no whole number"),
    ],
)
def test_what_is_no_model_and_no_seed_is_refused_before_anything_is_written(
    tmp_path: Any, model: Any, options: dict[str, Any], cause: str
) -> None:
    path = tmp_path / "run.h5"
    with pytest.raises(UsageError, match=cause), hqtool.train(model, "none", path, **options):
        pass
    if not options:
        with pytest.raises(UsageError, match=cause), hqtool.capture(model, path):
            pass
    assert not path.exists()
