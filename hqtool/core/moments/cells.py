"""Cells: intervals of x, in each of which all moments of a lane are polynomials of the values.

The moments of a whole tensor, whatever its size, follow from the count n, Σx and Σx² of each cell.
The cells of all lanes form one long array, so that many lanes cost little more than one. Levels
are known here by their values and the edges between them alone, so any codebook is served.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hqtool.core.formats.format import Array, Indices, Levels
from hqtool.core.moments.dense import Sums

#: A cell with no more values than this is summed value by value, without loss of digits.
FEW_IN_CELL = 1024

#: A product is within one unit in the last place, so that few moves reach what is looked for; only
#: an edge at 0 would have none to end at, since quotients of many tiny values are 0, too.
MOST_MOVES = 8


@dataclass(frozen=True, slots=True)
class Edges:
    """The thresholds between neighbouring cells, one lane after the other.

    A lane with m thresholds has m+1 cells: one below each threshold and one above the last.

    Args:
        at: thresholds in x, rising within each lane; a value equal to one belongs above it.
        sizes: how many thresholds each lane has.
        lower, upper: per cell, in units of the scale. Under stochastic rounding the levels that
            it lies between; under rounding to nearest its level, twice.
    """

    at: Array
    sizes: Indices
    lower: Array
    upper: Array


@dataclass(frozen=True, slots=True)
class Cells:
    """The sorted values of a tensor in the cells of all lanes.

    Args:
        n, x, xx: per cell the count, Σx and Σx².
        lower, upper: as in `Edges`.
        scale, lowest, highest: the scale and the end levels of the cell's lane.
        start, end: index of each lane's first and last cell.
        place: index of each cell's first value in `values`.
        values: all values, ascending.
        zeros: how many of them are 0.
    """

    n: Array
    x: Array
    xx: Array
    lower: Array
    upper: Array
    scale: Array
    lowest: Array
    highest: Array
    start: Indices
    end: Indices
    place: Indices
    values: Array
    zeros: int

    def total(self, amounts: Array) -> Array:
        """Per-cell amounts summed over each lane."""
        return np.add.reduceat(amounts, self.start)

    def beyond(self, lowest: Array, highest: Array) -> Array:
        """For each lane, how many values lie below `lowest` or above `highest`."""
        below = np.searchsorted(self.values, lowest, "left")
        return (below + self.values.size - np.searchsorted(self.values, highest, "right")).astype(
            np.float64
        )

    def chance(self, cell: Indices, slope: Array, offset: Array) -> Array:
        """Σ(offset + slope·x/scale) over one cell of each lane: a probability linear in x."""
        scale = self.scale[cell]
        sums = offset * self.n[cell] + slope * self.x[cell] / scale
        for i in np.flatnonzero(self.n[cell] <= FEW_IN_CELL):
            first = self.place[cell[i]]
            inside = self.values[first : first + int(self.n[cell[i]])]
            sums[i] = np.clip(offset[i] + slope[i] * (inside / scale[i]), 0.0, 1.0).sum()
        return sums


def nearest_edges(levels: Levels) -> Edges:
    """The smallest float64 x that goes to each level, ties as `Levels.nearest` has them.

    An edge times the scale is within a few units in the last place of it. From there its
    neighbours are tried, with the same division as in the dense path, so that both put every value
    on the same level.
    """
    sizes, edges, level = levels.sizes + 1, levels.edges(), levels.extended()
    scale = np.repeat(levels.scale, sizes)
    t = edges * scale
    _move_while(t, -np.inf, lambda i: t[i] / scale[i] >= edges[i])
    _move_while(t, np.inf, lambda i: t[i] / scale[i] < edges[i])
    return Edges(t, sizes, level, level)


def _move_while(
    t: Array, direction: float, goes_on: Callable[[Indices], NDArray[np.bool_]]
) -> None:
    """Move each entry of t to its neighbour while its condition holds, a few times at most."""
    moving = np.arange(t.size)
    for _ in range(MOST_MOVES):
        moving = moving[goes_on(moving)]
        if not moving.size:
            return
        t[moving] = np.nextafter(t[moving], direction)


def expected_edges(levels: Levels) -> Edges:
    """The levels, and one more at each end: a cell lies between two of them."""
    sizes, level = levels.sizes + 2, levels.extended()
    end = np.cumsum(sizes)
    lower = np.insert(level, end - sizes, -np.inf)
    upper = np.insert(level, end, np.inf)
    return Edges(level * np.repeat(levels.scale, sizes), sizes, lower, upper)


def nearest_sums(levels: Levels, cells: Cells) -> Sums:
    """Sums under rounding to nearest: a cell for each level, and a clipped one at each end."""
    level = np.clip(cells.lower, cells.lowest, cells.highest)
    q = level * cells.scale
    nqq = q * q * cells.n
    zeros = np.where(levels.zero_at < 0, 0, cells.zeros)
    return (
        cells.total(nqq),
        cells.total(q * cells.x),
        cells.total(cells.xx - 2 * q * cells.x + nqq),
        cells.beyond(*levels.limits),
        cells.total(np.where(level == 0, cells.n, 0.0)) - zeros,
    )


def expected_sums(levels: Levels, cells: Cells) -> Sums:
    """Expected sums under stochastic rounding: E[(x−q)²] = (x−l)(u−x) inside the levels."""
    lower, upper = cells.lower * cells.scale, cells.upper * cells.scale
    inside = (cells.lower >= cells.lowest) & (cells.upper <= cells.highest)
    q = np.clip(cells.lower, cells.lowest, cells.highest) * cells.scale
    variance = (lower + upper) * cells.x - cells.xx - lower * upper * cells.n
    clipped = cells.xx - 2 * q * cells.x + q * q * cells.n
    return (
        cells.total(np.where(inside, cells.xx + variance, q * q * cells.n)),
        cells.total(np.where(inside, cells.xx, q * cells.x)),
        cells.total(np.where(inside, variance, clipped)),
        _expected_saturated(levels, cells),
        _expected_underflowed(levels, cells),
    )


def _expected_saturated(levels: Levels, cells: Cells) -> Array:
    """Saturation is certain from the next level on, and grows linearly up to there."""
    lowest, highest = cells.lowest[cells.start], cells.highest[cells.start]
    one = np.ones(len(levels))
    low = cells.chance(cells.start + 1, -one / levels.low_gap, lowest / levels.low_gap)
    high = cells.chance(cells.end - 1, one / levels.high_gap, -highest / levels.high_gap)
    return cells.n[cells.start] + low + high + cells.n[cells.end]


def _expected_underflowed(levels: Levels, cells: Cells) -> Array:
    """Between 0 and the next level, a value becomes 0 with probability 1−|x|/gap.

    Where the levels end at 0, all values beyond become 0; where 0 is no level, none.
    """
    below = cells.start + 1 + np.maximum(levels.zero_at, 0)  # the cell that ends at 0
    negative = cells.total(np.where(cells.upper <= 0, cells.n, 0.0))
    positive = cells.total(np.where(cells.lower >= 0, cells.n, 0.0))
    one = np.ones(len(levels))
    low = cells.chance(below, -one / cells.lower[below], one)
    high = cells.chance(below + 1, -one / cells.upper[below + 1], one)
    low = np.where(cells.lowest[cells.start] == 0, negative, low)
    high = np.where(cells.highest[cells.start] == 0, positive, high)
    return np.where(levels.zero_at < 0, 0.0, low + high - cells.zeros)


#: Rounding → (its cells' edges, its sums). Another rounding with a fast path is one more entry.
CELLS: dict[str, tuple[Callable[[Levels], Edges], Callable[[Levels, Cells], Sums]]] = {
    "nearest": (nearest_edges, nearest_sums),
    "stochastic": (expected_edges, expected_sums),
}
