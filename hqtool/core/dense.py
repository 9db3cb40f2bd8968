"""Moments by passing over every value: slow and obvious, the oracle of the sorted path.

It is also what scores a sampled rounding (each value has its own noise) and what takes over
where prefix sums would lose digits. Values are float64 and finite throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqtool.core.grid import Grid, Grids
from hqtool.core.quantize import level_before_clipping
from hqtool.vocab import Moments

Array = NDArray[np.float64]

#: Σq², Σxq, Σ(x−q)², saturated, underflowed.
Sums = tuple[float, float, float, float, float]

#: Values per pass: small enough that the temporaries of one pass stay in cache.
CHUNK = 1 << 15


def dense_moments(
    x: NDArray[Any], grids: Grids, rounding: str = "nearest", noise: Array | None = None
) -> Moments:
    """Moments of finite values on each grid.

    Args:
        x: 1-D, any float type; computed in float64.
        rounding: a name of `ROUNDINGS`.
        noise: uniform [0, 1), one a value; only where rounding is 'stochastic-sampled'.
    """
    sums = [dense_sums(x, grids[i], rounding, noise) for i in range(len(grids))]
    columns = np.array(sums, np.float64).reshape(-1, 5).T
    xx = dense_sums(x, Grid(0.0, 0, 0))[2]
    return Moments(x.size, int(np.count_nonzero(x)), xx, *columns)


def dense_sums(
    x: NDArray[Any], grid: Grid, rounding: str = "nearest", noise: Array | None = None
) -> Sums:
    """The sums of one grid; arguments as `dense_moments`."""
    score = ROUNDINGS[rounding] if grid.step > 0 else _nothing
    with np.errstate(over="ignore", invalid="ignore"):
        parts = [score(p, grid, u) for p, u in zip(_chunks(x), _chunks(noise), strict=False)]
    qq, xq, err, saturated, underflowed = np.sum([(0.0,) * 5, *parts], axis=0).tolist()
    return qq, xq, err, saturated, underflowed


def _chunks(x: NDArray[Any] | None) -> Any:
    """float64 pieces of an array; endless None for none."""
    if x is None:
        return iter(lambda: None, 0)
    return (x[i : i + CHUNK].astype(np.float64) for i in range(0, x.size, CHUNK))


def _nothing(x: Array, grid: Grid, noise: Array | None = None) -> Sums:
    """Δ = 0: all becomes 0, and every nonzero value saturates."""
    nonzero = float(np.count_nonzero(x))
    return 0.0, 0.0, _dot(x, x), nonzero, nonzero


def _nearest(x: Array, grid: Grid, noise: Array | None = None) -> Sums:
    """Each value on one level: the nearest (no noise), or the one that its noise picks."""
    level = level_before_clipping(x, grid, noise)
    clipped = np.clip(level, grid.first, grid.last)
    q = clipped * grid.step
    e = x - q
    saturated = float(np.count_nonzero(level != clipped))
    underflowed = float(np.count_nonzero((clipped == 0) & (x != 0)))
    return _dot(q, q), _dot(x, q), _dot(e, e), saturated, underflowed


def _expected(x: Array, grid: Grid, noise: Array | None = None) -> Sums:
    """Expectation over the noise: between levels l ≤ x < u, E[q] = x, E[(x−q)²] = (x−l)(u−x)."""
    scaled = x / grid.step
    below = np.floor(scaled)
    clipped = np.clip(x, grid.first * grid.step, grid.last * grid.step)
    spread = (x - below * grid.step) * ((below + 1) * grid.step - x)
    variance = np.where(clipped == x, np.maximum(spread, 0.0), 0.0)
    e = x - clipped
    too_low = np.clip(grid.first - scaled, 0.0, 1.0)
    too_high = np.clip(scaled - grid.last, 0.0, 1.0)
    return (
        _dot(clipped, clipped) + float(variance.sum()),
        _dot(x, clipped),
        _dot(e, e) + float(variance.sum()),
        float(too_low.sum() + too_high.sum()),
        float(np.where(x != 0, _chance_of_zero(scaled, grid), 0.0).sum()),
    )


def _chance_of_zero(scaled: Array, grid: Grid) -> Array:
    """P(code is zero's) under stochastic rounding; a grid that ends at zero clips to it."""
    chance = np.maximum(1.0 - np.abs(scaled), 0.0)
    beyond = (scaled < 0) & (grid.first == 0) | (scaled > 0) & (grid.last == 0)
    return np.where(beyond, 1.0, chance)


def _dot(a: Array, b: Array) -> float:
    """Σab in one thread: BLAS would start several, slower here and not always the same sum."""
    return float(np.einsum("i,i->", a, b))


#: Name → sums over one chunk. 'stochastic' is exact expectation, 'stochastic-sampled' one draw.
ROUNDINGS: dict[str, Callable[[Array, Grid, Array | None], Sums]] = {
    "nearest": _nearest,
    "stochastic": _expected,
    "stochastic-sampled": _nearest,
}
