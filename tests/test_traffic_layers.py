"""Counts of W, X and Y against enumeration and PyTorch, and the checks on a layer's keys."""

from __future__ import annotations

import itertools
import json
import warnings
from typing import Any

import pytest

from hqtool.errors import DataError
from hqtool.traffic.layers import OPS, Counts, Layer, layer_from_json

CONV: dict[str, Any] = {
    "name": "block.conv",
    "op": "conv2d",
    "in_channels": 4,
    "out_channels": 6,
    "input": [7, 9],
    "kernel": [3, 2],
    "stride": [2, 1],
    "padding": [1, 0],
    "dilation": [1, 2],
    "groups": 2,
    "repeat": 3,
    "batch": 5,
}
TRANSPOSED = CONV | {"op": "conv_transpose2d", "output_padding": [1, 0]}
LINEAR: dict[str, Any] = {"name": "fc", "op": "linear", "in_channels": 3, "out_channels": 2}
PLAIN = {key: CONV[key] for key in ("name", "op", "in_channels", "out_channels", "input", "kernel")}


def counts_of(**keys: Any) -> Counts:
    return layer_from_json({"name": "x"} | keys).counts()


def positions(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Places where the whole kernel lies on the padded input, tried one by one."""
    starts = range(-padding, size + padding, stride)
    return sum(start + dilation * (kernel - 1) < size + padding for start in starts)


def enumerated(layer: Layer) -> Counts:
    """Slow oracle: visits every element of W, X and Y of a convolution."""
    assert not isinstance(layer.padding, str)
    per_group = layer.in_channels // layer.groups
    weight = itertools.product(
        range(layer.out_channels), range(per_group), *map(range, layer.kernel)
    )
    x = itertools.product(range(layer.batch), range(layer.in_channels), *map(range, layer.input))
    axes = zip(layer.input, layer.kernel, layer.stride, layer.padding, layer.dilation, strict=True)
    output = [positions(*axis) for axis in axes]
    y = itertools.product(range(layer.batch), range(layer.out_channels), *map(range, output))
    return Counts(*(sum(1 for _ in elements) for elements in (weight, x, y)))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"stride": 1, "padding": 0, "dilation": 1},
        {"padding": 3},
        {"groups": 1, "batch": 1},
        {"op": "conv1d", "input": 11, "kernel": 4, "stride": 3, "padding": 2, "dilation": 1},
        {
            "op": "conv3d",
            "input": [5, 4, 6],
            "kernel": [3, 1, 2],
            "stride": [1, 2, 2],
            "padding": [0, 1, 1],
            "dilation": [2, 1, 3],
        },
    ],
)
def test_conv_counts_equal_an_enumeration(change: dict[str, Any]) -> None:
    layer = layer_from_json(CONV | change)
    assert layer.counts() == enumerated(layer)


def test_depthwise_weights_are_channels_times_kernel() -> None:
    depthwise = PLAIN | {"in_channels": 8, "out_channels": 8, "groups": 8, "kernel": 3}
    assert counts_of(**depthwise).weight == 8 * 3 * 3


def test_same_keeps_the_size_and_valid_pads_nothing() -> None:
    same, valid = (counts_of(**PLAIN | {"padding": p, "kernel": 4}) for p in ("same", "valid"))
    assert same == Counts(6 * 4 * 16, 4 * 63, 6 * 63)
    assert valid == Counts(6 * 4 * 16, 4 * 63, 6 * 4 * 6)


def test_padding_defaults_to_same_and_to_zero_where_transposed() -> None:
    assert counts_of(**PLAIN).output == 6 * 63
    assert counts_of(**PLAIN | {"op": "conv_transpose2d"}).output == 6 * 9 * 10


@pytest.mark.parametrize(
    ("given", "count"),
    [({}, 1), ({"input": 7}, 7), ({"input": [7]}, 7), ({"input": [2, 3, 5]}, 30)],
)
def test_linear_counts_positions(given: dict[str, Any], count: int) -> None:
    assert counts_of(**LINEAR | given, batch=4) == Counts(6, 4 * count * 3, 4 * count * 2)


def test_one_number_serves_every_dimension() -> None:
    short = CONV | {"input": 8, "kernel": 3, "stride": 2, "padding": 1, "dilation": 1}
    long = short | {key: [short[key]] * 2 for key in ("input", "kernel", "stride", "padding")}
    assert layer_from_json(short) == layer_from_json(long)


def test_repeat_leaves_counts_alone() -> None:
    assert counts_of(**CONV) == counts_of(**CONV | {"repeat": 1})


def test_batch_of_the_table_wins_over_the_default() -> None:
    assert layer_from_json(CONV, batch=9).batch == 5
    assert layer_from_json(PLAIN, batch=9).batch == 9
    assert layer_from_json(PLAIN).batch == 1


# --- PyTorch as the oracle ----------------------------------------------------------------------


def grid(**axes: list[int]) -> list[dict[str, int]]:
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


CONV_GRID = grid(
    kernel=[1, 2, 3], stride=[1, 2, 3], padding=[0, 1, 2], dilation=[1, 2], groups=[1, 2]
)
TRANSPOSED_GRID = [
    keys | {"output_padding": extra}
    for keys in CONV_GRID
    for extra in range(max(keys["stride"], keys["dilation"]))
]
MODULES = {
    "conv1d": "Conv1d",
    "conv2d": "Conv2d",
    "conv3d": "Conv3d",
    "conv_transpose1d": "ConvTranspose1d",
    "conv_transpose2d": "ConvTranspose2d",
    "conv_transpose3d": "ConvTranspose3d",
}


def measured(op: str, keys: dict[str, Any], size: list[int], device: str = "meta") -> Counts:
    """W, X and Y of the PyTorch module itself; "meta" gives shapes without the arithmetic."""
    torch = pytest.importorskip("torch")
    options = {"kernel_size" if key == "kernel" else key: value for key, value in keys.items()}
    module = getattr(torch.nn, MODULES[op])(4, 6, **options, bias=False, device=device)
    x = torch.zeros(2, 4, *size, device=device)
    return Counts(module.weight.numel(), x.numel(), module(x).numel())


@pytest.mark.parametrize("op", MODULES)
def test_counts_equal_pytorch(op: str) -> None:
    size = [7, 6, 9][: OPS[op].dims]
    for keys in TRANSPOSED_GRID if "transpose" in op else CONV_GRID:
        layer = {"op": op, "in_channels": 4, "out_channels": 6, "input": size, "batch": 2} | keys
        assert counts_of(**layer) == measured(op, keys, size), layer


@pytest.mark.parametrize("op", ["conv1d", "conv_transpose1d"])
def test_pytorch_refuses_the_same_shapes(op: str) -> None:
    axes = {"kernel": [1, 2, 3], "stride": [1, 2], "padding": [0, 1, 2], "dilation": [1, 2]}
    if op == "conv_transpose1d":
        axes["output_padding"] = [0, 1, 2]
    for size, keys in itertools.product([1, 2, 3], grid(**axes)):
        layer = {"op": op, "in_channels": 4, "out_channels": 6, "input": size} | keys
        assert we_refuse(layer) == pytorch_refuses(op, keys, size), layer


def we_refuse(layer: dict[str, Any]) -> bool:
    try:
        counts_of(**layer)
    except DataError:
        return True
    return False


def pytorch_refuses(op: str, keys: dict[str, Any], size: int) -> bool:
    """On the CPU, as "meta" lets any output_padding pass; an empty output counts as refused."""
    try:
        return measured(op, keys, [size], device="cpu").output == 0
    except RuntimeError:
        return True


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_named_padding_equals_pytorch(padding: str) -> None:
    for keys in grid(kernel=[1, 2, 3, 4], dilation=[1, 2]):
        layer = {"op": "conv1d", "in_channels": 4, "out_channels": 6, "input": 9, "batch": 2}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns of "same" with even kernels
            expected = measured("conv1d", keys | {"padding": padding}, [9])
        assert counts_of(**layer, **keys, padding=padding) == expected


def test_linear_equals_pytorch() -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Linear(3, 2, bias=False, device="meta")
    x = torch.empty(4, 5, 7, 3, device="meta")
    expected = Counts(module.weight.numel(), x.numel(), module(x).numel())
    assert counts_of(**LINEAR | {"input": [5, 7], "batch": 4}) == expected


# --- JSON ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mapping",
    [
        CONV,
        PLAIN,
        PLAIN | {"padding": "valid"},
        PLAIN | {"op": "conv1d", "input": 9, "kernel": 2},
        TRANSPOSED,
        LINEAR,
        LINEAR | {"input": [2, 3]},
    ],
)
def test_json_round_trip(mapping: dict[str, Any]) -> None:
    layer = layer_from_json(mapping)
    assert layer_from_json(json.loads(json.dumps(layer.to_json()))) == layer


def test_json_holds_the_keys_of_the_op() -> None:
    assert layer_from_json(CONV).to_json() == CONV
    assert layer_from_json(TRANSPOSED).to_json() == TRANSPOSED
    assert layer_from_json(LINEAR).to_json() == LINEAR | {"input": [1], "repeat": 1, "batch": 1}


# --- errors -------------------------------------------------------------------------------------


WRONG: list[tuple[dict[str, Any], str, str]] = [
    (CONV | {"kernal": 3}, "kernal", "did you mean 'kernel'?"),
    (CONV | {"colour": 3}, "colour", "use one of: name, op"),
    (CONV | {"output_padding": 0}, "output_padding", "conv2d takes no such key"),
    (LINEAR | {"kernel": 1}, "kernel", "linear takes no such key"),
    (CONV | {"op": "conv2"}, "op", "did you mean 'conv"),
    (CONV | {"op": "attention"}, "op", "'attention' is unknown"),
    (CONV | {"op": 2}, "op", "2 is not a text"),
    (CONV | {"in_channels": 5}, "in_channels", "5 channels do not divide into groups = 2"),
    (CONV | {"out_channels": 5}, "out_channels", "5 channels do not divide into groups = 2"),
    (CONV | {"in_channels": True}, "in_channels", "True is not a whole number"),
    (CONV | {"in_channels": 4.0}, "in_channels", "4.0 is not a whole number"),
    (CONV | {"in_channels": float("nan")}, "in_channels", "nan is not a whole number"),
    (CONV | {"in_channels": "4"}, "in_channels", "'4' is not a whole number"),
    (CONV | {"in_channels": None}, "in_channels", "None is not a whole number"),
    (CONV | {"out_channels": 2**53 + 1}, "out_channels", "from 1 to 2^53"),
    (CONV | {"out_channels": 1 << 20_000}, "out_channels", "a number of thousands of digits"),
    (CONV | {"groups": 0}, "groups", "0 is not a whole number from 1"),
    (CONV | {"repeat": -1}, "repeat", "-1 is not a whole number from 1"),
    (CONV | {"batch": 0}, "batch", "0 is not a whole number from 1"),
    (CONV | {"stride": 0}, "stride", "0 is not a whole number from 1"),
    (CONV | {"dilation": [1, 0]}, "dilation", "0 is not a whole number from 1"),
    (CONV | {"padding": -1}, "padding", "-1 is not a whole number from 0"),
    (CONV | {"padding": "full"}, "padding", "'full' is unknown"),
    (CONV | {"padding": "same"}, "padding", "needs stride 1, not 2×1"),
    (PLAIN | {"stride": 2}, "padding", "needs stride 1, not 2×2"),
    (CONV | {"input": [7]}, "input", "1 numbers, not 2"),
    (CONV | {"input": []}, "input", "0 numbers, not 2"),
    (CONV | {"input": [7, [9]]}, "input", "[9] is not a whole number"),
    (LINEAR | {"input": []}, "input", "0 numbers, not 1 or more"),
    (CONV | {"kernel": [3, 3, 3]}, "kernel", "3 numbers, not 2"),
    (CONV | {"kernel": 10}, "kernel", "spans 10×19, more than the padded input's 9×9"),
    (CONV | {"kernel": [1, 6]}, "kernel", "spans 1×11, more than the padded input's 9×9"),
    (TRANSPOSED | {"padding": "same"}, "padding", 'conv_transpose2d takes no padding "same"'),
    (TRANSPOSED | {"padding": 8}, "padding", "leaves an output of"),
    (TRANSPOSED | {"output_padding": 2}, "output_padding", "below neither stride nor dilation"),
    (TRANSPOSED | {"groups": 3}, "in_channels", "4 channels do not divide into groups = 3"),
]


@pytest.mark.parametrize(("mapping", "key", "said"), WRONG)
def test_wrong_keys_are_named_with_a_remedy(mapping: dict[str, Any], key: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        layer_from_json(mapping)
    error = caught.value
    assert error.cause.startswith(f"layer {mapping['name']!r}, key {key!r}: ")
    assert said in str(error)
    assert error.remedy


@pytest.mark.parametrize("key", ["op", "in_channels", "out_channels", "input", "kernel"])
def test_missing_keys_are_named(key: str) -> None:
    mapping = {name: value for name, value in CONV.items() if name != key}
    with pytest.raises(DataError, match=f"layer 'block.conv', key '{key}': missing"):
        layer_from_json(mapping)


@pytest.mark.parametrize("name", [None, 5, "", ["x"]])
def test_an_unnamed_layer_is_called_what_the_caller_says(name: object) -> None:
    with pytest.raises(DataError, match=r"layer number 7, key 'name': .* is not a text"):
        layer_from_json(CONV | {"name": name}, unnamed="layer number 7")


@pytest.mark.parametrize("value", [None, 3, "conv2d", [CONV]])
def test_what_is_no_table_is_refused(value: object) -> None:
    with pytest.raises(DataError, match=r"layer number 7: .* is not a table"):
        layer_from_json(value, unnamed="layer number 7")
