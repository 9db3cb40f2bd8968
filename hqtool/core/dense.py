"""Moments by a pass over all values for each grid: slow and obvious, the oracle of `sorted`.

It also scores a sampled rounding (each value has its own noise), takes over where the prefix sums
of `sorted` would lose digits, and is the fastest way for small tensors. Values are finite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqtool.core.grid import Grids
from hqtool.core.quantize import level_before_clipping
from hqtool.vocab import Moments

Array = NDArray[np.float64]

#: Σq², Σxq, Σ(x−q)², saturated, underflowed: each with one entry for each grid.
Sums = tuple[Array, Array, Array, Array, Array]

#: Values × grids per pass: small enough that the temporaries of one pass stay in cache.
CHUNK = 1 << 14

#: Longer dot products are computed in parts: BLAS would use several threads, which is slower here
#: and does not always give the same bits.
LONGEST_DOT = 1 << 13

#: Up to this length, rows are counted faster all at once than one by one.
SHORT_ROW = 512


def dense_moments(
    x: NDArray[Any], grids: Grids, rounding: str = "nearest", noise: Array | None = None
) -> Moments:
    """Moments of finite values on each grid.

    Args:
        x: 1-D, any float type; computed in float64.
        rounding: a name of `ROUNDINGS`.
        noise: uniform [0, 1), one a value; only where rounding is 'stochastic-sampled'.
    """
    xx, nonzero = sum(float(_dot(p, p)) for p in _pieces(x)), int(np.count_nonzero(x))
    sums = sums_of_zero_step(xx, nonzero, len(grids))
    live = np.flatnonzero(grids.step)
    sums[:, live] = dense_sums(x, grids.at(live), rounding, noise)
    return Moments(x.size, nonzero, xx, *sums)


def dense_moments_of_rows(
    x: NDArray[Any], grids: Grids, rounding: str, nonfinite: Array
) -> Moments:
    """Moments of many small tensors of one size, each on equally many grids of its own.

    They are to the last bit those that `dense_moments` gives for one tensor after the other.

    Args:
        x: (tensors, values), finite, any float type; computed in float64.
        grids: those of the first tensor, those of the second, and so on.
        rounding: a name of `ROUNDINGS` that needs no noise.
        nonfinite: (tensors, 1), the share of NaN and infinities in each tensor.

    Returns:
        (tensors, grids of one) arrays, (tensors, 1) where an entry does not depend on the grid.
    """
    together = max(1, CHUNK * len(x) // max(1, len(grids) * x.shape[1]))
    each = len(grids) // len(x)
    parts = []
    for start in range(0, len(x), together):
        end = start + together
        parts.append(
            _moments_of_rows(x[start:end], grids.at(slice(start * each, end * each)), rounding)
        )
    joined = [np.concatenate(columns) for columns in zip(*parts, strict=True)]
    count, exponent = np.full((len(x), 1), x.shape[1]), np.zeros((len(x), 1), np.intp)
    return Moments(*[count, *joined, nonfinite, exponent])


def _moments_of_rows(x: NDArray[Any], grids: Grids, rounding: str) -> tuple[Array, ...]:
    """The entries of `Moments` from `nonzero` to `underflowed`."""
    wide = x.astype(np.float64)[:, None, :]
    columns = grids.as_columns(len(x))
    nonzero, xx = _nonzero(wide), _dot(wide, wide)
    with np.errstate(all="ignore"):
        (sums,) = ROUNDINGS[rounding](wide, columns, None, WHOLE)
    zero_step = columns.step[..., 0] == 0
    under_zero_step = (0.0, 0.0, xx, nonzero, nonzero)  # see `sums_of_zero_step`
    pairs = zip(under_zero_step, sums, strict=True)
    return nonzero, xx, *(np.where(zero_step, dead, live) for dead, live in pairs)


def dense_moments_of_parts(
    parts: Sequence[NDArray[Any]], grids: Grids, rounding: str = "nearest"
) -> list[Moments]:
    """`dense_moments` of each part of a tensor, in one pass where they are few values."""
    sizes = [part.size for part in parts]
    if len(grids) * sum(sizes) > CHUNK:
        return [dense_moments(part, grids, rounding) for part in parts]
    x, ends = np.concatenate(parts).astype(np.float64), [*accumulate(sizes)]
    slices = [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    live = np.flatnonzero(grids.step)
    with np.errstate(all="ignore"):
        each = ROUNDINGS[rounding](x, grids.at(live).as_columns(), None, slices)
    return [
        _moments_of_part(x[part], live, len(grids), sums)
        for part, sums in zip(slices, each, strict=True)
    ]


def _moments_of_part(x: Array, live: NDArray[np.intp], grids: int, live_sums: Sums) -> Moments:
    """Moments of a part of which the sums of the grids with Δ > 0 are known."""
    xx, nonzero = float(_dot(x, x)), int(np.count_nonzero(x))
    sums = sums_of_zero_step(xx, nonzero, grids)
    sums[:, live] = live_sums
    return Moments(x.size, nonzero, xx, *sums)


def sums_of_zero_step(xx: float, nonzero: int, grids: int) -> Array:
    """`Sums` of grids with Δ = 0, a row for each: all values become 0, nonzero ones saturate."""
    column = np.array([0.0, 0.0, xx, nonzero, nonzero])
    return np.repeat(column[:, None], grids, axis=1)


def dense_sums(
    x: NDArray[Any], grids: Grids, rounding: str = "nearest", noise: Array | None = None
) -> Array:
    """`Sums` of grids with Δ > 0, a row for each sum; arguments as `dense_moments`."""
    if len(grids) * x.size <= CHUNK:
        with np.errstate(all="ignore"):
            wide = x.astype(np.float64)
            return np.array(ROUNDINGS[rounding](wide, grids.as_columns(), noise, WHOLE)[0])
    sums = np.zeros((5, len(grids)))
    together = max(1, CHUNK // max(x.size, 1))
    with np.errstate(all="ignore"):
        for start in range(0, len(grids), together):
            some = slice(start, start + together)
            columns = grids.at(some).as_columns()
            for part, u in zip(_pieces(x), _pieces(noise), strict=False):
                sums[:, some] += ROUNDINGS[rounding](part, columns, u, WHOLE)[0]
    return sums


def _pieces(x: NDArray[Any] | None) -> Iterator[Any]:
    """An array as float64 in pieces; without an array, None for ever."""
    if x is None:
        return iter(lambda: None, 0)
    return (x[i : i + CHUNK].astype(np.float64) for i in range(0, x.size, CHUNK))


def _nearest(x: Array, grids: Grids, noise: Array | None, parts: Sequence[slice]) -> list[Sums]:
    """Sums where each value goes to one level: the nearest, or with noise a random neighbour."""
    level = level_before_clipping(x, grids, noise)
    clipped = np.clip(level, grids.first, grids.last)
    q = clipped * grids.step
    e = x - q
    saturated = _saturated(x, grids) if noise is None else level != clipped
    kept = clipped != 0

    def sums(part: slice) -> Sums:
        x_, q_, e_ = x[..., part], q[..., part], e[..., part]
        underflowed = _nonzero(x_) - _count(kept[..., part])
        return _dot(q_, q_), _dot(x_, q_), _dot(e_, e_), _count(saturated[..., part]), underflowed

    return [sums(part) for part in parts]


def _saturated(x: Array, grids: Grids) -> NDArray[np.bool_]:
    lowest, highest = grids.limits
    found: NDArray[np.bool_] = (x < lowest) | (x > highest)
    return found


def _expected(x: Array, grids: Grids, noise: Array | None, parts: Sequence[slice]) -> list[Sums]:
    """Expected sums: between levels l ≤ x < u, E[q] = x and E[(x−q)²] = (x−l)(u−x)."""
    scaled = x / grids.step
    below = np.floor(scaled)
    clipped = np.clip(x, grids.first * grids.step, grids.last * grids.step)
    spread = (x - below * grids.step) * ((below + 1) * grids.step - x)
    variances = np.where(clipped == x, np.maximum(spread, 0.0), 0.0)
    e = x - clipped
    too_low = np.clip(grids.first - scaled, 0.0, 1.0)
    too_high = np.clip(scaled - grids.last, 0.0, 1.0)
    lost = np.where(x != 0, _chance_of_zero(scaled, grids), 0.0)

    def sums(part: slice) -> Sums:
        q_, e_, variance = clipped[..., part], e[..., part], variances[..., part].sum(axis=-1)
        saturated = too_low[..., part].sum(axis=-1) + too_high[..., part].sum(axis=-1)
        xq = _dot(x[..., part], q_)
        return (
            _dot(q_, q_) + variance,
            xq,
            _dot(e_, e_) + variance,
            saturated,
            lost[..., part].sum(axis=-1),
        )

    return [sums(part) for part in parts]


def _chance_of_zero(scaled: Array, grids: Grids) -> Array:
    """P(q = 0) under stochastic rounding; values beyond a grid that ends at 0 are clipped to 0."""
    chance = np.maximum(1.0 - np.abs(scaled), 0.0)
    beyond = (scaled < 0) & (grids.first == 0) | (scaled > 0) & (grids.last == 0)
    return np.where(beyond, 1.0, chance)


def _dot(a: Array, b: Array) -> Array:
    """Σab over the last axis."""
    found: Array = np.vecdot(a[..., :LONGEST_DOT], b[..., :LONGEST_DOT])
    return (
        found + _dot(a[..., LONGEST_DOT:], b[..., LONGEST_DOT:])
        if a.shape[-1] > LONGEST_DOT
        else found
    )


def _nonzero(x: Array) -> Any:
    """How many values are not zero, over the last axis."""
    return np.count_nonzero(x) if x.ndim == 1 else np.count_nonzero(x, axis=-1)


def _count(which: NDArray[np.bool_]) -> Array:
    if which.ndim > 2 or which.shape[-1] <= SHORT_ROW:
        counts: Array = np.add.reduce(which, axis=-1, dtype=np.float64)
        return counts
    return np.array([np.count_nonzero(row) for row in which], np.float64)


#: All values as one part.
WHOLE = (slice(None),)

#: Name → the sums of each part of the values, grids as columns. 'stochastic' is the exact
#: expectation, 'stochastic-sampled' one draw.
ROUNDINGS: dict[str, Callable[[Array, Grids, Array | None, Sequence[slice]], list[Sums]]] = {
    "nearest": _nearest,
    "stochastic": _expected,
    "stochastic-sampled": _nearest,
}
