"""Grids as cells: intervals of x, in each of which all moments are polynomials of the values.

The moments of a whole tensor, whatever its size, follow from the count n, Σx and Σx² of each cell.
The cells of all grids form one long array, so that many grids cost little more than one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hqtool.core.dense import Sums
from hqtool.core.grid import Grids

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

#: A cell with no more values than this is summed value by value, without loss of digits.
FEW_IN_CELL = 1024


@dataclass(frozen=True, slots=True)
class Edges:
    """The thresholds between neighbouring cells, one grid after the other.

    Args:
        at: thresholds in x, rising within each grid; a value equal to one belongs above it.
        k: level above each threshold.
        owner: index of the grid each threshold belongs to.
        start: index of each grid's first threshold.
    """

    at: Array
    k: Array
    owner: Indices
    start: Indices


@dataclass(frozen=True, slots=True)
class Cells:
    """The sorted values of a tensor in the cells of all grids.

    A grid with m thresholds has m+1 cells: one below each threshold and one above the last.

    Args:
        n, x, xx: per cell the count, Σx and Σx².
        k: level just above each cell's lower threshold (one less below the first).
        step: Δ of the cell's grid.
        start, end: index of each grid's first and last cell.
        place: index of each cell's first value in `values`.
        values: all values, ascending.
        zeros: how many of them are 0.
    """

    n: Array
    x: Array
    xx: Array
    k: Array
    step: Array
    start: Indices
    end: Indices
    place: Indices
    values: Array
    zeros: int

    def total(self, amounts: Array) -> Array:
        """Per-cell amounts summed over each grid."""
        return np.add.reduceat(amounts, self.start)

    def beyond(self, lowest: Array, highest: Array) -> Array:
        """For each grid, how many values lie below `lowest` or above `highest`."""
        below = np.searchsorted(self.values, lowest, "left")
        return (below + self.values.size - np.searchsorted(self.values, highest, "right")).astype(
            np.float64
        )

    def chance(self, cell: Indices, slope: float, offset: Array) -> Array:
        """Σ(offset + slope·x/Δ) over one cell of each grid: a probability that is linear in x."""
        sums = offset * self.n[cell] + slope * self.x[cell] / self.step[cell]
        for i in np.flatnonzero(self.n[cell] <= FEW_IN_CELL):
            first = self.place[cell[i]]
            inside = self.values[first : first + int(self.n[cell[i]])]
            sums[i] = np.clip(offset[i] + slope * (inside / self.step[cell[i]]), 0.0, 1.0).sum()
        return sums


def nearest_edges(grids: Grids) -> Edges:
    """For k = first … last+1 the smallest float64 x with rint(x/Δ) ≥ k, ties as rint has them.

    (k−½)Δ is within a few units in the last place of it. From there its neighbours are tried, with
    the same division as in the dense path, so that both put every value on the same level.
    """
    k, owner, start = _levels(grids.first, grids.last + 1)
    step = grids.step[owner]
    t = (k - 0.5) * step
    _move_while(t, -np.inf, lambda i: np.rint(t[i] / step[i]) >= k[i])
    _move_while(t, np.inf, lambda i: np.rint(t[i] / step[i]) < k[i])
    return Edges(t, k, owner, start)


def _move_while(
    t: Array, direction: float, goes_on: Callable[[Indices], NDArray[np.bool_]]
) -> None:
    """Move each entry of t to its neighbour while its condition holds."""
    moving = np.arange(t.size)
    while (moving := moving[goes_on(moving)]).size:
        t[moving] = np.nextafter(t[moving], direction)


def expected_edges(grids: Grids) -> Edges:
    """kΔ for k = first−1 … last+1: under stochastic rounding a cell lies between two levels."""
    k, owner, start = _levels(grids.first - 1, grids.last + 1)
    return Edges(k * grids.step[owner], k, owner, start)


def _levels(first: Array, last: Array) -> tuple[Array, Indices, Indices]:
    """All grids' levels first … last in one array, the grid of each, and where each grid starts."""
    sizes = (last - first).astype(np.intp) + 1
    start = np.concatenate([[0], np.cumsum(sizes[:-1])])
    owner = np.repeat(np.arange(sizes.size), sizes)
    return np.arange(owner.size) - start[owner] + first[owner], owner, start


def nearest_sums(grids: Grids, cells: Cells) -> Sums:
    """Sums under rounding to nearest: a cell for each level, and a clipped one at each end."""
    sizes = cells.end - cells.start + 1
    k = np.clip(cells.k, np.repeat(grids.first, sizes), np.repeat(grids.last, sizes))
    q = k * cells.step
    nqq = q * q * cells.n
    return (
        cells.total(nqq),
        cells.total(q * cells.x),
        cells.total(cells.xx - 2 * q * cells.x + nqq),
        cells.beyond(*grids.limits),
        cells.total(np.where(k == 0, cells.n, 0.0)) - cells.zeros,
    )


def expected_sums(grids: Grids, cells: Cells) -> Sums:
    """Expected sums under stochastic rounding: E[(x−q)²] = (x−l)(u−x) inside the grid."""
    sizes = cells.end - cells.start + 1
    first, last = np.repeat(grids.first, sizes), np.repeat(grids.last, sizes)
    lower, upper = cells.k * cells.step, (cells.k + 1) * cells.step
    inside = (cells.k >= first) & (cells.k < last)
    q = np.clip(cells.k, first, last) * cells.step
    variance = (lower + upper) * cells.x - cells.xx - lower * upper * cells.n
    clipped = cells.xx - 2 * q * cells.x + q * q * cells.n
    return (
        cells.total(np.where(inside, cells.xx + variance, q * q * cells.n)),
        cells.total(np.where(inside, cells.xx, q * cells.x)),
        cells.total(np.where(inside, variance, clipped)),
        _expected_saturated(grids, cells),
        _expected_underflowed(grids, cells) - cells.zeros,
    )


def _expected_saturated(grids: Grids, cells: Cells) -> Array:
    """Saturation is certain from the next level on, and grows linearly up to there."""
    low = cells.chance(cells.start + 1, -1.0, grids.first)
    high = cells.chance(cells.end - 1, 1.0, -grids.last)
    return cells.n[cells.start] + low + high + cells.n[cells.end]


def _expected_underflowed(grids: Grids, cells: Cells) -> Array:
    """Within Δ of zero, a value becomes 0 with probability 1−|x|/Δ; beyond a grid's end with 1."""
    below = cells.start + 1 - grids.first.astype(np.intp)  # the cell [−Δ, 0)
    one = np.ones(len(grids))
    negative = cells.total(np.where(cells.k < 0, cells.n, 0.0))
    positive = cells.total(np.where(cells.k >= 0, cells.n, 0.0))
    low = np.where(grids.first == 0, negative, cells.chance(below, 1.0, one))
    high = np.where(grids.last == 0, positive, cells.chance(below + 1, -1.0, one))
    return low + high


#: Rounding → (its cells' edges, its sums). Another rounding with a fast path is one more entry.
CELLS: dict[str, tuple[Callable[[Grids], Edges], Callable[[Grids, Cells], Sums]]] = {
    "nearest": (nearest_edges, nearest_sums),
    "stochastic": (expected_edges, expected_sums),
}
