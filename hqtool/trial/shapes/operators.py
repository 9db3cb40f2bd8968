"""Operators of torch as operations of a layer spec.

A further operator is one more row of `READERS`. They are named as in `torch.ops.aten`, without the
underscore of those that work in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hqtool.traffic.ops.pointwise import ACTIVATIONS
from hqtool.traffic.sources import operation
from hqtool.traffic.sources.operation import Keys, Shape
from hqtool.trial.shapes.origins import Origins


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an operator.

    Args:
        values: its arguments by name, defaults included.
        result: what it returned.
    """

    operator: str
    values: dict[str, Any]
    result: Any

    def shape(self, name: str) -> Shape:
        """The shape of an argument."""
        return tuple(self.values[name].shape)


def arguments_of(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of an operator's call by name, defaults included."""
    declared = func._schema.arguments
    values = {each.name: each.default_value for each in declared if each.has_default_value()}
    names = [each.name for each in declared]
    return values | dict(zip(names, args, strict=False)) | kwargs


@dataclass(frozen=True, slots=True)
class Part:
    """One operation of a layer spec, which a call computes.

    Args:
        label: what it is called within its module.
        keys: of a layer spec, without its name; None where it has no bill.
        reads: the tensors that it reads, in the order of operands.
        weight: the parameter that it multiplies with; None where it has none.
        follows: it also reads, before them, what the part before makes.
    """

    label: str
    keys: Keys | None
    reads: tuple[Tensor, ...]
    weight: Tensor | None = None
    follows: bool = False


_Reader = Callable[[Call, Origins], Iterator[Part]]


# --- products -----------------------------------------------------------------------------------


def _linear(call: Call, origins: Origins) -> Iterator[Part]:
    x, weight = call.values["input"], call.values["weight"]
    if origins.is_activation(weight):
        keys = operation.matmul(tuple(x.shape), tuple(weight.shape[::-1]))
        yield Part("matmul", keys, (x, weight))
    else:
        yield Part("linear", operation.linear(tuple(x.shape), weight.shape[0]), (x,), weight)


def _product(left: str, right: str) -> _Reader:
    """Matrices, of which one may be a weight: it does not come from the network's input."""

    def read(call: Call, origins: Origins) -> Iterator[Part]:
        a, b = call.values[left], call.values[right]
        if not origins.is_activation(b) and b.dim() == 2:
            yield Part("linear", operation.linear(tuple(a.shape), b.shape[1]), (a,), b)
        elif not origins.is_activation(a) and a.dim() == 2 and b.dim() > 1:
            x = (*b.shape[:-2], b.shape[-1], b.shape[-2])
            yield Part("linear", operation.linear(tuple(x), a.shape[0]), (b,), a)
        else:
            yield Part("matmul", operation.matmul(tuple(a.shape), tuple(b.shape)), (a, b))

    return read


def _convolution(transposed: bool | None = None) -> _Reader:
    def read(call: Call, origins: Origins) -> Iterator[Part]:
        values = call.values
        is_transposed = values["transposed"] if transposed is None else transposed
        keys = ["stride", "padding", "dilation", *["output_padding"] * is_transposed]
        sizes = {key: (0 if values[key] == "valid" else values[key]) for key in keys}
        geometry = operation.convolution(
            call.shape("input"),
            call.shape("weight"),
            transposed=is_transposed,
            groups=values["groups"],
            **sizes,
        )
        yield Part("conv", geometry, (values["input"],), values["weight"])

    return read


def _attention(call: Call, origins: Origins) -> Iterator[Part]:
    """Softmax(QKᵀ)V as its two products with the softmax between."""
    query, key, value = (call.values[name] for name in ("query", "key", "value"))
    q, k, v = tuple(query.shape), tuple(key.shape), tuple(value.shape)
    if call.values.get("enable_gqa"):  # several heads of queries share one of keys and values
        k, v = (*k[:-3], q[-3], *k[-2:]), (*v[:-3], q[-3], *v[-2:])
    scores = (*operation.broadcast(q[:-2], k[:-2]), q[-2], k[-2])
    transposed = (*k[:-2], k[-1], k[-2])
    yield Part("qk", operation.matmul(q, transposed), (query, key))
    yield Part("softmax", operation.activation(scores, "softmax"), (), follows=True)
    yield Part("av", operation.matmul(scores, v), (value,), follows=True)


def _recurrent(call: Call, origins: Origins) -> Iterator[Part]:
    """A recurrent layer as its products: with all steps at once, but for its state step by step.

    What its gates compute element by element has no bill.
    """
    values = call.values
    x = values["input"] if "input" in values else values["data"]
    rows = tuple(x.shape[:-1])
    if values.get("batch_first") is False and len(rows) == 2:
        rows = rows[::-1]
    weights = [each for each in values["params"] if each.dim() == 2]
    of_layer = len(weights) // values["num_layers"]
    of_direction = of_layer // (2 if values["bidirectional"] else 1)
    for number, weight in enumerate(weights):
        keys = operation.linear((*rows, weight.shape[1]), weight.shape[0])
        if number % of_direction and len(rows) == 2:
            keys |= {"input": 1, "repeat": rows[1]}
        reads_x = number < of_layer and number % of_direction == 0
        yield Part("linear", keys, (x,) if reads_x else (x, weight), weight)
    yield Part(f"gates of {call.operator}", None, ())


# --- the others ---------------------------------------------------------------------------------


def _channel_norm(kind: str) -> _Reader:
    def read(call: Call, origins: Origins) -> Iterator[Part]:
        weight = call.values.get("weight")
        keys = operation.channel_norm(call.shape("input"), kind, weight is not None)
        yield Part(call.operator, keys, (call.values["input"],), weight)

    return read


def _last_norm(kind: str) -> _Reader:
    def read(call: Call, origins: Origins) -> Iterator[Part]:
        weight = call.values.get("weight")
        normalized = math.prod(call.values["normalized_shape"])
        keys = operation.layer_norm(call.shape("input"), normalized, kind, weight is not None)
        yield Part(call.operator, keys, (call.values["input"],), weight)

    return read


def _pool(kind: str, dims: int) -> _Reader:
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


def _adaptive_pool(kind: str, dims: int) -> _Reader:
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


def tensors_in(values: Any) -> list[Tensor]:
    """All tensors among arguments or results."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, (list, tuple)):
        return [tensor for each in values for tensor in tensors_in(each)]
    return []


def first_tensor(result: Any) -> Tensor:
    """The result, or the first of several."""
    return tensors_in(result)[0]


def is_elementwise(func: Any) -> bool:
    """Whether an operator computes each element of its result by itself."""
    return torch.Tag.pointwise in func.tags


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
READERS: dict[str, _Reader] = {
    "linear": _linear,
    "matmul": _product("self", "other"),
    "mm": _product("self", "mat2"),
    "bmm": _product("self", "mat2"),
    "mv": _product("self", "vec"),
    "dot": _product("self", "tensor"),
    "addmm": _product("mat1", "mat2"),
    "addmv": _product("mat", "vec"),
    "baddbmm": _product("batch1", "batch2"),
    "addbmm": _product("batch1", "batch2"),
    "scaled_dot_product_attention": _attention,
    "convolution": _convolution(),
    **{f"conv{dims}d": _convolution(False) for dims in (1, 2, 3)},
    **{f"conv_transpose{dims}d": _convolution(True) for dims in (1, 2, 3)},
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
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
