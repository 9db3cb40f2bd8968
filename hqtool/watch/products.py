"""The functions of torch that multiply two tensors and sum up, and the geometry of a call.

A further function is one more row of `_BY_NAME`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Size, Tensor
from torch.nn import functional as F

from hqtool.traffic.layers import Layer


class Product(NamedTuple):
    """One call of a function that multiplies.

    Args:
        left, right: its operands.
        is_symmetric: either operand may be the weight; else the right one is.
        geometry: layer name, shapes of input and weight → layer-spec keys.
        channel_axes: of its tensors, counted from the last axis, -1, where the right operand is
            the weight, and where the left one is.
        depth: how many products are summed up for each element of the result, or, `by_input`, how
            many each element of the left operand is part of; 0 where it is unknown.
    """

    left: Tensor
    right: Tensor
    is_symmetric: bool
    geometry: Callable[[str, Size, Size], dict[str, Any]]
    channel_axes: tuple[int, int] = (-1, -1)
    depth: int = 0
    by_input: bool = False

    def multiplications(self, result: Any) -> int:
        """How many multiplications it takes to compute the result."""
        counted = self.left if self.by_input else result
        return self.depth * counted.numel() if isinstance(counted, Tensor) else 0

    def roles(self) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Each possible (input, weight, channel axis)."""
        yield self.left, self.right, self.channel_axes[0]
        if self.is_symmetric:
            yield self.right, self.left, self.channel_axes[1]

    def has_weight(self) -> bool:
        """Whether the right operand is a weight by its position or shape."""
        return not self.is_symmetric or self.right.dim() == 2


#: Arguments by name → the product, or None where these arguments make none.
_ArgumentReader = Callable[[dict[str, Any]], Product | None]


class _Function(NamedTuple):
    """How a function's arguments are read; `names` are those of its positional arguments."""

    names: tuple[str, ...]
    read: _ArgumentReader


#: Characters above this one stand for the dimensions of an ellipsis, the next one for the last.
_DOTS = "\u2800"


def product_of(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Product | None:
    """The product that a call computes; None where it does not multiply two tensors."""
    names, read = PRODUCTS[function]
    if not names:
        return read({"args": args})
    product = read(dict(zip(names, args, strict=False)) | dict(kwargs))
    if product is None or not isinstance(product.left, Tensor):
        return None
    return product if isinstance(product.right, Tensor) else None


# --- matrices -----------------------------------------------------------------------------------


def _matrices(left: str, right: str, values: dict[str, Any]) -> Product:
    """(…, M, K) times (…, K, N); either may be a vector of K."""
    a, b = values[left], values[right]
    pairs = zip(reversed(a.shape[:-2]), reversed(b.shape[:-2]), strict=False)
    shared = math.prod(m for m, n in pairs if m == n)
    geometry = functools.partial(_linear, a.shape[-1], shared)
    return Product(a, b, True, geometry, (-1, -2 if b.dim() > 1 else -1), a.shape[-1])


def _rows(is_symmetric: bool, left: str, right: str, values: dict[str, Any]) -> Product:
    """(…, K) times (…, K): each row of one times each row of the other."""
    a, b = values[left], values[right]
    geometry = functools.partial(_linear, a.shape[-1], 1)
    return Product(a, b, is_symmetric, geometry, depth=a.shape[-1])


def _bilinear(values: dict[str, Any]) -> Product:
    """`nn.Bilinear`'s product, which the bill does not know."""
    weight = values["weight"]
    depth = weight.shape[1] * (weight.shape[2] + 1)
    return Product(values["input1"], weight, False, _unbilled("Bilinear"), depth=depth)


def _tensordot(values: dict[str, Any]) -> Product:
    a, b, dims = values["a"], values["b"], values.get("dims", 2)
    if isinstance(dims, (int, Tensor)):
        contracted = math.prod(a.shape[a.dim() - int(dims) :])
    else:
        contracted = math.prod(a.shape[axis] for axis in dims[0])
    return Product(a, b, True, functools.partial(_linear, contracted, 1), depth=contracted)


def _einsum(values: dict[str, Any]) -> Product | None:
    """An einsum of two operands; None with more, which have no geometry."""
    equation, *operands = values["args"]
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = list(operands[0])
    if not isinstance(equation, str) or len(operands) != 2:
        return None
    a, b = operands
    sides = equation.replace(" ", "").split("->")
    of_a, of_b = (
        _spelled(text, each.dim()) for text, each in zip(sides[0].split(","), (a, b), strict=True)
    )
    both = set(of_a) & set(of_b)
    kept = set(sides[1]) if len(sides) > 1 else set(of_a) ^ set(of_b) | {"."}
    kept |= {each for each in both if "." in kept and each > _DOTS}
    if len({*of_a}) < len(of_a) or len({*of_b}) < len(of_b):
        return Product(a, b, True, _unbilled("einsum"))
    sizes, others = dict(zip(of_a, a.shape, strict=True)), dict(zip(of_b, b.shape, strict=True))
    contracted = math.prod(sizes[each] for each in both - kept)
    shared = math.prod(min(sizes[each], others[each]) for each in both & kept)
    geometry = functools.partial(_linear, contracted, shared)
    return Product(a, b, True, geometry, depth=contracted)


def _spelled(text: str, dims: int) -> str:
    """A letter for each of an operand's dimensions, with further characters for an ellipsis."""
    before, dots, after = text.partition("...")
    more = dims - len(before) - len(after)
    further = "".join(chr(ord(_DOTS) + more - i) for i in range(more)) if dots else ""
    return before + further + after


def _linear(contracted: int, shared: int, name: str, x: Size, weight: Size) -> dict[str, Any]:
    """A linear layer for each index that both operands and the product have.

    Args:
        contracted: how many products are summed up for one element of the result.
        shared: how many such indices there are.
    """
    rows, columns = (math.prod(shape) // (contracted * shared) for shape in (x, weight))
    batch = x[0] if shared == 1 and len(x) > 1 and rows % x[0] == 0 else 1
    layer = Layer(name, "linear", contracted, columns, (rows // batch,), repeat=shared, batch=batch)
    return layer.to_json()


def _unbilled(op: str) -> Callable[[str, Size, Size], dict[str, Any]]:
    return lambda name, x, weight: {"name": name, "op": op}


# --- convolutions -------------------------------------------------------------------------------


def _convolution(op: str, values: dict[str, Any]) -> Product:
    geometry = functools.partial(_conv, op, {**values, "input": None, "weight": None, "bias": None})
    axis = -1 - _dims(op)
    x, weight = values["input"], values["weight"]
    depth = weight.numel() // max(1, weight.shape[0])
    return Product(x, weight, False, geometry, (axis, axis), depth, "transpose" in op)


def _conv(op: str, values: dict[str, Any], name: str, x: Size, weight: Size) -> dict[str, Any]:
    dims, groups = _dims(op), values.get("groups", 1)
    first, second = weight[:2]
    inputs, outputs = (first, second * groups) if "transpose" in op else (second * groups, first)
    padding = values.get("padding", 0)
    layer = Layer(
        name,
        op,
        inputs,
        outputs,
        tuple(x[-dims:]),
        tuple(weight[2:]),
        _each(values.get("stride", 1), dims),
        "same" if padding == "same" else _each(0 if padding == "valid" else padding, dims),
        _each(values.get("dilation", 1), dims),
        _each(values.get("output_padding", 0), dims),
        groups,
        batch=x[0] if len(x) == dims + 2 else 1,
    )
    return layer.to_json()


def _dims(op: str) -> int:
    return int(op[-2])


def _each(size: Any, dims: int) -> tuple[int, ...]:
    """One size for each dimension."""
    sizes = tuple(size) if isinstance(size, (tuple, list)) else (size,)
    return sizes * dims if len(sizes) == 1 else sizes


# --- the table ----------------------------------------------------------------------------------


def _function(read: Callable[..., Any], *names: str, at: int = 0) -> _Function:
    """A function whose operands are two successive arguments, the first of them at `at`."""
    return _Function(names, functools.partial(read, names[at], names[at + 1]))


_linears = functools.partial(_rows, False)
_inners = functools.partial(_rows, True)
_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups")

#: By the name that torch, its tensors, `torch.linalg` or `torch.nn.functional` give it.
_BY_NAME: dict[str, _Function] = {
    "matmul": _function(_matrices, "input", "other"),
    "__matmul__": _function(_matrices, "input", "other"),
    "__rmatmul__": _Function(("self", "other"), functools.partial(_matrices, "other", "self")),
    "mm": _function(_matrices, "input", "mat2"),
    "bmm": _function(_matrices, "input", "mat2"),
    "mv": _function(_matrices, "input", "vec"),
    "addmm": _function(_matrices, "input", "mat1", "mat2", at=1),
    "addmv": _function(_matrices, "input", "mat", "vec", at=1),
    "baddbmm": _function(_matrices, "input", "batch1", "batch2", at=1),
    "addbmm": _function(_matrices, "input", "batch1", "batch2", at=1),
    "inner": _function(_inners, "input", "other"),
    "linear": _function(_linears, "input", "weight", "bias"),
    "bilinear": _Function(("input1", "input2", "weight", "bias"), _bilinear),
    "tensordot": _Function(("a", "b", "dims"), _tensordot),
    "einsum": _Function((), _einsum),
    **{
        f"conv{dims}d": _Function(_CONV, functools.partial(_convolution, f"conv{dims}d"))
        for dims in (1, 2, 3)
    },
    **{
        f"conv_transpose{dims}d": _Function(
            (*_TRANSPOSED, "dilation"), functools.partial(_convolution, f"conv_transpose{dims}d")
        )
        for dims in (1, 2, 3)
    },
}

#: Every function that multiplies, and how its arguments are read.
PRODUCTS: dict[Callable[..., Any], _Function] = {
    getattr(owner, name): function
    for owner in (torch, Tensor, torch.linalg, torch.sparse, F)
    for name, function in _BY_NAME.items()
    if hasattr(owner, name)
}
