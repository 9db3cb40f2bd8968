"""Moments where parts of one tensor have levels of their own: blocks, channels, samples, rows.

One pass over the values, in pieces that stay in cache; all pieces' sums make one entry of
`Moments`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hqtool.core.formats.format import BEYOND, Array, Gaps, Indices, Levels
from hqtool.core.moments.dense import LONGEST_DOT
from hqtool.kernels import LaneGaps, form_in_use, lane_sums
from hqtool.vocab import Moments

#: Values in a piece: its temporaries stay in cache, and calls cost little beside arithmetic.
PIECE = 30 << 10


#: Rows that are no longer than this are summed up faster as one.
SHORT_ROW = 64


class Outcome(NamedTuple):
    """What rounding makes of each value x of a piece.

    Args:
        q: its value; of an expectation E[q].
        variance: of an expectation, of q; None where q is certain.
        saturated: whether a value does, or how likely.
        underflowed: whether a value becomes 0, or how likely; counts where x is not 0.
    """

    q: Array
    variance: Array | None
    saturated: NDArray[Any]
    underflowed: NDArray[Any]


def grouped_moments(
    x: NDArray[Any],
    levels: Levels,
    lanes: Indices,
    rounding: str = "nearest",
    noise: Array | None = None,
) -> Moments:
    """Moments of finite values, each under the levels of its own lane; one entry.

    Args:
        x: of up to three axes and any float type; computed in float64.
        levels: any number of lanes, as arrays.
        lanes: each value's lane; broadcasts to x's shape.
        rounding: a name of `OUTCOMES`.
        noise: uniform [0, 1) of x's shape, where rounding is 'stochastic-sampled'.
    """
    sums = np.zeros(7)
    for part in pieces_of(x.shape, PIECE):
        piece = np.ascontiguousarray(x[part])
        own = levels.at(lanes[_within(lanes.shape, part)])
        sums += sums_of_piece(piece, own, rounding, None if noise is None else noise[part])
    return moments_of(x.size, sums)


def moments_of(count: float, sums: Array) -> Moments:
    """Moments with one entry, from what `sums_of_piece` gave."""
    return Moments(count, *sums[:2].tolist(), *sums[2:].reshape(5, 1))


def sums_of_piece(
    x: NDArray[Any],
    levels: Levels,
    rounding: str,
    noise: Array | None = None,
) -> Array:
    """Of a piece: how many values are not 0, Σx², Σq², Σxq, Σ(x−q)², saturated, underflowed.

    Args:
        x: finite, contiguous, of up to three axes.
        levels: arrays that broadcast to x's shape.
    """
    gaps = levels.gaps
    if gaps is not None and noise is None and _compiled() and x.dtype.char in "efd":
        return _sums_in_one_pass(x, levels, gaps, rounding)
    x = x.astype(np.float64)
    with np.errstate(all="ignore"):
        found = OUTCOMES[rounding](x, levels, noise)
        q, e = found.q, x - found.q
        extra = 0.0 if found.variance is None else float(found.variance.sum())
        saturated, underflowed = _total(found.saturated), _total(found.underflowed)
        return np.array(
            [
                np.count_nonzero(x),
                _dot(x, x),
                _dot(q, q) + extra,
                _dot(x, q),
                _dot(e, e) + extra,
                saturated,
                underflowed,
            ]
        )


def _compiled() -> bool:
    return form_in_use().name == "compiled"


def _sums_in_one_pass(x: NDArray[Any], levels: Levels, gaps: Gaps, rounding: str) -> Array:
    """The same by the compiled kernel."""
    ends = (gaps.at_zero, levels.low_gap, levels.high_gap, BEYOND)
    of_lanes = LaneGaps(gaps.relative, gaps.least_power, gaps.greatest_power, *ends)
    columns = (levels.scale, levels.lowest, levels.highest)
    return np.array(lane_sums(x, *columns, of_lanes, expected=rounding == "stochastic"))


def pieces_of(shape: tuple[int, ...], most: int) -> Iterator[tuple[slice, ...]]:
    """Slices that share out an array in its row-major order, each of about `most` values."""
    if not shape:
        yield ()
        return
    inside = int(np.prod(shape[1:]))
    parts = max(1, -(-shape[0] * inside // most))
    together = max(1, -(-shape[0] // parts))
    rest = [()] if inside <= most else list(pieces_of(shape[1:], most))
    for start in range(0, shape[0], together):
        for each in rest:
            yield (slice(start, start + together), *each)


def _within(shape: tuple[int, ...], part: tuple[slice, ...]) -> tuple[slice, ...]:
    """A part of an array, of one of this shape that broadcasts to it."""
    return tuple(slice(None) if size == 1 else own for size, own in zip(shape, part, strict=False))


def _nearest(x: Array, levels: Levels, noise: Array | None) -> Outcome:
    y = x / _never_zero(levels.scale)
    q = levels.nearest(y) * levels.scale
    return Outcome(q, None, _saturated(x, y, levels), (q == 0) & (x != 0))


def _saturated(x: Array, y: Array, levels: Levels) -> NDArray[Any]:
    """Which values lie beyond the ends of their levels."""
    low = levels.lowest - BEYOND * levels.low_gap
    high = levels.highest + BEYOND * levels.high_gap
    return _or_dead((y < low) | (y > high), x, levels.scale)


def _drawn(x: Array, levels: Levels, noise: Array | None) -> Outcome:
    level = levels.drawn(x / _never_zero(levels.scale), noise)
    kept = np.clip(level, levels.lowest, levels.highest)
    q = kept * levels.scale
    return Outcome(q, None, _or_dead(level != kept, x, levels.scale), (q == 0) & (x != 0))


def _expected(x: Array, levels: Levels, noise: Array | None) -> Outcome:
    """Between levels l ≤ x < u, E[q] = x and E[(x−q)²] = (x−l)(u−x); beyond the ends, clipped."""
    y = x / _never_zero(levels.scale)
    q, variance = x.copy(), levels.variance(y)
    variance *= levels.scale**2
    lost = levels.chance_of_zero(y)
    lost *= x != 0
    beyond = (y < levels.lowest) | (y > levels.highest)
    at = np.unravel_index(np.flatnonzero(beyond), x.shape)
    own = levels.changed(lambda each: _taken(each, at, x.shape))
    q[at], variance[at] = np.clip(y[at], own.lowest, own.highest) * own.scale, 0.0
    saturated = np.maximum(own.lowest - y[at], 0.0) / own.low_gap
    saturated += np.maximum(y[at] - own.highest, 0.0) / own.high_gap
    found = Outcome(q, variance, np.minimum(saturated, 1.0), lost)
    return found if np.all(levels.scale) else _with_dead(found, x, levels)


def _taken(each: Any, at: tuple[Indices, ...], shape: tuple[int, ...]) -> Any:
    """Entries of what broadcasts to a shape; a plain number stays one."""
    return np.broadcast_to(each, shape)[at] if isinstance(each, np.ndarray) else each


def _with_dead(found: Outcome, x: Array, levels: Levels) -> Outcome:
    """Where the scale is 0, every value becomes 0, and all but 0 saturate."""
    dead = np.broadcast_to(levels.scale == 0, x.shape)
    q, lost = np.where(dead, 0.0, found.q), np.where(dead, x != 0, found.underflowed)
    saturated = np.append(found.saturated, np.count_nonzero(dead & (x != 0)))
    return Outcome(q, found.variance, saturated, lost)


def _never_zero(scale: Array) -> Array:
    """The scale to divide by: infinite where it is 0, for every value to become 0."""
    return scale if np.all(scale) else np.where(scale == 0, np.inf, scale)


def _or_dead(saturated: NDArray[Any], x: Array, scale: Array) -> NDArray[Any]:
    """Where the scale is 0, every value but 0 saturates."""
    return saturated if np.all(scale) else np.where((scale == 0) & (x != 0), 1, saturated)


def _dot(a: Array, b: Array) -> float:
    """Σab over all values, in parts that BLAS computes in one thread."""
    if SHORT_ROW < a.shape[-1] <= LONGEST_DOT:
        return float(np.vecdot(a, b).sum())
    a, b = a.reshape(-1), b.reshape(-1)
    ends = range(0, a.size, LONGEST_DOT)
    return float(sum(np.vecdot(a[i : i + LONGEST_DOT], b[i : i + LONGEST_DOT]) for i in ends))


def _total(which: NDArray[Any]) -> float:
    return float(np.count_nonzero(which) if which.dtype == bool else which.sum())


#: Name → what it makes of a piece of values. 'stochastic' is the exact expectation.
OUTCOMES: dict[str, Callable[[Array, Levels, Array | None], Outcome]] = {
    "nearest": _nearest,
    "stochastic": _expected,
    "stochastic-sampled": _drawn,
}
