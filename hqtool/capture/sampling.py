"""Samples of large torch tensors: their extremes, and fibres along the channel axis.

Nothing here draws from torch's random numbers; every sample is a copy.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hqtool.capture.tensors import KeptValues, flat_view, memory_order, to_numpy
from hqtool.trace.schema import LAYOUT_HEAD, place_type
from hqtool.vocab import SampleLayout

#: How many extremes a sample keeps at either end: the most, and their largest share of the sample.
MOST_EXTREMES, _EXTREMES_SHARE = 256, 1 / 8

#: A sample has at least so many fibres, for values in one fibre are alike; long fibres are cut.
FEWEST_FIBRES = 48

#: Rows of the table that a tensor is seen as when its extremes are sought (see `_farthest`).
_TABLE_ROWS = 16


class _SamplePlan(NamedTuple):
    """What a sample takes of a tensor.

    Args:
        extremes: number of extremes at either end.
        axis: the one that fibres run along.
        length: of a fibre.
        fibres: number of fibres.
    """

    extremes: int
    axis: int
    length: int
    fibres: int


def sampled_values(
    tensor: Tensor, count: int, seed: int, key: str, channel_axis: int = -1
) -> KeptValues:
    """A sample of at most `count` values: the extremes, and fibres drawn at random.

    Extremes are the largest and smallest finite values: at either end up to MOST_EXTREMES, and no
    more than an eighth of the sample. Fibres run along the channel axis; where there is room for
    fewer than FEWEST_FIBRES of them, they are cut into the longest equal pieces that fit.

    Args:
        count: below the tensor's number of elements.
        seed, key: equal ones draw the same fibres again.
        channel_axis: counted from the last axis, -1.
    """
    shape = tensor.shape
    plan = _sample_plan(shape, count, channel_axis)
    axis, length = plan.axis, plan.length
    extremes, places = _extremes(tensor, plan.extremes)
    fibres = _fibres(tensor.numel() // length, plan.fibres, seed, _hash(f"{seed}/{key}"))
    cut = (*shape[:axis], -1, length, *shape[axis + 1 :])
    pieces = tensor.detach().reshape(cut).movedim(axis + 1, -1)
    values, dtype = _gathered(pieces, fibres)
    stride, ends = math.prod(shape[axis + 1 :]), to_numpy(extremes.cpu())[0]
    return KeptValues(values, dtype, SampleLayout(fibres, length, stride, ends, places))


def sample_bytes(tensor: Tensor, count: int, channel_axis: int = -1) -> int:
    """The most bytes that such a sample takes in a trace, with the places of what it keeps."""
    plan = _sample_plan(tensor.shape, count, channel_axis)
    numbers = 2 * plan.extremes + plan.fibres
    values = 2 * plan.extremes + plan.fibres * plan.length
    place_bytes = place_type(tensor.numel()).itemsize
    return LAYOUT_HEAD.size + values * tensor.element_size() + numbers * place_bytes


@functools.lru_cache(maxsize=1024)
def _sample_plan(shape: Sequence[int], count: int, channel_axis: int) -> _SamplePlan:
    extremes = min(MOST_EXTREMES, int(count * _EXTREMES_SHARE))
    axis, room = max(channel_axis, -len(shape)) % len(shape), count - 2 * extremes
    length = _piece(shape[axis], room // FEWEST_FIBRES)
    return _SamplePlan(extremes, axis, length, room // length)


def _piece(channels: int, limit: int) -> int:
    """The longest equal pieces of a fibre that are no longer than the limit, or 1.

    Pieces of whole blocks come first, for block formats to be replayed on them.
    """
    small = [n for n in range(1, math.isqrt(channels) + 1) if channels % n == 0]
    fitting = [n for n in (*small, *(channels // n for n in small)) if n <= max(limit, 1)]
    return max(fitting, key=lambda n: (n == channels, n % 128 == 0, n % 32 == 0, n))


def _gathered(pieces: Tensor, fibres: NDArray[np.int64]) -> tuple[NDArray[Any], str | None]:
    """A copy of some fibres along the last axis, one after the other, and their type's name."""
    index = np.unravel_index(fibres, pieces.shape[:-1])
    if not pieces.is_cpu:
        return to_numpy(_gathered_on_device(pieces, index).cpu())
    array, dtype = to_numpy(pieces)  # numpy needs half of torch's time
    return array[index].reshape(-1), dtype


def _gathered_on_device(pieces: Tensor, index: Sequence[NDArray[np.int64]]) -> Tensor:
    """The same on the tensor's own device."""
    return pieces[tuple(torch.from_numpy(i).to(pieces.device) for i in index)].reshape(-1)


def _fibres(total: int, count: int, seed: int, turn: int) -> NDArray[np.int64]:
    """`count` numbers below `total`, ascending, each as likely as any other.

    They are spread: one is drawn from each of `count` equal parts, for values that lie close
    together, such as the pixels of one image, are alike. All tensors of a size share one random
    choice, which `turn` rotates: that costs a fraction of a new choice.
    """
    chosen, turn = _spread_numbers(total, count, seed), turn % total
    cut = int(np.searchsorted(chosen, total - turn))
    return np.concatenate((chosen[cut:] + (turn - total), chosen[:cut] + turn))


@functools.lru_cache(maxsize=32)
def _spread_numbers(total: int, count: int, seed: int) -> NDArray[np.int64]:
    edges = np.arange(count + 1) * total // count
    jitter = np.random.default_rng((seed, total)).random(count)
    return edges[:-1] + (jitter * np.diff(edges)).astype(np.int64)


def _extremes(tensor: Tensor, count: int) -> tuple[Tensor, NDArray[np.int64]]:
    """The `count` largest and the `count` smallest finite values, or all there are.

    Returns:
        them, and their places in the row-major order of the tensor; each place once.
    """
    flat = flat_view(tensor)
    (high, above), (low, below) = _farthest(flat, count, True), _farthest(flat, count, False)
    values, places = torch.cat((high, low)), torch.cat((above, below))
    if not (values.isfinite().all() and (low[-1:] < high[-1:]).all()):
        values, places = _finite_extremes(flat, count)
    found = places.cpu().numpy()
    return values, found if tensor.is_contiguous() else _row_major(tensor, found)


def _finite_extremes(flat: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The extremes and their places where some values are not finite, or both ends overlap."""
    finite = flat.isfinite()
    _, above = _farthest(flat.where(finite, -math.inf), count, True)
    _, below = _farthest(flat.where(finite, math.inf), count, False)
    each = np.unique(torch.cat((above, below)).cpu().numpy())
    places = torch.from_numpy(each).to(flat.device)
    places = places[finite[places]]
    return flat[places], places


def _farthest(flat: Tensor, count: int, largest: bool) -> tuple[Tensor, Tensor]:
    """The `count` largest or smallest values of a vector, the farthest first, and their places.

    NaN counts as the largest. The vector is seen as a table: none of the values sought lies outside
    the `count` columns with the farthest extremes. So one fast pass finds those columns, and only
    they are searched.
    """
    columns = flat.numel() // _TABLE_ROWS
    if columns <= count:
        values, places = flat.topk(min(count, flat.numel()), largest=largest)
        return values, places
    table = flat[: columns * _TABLE_ROWS].view(_TABLE_ROWS, columns)
    _, best = _farthest(table.amax(0) if largest else table.amin(0), count, largest)
    starts = torch.arange(0, table.numel(), columns, device=flat.device)
    places = (starts[:, None] + best).view(-1)
    if table.numel() < flat.numel():
        rest = torch.arange(table.numel(), flat.numel(), device=flat.device)
        places = torch.cat((places, rest))
    values, chosen = flat.index_select(0, places).topk(count, largest=largest)
    return values, places.index_select(0, chosen)


def _row_major(tensor: Tensor, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places in the tensor's row-major order of places in its memory order."""
    order = memory_order(tensor)
    permuted = np.unravel_index(places, [tensor.shape[d] for d in order])
    index = [permuted[order.index(d)] for d in range(tensor.dim())]
    found: NDArray[np.int64] = np.ravel_multi_index(index, tuple(tensor.shape))
    return found


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
