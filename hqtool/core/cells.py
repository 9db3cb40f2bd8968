"""A grid seen as cells: intervals of x inside which every moment is a polynomial in x.

With n, Σx and Σx² of each cell the moments of the whole tensor follow, whatever its size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hqtool.core.dense import Sums
from hqtool.core.grid import Grid

Array = NDArray[np.float64]

#: A cell with no more values than this is summed value by value, which loses nothing.
FEW = 1024


@dataclass(frozen=True, slots=True)
class Cells:
    """The finite values of a tensor, sorted into the cells of one grid, low to high.

    Args:
        n, x, xx: per cell the count, Σx and Σx².
        start: index of each cell's first value in `values`; one more entry closes the last.
        values: all values, ascending.
        zeros: how many of them are 0.
    """

    n: Array
    x: Array
    xx: Array
    start: NDArray[np.intp]
    values: Array
    zeros: int

    def chance(self, cell: int, slope: float, offset: float, step: float) -> float:
        """Σ(offset + slope·x/Δ) over one cell: a chance that grows or falls across it."""
        n = float(self.n[cell])
        if n > FEW:
            return offset * n + slope * float(self.x[cell]) / step
        inside = self.values[self.start[cell] : self.start[cell + 1]]
        return float(np.sum(np.clip(offset + slope * (inside / step), 0.0, 1.0)))


def nearest_thresholds(grid: Grid) -> Array:
    """For k = first … last+1 the smallest float64 x with rint(x/Δ) ≥ k, ties as rint has them.

    (k−½)Δ is within a few units in the last place of it; the rest is found by trying, with the
    very division the dense path makes, so that both put every value on the same level.
    """
    k = np.arange(grid.first, grid.last + 2, dtype=np.float64)
    t = (k - 0.5) * grid.step
    while (reached := np.rint(t / grid.step) >= k).any():
        t[reached] = np.nextafter(t[reached], -np.inf)
    while (short := np.rint(t / grid.step) < k).any():
        t[short] = np.nextafter(t[short], np.inf)
    return t


def nearest_sums(grid: Grid, cells: Cells) -> Sums:
    """Rounding to nearest: one cell a level, and a clipped one beyond either end."""
    k = np.clip(np.arange(grid.first - 1, grid.last + 2), grid.first, grid.last)
    q = k * grid.step
    return (
        float(np.dot(q * q, cells.n)),
        float(np.dot(q, cells.x)),
        float(np.sum(cells.xx - 2 * q * cells.x + q * q * cells.n)),
        float(cells.n[0] + cells.n[-1]),
        float(cells.n[k == 0].sum()) - cells.zeros,
    )


def expected_thresholds(grid: Grid) -> Array:
    """kΔ for k = first−1 … last+1: stochastic rounding's cells lie between the levels."""
    return np.arange(grid.first - 1, grid.last + 2, dtype=np.float64) * grid.step


def expected_sums(grid: Grid, cells: Cells) -> Sums:
    """Stochastic rounding in expectation: E[(x−q)²] = (x−l)(u−x) inside the grid."""
    k = np.arange(grid.first - 2, grid.last + 2, dtype=np.float64)
    lower, upper = k * grid.step, (k + 1) * grid.step
    inside = (k >= grid.first) & (k < grid.last)
    q = np.clip(k, grid.first, grid.last) * grid.step
    variance = (lower + upper) * cells.x - cells.xx - lower * upper * cells.n
    clipped = cells.xx - 2 * q * cells.x + q * q * cells.n
    return (
        float(np.sum(np.where(inside, cells.xx + variance, q * q * cells.n))),
        float(np.sum(np.where(inside, cells.xx, q * cells.x))),
        float(np.sum(np.where(inside, variance, clipped))),
        _expected_saturated(grid, cells),
        _expected_underflowed(grid, cells),
    )


def _expected_saturated(grid: Grid, cells: Cells) -> float:
    """Beyond the next level a value always leaves the grid, before it in proportion."""
    low = cells.chance(1, -1.0, grid.first, grid.step)
    high = cells.chance(cells.n.size - 2, 1.0, -grid.last, grid.step)
    return float(cells.n[0] + low + high + cells.n[-1])


def _expected_underflowed(grid: Grid, cells: Cells) -> float:
    """Either side of zero the chance of its code is 1−|x|/Δ; beyond a grid's end it is 1."""
    below = 1 - grid.first  # the cell [−Δ, 0)
    if grid.first == 0:
        low = float(cells.n[: below + 1].sum())
    else:
        low = cells.chance(below, 1.0, 1.0, grid.step)
    if grid.last == 0:
        return low + float(cells.n[below + 1 :].sum()) - cells.zeros
    return low + cells.chance(below + 1, -1.0, 1.0, grid.step) - cells.zeros


#: Rounding → (where the cells meet, what the moments are). One more fast rounding: one entry.
CELLS: dict[str, tuple[Callable[[Grid], Array], Callable[[Grid, Cells], Sums]]] = {
    "nearest": (nearest_thresholds, nearest_sums),
    "stochastic": (expected_thresholds, expected_sums),
}
