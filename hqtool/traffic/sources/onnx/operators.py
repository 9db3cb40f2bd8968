"""Operators of ONNX as operations of a layer spec; a further one is one more row of `READERS`."""

from __future__ import annotations

import math
from collections.abc import Iterator

from hqtool.traffic.ops.pointwise import ACTIVATIONS
from hqtool.traffic.sources import operation
from hqtool.traffic.sources.onnx.calls import OnnxCall, OnnxPart, Reader
from hqtool.traffic.sources.onnx.products import (
    attention,
    conv,
    einsum,
    gemm,
    matmul,
    padding,
    recurrent,
)


def _channel_norm(kind: str) -> Reader:
    def read(call: OnnxCall) -> Iterator[OnnxPart]:
        yield OnnxPart("norm", operation.channel_norm(call.shape(), kind, call.has(1)), weight=1)

    return read


def _last_norm(kind: str) -> Reader:
    def read(call: OnnxCall) -> Iterator[OnnxPart]:
        x = call.shape()
        normalized = math.prod(x[call.attributes.get("axis", -1) :])
        yield OnnxPart("norm", operation.layer_norm(x, normalized, kind, call.has(1)), weight=1)

    return read


def _pool(kind: str) -> Reader:
    def read(call: OnnxCall) -> Iterator[OnnxPart]:
        x, found = call.shape(), call.attributes
        dims, kernel = len(found["kernel_shape"]), tuple(found["kernel_shape"])
        padded, pads = padding(x, kernel, call, False)
        windows = {
            "kernel": kernel,
            "stride": found.get("strides", [1] * dims),
            "padding": pads,
            "ceil_mode": bool(found.get("ceil_mode", 0)),
            **({"dilation": found["dilations"]} if kind == "max" and "dilations" in found else {}),
        }
        yield OnnxPart("pool", operation.pool(padded, kind, dims, **windows))

    return read


def _global_pool(kind: str) -> Reader:
    def read(call: OnnxCall) -> Iterator[OnnxPart]:
        dims = len(call.shape()) - 2
        yield OnnxPart("pool", operation.pool(call.shape(), kind, dims, output_size=1))

    return read


def _reduction(kind: str) -> Reader:
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
    shapes = {i: y if (found := call.x[i]) is None else found for i in floats}
    operands = [i for i in floats if math.prod(shapes[i]) >= sample]
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

READERS: dict[str, Reader] = {
    "Conv": conv,
    "ConvTranspose": conv,
    "MatMul": matmul,
    "Gemm": gemm,
    "Einsum": einsum,
    "Attention": attention,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), recurrent),
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
