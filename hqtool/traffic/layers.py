"""Layers for the bill: from their geometry to the element counts of W, X and Y.

A new layer type is one count function and one row of `OPS`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from hqtool.errors import DataError
from hqtool.spec_table import SpecTable, short_repr, wrong_key


class Counts(NamedTuple):
    """Elements of a layer's tensors; `input` and `output` include the batch.

    Args:
        weight: elements of W, without biases.
        input: elements of X.
        output: elements of Y.
    """

    weight: int
    input: int
    output: int


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's geometry, in PyTorch's words; `layer_from_json` makes checked ones.

    Args:
        name: the module's qualified name.
        op: a key of `OPS`.
        in_channels, out_channels: for `linear`, its features.
        input: spatial size of X; for `linear`, the number of positions.
        kernel, stride, dilation, output_padding: one per spatial dimension; empty where the op
            has none.
        padding: per side, one per spatial dimension; or "same".
        repeat: how many such layers there are; bills are multiplied by it, counts are not.
        batch: N, the number of samples.
        grad_input: whether G_X is computed; not where X is the network's own input, which needs
            no gradient.
    """

    name: str
    op: str
    in_channels: int
    out_channels: int
    input: tuple[int, ...]
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] | str = ()
    dilation: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    groups: int = 1
    repeat: int = 1
    batch: int = 1
    grad_input: bool = True

    def counts(self) -> Counts:
        """Elements of W, X and Y of one such layer.

        Raises:
            DataError: the geometry is impossible; names the layer and the key.
        """
        return OPS[self.op].count(self)

    def to_json(self) -> dict[str, Any]:
        """The layer-spec keys of this op plus `batch`; `layer_from_json` reads them back.

        `grad_input` is left out where it is true: older versions do not know the key.
        """
        keys = [key for key in OPS[self.op].keys if key != "grad_input"]
        sizes = {key: _json_sizes(getattr(self, key)) for key in keys}
        return sizes if self.grad_input else sizes | {"grad_input": False}

    def wrong(self, key: str, cause: str, remedy: str) -> DataError:
        """The error that says what is wrong with one key of this layer."""
        return wrong_key(_label(self.name), key, cause, remedy)


def _json_sizes(value: Any) -> Any:
    """A size as JSON can hold it: it may be an integer of numpy or torch, or a tensor of one."""
    if isinstance(value, str):
        return value
    return list(map(operator.index, value)) if isinstance(value, tuple) else operator.index(value)


def layer_from_json(mapping: object, batch: int = 1, unnamed: str = "layer") -> Layer:
    """Check one table of layer-spec keys and make the layer of it.

    Args:
        mapping: a parsed table; sizes are whole numbers or lists of them.
        batch: N where the table has no `batch` of its own.
        unnamed: what errors call a layer that has no name.

    Raises:
        DataError: a key is unknown, missing or of the wrong type, or the shape is impossible;
            names the layer and the key.
    """
    table = SpecTable(mapping, _label(SpecTable(mapping, unnamed).text("name")))
    table.only(key for op in OPS.values() for key in op.keys)
    op_name = table.choice("op", OPS)
    op = OPS[op_name]
    table.only(op.keys, f"{op_name} takes no such key")
    defaults = {**op.keys, "batch": batch}
    layer = Layer(**{key: _value(table, key, defaults[key], op.dims) for key in defaults})
    layer.counts()  # raises where the shape is impossible
    return layer


def _value(table: SpecTable, key: str, default: object, dims: int | None) -> Any:
    if key in ("name", "op"):
        return table.text(key)
    if key == "grad_input":
        return table.boolean(key, default)
    if key == "padding" and isinstance(table.get(key, default), str):
        return _named_padding(table, default, dims)
    if key in _SMALLEST_SIZE:
        return table.sizes(key, dims, default, _SMALLEST_SIZE[key])
    return table.integer(key, default)


def _named_padding(table: SpecTable, default: object, dims: int | None) -> tuple[int, ...] | str:
    """A padding given by name: "same" as it is, "valid" as the zeros it stands for."""
    name = table.get("padding", default)
    if name not in ("same", "valid"):
        remedy = 'write "same", "valid", a number or a list of numbers'
        raise table.wrong("padding", f"{short_repr(name)} is unknown", remedy)
    return "same" if name == "same" else (0,) * (dims or 1)


# --- counting -----------------------------------------------------------------------------------


def count_linear(layer: Layer) -> Counts:
    """W = C_out·C_in, X = N·positions·C_in, Y = N·positions·C_out elements."""
    return _dense(layer, layer.input)


def count_conv(layer: Layer) -> Counts:
    """W = C_out·(C_in/groups)·Πk, X = N·C_in·Πsize, Y = N·C_out·Πsize_o elements (eq. 4).

    Raises:
        DataError: channels do not divide into groups, "same" with a stride, or no output.
    """
    return _dense(layer, _conv_output(layer))


def count_conv_transpose(layer: Layer) -> Counts:
    """As `count_conv`, with the output size of a transposed convolution.

    Raises:
        DataError: channels do not divide into groups, padding "same", no output, or an output
            padding that neither stride nor dilation exceeds.
    """
    return _dense(layer, _conv_transpose_output(layer))


def _dense(layer: Layer, output: tuple[int, ...]) -> Counts:
    """Every output channel reads the input channels of its group through one kernel each."""
    weight = layer.out_channels * _channels_per_group(layer) * math.prod(layer.kernel)
    samples_in = layer.batch * math.prod(layer.input)
    samples_out = layer.batch * math.prod(output)
    return Counts(weight, samples_in * layer.in_channels, samples_out * layer.out_channels)


def _channels_per_group(layer: Layer) -> int:
    for key in ("in_channels", "out_channels"):
        channels = getattr(layer, key)
        if channels % layer.groups:
            cause = f"{channels} channels do not divide into groups = {layer.groups}"
            raise layer.wrong(key, cause, f"make {key} a multiple of groups")
    return layer.in_channels // layer.groups


def _conv_output(layer: Layer) -> tuple[int, ...]:
    if isinstance(layer.padding, str):
        return _same_output(layer)
    padded = tuple(x + 2 * p for x, p in zip(layer.input, layer.padding, strict=True))
    spans = _spans(layer)
    if any(span > size for span, size in zip(spans, padded, strict=True)):
        most = _sizes_text(padded)
        cause = f"the kernel spans {_sizes_text(spans)}, more than the padded input's {most}"
        raise layer.wrong("kernel", cause, "make kernel or dilation smaller, or input larger")
    axes = zip(padded, spans, layer.stride, strict=True)
    return tuple((size - span) // stride + 1 for size, span, stride in axes)


def _same_output(layer: Layer) -> tuple[int, ...]:
    if set(layer.stride) != {1}:
        cause = f'"same" (the default) needs stride 1, not {_sizes_text(layer.stride)}'
        raise layer.wrong("padding", cause, "write the padding as a number or a list")
    return layer.input


def _conv_transpose_output(layer: Layer) -> tuple[int, ...]:
    if isinstance(layer.padding, str):
        cause = f'{layer.op} takes no padding "{layer.padding}"'
        raise layer.wrong("padding", cause, "write the padding as a number or a list")
    extras = _output_padding(layer)
    axes = zip(layer.input, layer.stride, layer.padding, _spans(layer), extras, strict=True)
    output = tuple((x - 1) * s - 2 * p + span + extra for x, s, p, span, extra in axes)
    if min(output) < 1:
        cause = f"leaves an output of {_sizes_text(output)}"
        raise layer.wrong("padding", cause, "make padding smaller, or input or kernel larger")
    return output


def _output_padding(layer: Layer) -> tuple[int, ...]:
    axes = zip(layer.output_padding, layer.stride, layer.dilation, strict=True)
    if any(extra >= max(stride, dilation) for extra, stride, dilation in axes):
        cause = f"{_sizes_text(layer.output_padding)} is below neither stride nor dilation"
        raise layer.wrong("output_padding", cause, "make output_padding smaller than stride")
    return layer.output_padding


def _spans(layer: Layer) -> tuple[int, ...]:
    """How many input elements one kernel reaches over, per dimension."""
    return tuple(d * (k - 1) + 1 for k, d in zip(layer.kernel, layer.dilation, strict=True))


def _sizes_text(sizes: Iterable[int]) -> str:
    return "×".join(map(str, sizes))


def _label(name: str) -> str:
    return f"layer {name!r}"


# --- the tables ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Op:
    """A layer type.

    Args:
        count: geometry to elements of W, X and Y; raises DataError on an impossible shape.
        dims: spatial dimensions; None where `input` may have any number.
        keys: the layer-spec keys it takes, each with its default; None: must be given.
    """

    count: Callable[[Layer], Counts]
    dims: int | None
    keys: Mapping[str, object]


_LINEAR: dict[str, object] = {
    "name": None,
    "op": None,
    "in_channels": None,
    "out_channels": None,
    "input": 1,
    "repeat": 1,
    "batch": 1,
    "grad_input": True,
}
_CONV = _LINEAR | {
    "input": None,
    "kernel": None,
    "stride": 1,
    "padding": "same",
    "dilation": 1,
    "groups": 1,
}
_CONV_TRANSPOSE = _CONV | {"padding": 0, "output_padding": 0}

#: Every layer type the bill knows, by the name a layer spec gives it.
OPS: dict[str, Op] = {
    "conv1d": Op(count_conv, 1, _CONV),
    "conv2d": Op(count_conv, 2, _CONV),
    "conv3d": Op(count_conv, 3, _CONV),
    "conv_transpose1d": Op(count_conv_transpose, 1, _CONV_TRANSPOSE),
    "conv_transpose2d": Op(count_conv_transpose, 2, _CONV_TRANSPOSE),
    "conv_transpose3d": Op(count_conv_transpose, 3, _CONV_TRANSPOSE),
    "linear": Op(count_linear, None, _LINEAR),
}

#: Keys that hold one size per dimension, with the smallest size allowed.
_SMALLEST_SIZE = {
    "input": 1,
    "kernel": 1,
    "stride": 1,
    "padding": 0,
    "dilation": 1,
    "output_padding": 0,
}
