"""Layer specs of models against real runs of them in PyTorch: every operation, both passes.

The models of torchvision and transformers are tried where these are installed.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from spec_oracle import ByName, Sizes, measured, spec_sizes  # noqa: E402
from test_spec_models import Attending, Gated, Residual, transposed  # noqa: E402
from torch import nn  # noqa: E402

from hqtool.traffic.layers import Layer  # noqa: E402
from hqtool.traffic.sources.input_shape import parse_input  # noqa: E402
from hqtool.traffic.spec import load_spec  # noqa: E402
from hqtool.trial.shapes.building import on_meta  # noqa: E402
from hqtool.trial.shapes.recorder import network_of_model  # noqa: E402

SAMPLES = Path(__file__).parent.parent / "sample_data"
Make = Callable[[], nn.Module]


def spec_of(make: Make, given: str) -> tuple[Layer, ...]:
    model = on_meta(make).eval()
    return network_of_model(model, [parse_input(given)], "it").layers("it")


def run(make: Make, given: str) -> Any:
    torch.manual_seed(0)
    model, shape = make().eval(), parse_input(given)
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    zeros = torch.zeros(shape.shape, dtype=getattr(torch, shape.dtype))
    return measured(model, torch.randn_like(zeros) if zeros.is_floating_point() else zeros)


def by_name(layer: Layer) -> ByName:
    """What hooks on the module must see, according to the spec."""
    w, x, y = (each * layer.repeat for each in layer.counts())
    grad_input = x if layer.grad_input and layer.op != "embedding" else None
    return ByName(w, x, y, y, grad_input, w or None)


def unlike(layers: Sequence[Layer], found: dict[str, list[ByName]]) -> dict[str, Any]:
    """Modules whose calls differ from the layers that have their name."""
    told: dict[str, list[ByName]] = {}
    for layer in layers:
        told.setdefault(layer.name.partition("#")[0], []).append(by_name(layer))
    shared = told.keys() & found.keys()
    assert shared
    return {name: (told[name], found[name]) for name in shared if told[name] != found[name]}


def difference(told: Counter[Sizes], found: Counter[Sizes]) -> dict[Sizes, int]:
    """Operations that one has more often than the other."""
    return {each: told[each] - found[each] for each in told | found if told[each] != found[each]}


def check(make: Make, given: str, *, kinds: Sequence[str] = ()) -> None:
    """Compare all operations of both passes; of the backward pass without these kinds."""
    layers, real = spec_of(make, given), run(make, given)
    assert unlike(layers, real.modules) == {}
    assert difference(spec_sizes(layers, "forward"), real.forward) == {}
    backward = difference(spec_sizes(layers, "backward"), real.backward)
    left = {"add", "mul", *kinds}  # sums of gradients, and factors, are many adds and products
    assert {each: n for each, n in backward.items() if each[0] not in left} == {}


@pytest.mark.parametrize(
    ("make", "given"),
    [
        (Residual, "2x3x8x8"),
        (Attending, "2x5:int64"),
        (transposed, "2x4x5x5"),
    ],
)
def test_a_small_model(make: Make, given: str) -> None:
    check(make, given)


def test_a_small_model_whose_modules_compute_in_steps() -> None:
    check(Gated, "2x3x6", kinds=["activation", "norm", "pool"])


def of(module: str, name: str) -> Make:
    """A factory of another package; the test is skipped where it is not installed."""
    pytest.importorskip(module.partition(".")[0], reason="models of other packages are optional")
    return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", 64),
        ("resnet50", 64),
        ("mobilenet_v2", 64),
        ("mobilenet_v3_large", 64),
        ("efficientnet_b0", 64),
        ("googlenet", 64),
        ("squeezenet1_0", 64),
        ("shufflenet_v2_x1_0", 64),
        ("convnext_tiny", 64),
        ("regnet_y_400mf", 64),
        ("vgg16", 64),
        ("vit_b_16", 224),
        ("swin_t", 64),
    ],
)
def test_a_model_of_torchvision(name: str, size: int) -> None:
    check(of("torchvision.models", name), f"2x3x{size}x{size}")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "vgg16", "resnet50", "vit_b_16"])
def test_the_shipped_specs_are_those_of_torchvision(name: str) -> None:
    """Of the first three the products alone."""
    found = spec_of(of("torchvision.models", name), "1x3x224x224")
    shipped = load_spec(SAMPLES / f"{name}.toml").layers
    ops = {each.op for each in shipped}
    assert [facts(each) for each in shipped] == [facts(each) for each in found if each.op in ops]


def facts(layer: Layer) -> tuple[Any, ...]:
    return layer.name, layer.op, layer.counts(), layer.repeat, layer.grad_input, layer.kind


@pytest.mark.filterwarnings("ignore")
def test_gpt2() -> None:
    transformers = pytest.importorskip("transformers", reason="models of it are optional")
    config = transformers.GPT2Config(n_layer=2)
    check(lambda: transformers.GPT2LMHeadModel(config), "1x32:int64")
