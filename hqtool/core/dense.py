"""Moments by passing over every value: slow and obvious, the oracle of the sorted path.

It is also what scores a sampled rounding (each value has its own noise), what takes over where
prefix sums would lose digits, and what is fastest for small tensors. Values are finite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqtool.core.grid import Grids
from hqtool.core.quantize import level_before_clipping
from hqtool.vocab import Moments

Array = NDArray[np.float64]

#: Σq², Σxq, Σ(x−q)², saturated, underflowed: each with one entry a grid.
Sums = tuple[Array, Array, Array, Array, Array]

#: Values × grids per pass: small enough that the temporaries of one pass stay in cache.
CHUNK = 1 << 14

#: BLAS sums longer rows in several threads: slower here, and not always to the same bits.
ROW = 1 << 13

#: Rows no longer than this are sooner counted together than one by one.
SHORT = 512


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
    sums = nothing_left(xx, nonzero, len(grids))
    live = np.flatnonzero(grids.step)
    sums[:, live] = dense_sums(x, grids.at(live), rounding, noise)
    return Moments(x.size, nonzero, xx, *sums)


def nothing_left(xx: float, nonzero: int, grids: int) -> Array:
    """The sums under Δ = 0, a row each: all becomes 0, every nonzero value saturates."""
    column = np.array([0.0, 0.0, xx, nonzero, nonzero])
    return np.repeat(column[:, None], grids, axis=1)


def dense_sums(
    x: NDArray[Any], grids: Grids, rounding: str = "nearest", noise: Array | None = None
) -> Array:
    """`Sums`, a row each, of grids with Δ > 0; arguments as `dense_moments`."""
    if len(grids) * x.size <= CHUNK:
        with np.errstate(all="ignore"):
            wide = x.astype(np.float64)
            return np.array(ROUNDINGS[rounding](wide, grids.as_columns(), noise))
    sums = np.zeros((5, len(grids)))
    together = max(1, CHUNK // max(x.size, 1))
    with np.errstate(all="ignore"):
        for start in range(0, len(grids), together):
            some = slice(start, start + together)
            columns = grids.at(some).as_columns()
            for part, u in zip(_pieces(x), _pieces(noise), strict=False):
                sums[:, some] += ROUNDINGS[rounding](part, columns, u)
    return sums


def _pieces(x: NDArray[Any] | None) -> Iterator[Any]:
    """float64 pieces of an array; endless None for none."""
    if x is None:
        return iter(lambda: None, 0)
    return (x[i : i + CHUNK].astype(np.float64) for i in range(0, x.size, CHUNK))


def _nearest(x: Array, grids: Grids, noise: Array | None = None) -> Sums:
    """Each value on one level: the nearest (no noise), or the one that its noise picks."""
    level = level_before_clipping(x, grids, noise)
    clipped = np.clip(level, grids.first, grids.last)
    q = clipped * grids.step
    e = x - q
    return (
        _dot(q, q),
        _dot(x, q),
        _dot(e, e),
        _count(_saturated(x, grids) if noise is None else level != clipped),
        np.count_nonzero(x) - _count(clipped != 0),
    )


def _saturated(x: Array, grids: Grids) -> NDArray[np.bool_]:
    lowest, highest = grids.limits
    found: NDArray[np.bool_] = (x < lowest) | (x > highest)
    return found


def _expected(x: Array, grids: Grids, noise: Array | None = None) -> Sums:
    """Expectation over the noise: between levels l ≤ x < u, E[q] = x, E[(x−q)²] = (x−l)(u−x)."""
    scaled = x / grids.step
    below = np.floor(scaled)
    clipped = np.clip(x, grids.first * grids.step, grids.last * grids.step)
    spread = (x - below * grids.step) * ((below + 1) * grids.step - x)
    variance = np.where(clipped == x, np.maximum(spread, 0.0), 0.0).sum(axis=1)
    e = x - clipped
    too_low = np.clip(grids.first - scaled, 0.0, 1.0)
    too_high = np.clip(scaled - grids.last, 0.0, 1.0)
    return (
        _dot(clipped, clipped) + variance,
        _dot(x, clipped),
        _dot(e, e) + variance,
        too_low.sum(axis=1) + too_high.sum(axis=1),
        np.where(x != 0, _chance_of_zero(scaled, grids), 0.0).sum(axis=1),
    )


def _chance_of_zero(scaled: Array, grids: Grids) -> Array:
    """P(code is zero's) under stochastic rounding; a grid that ends at zero clips to it."""
    chance = np.maximum(1.0 - np.abs(scaled), 0.0)
    beyond = (scaled < 0) & (grids.first == 0) | (scaled > 0) & (grids.last == 0)
    return np.where(beyond, 1.0, chance)


def _dot(a: Array, b: Array) -> Array:
    """Σab over the last axis."""
    found: Array = np.vecdot(a[..., :ROW], b[..., :ROW])
    return found + _dot(a[..., ROW:], b[..., ROW:]) if a.shape[-1] > ROW else found


def _count(which: NDArray[np.bool_]) -> Array:
    if which.shape[1] <= SHORT:
        counts: Array = np.add.reduce(which, axis=1, dtype=np.float64)
        return counts
    return np.array([np.count_nonzero(row) for row in which], np.float64)


#: Name → sums over one piece of the values, grids as columns. 'stochastic' is the exact
#: expectation, 'stochastic-sampled' one draw.
ROUNDINGS: dict[str, Callable[[Array, Grids, Array | None], Sums]] = {
    "nearest": _nearest,
    "stochastic": _expected,
    "stochastic-sampled": _nearest,
}
