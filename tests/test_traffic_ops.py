"""Every operation: bills derived by hand, shapes against PyTorch's modules, and its spec's keys."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hqtool.errors import DataError
from hqtool.estimators.quantizer import sweep_quantizers
from hqtool.report.traffic_quantizers import Network
from hqtool.traffic.bill import Bits, works_bill
from hqtool.traffic.fusing.choice import DEFAULT_FUSE
from hqtool.traffic.layers import OPS, Counts, Layer, layer_from_json
from hqtool.traffic.network import network_works
from hqtool.traffic.ops.pointwise import ACTIVATIONS, NORMS
from hqtool.traffic.pricing.scheme import scheme_of
from hqtool.traffic.pricing.store import PAPER

#: So unlike that no two sums of them are equal by accident.
BITS = Bits(w=3, a=5, g=7, acc=1000, gw=13)
W, A, G, ACC, GW = BITS.w, BITS.a, BITS.g, BITS.acc, BITS.gw


def layer(op: str, **keys: Any) -> Layer:
    return layer_from_json({"name": "x", "op": op} | keys)


def bill(pass_name: str, op: str, **keys: Any) -> tuple[int, int]:
    """Static bits, and what is dynamic on top."""
    one = layer(op, **keys)
    (works,) = network_works([one], pass_name)
    found = works_bill(works, BITS, one.repeat)
    return found.static_bits, found.dynamic_bits - found.static_bits


# --- bills by hand ------------------------------------------------------------------------------


def test_a_product_of_activations() -> None:
    """A of 2×3, B of 3×5, Y of 2×5: 6, 15 and 10 elements."""
    sizes = {"m": 2, "k": 3, "n": 5}
    assert bill("forward", "matmul", **sizes) == ((6 + 15 + 10) * A, 2 * 10 * ACC)
    grad_a, grad_b = 10 * G + 15 * A + 6 * G, 6 * A + 10 * G + 15 * G
    assert bill("backward", "matmul", **sizes) == (grad_a + grad_b, 2 * (6 + 15) * ACC)
    assert bill("backward", "matmul", **sizes, grad_input=False) == (0, 0)


def test_batch_and_repeat_multiply_both_operands_of_a_product() -> None:
    for pass_name in ("forward", "backward"):
        once = bill(pass_name, "matmul", m=2, k=3, n=5)
        for keys in ({"batch": 6}, {"repeat": 6}, {"batch": 2, "repeat": 3}):
            found = bill(pass_name, "matmul", m=2, k=3, n=5, **keys)
            assert found == (6 * once[0], 6 * once[1])


@pytest.mark.parametrize(
    ("keys", "operands"),
    [({}, 2), ({"operands": 3}, 3), ({"from": ["a", "b", "c"]}, 3)],
)
def test_a_sum_reads_its_operands_and_makes_nothing_backward(
    keys: dict[str, Any], operands: int
) -> None:
    sizes = {"in_channels": 4, "input": [2, 3]}
    assert bill("forward", "add", **sizes, **keys) == ((operands + 1) * 24 * A, 2 * 24 * ACC)
    assert bill("backward", "add", **sizes, **keys) == (0, 0)


@pytest.mark.parametrize("operands", [2, 3])
def test_an_elementwise_product_reads_the_others_for_each_gradient(operands: int) -> None:
    keys = {"in_channels": 4, "input": [2, 3], "operands": operands}
    assert bill("forward", "mul", **keys) == ((operands + 1) * 24 * A, 2 * 24 * ACC)
    one = 2 * 24 * G + (operands - 1) * 24 * A
    assert bill("backward", "mul", **keys) == (operands * one, operands * 2 * 24 * ACC)


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("affine", [True, False])
def test_a_norm(kind: str, affine: bool) -> None:
    """Statistics of a row are at hand when it is normalized; others take a pass of their own."""
    keys = {"kind": kind, "in_channels": 4, "input": [2, 3], "affine": affine}
    x, w = 24, 4 * affine
    assert bill("forward", "norm", **keys) == (2 * x * A + w * W, 2 * x * ACC)
    statistics = 0 if kind in ("layer", "rms") else x * G + x * A
    grad_input = x * G + x * A + w * W + x * G
    assert bill("backward", "norm", **keys) == (statistics + w * GW + grad_input, 2 * x * ACC)


def test_a_norm_of_the_networks_input_still_reads_for_its_weights() -> None:
    keys = {"kind": "layer", "in_channels": 4, "input": 6, "grad_input": False}
    assert bill("backward", "norm", **keys) == (24 * G + 24 * A + 4 * GW, 0)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_an_activation(kind: str) -> None:
    """Clipping makes no new values; G_X takes G_Y and either X or Y, but of a constant factor."""
    keys = {"kind": kind, "in_channels": 4, "input": 6}
    spill = 0 if kind in ("relu", "relu6", "hardtanh") else 2 * 24 * ACC
    assert bill("forward", "activation", **keys) == (2 * 24 * A, spill)
    kept = 0 if kind == "scale" else 24 * A
    assert bill("backward", "activation", **keys) == (2 * 24 * G + kept, spill)


@pytest.mark.parametrize(
    ("window", "outputs", "overlaps"),
    [
        ({"kernel": 2}, 2 * 3, False),
        ({"kernel": 3, "stride": 2, "padding": 1}, 2 * 3, True),
        ({"kernel": 1, "stride": 2}, 2 * 3, False),
        ({"output_size": 1}, 1, False),
        ({"output_size": [2, 3]}, 6, False),
        ({"output_size": [3, 4]}, 12, True),
    ],
)
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_a_pool(window: dict[str, Any], outputs: int, overlaps: bool, kind: str) -> None:
    """A mean is a new value, and so is a sum of gradients where windows overlap."""
    keys = window | {"kind": kind, "in_channels": 5, "input": [4, 6]}
    x, y = 5 * 24, 5 * outputs
    assert bill("forward", "pool", **keys) == ((x + y) * A, 2 * y * ACC * (kind == "avg"))
    found_again = x * A * (kind == "max")
    assert bill("backward", "pool", **keys) == ((y + x) * G + found_again, 2 * x * ACC * overlaps)


def test_an_embedding_moves_the_rows_that_are_looked_up() -> None:
    keys = {"num_embeddings": 100, "embedding_dim": 4, "input": 6, "batch": 2}
    assert bill("forward", "embedding", **keys) == (48 * W + 48 * A, 0)
    assert bill("backward", "embedding", **keys) == (48 * G + 48 * GW, 0)
    few = keys | {"num_embeddings": 5}
    assert bill("backward", "embedding", **few) == (48 * G + 5 * 4 * GW, 0)


def test_a_recurrent_layer_is_its_products() -> None:
    """An LSTM of 7 steps, 3 features, 5 hidden: W_ih sees all steps at once, W_hh one by one."""
    gates = 4 * 5
    inputs = {"in_channels": 3, "out_channels": gates, "input": 7}
    static, dynamic = bill("forward", "linear", **inputs)
    assert (static, dynamic) == (gates * 3 * W + 7 * (3 + gates) * A, 2 * 7 * gates * ACC)
    hidden = {"in_channels": 5, "out_channels": gates, "repeat": 7}
    static, dynamic = bill("forward", "linear", **hidden)
    assert (static, dynamic) == (7 * (gates * 5 * W + (5 + gates) * A), 2 * 7 * gates * ACC)


# --- PyTorch as the oracle ----------------------------------------------------------------------


def measured(module: Any, *shapes: tuple[int, ...], whole: bool = False) -> Counts:
    """Elements of weight, first input and output, as a hook on the module sees them."""
    import torch

    found: list[Counts] = []

    def hook(module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        weight = getattr(module, "weight", None)
        found.append(
            Counts(0 if weight is None else weight.numel(), inputs[0].numel(), output.numel())
        )

    module.register_forward_hook(hook)
    module(*(torch.zeros(s, dtype=torch.long if whole else None) for s in shapes))
    return found[0]


def modules() -> list[tuple[str, dict[str, Any], Any, tuple[tuple[int, ...], ...]]]:
    """Op, its keys, the module, and the shapes of what it is called with."""
    nn = pytest.importorskip("torch").nn

    class Sum(nn.Module):  # type: ignore[name-defined,misc]
        def forward(self, a: Any, b: Any) -> Any:
            return a + b

    class Gate(nn.Module):  # type: ignore[name-defined,misc]
        def forward(self, a: Any, b: Any) -> Any:
            return a * b

    class Product(nn.Module):  # type: ignore[name-defined,misc]
        def forward(self, a: Any, b: Any) -> Any:
            return a @ b

    image, rows = {"in_channels": 4, "input": [6, 9]}, {"in_channels": 4, "input": 6}
    x, t = (2, 4, 6, 9), (2, 6, 4)
    return [
        ("add", image, Sum(), (x, x)),
        ("mul", image, Gate(), (x, x)),
        ("norm", image, nn.BatchNorm2d(4), (x,)),
        ("norm", image | {"kind": "instance", "affine": False}, nn.InstanceNorm2d(4), (x,)),
        ("norm", image | {"kind": "group"}, nn.GroupNorm(2, 4), (x,)),
        ("norm", rows | {"kind": "layer"}, nn.LayerNorm(4), (t,)),
        ("norm", rows | {"kind": "rms"}, nn.RMSNorm(4), (t,)),
        ("activation", image, nn.ReLU(), (x,)),
        ("activation", rows | {"kind": "GELU"}, nn.GELU(), (t,)),
        ("activation", rows | {"kind": "softmax"}, nn.Softmax(-1), (t,)),
        ("pool", image | {"kernel": 3, "stride": 2, "padding": 1}, nn.MaxPool2d(3, 2, 1), (x,)),
        ("pool", image | {"kind": "avg", "kernel": [2, 3]}, nn.AvgPool2d((2, 3)), (x,)),
        ("pool", image | {"kind": "avg", "output_size": 1}, nn.AdaptiveAvgPool2d(1), (x,)),
        ("pool", image | {"output_size": [4, 5]}, nn.AdaptiveMaxPool2d((4, 5)), (x,)),
        ("embedding", SHORTEST["embedding"] | {"input": 6}, nn.Embedding(9, 4), ((2, 6),)),
        ("matmul", {"m": 3, "k": 4, "n": 5, "batch": 2}, Product(), ((2, 3, 4), (2, 4, 5))),
    ]  # fmt: skip


def test_every_op_counts_what_pytorch_has() -> None:
    billed = modules()
    for op, keys, module, shapes in billed:
        found = layer(op, **{"batch": 2} | keys).counts()
        expected = measured(module, *shapes, whole=op == "embedding")
        other = found.weight if op == "matmul" else 0
        assert found == expected._replace(weight=expected.weight + other), (op, keys)
    convolutions = {f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)}
    assert {op for op, *_ in billed} | convolutions | {"linear"} == {*OPS}


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_pools_are_as_large_as_pytorchs_or_refused_by_both(data: st.DataObject) -> None:
    torch = pytest.importorskip("torch")
    small = st.integers(1, 5)
    size, kernel, stride, dilation = (data.draw(small) for _ in range(4))
    padding, ceil = data.draw(st.integers(0, 3)), data.draw(st.booleans())
    keys = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    pool = torch.nn.MaxPool1d(kernel, stride, padding, dilation, ceil_mode=ceil)
    try:
        expected = pool(torch.zeros(2, 4, size)).numel()
    except RuntimeError:
        with pytest.raises(DataError):
            layer("pool", in_channels=4, input=[size], batch=2, ceil_mode=ceil, **keys)
        return
    found = layer("pool", in_channels=4, input=[size], batch=2, ceil_mode=ceil, **keys)
    assert found.counts() == Counts(0, 8 * size, expected)


# --- works --------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_shapes_of_works_hold_their_elements(data: st.DataObject) -> None:
    """Blocks, rows and samples are counted along these axes."""
    op = data.draw(st.sampled_from([*SHORTEST]))
    keys = {key: size for key, size in SHORTEST[op].items() if isinstance(size, int)}
    drawn = {key: data.draw(st.integers(3, 9)) for key in keys if key != "kernel"}
    batch = {"batch": data.draw(st.integers(1, 3))}
    for work in layer(op, **SHORTEST[op] | drawn | batch).works():
        for operand in (work.made, *work.reads):
            assert operand.shape is not None
            assert math.prod(operand.shape) == operand.numel
            assert -len(operand.shape) <= operand.channel_axis < len(operand.shape)


@pytest.mark.parametrize("fuse", [frozenset[str](), DEFAULT_FUSE])
def test_every_op_costs_under_a_quantizer_what_it_does_at_its_bits(fuse: frozenset[str]) -> None:
    """INT8 in hindsight is the static bill at 8 bits, INT8 that looks the dynamic one."""
    layers = [layer_from_json({"name": op, "op": op} | keys) for op, keys in SHORTEST.items()]
    works = network_works(layers, "both", fuse)
    for quantizer in ("hindsight@int8", "current@int8"):
        (one,) = sweep_quantizers(quantizer)
        bills = Network(layers, works).bills(scheme_of(one), Bits(), 32, PAPER)
        for each, its, found in zip(layers, works, bills, strict=True):
            plain = works_bill(its, Bits(), each.repeat)
            looks = plain.dynamic_bits if quantizer.startswith("current") else plain.static_bits
            assert (found.static_bits, found.dynamic_bits) == (plain.static_bits, looks), each.op


# --- keys ---------------------------------------------------------------------------------------

FOUR: dict[str, Any] = {"in_channels": 4}
POOL: dict[str, Any] = FOUR | {"input": [7], "kernel": 2}
SHORTEST: dict[str, dict[str, Any]] = {
    "conv2d": {"in_channels": 4, "out_channels": 6, "input": 7, "kernel": 3},
    "linear": {"in_channels": 4, "out_channels": 6},
    "matmul": {"m": 2, "k": 3, "n": 5},
    "add": FOUR,
    "mul": FOUR,
    "norm": FOUR,
    "activation": FOUR,
    "pool": POOL,
    "embedding": {"num_embeddings": 9, "embedding_dim": 4},
}


@pytest.mark.parametrize("op", SHORTEST)
@pytest.mark.parametrize("more", [{}, {"repeat": 3, "batch": 2, "from": ["a", "b"]}])
def test_json_round_trip(op: str, more: dict[str, Any]) -> None:
    found = layer(op, **SHORTEST[op], **more)
    assert layer_from_json(json.loads(json.dumps(found.to_json()))) == found
    assert {"name": "x", "op": op} | more | SHORTEST[op].keys() <= found.to_json().keys()


def test_what_is_not_said() -> None:
    assert layer("pool", **SHORTEST["pool"]).stride == (2,)
    assert [layer(op, **SHORTEST[op]).kind for op in ("pool", "norm", "activation")] == [
        "max",
        "batch",
        "relu",
    ]
    assert layer("pool", in_channels=4, input=[7, 7], output_size=1).to_json() == {
        "name": "x",
        "op": "pool",
        "in_channels": 4,
        "out_channels": 4,
        "kind": "max",
        "input": [7, 7],
        "padding": [0, 0],
        "dilation": [1, 1],
        "ceil_mode": False,
        "output_size": [1, 1],
        "repeat": 1,
        "batch": 1,
    }


@pytest.mark.parametrize(
    ("op", "words", "plain"),
    [
        ("embedding", {"in_channels": 9, "out_channels": 4}, SHORTEST["embedding"]),
        ("norm", {"num_features": 4}, SHORTEST["norm"]),
        ("norm", {"normalized_shape": 4, "kind": "LAYER"}, {"in_channels": 4, "kind": "layer"}),
        ("norm", FOUR | {"kind": "BatchNorm2d"}, FOUR | {"kind": "batch"}),
        ("norm", FOUR | {"kind": "layer_norm"}, FOUR | {"kind": "layer"}),
        ("norm", FOUR | {"kind": "RMSNorm"}, FOUR | {"kind": "rms"}),
        ("pool", POOL | {"kind": "MaxPool1d"}, POOL | {"kind": "max"}),
        ("pool", POOL | {"kind": "adaptive_avg_pool1d"}, POOL | {"kind": "avg"}),
        ("activation", FOUR | {"kind": "LeakyReLU"}, FOUR | {"kind": "leaky_relu"}),
        ("linear", {"in_features": 4, "out_features": 5}, {"in_channels": 4, "out_channels": 5}),
        ("add", {"in_channels": 4, "out_channels": 4}, SHORTEST["add"]),
        ("linear", SHORTEST["linear"] | {"from": "a"}, SHORTEST["linear"] | {"from": ["a"]}),
    ],
)  # fmt: skip
def test_other_natural_words(op: str, words: dict[str, Any], plain: dict[str, Any]) -> None:
    assert layer(op, **words) == layer(op, **plain)


WRONG: list[tuple[str, dict[str, Any], str, str]] = [
    ("matmul", {"k": 3, "n": 5}, "m", "missing"),
    ("matmul", {"m": 0, "k": 3, "n": 5}, "m", "0 is not a whole number from 1"),
    ("matmul", {"m": 2, "k": 3, "n": 5, "in_channels": 3}, "in_channels", "matmul takes no such"),
    ("add", FOUR | {"operands": 1}, "operands", "1 is not a whole number from 2"),
    ("add", FOUR | {"operands": 3, "from": ["a", "b"]}, "operands", "from names 2"),
    ("add", FOUR | {"from": "a"}, "from", "a sum has two or more"),
    ("add", FOUR | {"from": []}, "from", "a list of 1 or more texts"),
    ("add", FOUR | {"out_channels": 5}, "out_channels", "as many channels as"),
    ("norm", FOUR | {"kind": "bach"}, "kind", "did you mean 'batch'?"),
    ("norm", FOUR | {"affine": 1}, "affine", "1 is neither"),
    ("norm", FOUR | {"num_features": 4}, "num_features", "in_channels says the same"),
    ("norm", {}, "in_channels", "missing"),
    ("activation", FOUR | {"kind": "rleu"}, "kind", "did you mean 'relu'?"),
    ("activation", FOUR | {"kernel": 2}, "kernel", "activation takes no such key"),
    ("pool", FOUR | {"input": [7]}, "kernel", "missing"),
    ("pool", FOUR | {"kernel": 2}, "input", "missing"),
    ("pool", FOUR | {"input": 7, "kernel": 2}, "input", "how many dimensions"),
    ("pool", POOL | {"kernel": [2, 2]}, "kernel", "2 numbers, not 1"),
    ("pool", FOUR | {"input": [3], "kernel": 4}, "kernel", "spans 4, more than"),
    ("pool", POOL | {"padding": 2}, "padding", "half the"),
    ("pool", POOL | {"padding": "same"}, "padding", "no padd"),
    ("pool", POOL | {"output_size": 1}, "kernel", "follows"),
    ("pool", FOUR | {"input": [7], "stride": 2, "output_size": 1}, "stride", "follows"),
    ("pool", POOL | {"out_channels": 5}, "out_channels", "as m"),
    ("pool", POOL | {"ceil_mode": "yes"}, "ceil_mode", "neither"),
    ("pool", POOL | {"kind": "avg", "dilation": 2}, "dilation", "an average has"),
    ("embedding", {"embedding_dim": 4}, "num_embeddings", "missing"),
    ("embedding", {"num_embeddings": 9, "out_channels": 0}, "out_channels", "0 is not a whole"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "keys", "key", "said"), WRONG)
def test_wrong_keys_are_named_with_a_remedy(
    op: str, keys: dict[str, Any], key: str, said: str
) -> None:
    with pytest.raises(DataError) as caught:
        layer(op, **keys)
    assert caught.value.cause.startswith(f"layer 'x', key {key!r}: ")
    assert said in str(caught.value)
    assert caught.value.remedy
