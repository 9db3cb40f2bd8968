"""What estimators and scoring can ask of a record: moments and statistics, never the tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hqtool.core.dense import dense_moments, dense_moments_of_parts
from hqtool.core.grid import Format, Grids, grids_of
from hqtool.core.magnitude import exponent_beyond
from hqtool.core.samples import is_extreme, weighted
from hqtool.core.sorted import SortedValues
from hqtool.core.stats import finite_values
from hqtool.vocab import Moments, Range, Record, Stats

T = TypeVar("T")

#: Up to so many values, a pass over them for each question is faster than sorting them once.
FEW_VALUES = 2048


class PreparedValues:
    """A record's values, prepared to answer for many grids: sorted once, unless they are few.

    Args:
        values: array of any shape and float type; non-finite values are left out.
        all_finite: known to hold none of them.
        extremes: of a sample, the values that are known exactly; finite, none of them in `values`.
        total: of a sample with extremes, how many finite values the tensor has: its moments count
            the extremes once, and the other values for the rest of the tensor.
        nonfinite: share of NaN and infinities in the whole tensor; of `values` where None.
    """

    def __init__(
        self,
        values: NDArray[Any],
        all_finite: bool = False,
        extremes: NDArray[Any] | None = None,
        total: int = 0,
        nonfinite: float | None = None,
    ) -> None:
        self._values = values
        self._all_finite = all_finite
        self._extremes = extremes
        self._total = total
        self._nonfinite = nonfinite
        self._known: dict[Hashable, Any] = {}

    @cached_property
    def _finite(self) -> NDArray[Any]:
        return self._values.reshape(-1) if self._all_finite else finite_values(self._values)

    @cached_property
    def exponent(self) -> int:
        """e, where the values are divided by 2^e for their squares to stay within float64."""
        parts = [self._finite] if self._extremes is None else [self._finite, self._extremes]
        if not any(part.dtype == np.float64 for part in parts):
            return 0
        return exponent_beyond(max(float(np.abs(part).max(initial=0.0)) for part in parts))

    @cached_property
    def nonfinite(self) -> float:
        """Share of NaN and infinities in the whole tensor; NaN where that is empty."""
        if self._nonfinite is not None:
            return self._nonfinite
        size = self._values.size
        return (size - self._finite.size) / size if size else math.nan

    @property
    def size(self) -> int:
        """Number of values, non-finite ones and extremes of a sample included."""
        return self._values.size + (0 if self._extremes is None else self._extremes.size)

    def _scaled(self, values: NDArray[Any]) -> NDArray[Any]:
        return np.ldexp(values, -self.exponent) if self.exponent else values

    @cached_property
    def _sorted(self) -> SortedValues:
        return SortedValues(self._scaled(self._finite))

    @cached_property
    def _sorted_extremes(self) -> SortedValues:
        known = self._finite[:0] if self._extremes is None else self._extremes
        return SortedValues(self._scaled(known))

    @cached_property
    def _weight(self) -> float:
        """For how many values of the tensor each randomly drawn value stands."""
        known = 0 if self._extremes is None else self._extremes.size
        return (self._total - known) / max(1, self._finite.size)

    @property
    def few(self) -> NDArray[Any] | None:
        """The finite values, 1-D, where `moments` is just a pass over them."""
        alone = self._extremes is None and not self.exponent
        return self._finite if alone and self._finite.size <= FEW_VALUES else None

    def moments(self, grids: Grids, rounding: str = "nearest") -> Moments:
        """Moments under each grid, 'nearest' or 'stochastic' (in expectation).

        Args:
            grids: preferably made by `grids_of` with these values' `exponent`: that is exact.
        """
        grids = grids.divided(self.exponent)
        drawn = self._scaled(self._finite)
        if self._extremes is None:
            return self._completed(_moments(drawn, lambda: self._sorted, grids, rounding))
        extremes = self._scaled(self._extremes)
        if max(drawn.size, extremes.size) <= FEW_VALUES:
            known, found = dense_moments_of_parts([extremes, drawn], grids, rounding)
        else:
            found = _moments(drawn, lambda: self._sorted, grids, rounding)
            known = _moments(extremes, lambda: self._sorted_extremes, grids, rounding)
        return self._completed(weighted(known, found, self._weight))

    def sampled_moments(self, grids: Grids, noise: np.random.Generator) -> Moments:
        """Moments of one draw of stochastic rounding, the same noise under every grid."""
        grids = grids.divided(self.exponent)
        found = _drawn(self._scaled(self._finite), grids, noise)
        if self._extremes is not None:
            known = _drawn(self._scaled(self._extremes), grids, noise)
            found = weighted(known, found, self._weight)
        return self._completed(found)

    def _completed(self, found: Moments) -> Moments:
        """The moments with what the finite values alone do not show."""
        sums = (found.qq, found.xq, found.err, found.saturated, found.underflowed)
        once = (found.count, found.nonzero, found.xx)
        return Moments(*once, *sums, nonfinite=self.nonfinite, exponent=self.exponent)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """The result of `make`, which is called once for each `key`."""
        if key not in self._known:
            self._known[key] = make()
        found: T = self._known[key]
        return found


def _moments(
    values: NDArray[Any], ascending: Callable[[], SortedValues], grids: Grids, rounding: str
) -> Moments:
    """Moments by a pass over the values where they are few, else from the sorted values."""
    if values.size <= FEW_VALUES:
        return dense_moments(values, grids, rounding)
    return ascending().moments(grids, rounding)


def _drawn(values: NDArray[Any], grids: Grids, noise: np.random.Generator) -> Moments:
    return dense_moments(values, grids, "stochastic-sampled", noise.random(values.size))


class Observation:
    """A record as an estimator sees it, at the number format it is to be quantized in.

    It notes whether its format was read: a decision made without reading it holds for all formats.

    Args:
        stats: exact statistics of the full tensor.
        format: bits and scheme aimed at.
        values: None where only statistics were recorded.
        formats: all formats this record is replayed at, `format` among them: a search that
            serves several at once costs little more than one.
    """

    __slots__ = ("_format", "_formats", "format_was_asked", "stats", "values")

    def __init__(
        self,
        stats: Stats,
        format: Format,
        values: PreparedValues | None = None,
        formats: tuple[Format, ...] = (),
    ) -> None:
        self.stats = stats
        self.values = values
        self.format_was_asked = False
        self._format = format
        self._formats = formats or (format,)

    @property
    def format(self) -> Format:
        """The number format that the tensor is to be quantized in."""
        self.format_was_asked = True
        return self._format

    @property
    def formats(self) -> tuple[Format, ...]:
        """All formats that the tensor is replayed at."""
        self.format_was_asked = True
        return self._formats

    @property
    def teaches(self) -> bool:
        """The tensor holds a finite value other than 0."""
        return self.stats.absmax > 0

    @property
    def all_zero(self) -> bool:
        """The tensor's finite values are all 0, and there are some."""
        return self.stats.absmax == 0

    def moments(
        self, wanted: Sequence[Range], formats: Sequence[Format] | None = None
    ) -> Moments | None:
        """Moments under rounding to nearest on the grid of each range; None without values.

        Args:
            formats: one a range; the observation's own where None.
        """
        if self.values is None:
            return None
        formats = formats or [self.format] * len(wanted)
        return self.values.moments(grids_of(wanted, formats, self.values.exponent))


def values_of(record: Record) -> PreparedValues | None:
    """A record's values, prepared; None where only statistics were recorded."""
    if record.values is None:
        return None
    nonfinite, layout = record.stats.nnan + record.stats.ninf, record.layout
    share = nonfinite / record.numel if record.numel else math.nan
    if layout is None:
        return PreparedValues(record.values, nonfinite == 0, nonfinite=share)
    rest = record.values[~is_extreme(layout)]
    extremes, total = finite_values(layout.extremes), record.numel - nonfinite
    return PreparedValues(rest, nonfinite == 0, extremes, total, share)
