"""Moments where parts of one tensor have levels of their own: blocks, channels, samples, rows.

One pass over the values, in pieces that stay in cache; all pieces' sums make one entry of
`Moments`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hqtool.core.formats.format import BEYOND, Array, Indices, Levels
from hqtool.vocab import Moments

#: Values in a piece: its temporaries stay in cache, and BLAS sums it up in one thread.
PIECE = 1 << 13


class Outcome(NamedTuple):
    """What rounding makes of each value x of a piece.

    Args:
        q: its value; of an expectation E[q].
        e: x − q.
        variance: of an expectation, of q; None where q is certain.
        saturated, underflowed: whether it is, or how likely.
    """

    q: Array
    e: Array
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
        x: of any shape and float type; computed in float64.
        levels: any number of lanes, as arrays.
        lanes: each value's lane; broadcasts to x's shape.
        rounding: a name of `OUTCOMES`.
        noise: uniform [0, 1) of x's shape, where rounding is 'stochastic-sampled'.
    """
    sums = np.zeros(SUMS)
    for part in pieces_of(x.shape, PIECE):
        wide = x[part].astype(np.float64, order="C")
        own = levels.at(lanes[_within(lanes.shape, part)])
        sums += sums_of_piece(wide, own, rounding, None if noise is None else noise[part])
    return moments_of(x.size, sums)


def moments_of(count: float, sums: Array) -> Moments:
    """Moments with one entry, from sums as `sums_of_piece` gives them."""
    nonzero, xx, *each = sums.reshape(SUMS, 1)
    return Moments(count, nonzero, xx, *each)


#: How many figures `sums_of_piece` gives.
SUMS = 7


def sums_of_piece(x: Array, levels: Levels, rounding: str, noise: Array | None) -> Array:
    """Of a piece: nonzero values, Σx², Σq², Σxq, Σ(x−q)², saturated, underflowed.

    Args:
        x: finite and contiguous.
        levels: arrays that broadcast to x's shape.
    """
    with np.errstate(all="ignore"):
        found = OUTCOMES[rounding](x, levels, noise)
        x_, q_, e_ = x.reshape(-1), found.q.reshape(-1), found.e.reshape(-1)
        extra = 0.0 if found.variance is None else found.variance.sum()
        return np.array(
            [
                np.count_nonzero(x_ != 0),
                x_ @ x_,
                q_ @ q_ + extra,
                x_ @ q_,
                e_ @ e_ + extra,
                _total(found.saturated),
                _total(found.underflowed),
            ]
        )


def pieces_of(shape: tuple[int, ...], most: int) -> Iterator[tuple[slice, ...]]:
    """Slices that share out an array in its row-major order, each of about `most` values."""
    if not shape:
        yield ()
        return
    inside = int(np.prod(shape[1:]))
    together = max(1, most // max(1, inside))
    rest = [()] if inside <= most else list(pieces_of(shape[1:], most))
    for start in range(0, shape[0], together):
        for each in rest:
            yield (slice(start, start + together), *each)


def _within(shape: tuple[int, ...], part: tuple[slice, ...]) -> tuple[slice, ...]:
    """The part of an array of that shape, where it broadcasts, too."""
    full = (slice(None),) * len(shape)
    return (
        tuple(
            own if size != 1 else every
            for size, own, every in zip(shape, part or full, full, strict=False)
        )
        + full[len(part) :]
    )


def _nearest(x: Array, levels: Levels, noise: Array | None) -> Outcome:
    y = x / _never_zero(levels.scale)
    level = levels.nearest(y)
    return _certain(x, y, level, levels, _beyond(y, levels))


def _drawn(x: Array, levels: Levels, noise: Array | None) -> Outcome:
    y = x / _never_zero(levels.scale)
    level = levels.drawn(y, noise)
    kept = np.clip(level, levels.lowest, levels.highest)
    return _certain(x, y, kept, levels, level != kept)


def _certain(
    x: Array, y: Array, level: Array, levels: Levels, beyond: NDArray[np.bool_]
) -> Outcome:
    q = level * levels.scale
    underflowed = (level == 0) & (x != 0)
    return Outcome(q, x - q, None, _or_dead(beyond, x, levels), underflowed)


def _expected(x: Array, levels: Levels, noise: Array | None) -> Outcome:
    """Between levels l ≤ x < u, E[q] = x and E[(x−q)²] = (x−l)(u−x); beyond the ends, clipped."""
    y = x / _never_zero(levels.scale)
    below, above = levels.neighbours(y)
    clipped = np.clip(y, levels.lowest, levels.highest)
    inside = (clipped == y) & (levels.scale != 0)
    spread = np.maximum((y - below) * (above - y), 0.0) * levels.scale**2
    q = np.where(inside, x, clipped * levels.scale)
    too_low = np.clip((levels.lowest - y) / levels.low_gap, 0.0, 1.0)
    too_high = np.clip((y - levels.highest) / levels.high_gap, 0.0, 1.0)
    lost = np.where(x != 0, np.where(levels.scale == 0, 1.0, levels.chance_of_zero(y)), 0.0)
    saturated = _or_dead(too_low + too_high, x, levels)
    return Outcome(q, x - q, np.where(inside, spread, 0.0), saturated, lost)


def _beyond(y: Array, levels: Levels) -> NDArray[np.bool_]:
    lowest = levels.lowest - BEYOND * levels.low_gap
    found: NDArray[np.bool_] = (y < lowest) | (y > levels.highest + BEYOND * levels.high_gap)
    return found


def _never_zero(scale: Array) -> Array:
    """The scale to divide by: infinite where it is 0, for every value to become 0."""
    return np.where(scale == 0, np.inf, scale)


def _or_dead(saturated: NDArray[Any], x: Array, levels: Levels) -> NDArray[Any]:
    """Where the scale is 0, every value but 0 saturates."""
    dead = levels.scale == 0
    return np.where(dead & (x != 0), 1, saturated) if np.any(dead) else saturated


def _total(which: NDArray[Any]) -> float:
    return float(np.count_nonzero(which) if which.dtype == bool else which.sum())


#: Name → what it makes of a piece of values. 'stochastic' is the exact expectation.
OUTCOMES: dict[str, Callable[[Array, Levels, Array | None], Outcome]] = {
    "nearest": _nearest,
    "stochastic": _expected,
    "stochastic-sampled": _drawn,
}
