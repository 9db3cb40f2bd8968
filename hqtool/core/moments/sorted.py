"""Moments from sorted values: after one sort each lane costs O(levels·log n), not a pass."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqtool.core.formats.format import Array, Indices, Levels
from hqtool.core.moments.cells import CELLS, Cells, Edges
from hqtool.core.moments.dense import dense_sums, sums_of_zero_scale
from hqtool.vocab import Moments

WideArray = NDArray[np.longdouble]

#: The sorted values are summed up in groups of so many; a threshold splits at most one group.
GROUP_SIZE = 48

#: Σ(x−q)² from cell sums is trusted when it is this many times above its rounding noise.
TRUSTED = 1e7

#: The type of the prefix sums: wider than float64 where the machine has such a type.
Wide = np.longdouble

#: Rounding of one operation, in float64 and in prefix sums.
EPSILON, WIDE_EPSILON = sys.float_info.epsilon, float(np.finfo(Wide).eps)

#: Rough costs in nanoseconds, to choose between cells and a pass over the values.
PASS_COST, PASS_COST_PER_VALUE, CELL_COST = 25_000.0, 4.5, 150.0


#: Cells computed at once: a group of values is gathered for each, in all about 13 MB.
MOST_CELLS = 1 << 15


def _in_bounded_numbers(which: Indices, levels: Levels) -> list[Indices]:
    """The lanes in groups of at most MOST_CELLS cells, or of one lane that has more."""
    cells = np.cumsum(levels.sizes[which] + 1)
    if not which.size or cells[-1] <= MOST_CELLS:
        return [which] if which.size else []
    return np.split(which, np.flatnonzero(np.diff(cells // MOST_CELLS)) + 1)


class SortedValues:
    """The finite values of one tensor, prepared to answer moments under any levels.

    Args:
        values: 1-D, finite, float16, float32 or float64, in any order.

    Sums are subtracted from each other, so an error far below Σx² would lose its digits (very
    many bits, or values that lie close together far from zero). There `dense` is used instead.
    """

    def __init__(self, values: NDArray[Any]) -> None:
        wide = values.astype(np.float32) if values.dtype == np.float16 else values
        self._groups = _in_groups(np.sort(wide))
        self.values: Array = self._groups.reshape(-1)[: values.size]
        below, above = (np.searchsorted(self.values, 0.0, side) for side in ("left", "right"))
        self._zeros = int(above - below)
        self._first_values = np.ascontiguousarray(self._groups[:, 0])
        whole = self._groups[: values.size // GROUP_SIZE]
        self._prefix_x = _prefix(np.einsum("ij->i", whole))
        self._prefix_xx = _prefix(np.einsum("ij,ij->i", whole, whole))
        rest = self.values[whole.size :]
        self._x = self._prefix_x[-1] + rest.sum()
        self._xx = self._prefix_xx[-1] + np.einsum("i,i->", rest, rest)

    @np.errstate(all="ignore")
    def moments(self, levels: Levels, rounding: str = "nearest") -> Moments:
        """Moments in each lane; rounding 'nearest' or 'stochastic' (its expectation)."""
        nonzero, xx = self.values.size - self._zeros, float(self._xx)
        sums = sums_of_zero_scale(xx, nonzero, len(levels))
        doubted = levels.scale > 0
        likely = np.flatnonzero(doubted & self._cells_are_cheaper(levels))
        if likely.size:
            likely = likely[self._is_likely(levels.at(likely))]
        for some in _in_bounded_numbers(likely, levels):
            sums[:, some], noise = self._from_cells(levels.at(some), rounding)
            doubted[some] = sums[2, some] <= TRUSTED * noise
        if doubted.any():
            sums[:, doubted] = dense_sums(self.values, levels.at(np.flatnonzero(doubted)), rounding)
        return Moments(self.values.size, nonzero, xx, *sums)

    def _noise_of_prefixes(self, levels: Levels) -> Array:
        """The share of prefix sums in the rounding noise of Σ(x−q)².

        The noise of Σx² cancels between neighbouring cells; that of Σx is weighted by the levels'
        span. The noise of a prefix sum itself is a random walk over its groups.
        """
        one = WIDE_EPSILON * (8 + math.sqrt(self.values.size / GROUP_SIZE))
        span, xx = (levels.highest - levels.lowest) * levels.scale, float(self._xx)
        noise: Array = one * (xx + span * math.sqrt(self.values.size * xx))
        return noise

    def _cells_are_cheaper(self, levels: Levels) -> NDArray[np.bool_]:
        """Whether a lane has so few levels that its cells cost less than a pass over the values."""
        pass_cost = PASS_COST + PASS_COST_PER_VALUE * self.values.size
        cheaper: NDArray[np.bool_] = CELL_COST * (levels.sizes + 1) < pass_cost
        return cheaper

    def _is_likely(self, levels: Levels) -> NDArray[np.bool_]:
        """Whether a usual error, gap²/12 a value, would be trusted were all cells equally full."""
        gaps = levels.sizes - 1
        gap = (levels.highest - levels.lowest) / gaps * levels.scale
        noise = _noise_of_cells(float(self._xx) / np.sqrt(gaps)) + self._noise_of_prefixes(levels)
        likely: NDArray[np.bool_] = self.values.size * gap**2 / 12 > TRUSTED * noise
        return likely

    def _from_cells(self, levels: Levels, rounding: str) -> tuple[Array, Array]:
        """`Sums`, a row each, and the noise of their Σ(x−q)²."""
        edges_of, sums_of = CELLS[rounding]
        cells = self._cells(levels, edges_of(levels))
        noise = _noise_of_cells(np.sqrt(cells.total(cells.xx**2)))
        return np.stack(sums_of(levels, cells)), noise + self._noise_of_prefixes(levels)

    def _cells(self, levels: Levels, edges: Edges) -> Cells:
        """The cells: in each, the sums below its upper edge minus those below its lower one."""
        bounds = _CellEdges(edges)
        place, x, xx = self._before(edges.at)
        lower = bounds.lower(place, 0)
        scale, lowest, highest = (
            np.repeat(np.broadcast_to(each, len(levels)), bounds.sizes)
            for each in (levels.scale, levels.lowest, levels.highest)
        )
        return Cells(
            n=(bounds.upper(place, self.values.size) - lower).astype(np.float64),
            x=(bounds.upper(x, self._x) - bounds.lower(x, 0.0)).astype(np.float64),
            xx=(bounds.upper(xx, self._xx) - bounds.lower(xx, 0.0)).astype(np.float64),
            lower=edges.lower,
            upper=edges.upper,
            scale=scale,
            lowest=lowest,
            highest=highest,
            start=bounds.start,
            end=bounds.end,
            place=lower,
            values=self.values,
            zeros=self._zeros,
        )

    def _before(self, thresholds: Array) -> tuple[Indices, WideArray, WideArray]:
        """How many values lie below each threshold, and their Σx and Σx².

        A threshold can only split the last group that starts below it.
        """
        group = np.maximum(np.searchsorted(self._first_values, thresholds) - 1, 0)
        inside = np.take(self._groups, group, axis=0)
        below = inside < thresholds[:, None]
        inside *= below
        return (
            group * GROUP_SIZE + np.einsum("ij->i", below.view(np.int8), dtype=np.intp),
            self._prefix_x[group] + np.einsum("ij->i", inside),
            self._prefix_xx[group] + np.einsum("ij,ij->i", inside, inside),
        )


class _CellEdges:
    """Spreads the m edges of each lane over its m+1 cells, as their lower or upper edges."""

    def __init__(self, edges: Edges) -> None:
        self.sizes = edges.sizes + 1
        self.end = np.cumsum(self.sizes) - 1
        self.start = self.end - self.sizes + 1

    def lower(self, at_edges: NDArray[Any], lowest: Any) -> NDArray[Any]:
        """Each cell's entry at its lower edge; `lowest` for the first cell of a lane."""
        return self._spread(at_edges, lowest, self.start)

    def upper(self, at_edges: NDArray[Any], highest: Any) -> NDArray[Any]:
        """Each cell's entry at its upper edge; `highest` for the last cell of a lane."""
        return self._spread(at_edges, highest, self.end)

    def _spread(self, at_edges: NDArray[Any], outermost: Any, where: Indices) -> NDArray[Any]:
        cells = np.empty(self.end[-1] + 1, at_edges.dtype)
        has_edge = np.ones(cells.size, bool)
        has_edge[where] = False
        cells[where] = outermost
        cells[has_edge] = at_edges
        return cells


def _in_groups(ascending: NDArray[Any]) -> Array:
    """Groups of float64 as rows, the last one filled up with a value above all others."""
    flat = np.empty(-(-ascending.size // GROUP_SIZE) * GROUP_SIZE)
    flat[: ascending.size] = ascending
    flat[ascending.size :] = sys.float_info.max
    return flat.reshape(-1, GROUP_SIZE)


def _prefix(sums: Array) -> WideArray:
    """For each entry the sum of all before it, and last the sum of all."""
    return np.concatenate([np.zeros(1, Wide), np.cumsum(sums, dtype=Wide)])


def _noise_of_cells(scale: Array) -> Array:
    """Rounding noise of Σx² − 2qΣx + nq² over independent cells; `scale` is √Σ(a cell's Σx²)²."""
    return 8 * EPSILON * scale
