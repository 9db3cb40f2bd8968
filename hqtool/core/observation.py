"""What an estimator and the scoring may ask of one record; the tensor itself stays inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqtool.core.dense import dense_moments
from hqtool.core.grid import Format, Grid
from hqtool.core.sorted import SortedValues
from hqtool.core.stats import finite_values
from hqtool.vocab import Moments, Range, Record, Stats


class Values:
    """A record's finite values, sorted once at the first question and then asked at will.

    Args:
        values: array of any shape and float type; non-finite values are left out.
    """

    def __init__(self, values: NDArray[Any]) -> None:
        self._finite = finite_values(values)

    @cached_property
    def _sorted(self) -> SortedValues:
        return SortedValues(self._finite)

    def moments(self, grids: Sequence[Grid], rounding: str = "nearest") -> list[Moments]:
        """Moments under each grid, 'nearest' or 'stochastic' (in expectation)."""
        return self._sorted.moments(grids, rounding)

    def sampled_moments(self, grids: Sequence[Grid], noise: np.random.Generator) -> list[Moments]:
        """Moments of one draw of stochastic rounding, the same noise under every grid."""
        u = noise.random(self._finite.size)
        return [dense_moments(self._finite, grid, "stochastic-sampled", u) for grid in grids]


@dataclass(frozen=True, slots=True)
class Observation:
    """A record as an estimator sees it, at the number format it is to be quantized in.

    Args:
        stats: exact statistics of the full tensor.
        format: bits and scheme aimed at.
        values: None where only statistics were recorded.
    """

    stats: Stats
    format: Format
    values: Values | None = field(default=None, repr=False)

    def moments(self, wanted: Range) -> Moments | None:
        """Moments under rounding to nearest on the grid of a range; None without values."""
        if self.values is None:
            return None
        return self.values.moments([self.format.grid(wanted)])[0]


def values_of(record: Record) -> Values | None:
    """The record's values, ready to be asked; None where only statistics were recorded."""
    return None if record.values is None else Values(record.values)
