"""Products of two activations, as within attention: quantized where a rule names them."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from training_by_hand import KINDS, Product, symmetric4  # noqa: E402

import hqtool  # noqa: E402
from hqtool.recipes.recipe import Recipe  # noqa: E402
from hqtool.recipes.recipe_file import parse_recipe  # noqa: E402

FIXED = "fixed:lo=-1,hi=1@int4-symmetric"


def naming(what: str, ste: str = "clipped", kinds: tuple[str, ...] = KINDS) -> Recipe:
    """A recipe of one rule, which asks for `what`."""
    lines = [f'{kind} = "{FIXED}"' for kind in kinds]
    head = f'schema = "hqtool.recipe/1"\nste = "{ste}"\n[[rule]]\n{what}\n'
    return parse_recipe(head + "\n".join(lines), "mine")


PRODUCTS = 'types = ["matmul"]'


class Attends(nn.Module):
    """Attention without projections, in a way that is given."""

    def __init__(self, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.attend = attend

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.attend(q, k, v)


def by_operators(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1) @ v


def by_einsum(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = torch.einsum("bhle,bhse->bhls", q, k) / math.sqrt(q.shape[-1])
    return torch.einsum("bhls,bhse->bhle", scores.softmax(-1), v)


def by_bmm(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    a, b, c = (each.flatten(0, 1) for each in (q, k, v))
    scores = torch.bmm(a, b.mT) / math.sqrt(q.shape[-1])
    return torch.bmm(scores.softmax(-1), c).view_as(q)


WAYS = {
    "fused": F.scaled_dot_product_attention,
    "operators": by_operators,
    "einsum": by_einsum,
    "bmm": by_bmm,
}


def tensors() -> list[Tensor]:
    """Query, key and value of 2 samples, 2 heads, 3 positions; some values are clipped."""
    torch.manual_seed(1)
    return [torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]


def close(found: Tensor | None, wanted: Tensor) -> None:
    assert found is not None
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("ste", ["clipped", "full"])
@pytest.mark.parametrize("kinds", [*((kind,) for kind in KINDS), KINDS], ids="+".join)
def test_each_position(kinds: tuple[str, ...], ste: str) -> None:
    """By hand: figure 1 for both products, the keys and values in the place of weights."""
    rounds = dict.fromkeys(kinds, symmetric4)
    qk, av = (Product(rounds, full=ste == "full") for _ in range(2))
    q, k, v = (each.detach() for each in tensors())
    weights = (qk.forward(q, k.mT) / 2).softmax(-1)
    y = av.forward(weights, v)
    g = torch.randn(y.shape, dtype=torch.float64)
    g_weights, gv = av.backward(g)
    g_scores = weights * (g_weights - (g_weights * weights).sum(-1, keepdim=True))
    gq, gk = qk.backward(g_scores / 2)
    for attend in WAYS.values() if ste == "clipped" else [F.scaled_dot_product_attention]:
        leaves = tensors()
        model = Attends(attend)
        with hqtool.train(model, naming(PRODUCTS, ste, kinds)):
            found = model(*leaves)
            found.backward(g)
        close(found, y)
        for leaf, wanted in zip(leaves, (gq, gk.mT, gv), strict=True):
            close(leaf.grad, wanted)
    if "weight" in kinds:
        assert qk.b_beyond.any()


@pytest.mark.parametrize("way", WAYS)
def test_a_rule_that_does_not_name_them_leaves_them_as_they_are(way: str) -> None:
    plain, leaves = tensors(), tensors()
    wanted = Attends(WAYS[way])(*plain)
    wanted.sum().backward()
    model = Attends(WAYS[way])
    with hqtool.train(model, naming('layers = ["*", "attends*"]')) as session:
        found = model(*leaves)
        found.sum().backward()
    assert torch.equal(found, wanted)
    assert found.grad_fn.name() == wanted.grad_fn.name()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(plain, leaves, strict=True))
    coverage = session.outcome.coverage
    assert (coverage.quantized, coverage.unnamed) == (0, 2 * 2 * 2 * 3 * 3 * 4)
    assert "  excluded: 100.0 % products of two activations" in "\n".join(coverage.lines())


def sites_of(model: nn.Module, recipe: Recipe, *args: Tensor) -> set[str]:
    with hqtool.train(model, recipe) as session:
        model(*args).sum().backward()
    return {str(site) for site in session.trainer.sites}


def test_one_of_them_by_its_own_name() -> None:
    only_output = naming('layers = ["attends.qk"]', kinds=("output",))
    q, k, v = tensors()
    model = Attends(F.scaled_dot_product_attention)
    with hqtool.train(model, only_output) as session:
        found = model(q, k, v)
        found.sum().backward()
    assert [str(each) for each in session.trainer.sites] == ["attends.qk/output"]
    close(found, (symmetric4(q @ k.mT)[0] / 2).softmax(-1) @ v)
    coverage = session.outcome.coverage
    assert coverage.quantized == coverage.unnamed == 2 * 2 * 3 * 3 * 4


def test_names_tell_module_and_order() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Attends(by_operators)
            self.fused = Attends(F.scaled_dot_product_attention)

        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            y = self.fused(q, k, v) + self.inner(q, k, v) + self.inner(q, k, v)
            return F.scaled_dot_product_attention(y, k, v) + F.scaled_dot_product_attention(y, v, k)

    found = sites_of(Two(), naming(PRODUCTS, kinds=("output",)), *tensors())
    names = ("fused.qk", "fused.av", "inner.matmul", "inner.matmul2")
    names += ("two.qk", "two.av", "two.qk2", "two.av2")
    assert found == {f"{name}/output" for name in names}
    narrower = naming(f'{PRODUCTS}\nlayers = ["inner.*"]', kinds=("output",))
    assert sites_of(Two(), narrower, *tensors()) == {f"inner.{name}/output" for name in
                                                     ("matmul", "matmul2")}  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        {"is_causal": True},
        {"attn_mask": torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1]], dtype=torch.bool)},
        {"attn_mask": torch.arange(9.0, dtype=torch.float64).view(3, 3), "scale": 0.3},
        {"dropout_p": 0.4},
        {"enable_gqa": True},
    ],
    ids=lambda options: "+".join(options),
)
def test_the_fused_function_written_out_is_the_same(options: dict[str, object]) -> None:
    """Under quantizers that change next to nothing, also in what dropout draws."""
    fine = parse_recipe(
        f'schema = "hqtool.recipe/1"\n[[rule]]\n{PRODUCTS}\noutput = "current@int16"', "fine"
    )
    results = []
    for recipe in (None, fine):
        q, k, v = tensors()
        if "enable_gqa" in options:
            k, v = (each.detach()[:, :1].requires_grad_() for each in (k, v))
        model = Attends(lambda *qkv: F.scaled_dot_product_attention(*qkv, **options))
        torch.manual_seed(5)
        if recipe is None:
            y = model(q, k, v)
            y.square().sum().backward()
        else:
            with hqtool.train(model, recipe) as session:
                y = model(q, k, v)
                y.square().sum().backward()
            assert len(session.trainer.sites) == 2
        results.append([y, q.grad, k.grad, v.grad, torch.rand(1)])
    for plain, written_out in zip(*results, strict=True):
        torch.testing.assert_close(written_out, plain, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("need_weights", [True, False])
def test_those_of_torchs_own_attention(need_weights: bool) -> None:
    torch.manual_seed(3)
    attention = nn.MultiheadAttention(4, 2).double()
    x = 2 * torch.randn(5, 1, 4, dtype=torch.float64)
    with hqtool.train(attention, naming(PRODUCTS, kinds=("weight", "output"))) as session:
        found = attention(x, x, x, need_weights=need_weights)[0]
        found.sum().backward()
    projected = F.linear(x, attention.in_proj_weight, attention.in_proj_bias)
    q, k, v = (each.reshape(5, 2, 2).transpose(0, 1) for each in projected.chunk(3, -1))
    rounds = dict.fromkeys(("weight", "output"), symmetric4)
    qk, av = Product(rounds), Product(rounds)
    scale = 1 / math.sqrt(2)
    if need_weights:  # torch scales the queries before it multiplies
        scores = qk.forward(q.detach() * scale, k.detach().mT)
    else:
        scores = qk.forward(q.detach(), k.detach().mT) * scale
    mixed = av.forward(scores.softmax(-1), v.detach()).transpose(0, 1).reshape(5, 1, 4)
    close(found, F.linear(mixed, attention.out_proj.weight, attention.out_proj.bias))
    assert {str(site.layer) for site in session.trainer.sites} == {
        "multiheadattention.qk",
        "multiheadattention.av",
    }
    coverage = session.outcome.coverage
    assert coverage.quantized == 2 * 5 * 5 * 4
    assert coverage.excluded == 4 * 5 * 4 * 4


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("way", ["fused", "operators"])
def test_checkpointing_within_a_module_gives_the_same_bits(way: str, reentrant: bool) -> None:
    stochastic = parse_recipe(
        f'schema = "hqtool.recipe/1"\n[[rule]]\n{PRODUCTS}\n'
        + "\n".join(f'{kind} = "hindsight@int4/stochastic"' for kind in KINDS),
        "stochastic",
    )

    class Part(nn.Module):
        def __init__(self, checkpoints: bool) -> None:
            super().__init__()
            self.checkpoints = checkpoints
            self.head = nn.Linear(4, 4).double()

        def forward(self, *qkv: Tensor) -> Tensor:
            if not self.checkpoints:
                return self.head(WAYS[way](*qkv))
            checkpoint = torch.utils.checkpoint.checkpoint
            return self.head(checkpoint(WAYS[way], *qkv, use_reentrant=reentrant))

    results = []
    for checkpoints in (False, True):
        leaves = tensors()
        model = Part(checkpoints)
        optimizer = torch.optim.SGD([*model.parameters(), *leaves], 0.1)
        with hqtool.train(model, stochastic) as session:
            for _ in range(3):
                model(*leaves).sum().backward()
                optimizer.step()
        assert len(session.trainer.sites) == 12
        results.append(leaves)
    assert all(map(torch.equal, *results))


def test_the_same_tensor_twice() -> None:
    x = tensors()[0]
    square = Attends(lambda q, k, v: torch.mm(q, q))
    leaf = x.detach()[0, 0, :3, :3].requires_grad_()
    with hqtool.train(square, naming(PRODUCTS, kinds=("grad_weight",))):
        square(leaf, leaf, leaf).sum().backward()
    by_hand = Product({"grad_weight": symmetric4})
    by_hand.forward(leaf.detach(), leaf.detach())
    close(leaf.grad, sum(by_hand.backward(torch.ones(3, 3, dtype=torch.float64))))


def test_outside_all_modules_they_are_out_of_reach() -> None:
    model = nn.Linear(3, 3)
    with hqtool.train(model, naming(PRODUCTS, kinds=("output",))) as session:
        y = model(torch.randn(3, 3))
        (y @ y.T).sum().backward()
    coverage = session.outcome.coverage
    assert coverage.quantized == 0
    assert sum(coverage.missed.values()) == coverage.excluded == 27
    assert not session.trainer.sites
