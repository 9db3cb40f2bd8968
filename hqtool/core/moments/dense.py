"""Moments by a pass over all values for each lane: slow and obvious, the oracle of `sorted`.

It also scores a sampled rounding (each value has its own noise), takes over where the prefix sums
of `sorted` would lose digits, and is the fastest way for small tensors. Values are finite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqtool.core.formats.format import Array, Indices, Levels
from hqtool.vocab import Moments

#: Σq², Σxq, Σ(x−q)², saturated, underflowed: each with one entry for each lane.
Sums = tuple[Array, Array, Array, Array, Array]

#: Values × lanes per pass: small enough that the temporaries of one pass stay in cache.
CHUNK = 1 << 14

#: Longer dot products are computed in parts: BLAS would use several threads, which is slower here
#: and does not always give the same bits.
LONGEST_DOT = 1 << 13

#: Up to this length, rows are counted faster all at once than one by one.
SHORT_ROW = 512


def dense_moments(
    x: NDArray[Any], levels: Levels, rounding: str = "nearest", noise: Array | None = None
) -> Moments:
    """Moments of finite values under the levels of each lane.

    Args:
        x: 1-D, any float type; computed in float64.
        rounding: a name of `ROUNDINGS`.
        noise: uniform [0, 1), one a value; only where rounding is 'stochastic-sampled'.
    """
    xx, nonzero = sum(float(_dot(p, p)) for p in _pieces(x)), int(np.count_nonzero(x))
    sums = sums_of_zero_scale(xx, nonzero, len(levels))
    live = np.flatnonzero(levels.scale)
    sums[:, live] = dense_sums(x, levels.at(live), rounding, noise)
    return Moments(x.size, nonzero, xx, *sums)


def dense_moments_of_rows(
    x: NDArray[Any], levels: Levels, rounding: str, nonfinite: Array
) -> Moments:
    """Moments of many small tensors of one size, each in equally many lanes of its own.

    They are to the last bit those that `dense_moments` gives for one tensor after the other.

    Args:
        x: (tensors, values), finite, any float type; computed in float64.
        levels: those of the first tensor, those of the second, and so on.
        rounding: a name of `ROUNDINGS` that needs no noise.
        nonfinite: (tensors, 1), the share of NaN and infinities in each tensor.

    Returns:
        (tensors, lanes of one) arrays, (tensors, 1) where an entry does not depend on the lane.
    """
    together = max(1, CHUNK * len(x) // max(1, len(levels) * x.shape[1]))
    each = len(levels) // len(x)
    parts = []
    for start in range(0, len(x), together):
        end = start + together
        parts.append(
            _moments_of_rows(x[start:end], levels.at(slice(start * each, end * each)), rounding)
        )
    joined = [np.concatenate(columns) for columns in zip(*parts, strict=True)]
    count, exponent = np.full((len(x), 1), x.shape[1]), np.zeros((len(x), 1), np.intp)
    return Moments(*[count, *joined, nonfinite, exponent])


def _moments_of_rows(x: NDArray[Any], levels: Levels, rounding: str) -> tuple[Array, ...]:
    """The entries of `Moments` from `nonzero` to `underflowed`."""
    wide = x.astype(np.float64)[:, None, :]
    columns = levels.as_columns(len(x))
    nonzero, xx = _nonzero(wide), _dot(wide, wide)
    with np.errstate(all="ignore"):
        (sums,) = ROUNDINGS[rounding](wide, columns, None, WHOLE)
    zero_scale = columns.scale[..., 0] == 0
    under_zero_scale = (0.0, 0.0, xx, nonzero, nonzero)  # see `sums_of_zero_scale`
    pairs = zip(under_zero_scale, sums, strict=True)
    return nonzero, xx, *(np.where(zero_scale, dead, live) for dead, live in pairs)


def dense_moments_of_parts(
    parts: Sequence[NDArray[Any]], levels: Levels, rounding: str = "nearest"
) -> list[Moments]:
    """`dense_moments` of each part of a tensor, in one pass where they are few values."""
    sizes = [part.size for part in parts]
    if len(levels) * sum(sizes) > CHUNK:
        return [dense_moments(part, levels, rounding) for part in parts]
    x, ends = np.concatenate(parts).astype(np.float64), [*accumulate(sizes)]
    slices = [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    live = np.flatnonzero(levels.scale)
    with np.errstate(all="ignore"):
        each = ROUNDINGS[rounding](x, levels.at(live).as_columns(), None, slices)
    return [
        _moments_of_part(x[part], live, len(levels), sums)
        for part, sums in zip(slices, each, strict=True)
    ]


def _moments_of_part(x: Array, live: Indices, lanes: int, live_sums: Sums) -> Moments:
    """Moments of a part of which the sums of the lanes with a scale > 0 are known."""
    xx, nonzero = float(_dot(x, x)), int(np.count_nonzero(x))
    sums = sums_of_zero_scale(xx, nonzero, lanes)
    sums[:, live] = live_sums
    return Moments(x.size, nonzero, xx, *sums)


def sums_of_zero_scale(xx: float, nonzero: int, lanes: int) -> Array:
    """`Sums` of lanes with scale 0, a row for each: all values become 0, nonzero ones saturate."""
    column = np.array([0.0, 0.0, xx, nonzero, nonzero])
    return np.repeat(column[:, None], lanes, axis=1)


def dense_sums(
    x: NDArray[Any], levels: Levels, rounding: str = "nearest", noise: Array | None = None
) -> Array:
    """`Sums` of lanes with a scale > 0, a row for each sum; arguments as `dense_moments`."""
    if len(levels) * x.size <= CHUNK:
        with np.errstate(all="ignore"):
            wide = x.astype(np.float64)
            return np.array(ROUNDINGS[rounding](wide, levels.as_columns(), noise, WHOLE)[0])
    sums = np.zeros((5, len(levels)))
    together = max(1, CHUNK // max(x.size, 1))
    with np.errstate(all="ignore"):
        for start in range(0, len(levels), together):
            some = slice(start, start + together)
            columns = levels.at(some).as_columns()
            for part, u in zip(_pieces(x), _pieces(noise), strict=False):
                sums[:, some] += ROUNDINGS[rounding](part, columns, u, WHOLE)[0]
    return sums


def _pieces(x: NDArray[Any] | None) -> Iterator[Any]:
    """An array as float64 in pieces; without an array, None for ever."""
    if x is None:
        return iter(lambda: None, 0)
    return (x[i : i + CHUNK].astype(np.float64) for i in range(0, x.size, CHUNK))


def _to_one_level(
    x: Array, levels: Levels, noise: Array | None, parts: Sequence[slice]
) -> list[Sums]:
    """Sums where each value goes to one level: the nearest, or with noise a random neighbour."""
    y = x / levels.scale
    if noise is None:
        level, saturated = levels.nearest_for_sums(y), _saturated(x, levels)
    else:
        drawn = levels.drawn(y, noise)
        level = np.clip(drawn, levels.lowest, levels.highest)
        saturated = level != drawn
    q = level * levels.scale
    e = x - q
    kept = level != 0

    def sums(part: slice) -> Sums:
        x_, q_, e_ = x[..., part], q[..., part], e[..., part]
        # where 0 is no level every value is kept, those that are 0, too
        underflowed = np.maximum(_nonzero(x_) - _count(kept[..., part]), 0.0)
        return _dot(q_, q_), _dot(x_, q_), _dot(e_, e_), _count(saturated[..., part]), underflowed

    return [sums(part) for part in parts]


def _saturated(x: Array, levels: Levels) -> NDArray[np.bool_]:
    lowest, highest = levels.limits
    found: NDArray[np.bool_] = (x < lowest) | (x > highest)
    return found


def _expected(x: Array, levels: Levels, noise: Array | None, parts: Sequence[slice]) -> list[Sums]:
    """Expected sums: between levels l ≤ x < u, E[q] = x and E[(x−q)²] = (x−l)(u−x)."""
    scale, y = levels.scale, x / levels.scale
    below, above = levels.interval(y)
    clipped = np.clip(x, levels.lowest * scale, levels.highest * scale)
    spread = (x - below * scale) * (above * scale - x)
    variances = np.where(clipped == x, np.maximum(spread, 0.0), 0.0)
    e = x - clipped
    too_low = np.clip((levels.lowest - y) / levels.low_gap, 0.0, 1.0)
    too_high = np.clip((y - levels.highest) / levels.high_gap, 0.0, 1.0)
    lost = np.where(x != 0, levels.chance_of_zero(y), 0.0)

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

#: Name → the sums of each part of the values, lanes as columns. 'stochastic' is the exact
#: expectation, 'stochastic-sampled' one draw.
ROUNDINGS: dict[str, Callable[[Array, Levels, Array | None, Sequence[slice]], list[Sums]]] = {
    "nearest": _to_one_level,
    "stochastic": _expected,
    "stochastic-sampled": _to_one_level,
}
