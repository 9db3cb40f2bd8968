"""What torch derives or traces past autograd's graph is left alone, and told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.autograd import forward_ad  # noqa: E402
from torch.func import functional_call, grad, jvp, vjp, vmap  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402
from torch.utils._pytree import tree_map  # noqa: E402

import hqtool  # noqa: E402
from hqtool.recipes.recipe_file import parse_recipe  # noqa: E402
from hqtool.training.session import Session  # noqa: E402

#: torch's own forward mode compiles by torch.jit.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")

EVERYTHING = parse_recipe(
    'schema = "hqtool.recipe/1"\n[[rule]]\ninput = "current@int4"\nweight = "current@int4"\n'
    'output = "hindsight@int4/stochastic"\ngrad_output = "hindsight@int4"\n'
    'grad_input = "hindsight@int4/stochastic"\n',
    "everything",
)
X = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))


def quantized(run: Callable[[nn.Module], Any]) -> tuple[Any, Session]:
    model = network()
    with hqtool.train(model, EVERYTHING) as session:
        found = run(model)
    return found, session


def told(session: Session) -> str:
    assert session.outcome is not None
    return "\n".join(session.outcome.lines())


def values_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: each.detach() for name, each in model.named_parameters()}


def loss_of(model: nn.Module) -> Callable[[dict[str, Tensor]], Tensor]:
    return lambda values: functional_call(model, values, (X,)).square().sum()


def one_sample(model: nn.Module) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    return lambda values, x: functional_call(model, values, (x,)).square().sum()


TRANSFORMS: dict[str, Callable[[nn.Module], Any]] = {
    "grad": lambda model: grad(loss_of(model))(values_of(model)),
    "vjp": lambda model: vjp(loss_of(model), values_of(model))[1](torch.tensor(1.0))[0],
    "jvp": lambda model: {"loss": jvp(loss_of(model), (values_of(model),), (values_of(model),))[1]},
    "gradients of samples": lambda model: vmap(grad(one_sample(model)), (None, 0))(
        values_of(model), X
    ),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_of_torch_func(name: str) -> None:
    found, session = quantized(TRANSFORMS[name])
    expected = TRANSFORMS[name](network())
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert session.outcome is not None
    assert session.outcome.covers == 0
    assert "100.0 % ran within a transform of torch.func" in told(session)


def test_forward_mode() -> None:
    def tangent(model: nn.Module) -> Tensor:
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(model(forward_ad.make_dual(X, X))).tangent

    found, session = quantized(tangent)
    assert torch.equal(found, tangent(network()))
    assert "100.0 % ran within forward-mode differentiation" in told(session)


@pytest.mark.parametrize("create_graph", [True, False])
def test_several_gradients_at_once(create_graph: bool) -> None:
    """As Jacobians are taken: the forward pass is quantized, these gradients are not."""

    def jacobian(model: nn.Module) -> Tensor:
        x = X.clone().requires_grad_()
        how = {"is_grads_batched": True, "create_graph": create_graph}
        return torch.autograd.grad(model(x).sum(0), x, torch.eye(2), **how)[0]

    found, session = quantized(jacobian)
    assert found.shape == (2, 5, 4)
    assert "2/grad_input: one backward pass took several gradients at once" in told(session)


class Wraps(torch.Tensor):
    """Has no values of its own, but another tensor."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> Wraps:
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, strides=inner.stride())

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        given = tree_map(lambda each: each.inner if isinstance(each, cls) else each, args)
        return tree_map(
            lambda each: cls(each) if isinstance(each, Tensor) else each,
            function(*given, **(kwargs or {})),
        )


def fake(model: nn.Module) -> Any:
    with FakeTensorMode(allow_non_fake_inputs=True):
        return model(torch.randn(5, 4)).shape


def nested(model: nn.Module, layout: torch.layout) -> Any:
    """Two sequences of 2 and 3 positions: 5 in all."""
    y = model(torch.nested.nested_tensor([X[:2], X[2:]], layout=layout))
    return torch.cat(y.unbind()).shape


WITHOUT_VALUES: dict[str, Callable[[nn.Module], Any]] = {
    "fake": fake,
    "traced": lambda model: make_fx(model)(X)(X).shape,
    "a subclass": lambda model: model(Wraps(X)).shape,
    "nested, strided": lambda model: nested(model, torch.strided),
    "nested, jagged": lambda model: nested(model, torch.jagged),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("name", WITHOUT_VALUES)
def test_tensors_without_values(name: str) -> None:
    with torch.no_grad():
        found, session = quantized(WITHOUT_VALUES[name])
    assert found == (5, 2)
    assert not session.trainer.sites


@pytest.mark.parametrize("per", ["tensor", "channel", "sample"])
def test_batches_without_samples(per: str) -> None:
    """They are let pass: they teach nothing, and their gradients are 0."""
    by = f"hindsight:per={per}@int8"
    kinds = ("input", "output", "grad_output", "grad_input", "grad_weight")
    rules = "\n".join(f'{kind} = "{by}"' for kind in kinds)
    model = network()
    with hqtool.train(
        model, parse_recipe(f'schema = "hqtool.recipe/1"\n[[rule]]\n{rules}', "mine")
    ) as session:
        model(torch.empty(0, 4, requires_grad=True)).sum().backward()
        assert not model[0].weight.grad.any()
        model(X).sum().backward()
    assert session.trainer.sites
