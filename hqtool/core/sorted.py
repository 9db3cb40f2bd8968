"""Moments from one sort: every further grid costs O(levels·log n) instead of a pass."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqtool.core.cells import CELLS, Cells, Edges
from hqtool.core.dense import dense_sums, nothing_left
from hqtool.core.grid import Grids
from hqtool.vocab import Moments

Array = NDArray[np.float64]
Indices = NDArray[np.intp]
WideArray = NDArray[np.longdouble]

#: Values per block: whole blocks are summed ahead, the rest of a cell when it is asked for.
BLOCK = 48

#: Σ(x−q)² from cell sums is believed when it is this many times above its rounding noise.
TRUSTED = 1e7

#: What prefix sums are kept in, wider than float64 where the machine has it.
Wide = np.longdouble

#: Rounding of one operation, in float64 and in prefix sums.
EPSILON, WIDE_EPSILON = sys.float_info.epsilon, float(np.finfo(Wide).eps)

#: Nanoseconds, roughly: what decides whether cells or a pass over the values answer sooner.
PASS_COST, PASS_COST_PER_VALUE, CELL_COST = 25_000.0, 4.5, 150.0


#: Cells asked for at once: what is gathered for each are BLOCK values, in all about 13 MB.
CELLS_TOGETHER = 1 << 15


def _together(which: Indices, grids: Grids) -> list[Indices]:
    """The grids in groups of at most CELLS_TOGETHER cells, or of one grid that has more."""
    cells = np.cumsum(grids.last[which] - grids.first[which] + 2)
    if not which.size or cells[-1] <= CELLS_TOGETHER:
        return [which] if which.size else []
    return np.split(which, np.flatnonzero(np.diff(cells // CELLS_TOGETHER)) + 1)


class SortedValues:
    """The finite values of one tensor, prepared to answer moments under any grid.

    Args:
        values: 1-D, finite, float16, float32 or float64, in any order.

    Sums are subtracted from each other, so an error far below Σx² would lose its digits (very
    many bits, or values huddled far from zero). Where that threatens, the dense pass answers.
    """

    def __init__(self, values: NDArray[Any]) -> None:
        wide = values.astype(np.float32) if values.dtype == np.float16 else values
        self._rows = _rows_of(np.sort(wide))
        self.values: Array = self._rows.reshape(-1)[: values.size]
        below, above = (np.searchsorted(self.values, 0.0, side) for side in ("left", "right"))
        self._zeros = int(above - below)
        self._heads = np.ascontiguousarray(self._rows[:, 0])
        whole = self._rows[: values.size // BLOCK]
        self._prefix_x = _prefix(np.einsum("ij->i", whole))
        self._prefix_xx = _prefix(np.einsum("ij,ij->i", whole, whole))
        rest = self.values[whole.size :]
        self._x = self._prefix_x[-1] + rest.sum()
        self._xx = self._prefix_xx[-1] + np.einsum("i,i->", rest, rest)

    @np.errstate(all="ignore")
    def moments(self, grids: Grids, rounding: str = "nearest") -> Moments:
        """Moments under each grid; rounding 'nearest' or 'stochastic' (its expectation)."""
        nonzero, xx = self.values.size - self._zeros, float(self._xx)
        sums = nothing_left(xx, nonzero, len(grids))
        doubted = grids.step > 0
        likely = np.flatnonzero(doubted & self._cells_are_cheaper(grids))
        if likely.size:
            likely = likely[self._is_likely(grids.at(likely))]
        for some in _together(likely, grids):
            sums[:, some], noise = self._from_cells(grids.at(some), rounding)
            doubted[some] = sums[2, some] <= TRUSTED * noise
        if doubted.any():
            sums[:, doubted] = dense_sums(self.values, grids.at(np.flatnonzero(doubted)), rounding)
        return Moments(self.values.size, nonzero, xx, *sums)

    def _noise_of_prefixes(self, grids: Grids) -> Array:
        """Their part in the noise of Σ(x−q)²: Σx² telescopes, Σx is weighed by the grid's span.

        A prefix sum's own noise is a random walk over its blocks.
        """
        one = WIDE_EPSILON * (8 + math.sqrt(self.values.size / BLOCK))
        span, xx = (grids.last - grids.first) * grids.step, float(self._xx)
        return one * (xx + span * math.sqrt(self.values.size * xx))

    def _cells_are_cheaper(self, grids: Grids) -> NDArray[np.bool_]:
        """Few levels beside many values."""
        pass_cost = PASS_COST + PASS_COST_PER_VALUE * self.values.size
        cheaper: NDArray[np.bool_] = CELL_COST * (grids.last - grids.first + 2) < pass_cost
        return cheaper

    def _is_likely(self, grids: Grids) -> NDArray[np.bool_]:
        """The error of a well-used grid, Δ²/12 a value, would be trusted; its cells alike full."""
        usual = self.values.size * grids.step**2 / 12
        noise = _noise_of_cells(float(self._xx) / np.sqrt(grids.last - grids.first))
        likely: NDArray[np.bool_] = usual > TRUSTED * (noise + self._noise_of_prefixes(grids))
        return likely

    def _from_cells(self, grids: Grids, rounding: str) -> tuple[Array, Array]:
        """`Sums`, a row each, and the noise of their Σ(x−q)²."""
        edges_of, sums_of = CELLS[rounding]
        cells = self._cells(grids, edges_of(grids))
        noise = _noise_of_cells(np.sqrt(cells.total(cells.xx**2)))
        return np.stack(sums_of(grids, cells)), noise + self._noise_of_prefixes(grids)

    def _cells(self, grids: Grids, edges: Edges) -> Cells:
        """Per cell what lies below its upper edge less what lies below its lower one."""
        fences = _Fences(edges)
        place, x, xx = self._before(edges.at)
        lower = fences.lower(place, 0)
        return Cells(
            n=(fences.upper(place, self.values.size) - lower).astype(np.float64),
            x=(fences.upper(x, self._x) - fences.lower(x, 0.0)).astype(np.float64),
            xx=(fences.upper(xx, self._xx) - fences.lower(xx, 0.0)).astype(np.float64),
            k=fences.lower(edges.k, edges.k[edges.start] - 1),
            step=np.repeat(grids.step, fences.sizes),
            start=fences.start,
            end=fences.end,
            place=lower,
            values=self.values,
            zeros=self._zeros,
        )

    def _before(self, thresholds: Array) -> tuple[Indices, WideArray, WideArray]:
        """How many values lie below each threshold, and their Σx and Σx².

        The last block that starts below a threshold is the only one that it can split.
        """
        block = np.maximum(np.searchsorted(self._heads, thresholds) - 1, 0)
        inside = np.take(self._rows, block, axis=0)
        below = inside < thresholds[:, None]
        inside *= below
        return (
            block * BLOCK + np.einsum("ij->i", below.view(np.int8), dtype=np.intp),
            self._prefix_x[block] + np.einsum("ij->i", inside),
            self._prefix_xx[block] + np.einsum("ij,ij->i", inside, inside),
        )


class _Fences:
    """From edges, m a grid, to cells, m+1 a grid: each cell's lower and upper edge."""

    def __init__(self, edges: Edges) -> None:
        self.sizes = np.diff(edges.start, append=edges.at.size) + 1
        self.end = np.cumsum(self.sizes) - 1
        self.start = self.end - self.sizes + 1

    def lower(self, at_edges: NDArray[Any], lowest: Any) -> NDArray[Any]:
        """Each cell's entry at its lower edge; `lowest` for the first cell of a grid."""
        return self._spread(at_edges, lowest, self.start)

    def upper(self, at_edges: NDArray[Any], highest: Any) -> NDArray[Any]:
        """Each cell's entry at its upper edge; `highest` for the last cell of a grid."""
        return self._spread(at_edges, highest, self.end)

    def _spread(self, at_edges: NDArray[Any], outermost: Any, where: Indices) -> NDArray[Any]:
        cells = np.empty(self.end[-1] + 1, at_edges.dtype)
        has_edge = np.ones(cells.size, bool)
        has_edge[where] = False
        cells[where] = outermost
        cells[has_edge] = at_edges
        return cells


def _rows_of(ascending: NDArray[Any]) -> Array:
    """Blocks of float64 as rows, the last filled up with values above all others."""
    flat = np.empty(-(-ascending.size // BLOCK) * BLOCK)
    flat[: ascending.size] = ascending
    flat[ascending.size :] = sys.float_info.max
    return flat.reshape(-1, BLOCK)


def _prefix(sums: Array) -> WideArray:
    """The sum of all entries before each one, and of all."""
    return np.concatenate([np.zeros(1, Wide), np.cumsum(sums, dtype=Wide)])


def _noise_of_cells(scale: Array) -> Array:
    """Each cell's Σx² − 2qΣx + nq² rounds on its own: together √Σ(Σx² of a cell)² of it."""
    return 8 * EPSILON * scale
