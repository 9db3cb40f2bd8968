"""Moments from one sort: every further grid costs O(levels·log n) instead of a pass."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqtool.core.cells import CELLS, Cells
from hqtool.core.dense import dense_moments
from hqtool.core.grid import Grid
from hqtool.vocab import Moments

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

#: Values per block: whole blocks are summed ahead, the rest of a cell when it is asked for.
BLOCK = 64

#: Σ(x−q)² from prefix sums is believed when it is this many times above its rounding noise.
TRUSTED = 1e7


class SortedValues:
    """The finite values of one tensor, prepared to answer moments under any grid.

    Args:
        values: 1-D, finite, float16, float32 or float64, in any order.

    Prefix sums are subtracted from each other, so an error far below Σx² would lose its digits
    (many bits, or values huddled far from zero). Where that threatens, the dense pass answers.
    """

    def __init__(self, values: NDArray[Any]) -> None:
        wide = values.astype(np.float32) if values.dtype == np.float16 else values
        self.values: Array = np.sort(wide).astype(np.float64)
        self._zeros = self.values.size - int(np.count_nonzero(self.values))
        self._prefixes = self._sum_blocks()
        self._xx = float(np.dot(self.values, self.values))
        self._noise = self._prefix_noise()

    def moments(self, grids: Sequence[Grid], rounding: str = "nearest") -> list[Moments]:
        """Moments under each grid; rounding 'nearest' or 'stochastic' (its expectation)."""
        likely = list(dict.fromkeys(grid for grid in grids if self._is_likely(grid)))
        fast = dict(zip(likely, self._from_cells(likely, rounding), strict=True))
        return [self._checked(fast.get(grid), grid, rounding) for grid in grids]

    def _is_likely(self, grid: Grid) -> bool:
        """The error of a well-used grid, Δ²/12 a value, would be trusted; no use trying else."""
        usual = self.values.size * grid.step**2 / 12
        return grid.step > 0 and usual > TRUSTED * self._noise_under(grid)

    def _checked(self, fast: Moments | None, grid: Grid, rounding: str) -> Moments:
        if fast is not None and fast.err > TRUSTED * self._noise_under(grid):
            return fast
        return dense_moments(self.values, grid, rounding)

    def _from_cells(self, grids: Sequence[Grid], rounding: str) -> Iterator[Moments]:
        meet, sums = CELLS[rounding]
        for grid in grids:
            qq, xq, err, saturated, underflowed = sums(grid, self._cells(meet(grid)))
            nonzero = self.values.size - self._zeros
            yield Moments(self.values.size, nonzero, self._xx, qq, xq, err, saturated, underflowed)

    def _cells(self, thresholds: Array) -> Cells:
        inner = np.searchsorted(self.values, thresholds)
        start = np.concatenate([[0], inner, [self.values.size]])
        x, xx = (np.diff(prefix) for prefix in self._prefix_at(start))
        return Cells(np.diff(start).astype(np.float64), x, xx, start, self.values, self._zeros)

    def _sum_blocks(self) -> tuple[Array, Array]:
        """Σx and Σx² of all values before each block."""
        whole = self.values.size // BLOCK
        rows = self.values[: whole * BLOCK].reshape(whole, BLOCK)
        sums = np.einsum("ij->i", rows), np.einsum("ij,ij->i", rows, rows)
        return tuple(np.concatenate([[0.0], np.cumsum(s)]) for s in sums)  # type: ignore[return-value]

    def _prefix_at(self, index: Indices) -> tuple[Array, Array]:
        """Σx and Σx² of all values before each index."""
        block = index // BLOCK
        place = block[:, None] * BLOCK + np.arange(BLOCK)
        rest = np.where(
            place < index[:, None], self.values[np.minimum(place, self.values.size - 1)], 0.0
        )
        x, xx = self._prefixes
        return x[block] + np.einsum("ij->i", rest), xx[block] + np.einsum("ij,ij->i", rest, rest)

    def _prefix_noise(self) -> float:
        """Relative rounding noise of a prefix sum: a random walk over its blocks."""
        return sys.float_info.epsilon * (8 + math.sqrt(self.values.size / BLOCK))

    def _noise_under(self, grid: Grid) -> float:
        """Absolute rounding noise of Σ(x−q)²: Σx² telescopes, Σx is weighed by the grid's span."""
        span = (grid.last - grid.first) * grid.step
        return self._noise * (self._xx + span * math.sqrt(self.values.size * self._xx))
