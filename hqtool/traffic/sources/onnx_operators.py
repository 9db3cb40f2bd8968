"""Operators of ONNX as operations of a layer spec; a further one is one more row of `READERS`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from hqtool.traffic.ops.pointwise import ACTIVATIONS
from hqtool.traffic.sources import operation
from hqtool.traffic.sources.operation import Keys, Shape


@dataclass(frozen=True, slots=True)
class OnnxCall:
    """One node, with what is known of its tensors.

    Args:
        inputs: names; empty where an optional one is left out.
        x, y: shapes of its inputs and outputs; None where unknown.
        active: of each input, whether it changes with the network's input.
        floats: of each input, whether it holds floating point numbers.
        samples: N, the number of samples that the network reads at once.
        integers: the values of an input of whole numbers; None where it is no constant.
    """

    op: str
    attributes: dict[str, Any]
    inputs: tuple[str, ...]
    x: tuple[Shape | None, ...]
    y: tuple[Shape | None, ...]
    active: tuple[bool, ...]
    floats: tuple[bool, ...]
    samples: int
    integers: tuple[list[int] | None, ...]

    def shape(self, index: int = 0) -> Shape:
        """The shape of an input.

        Raises:
            UnknownShape: it is not known, or there is no such input.
        """
        found = self.x[index] if index < len(self.x) else None
        if found is None:
            raise UnknownShape
        return found

    def result(self) -> Shape:
        """The shape of the first output; raises as `shape` does."""
        if self.y[0] is None:
            raise UnknownShape
        return self.y[0]

    def has(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.inputs) and bool(self.inputs[index])


class UnknownShape(Exception):
    """A shape cannot be told from the model."""


@dataclass(frozen=True, slots=True)
class OnnxPart:
    """One operation of a layer spec; see `seen.Seen`.

    Args:
        reads: which inputs are activations that it reads, in the order of operands.
        weight: which input is its weight; None where it has none.
    """

    label: str
    keys: Keys
    reads: tuple[int, ...] = (0,)
    weight: int | None = None


_Reader = Callable[[OnnxCall], Iterator[OnnxPart]]


# --- products -----------------------------------------------------------------------------------


def _conv(call: OnnxCall) -> Iterator[OnnxPart]:
    x, weight, found = call.shape(0), call.shape(1), call.attributes
    dims, transposed = len(weight) - 2, call.op == "ConvTranspose"
    x, padding = _padding(x, weight[2:], call, transposed)
    sizes = {
        "stride": found.get("strides", [1] * dims),
        "padding": padding,
        "dilation": found.get("dilations", [1] * dims),
    }
    if transposed:
        sizes["output_padding"] = found.get("output_padding", [0] * dims)
    keys = operation.convolution(
        x, weight, transposed=transposed, groups=found.get("group", 1), **sizes
    )
    yield OnnxPart("conv", keys, weight=1)


def _padding(
    x: Shape, kernel: Shape, call: OnnxCall, transposed: bool
) -> tuple[Shape, list[int] | str]:
    """The padding of each side of each dimension, and x.

    Where both sides differ, it is the one that gives the same size; or else x is padded ahead.
    """
    dims, found = len(kernel), call.attributes
    pads = found.get("pads", [0] * 2 * dims)
    if found.get("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
        pads = _same_pads(x[-dims:], kernel, call)
    begin, end = pads[:dims], pads[dims:]
    if begin == end or transposed:
        return x, begin
    strides, dilations = found.get("strides", [1] * dims), found.get("dilations", [1] * dims)
    wanted = call.result()[-dims:]
    for each in (end, begin):
        sizes = zip(x[-dims:], kernel, strides, dilations, each, strict=True)
        if tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, d, p in sizes) == wanted:
            return x, each
    padded = tuple(n + b + e for n, b, e in zip(x[-dims:], begin, end, strict=True))
    return (*x[:-dims], *padded), [0] * dims


def _same_pads(sizes: Shape, kernel: Shape, call: OnnxCall) -> list[int]:
    strides = call.attributes.get("strides", [1] * len(sizes))
    dilations = call.attributes.get("dilations", [1] * len(sizes))
    axes = zip(sizes, kernel, strides, dilations, call.result()[-len(sizes) :], strict=True)
    totals = [max(0, (y - 1) * s + d * (k - 1) + 1 - n) for n, k, s, d, y in axes]
    begin = [total // 2 for total in totals]
    return begin + [total - first for total, first in zip(totals, begin, strict=True)]


def _matmul(call: OnnxCall) -> Iterator[OnnxPart]:
    a, b = call.shape(0), call.shape(1)
    if not call.active[1] and len(b) == 2:
        yield OnnxPart("linear", operation.linear(a, b[1]), weight=1)
    elif not call.active[0] and len(a) == 2 and len(b) > 1:
        x = (*b[:-2], b[-1], b[-2])
        yield OnnxPart("linear", operation.linear(x, a[0]), (1,), weight=0)
    else:
        yield OnnxPart("matmul", operation.matmul(a, b), (0, 1))


def _gemm(call: OnnxCall) -> Iterator[OnnxPart]:
    a, b = call.shape(0), call.shape(1)
    a = a[::-1] if call.attributes.get("transA") else a
    b = b[::-1] if call.attributes.get("transB") else b
    if call.active[1]:
        yield OnnxPart("matmul", operation.matmul(a, b), (0, 1))
    else:
        yield OnnxPart("linear", operation.linear(a, b[1]), weight=1)


def _einsum(call: OnnxCall) -> Iterator[OnnxPart]:
    """A product of two operands, with a letter for each dimension."""
    terms, _, result = call.attributes["equation"].replace(" ", "").partition("->")
    names = terms.split(",")
    if len(names) != 2 or "." in terms or not result:
        return
    sizes = dict(zip(names[0] + names[1], call.shape(0) + call.shape(1), strict=True))
    of = {
        "both": [n for n in names[0] if n in names[1] and n in result],
        "summed": [n for n in names[0] if n in names[1] and n not in result],
        "left": [n for n in names[0] if n not in names[1]],
        "right": [n for n in names[1] if n not in names[0]],
    }
    both, k, m, n = (math.prod(sizes[each] for each in letters) for letters in of.values())
    if call.active[1]:
        yield OnnxPart("einsum", operation.matmul((both, m, k), (both, k, n)), (0, 1))
    elif both == 1:
        yield OnnxPart("linear", operation.linear((1, m, k), n), weight=1)


def _attention(call: OnnxCall) -> Iterator[OnnxPart]:
    """Softmax(QKᵀ)V of (batch, heads, positions, channels) as its products, with the softmax."""
    q, k, v = call.shape(0), call.shape(1), call.shape(2)
    if len(q) == 3:
        heads, of_keys = (call.attributes[f"{each}_num_heads"] for each in ("q", "kv"))
        q, k, v = _split(q, heads), _split(k, of_keys), _split(v, of_keys)
    scores = (*q[:-1], k[-2])
    yield OnnxPart("qk", operation.matmul(q, (*q[:-2], k[-1], k[-2])), (0, 1))
    yield OnnxPart("softmax", operation.activation(scores, "softmax"), ())
    yield OnnxPart("av", operation.matmul(scores, (*q[:-2], *v[-2:])), (-1, 2))


def _split(x: Shape, heads: int) -> Shape:
    return (x[0], heads, x[1], x[2] // heads)


def _recurrent(call: OnnxCall) -> Iterator[OnnxPart]:
    """A recurrent layer as its products: with all steps at once, but for its state step by step."""
    steps, batch = call.shape(0)[:2]
    for index in (1, 2):
        directions, rows, columns = call.shape(index)
        for _ in range(directions):
            keys = operation.linear((batch, steps, columns), rows)
            keys |= {"input": 1, "repeat": steps} if index == 2 else {}
            yield OnnxPart("WR"[index - 1], keys, weight=index)


# --- the others ---------------------------------------------------------------------------------


def _channel_norm(kind: str) -> _Reader:
    def read(call: OnnxCall) -> Iterator[OnnxPart]:
        yield OnnxPart("norm", operation.channel_norm(call.shape(), kind, call.has(1)), weight=1)

    return read


def _last_norm(kind: str) -> _Reader:
    def read(call: OnnxCall) -> Iterator[OnnxPart]:
        x = call.shape()
        normalized = math.prod(x[call.attributes.get("axis", -1) :])
        yield OnnxPart("norm", operation.layer_norm(x, normalized, kind, call.has(1)), weight=1)

    return read


def _pool(kind: str) -> _Reader:
    def read(call: OnnxCall) -> Iterator[OnnxPart]:
        x, found = call.shape(), call.attributes
        dims, kernel = len(found["kernel_shape"]), tuple(found["kernel_shape"])
        padded, padding = _padding(x, kernel, call, False)
        windows = {
            "kernel": kernel,
            "stride": found.get("strides", [1] * dims),
            "padding": padding,
            "ceil_mode": bool(found.get("ceil_mode", 0)),
            **({"dilation": found["dilations"]} if kind == "max" and "dilations" in found else {}),
        }
        yield OnnxPart("pool", operation.pool(padded, kind, dims, **windows))

    return read


def _global_pool(kind: str) -> _Reader:
    def read(call: OnnxCall) -> Iterator[OnnxPart]:
        dims = len(call.shape()) - 2
        yield OnnxPart("pool", operation.pool(call.shape(), kind, dims, output_size=1))

    return read


def _reduction(kind: str) -> _Reader:
    def read(call: OnnxCall) -> Iterator[OnnxPart]:
        x = call.shape()
        axes = call.attributes.get("axes") or (call.has(1) and call.integers[1]) or range(len(x))
        found = [axis % len(x) for axis in axes]
        yield OnnxPart(call.op.lower(), operation.reduction(x, found, kind))

    return read


def _activation(call: OnnxCall) -> Iterator[OnnxPart]:
    kind = _TORCH_NAMES.get(call.op, call.op.lower())
    keys = operation.activation(call.shape(), kind if kind in ACTIVATIONS else "pointwise")
    yield OnnxPart(call.op.lower(), keys)


def _gather(call: OnnxCall) -> Iterator[OnnxPart]:
    """Rows of a table of weights by indices; any other gather has no bill."""
    table, indices = call.shape(0), call.shape(1)
    if not call.active[0] and len(table) == 2 and call.attributes.get("axis", 0) == 0:
        yield OnnxPart("embedding", operation.embedding(table, indices), (), weight=0)


def _elementwise(call: OnnxCall) -> Iterator[OnnxPart]:
    """An operator of several operands that computes each element by itself.

    Operands count where they are as large as the result, or, as positions are, as one sample of it.
    """
    y, floats = call.result(), [i for i, is_float in enumerate(call.floats) if is_float]
    sample = max(2, math.prod(y) // call.samples)
    operands = [i for i in floats if math.prod(call.x[i] or y) >= sample]
    active = tuple(i for i in floats if call.active[i])
    if len(operands) < 2:
        is_linear = call.op in (_LINEAR if len(active) < 2 else _SUMS)
        keys = operation.activation(y, "scale" if is_linear else "pointwise")
        yield OnnxPart(call.op.lower(), keys, active)
    else:
        op = "add" if call.op in _SUMS else "mul"
        keys = operation.combined(y, len(operands), op)
        yield OnnxPart(call.op.lower(), keys, tuple(operands))


# --- the table ----------------------------------------------------------------------------------

_SUMS = ("Add", "Sub", "Sum", "Where", "Max", "Min", "Mean")
_LINEAR = (*_SUMS, "Mul", "Div")

PRODUCTS = ("Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum")

#: What moves nothing: another view of the same tensor, or a part of it.
FREE = {
    *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Expand", "Slice"),
    *("Split", "Constant", "ConstantOfShape", "Range", "CastLike"),
}

#: What depends on a tensor's shape alone.
SIZES = {"Shape", "Size"}

#: PyTorch's names of functions, where they differ by more than capital letters.
_TORCH_NAMES = {
    "LeakyRelu": "leaky_relu",
    "Clip": "hardtanh",
    "LogSoftmax": "log_softmax",
    "HardSwish": "hardswish",
    "HardSigmoid": "hardsigmoid",
    "Neg": "scale",
    "Swish": "silu",
}

#: One operand, and computed element by element.
ACTIVATION_OPS = (
    *("Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Gelu", "Mish", "Sigmoid", "Tanh"),
    *("HardSigmoid", "HardSwish", "Softplus", "Softsign", "Clip", "ThresholdedRelu", "Swish"),
    *("Erf", "Exp", "Log", "Sqrt", "Reciprocal", "Neg", "Abs", "Sin", "Cos", "Softmax"),
    "LogSoftmax",
)

ELEMENTWISE_OPS = (*_LINEAR, "Pow")

REDUCTIONS = {
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceL2", "ReduceSumSquare"), "avg"),
    **dict.fromkeys(("ReduceMax", "ReduceMin"), "max"),
}

READERS: dict[str, _Reader] = {
    "Conv": _conv,
    "ConvTranspose": _conv,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Einsum": _einsum,
    "Attention": _attention,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    "BatchNormalization": _channel_norm("batch"),
    "InstanceNormalization": _channel_norm("instance"),
    "GroupNormalization": _channel_norm("group"),
    "LayerNormalization": _last_norm("layer"),
    "RMSNormalization": _last_norm("rms"),
    "MaxPool": _pool("max"),
    "AveragePool": _pool("avg"),
    "GlobalMaxPool": _global_pool("max"),
    "GlobalAveragePool": _global_pool("avg"),
    "Gather": _gather,
    **{op: _reduction(kind) for op, kind in REDUCTIONS.items()},
    **dict.fromkeys(ACTIVATION_OPS, _activation),
    **dict.fromkeys(ELEMENTWISE_OPS, _elementwise),
}
