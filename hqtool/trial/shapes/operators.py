"""Operators of torch as operations of a layer spec.

A further operator is one more row of `READERS`. They are named as in `torch.ops.aten`, without the
underscore of those that work in place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from hqtool.traffic.ops.pointwise import ACTIVATIONS
from hqtool.traffic.sources import operation
from hqtool.trial.shapes.calls import Call, Part, Reader, first_tensor, tensors_in
from hqtool.trial.shapes.origins import Origins
from hqtool.trial.shapes.products import attention, convolution, linear, product, recurrent


def _channel_norm(kind: str) -> Reader:
    def read(call: Call, origins: Origins) -> Iterator[Part]:
        weight = call.values.get("weight")
        keys = operation.channel_norm(call.shape("input"), kind, weight is not None)
        yield Part(call.operator, keys, (call.values["input"],), weight)

    return read


def _last_norm(kind: str) -> Reader:
    def read(call: Call, origins: Origins) -> Iterator[Part]:
        weight = call.values.get("weight")
        normalized = math.prod(call.values["normalized_shape"])
        keys = operation.layer_norm(call.shape("input"), normalized, kind, weight is not None)
        yield Part(call.operator, keys, (call.values["input"],), weight)

    return read


def _pool(kind: str, dims: int) -> Reader:
    def read(call: Call, origins: Origins) -> Iterator[Part]:
        values, x = call.values, call.values["self"]
        windows = {
            "kernel": values["kernel_size"],
            "stride": values["stride"] or values["kernel_size"],
            "padding": values["padding"],
            "ceil_mode": bool(values["ceil_mode"]),
            **({"dilation": values["dilation"]} if kind == "max" else {}),
        }
        yield Part(call.operator, operation.pool(tuple(x.shape), kind, dims, **windows), (x,))

    return read


def _adaptive_pool(kind: str, dims: int) -> Reader:
    def read(call: Call, origins: Origins) -> Iterator[Part]:
        x, y = call.values["self"], first_tensor(call.result)
        size = tuple(y.shape[-dims:])
        yield Part(
            call.operator, operation.pool(tuple(x.shape), kind, dims, output_size=size), (x,)
        )

    return read


def _reduction(call: Call, origins: Origins) -> Iterator[Part]:
    x, dims = call.values["self"], call.values.get("dim")
    if dims is None or dims == []:
        dims = range(x.dim())
    axes = [axis % x.dim() for axis in (dims if isinstance(dims, Sequence) else [dims])]
    kind = "max" if call.operator in ("amax", "amin") else "avg"
    if axes:
        yield Part(call.operator, operation.reduction(tuple(x.shape), axes, kind), (x,))


def _embedding(call: Call, origins: Origins) -> Iterator[Part]:
    weight, indices = call.values["weight"], call.values["indices"]
    keys = operation.embedding(tuple(weight.shape), tuple(indices.shape))
    yield Part("embedding", keys, (), weight)


def _activation(call: Call, origins: Origins) -> Iterator[Part]:
    x, kind = call.values["self"], call.operator.lstrip("_")
    kind = {"log_sigmoid": "logsigmoid"}.get(kind, kind)
    keys = operation.activation(tuple(x.shape), kind if kind in ACTIVATIONS else "pointwise")
    yield Part(call.operator, keys, (x,))


def _gated(call: Call, origins: Origins) -> Iterator[Part]:
    """One half of a tensor times a function of the other: two operands as large as the result."""
    keys = operation.combined(tuple(call.result.shape), 2, "mul")
    yield Part(call.operator, keys, (call.values["self"],))


def elementwise_part(call: Call, origins: Origins) -> Iterator[Part]:
    """An operator that computes each element by itself.

    A second operand counts where it is as large as the result, or, as positions are, as one
    sample of it; a bias, a scale or a mask is not worth a row.
    """
    y = first_tensor(call.result)
    tensors = (each for each in tensors_in(call.values) if each.dtype.is_floating_point)
    operands = [each for each in tensors if origins.of(each) and each.dim()]
    sample = y.numel() // origins.samples
    large = [each for each in operands if each.numel() >= sample]
    if len(large) < 2:
        is_linear = call.operator in (_LINEAR if len(operands) < 2 else _SUMS)
        keys = operation.activation(tuple(y.shape), "scale" if is_linear else "pointwise")
    else:
        op = "add" if call.operator in _SUMS else "mul"
        keys = operation.combined(tuple(y.shape), len(large), op)
    yield Part(call.operator, keys, tuple(large or operands))


#: Operators whose gradients need none of the operands.
_SUMS = ("add", "sub", "rsub", "where", "masked_fill", "maximum", "minimum", "lerp")

#: With one operand and constants: those whose derivative is constant.
_LINEAR = (*_SUMS, "mul", "div", "neg")


# --- the table ----------------------------------------------------------------------------------


#: What moves nothing in a pass that evaluates, though it is no view by its declaration.
FREE = {
    *("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "native_dropout"),
    *("_unsafe_view", "lift_fresh", "detach", "alias", "empty_like"),
}

#: What makes tensors that have no values of those whose shape they take.
LIKE = {
    *("new_zeros", "new_ones", "new_full", "new_empty", "zeros_like", "ones_like", "full_like"),
    *("empty_like", "rand_like", "randn_like", "new_empty_strided", "new_tensor"),
}

#: What copies tensors; within a module of elementwise operators it is part of them.
COPIES = {"clone", "copy", "_to_copy", "lift_fresh_copy"}

_ACTIVATIONS = (
    *("relu", "relu6", "prelu", "rrelu", "leaky_relu", "elu", "selu", "celu", "silu", "mish"),
    *("gelu", "hardtanh", "hardswish", "hardsigmoid", "sigmoid", "tanh", "softplus"),
    *("log_sigmoid", "softmax", "_softmax", "log_softmax", "_log_softmax", "threshold"),
    *("hardshrink", "softshrink", "_prelu_kernel"),
)

REDUCTIONS = ("mean", "sum", "amax", "amin", "var", "std", "linalg_vector_norm", "logsumexp")

#: By the operator's name.
READERS: dict[str, Reader] = {
    "linear": linear,
    "matmul": product("self", "other"),
    "mm": product("self", "mat2"),
    "bmm": product("self", "mat2"),
    "mv": product("self", "vec"),
    "dot": product("self", "tensor"),
    "addmm": product("mat1", "mat2"),
    "addmv": product("mat", "vec"),
    "baddbmm": product("batch1", "batch2"),
    "addbmm": product("batch1", "batch2"),
    "scaled_dot_product_attention": attention,
    "convolution": convolution(),
    **{f"conv{dims}d": convolution(False) for dims in (1, 2, 3)},
    **{f"conv_transpose{dims}d": convolution(True) for dims in (1, 2, 3)},
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), recurrent),
    **{f"{kind}_norm": _channel_norm(kind) for kind in ("batch", "group", "instance")},
    **{f"{kind}_norm": _last_norm(kind) for kind in ("layer", "rms")},
    **{
        f"{adaptive}{kind}_pool{dims}d": read(kind, dims)
        for adaptive, read in (("", _pool), ("adaptive_", _adaptive_pool))
        for kind in ("max", "avg")
        for dims in (1, 2, 3)
    },
    **{f"max_pool{dims}d_with_indices": _pool("max", dims) for dims in (1, 2, 3)},
    "embedding": _embedding,
    "glu": _gated,
    **dict.fromkeys(_ACTIVATIONS, _activation),
    **dict.fromkeys(REDUCTIONS, _reduction),
}
