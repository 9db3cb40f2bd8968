"""Operations as shapes tell them: the layer-spec keys of each kind, but for the name.

Whoever sees a network run, or reads its graph, has the shapes of tensors; specs have PyTorch's
words. A shape is a tuple of sizes, the batch first where there are two or more of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Shape = tuple[int, ...]
Keys = dict[str, Any]


def linear(x: Shape, out_channels: int) -> Keys:
    """A tensor (…, in_channels) times a weight (in_channels, out_channels)."""
    batch = x[0] if len(x) > 1 else 1
    positions = math.prod(x[1:-1])
    return {
        "op": "linear",
        "in_channels": x[-1],
        "out_channels": out_channels,
        "input": positions,
        "batch": batch,
    }


def convolution(
    x: Shape, weight: Shape, *, transposed: bool, groups: int, **sizes: Sequence[int] | int | str
) -> Keys:
    """A convolution of (batch, in_channels, …), or without the batch.

    Args:
        weight: (out_channels, in_channels / groups, …); transposed: (in_channels, out_channels /
            groups, …).
        sizes: stride, padding, dilation, and output_padding where transposed; one each per
            spatial dimension, or one for all.
    """
    dims = len(weight) - 2
    first, second = weight[:2]
    inputs, outputs = (first, second * groups) if transposed else (second * groups, first)
    return {
        "op": f"conv{'_transpose' * transposed}{dims}d",
        "in_channels": inputs,
        "out_channels": outputs,
        "input": list(x[-dims:]),
        "kernel": list(weight[2:]),
        **{key: size if isinstance(size, str) else each(size, dims) for key, size in sizes.items()},
        "groups": groups,
        "batch": x[0] if len(x) == dims + 2 else 1,
    }


def matmul(a: Shape, b: Shape) -> Keys:
    """(…, m, k) times (…, k, n), both activations; either may be a vector of k."""
    m, k = (a[-2], a[-1]) if len(a) > 1 else (1, a[-1])
    n = b[-1] if len(b) > 1 else 1
    batch, *more = broadcast(a[:-2], b[:-2]) or (1,)
    return {"op": "matmul", "m": m, "k": k, "n": n, "repeat": math.prod(more), "batch": batch}


def elementwise(op: str, x: Shape, channel_axis: int | None = None) -> Keys:
    """An operation whose result has its operand's shape.

    Args:
        channel_axis: from the front; None: 1 of four dimensions or more, else the last.
    """
    if channel_axis is None:
        channel_axis = 1 if len(x) > 3 else len(x) - 1
    rest = [size for axis, size in enumerate(x) if axis not in (0, channel_axis)]
    return {
        "op": op,
        "in_channels": x[channel_axis] if x else 1,
        "input": rest or [1],
        "batch": x[0] if len(x) > 1 else 1,
    }


def activation(x: Shape, kind: str) -> Keys:
    """A function of each element; of softmax, of each row."""
    rows = len(x) - 1 if kind in ("softmax", "log_softmax") else None
    return elementwise("activation", x, rows) | {"kind": kind}


def combined(x: Shape, operands: int, op: str = "add") -> Keys:
    """The sum, or the product element by element, of so many operands of one shape."""
    return elementwise(op, x) | {"operands": operands}


def channel_norm(x: Shape, kind: str, affine: bool) -> Keys:
    """A norm with a weight for each channel, axis 1."""
    return elementwise("norm", x, 1) | {"kind": kind, "affine": affine}


def layer_norm(x: Shape, normalized: int, kind: str, affine: bool = True) -> Keys:
    """A norm over the last dimensions, of `normalized` elements together, with a weight each."""
    batch = x[0] if len(x) > 1 and normalized * x[0] <= math.prod(x) else 1
    rest = math.prod(x) // (normalized * batch)
    return {
        "op": "norm",
        "kind": kind,
        "in_channels": normalized,
        "input": [rest],
        "batch": batch,
        "affine": affine,
    }


def pool(x: Shape, kind: str, dims: int, **windows: Any) -> Keys:
    """A pooling of (…, channels, sizes…), "max" or "avg".

    Args:
        windows: kernel, stride, padding, dilation, each a number or one per spatial dimension,
            and ceil_mode; or output_size.
    """
    sizes = {
        key: value if isinstance(value, bool) else each(value, dims)
        for key, value in windows.items()
    }
    return {
        "op": "pool",
        "kind": kind,
        "in_channels": x[-dims - 1],
        "input": list(x[-dims:]),
        **sizes,
        "batch": math.prod(x[: -dims - 1]),
    }


def reduction(x: Shape, axes: Sequence[int], kind: str) -> Keys:
    """A mean, a sum ("avg") or a maximum over some axes, from the front: a pooling of them all."""
    reduced = [x[axis] for axis in axes]
    kept = [size for axis, size in enumerate(x) if axis not in axes]
    batch = kept[0] if len(kept) > 1 else 1
    return {
        "op": "pool",
        "kind": kind,
        "in_channels": math.prod(kept) // batch,
        "input": reduced,
        "output_size": [1] * len(reduced),
        "batch": batch,
    }


def embedding(table: Shape, indices: Shape) -> Keys:
    """Rows of a table (num_embeddings, embedding_dim), one for each index."""
    batch = indices[0] if len(indices) > 1 else 1
    return {
        "op": "embedding",
        "num_embeddings": table[0],
        "embedding_dim": table[1],
        "input": [math.prod(indices) // batch],
        "batch": batch,
    }


def of_samples(keys: Keys, samples: int) -> Keys:
    """The same operation, its batch as the network's, where other dimensions came before it.

    Args:
        samples: N, the number of samples that the network reads at once.
    """
    batch = keys["batch"]
    if keys["op"] == "linear" and batch * keys["input"] % samples == 0:
        return keys | {"input": batch * keys["input"] // samples, "batch": samples}
    if batch % samples or batch == samples or keys["op"] in ("pool", *_CONVOLUTIONS):
        return keys
    more = batch // samples
    if keys["op"] == "matmul":
        return keys | {"repeat": keys["repeat"] * more, "batch": samples}
    sizes = [size for size in (more, *keys["input"]) if size > 1] or [1]
    return keys | {"input": sizes, "batch": samples}


_CONVOLUTIONS = tuple(f"conv{kind}{dims}d" for kind in ("", "_transpose") for dims in (1, 2, 3))


def broadcast(a: Shape, b: Shape) -> Shape:
    """The shape that both are broadcast to."""
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    padded = (1,) * (len(longer) - len(shorter)) + shorter
    return tuple(map(max, longer, padded))


def each(size: Sequence[int] | int, dims: int) -> list[int]:
    """One size for each dimension."""
    sizes = list(size) if isinstance(size, Sequence) else [size]
    return sizes * dims if len(sizes) == 1 else sizes
