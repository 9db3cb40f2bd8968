"""Operators of ONNX that multiply, as operations of a layer spec."""

from __future__ import annotations

import math
from collections.abc import Iterator

from hqtool.traffic.sources import operation
from hqtool.traffic.sources.onnx.calls import OnnxCall, OnnxPart
from hqtool.traffic.sources.operation import Shape


def conv(call: OnnxCall) -> Iterator[OnnxPart]:
    x, weight, found = call.shape(0), call.shape(1), call.attributes
    dims, transposed = len(weight) - 2, call.op == "ConvTranspose"
    x, pads = padding(x, weight[2:], call, transposed)
    sizes = {
        "stride": found.get("strides", [1] * dims),
        "padding": pads,
        "dilation": found.get("dilations", [1] * dims),
    }
    if transposed:
        sizes["output_padding"] = found.get("output_padding", [0] * dims)
    keys = operation.convolution(
        x, weight, transposed=transposed, groups=found.get("group", 1), **sizes
    )
    yield OnnxPart("conv", keys, weight=1)


def padding(
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


def matmul(call: OnnxCall) -> Iterator[OnnxPart]:
    a, b = call.shape(0), call.shape(1)
    if not call.active[1] and len(b) == 2:
        yield OnnxPart("linear", operation.linear(a, b[1]), weight=1)
    elif not call.active[0] and len(a) == 2 and len(b) > 1:
        x = (*b[:-2], b[-1], b[-2])
        yield OnnxPart("linear", operation.linear(x, a[0]), (1,), weight=0)
    else:
        yield OnnxPart("matmul", operation.matmul(a, b), (0, 1))


def gemm(call: OnnxCall) -> Iterator[OnnxPart]:
    a, b = call.shape(0), call.shape(1)
    a = a[::-1] if call.attributes.get("transA") else a
    b = b[::-1] if call.attributes.get("transB") else b
    if call.active[1]:
        yield OnnxPart("matmul", operation.matmul(a, b), (0, 1))
    else:
        yield OnnxPart("linear", operation.linear(a, b[1]), weight=1)


def einsum(call: OnnxCall) -> Iterator[OnnxPart]:
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


def attention(call: OnnxCall) -> Iterator[OnnxPart]:
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


def recurrent(call: OnnxCall) -> Iterator[OnnxPart]:
    """A recurrent layer as its products: with all steps at once, but for its state step by step."""
    steps, batch = call.shape(0)[:2]
    for index in (1, 2):
        directions, rows, columns = call.shape(index)
        for _ in range(directions):
            keys = operation.linear((batch, steps, columns), rows)
            keys |= {"input": 1, "repeat": steps} if index == 2 else {}
            yield OnnxPart("WR"[index - 1], keys, weight=index)
