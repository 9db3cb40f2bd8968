"""A tensor's recorded values by entries that each have a range: channels, samples or rows.

Of a kept sample only the fibres count, each as likely as any other, so that every entry is treated
alike. The tensor's extremes, which are known wherever they lie, widen the entries that hold them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqtool.core.arrangement import Arrangement, Indices, arrangement_of
from hqtool.core.entry_ranges import filled
from hqtool.core.formats.format import Array, ElementFormat
from hqtool.core.moments.blocks import Blocks
from hqtool.core.moments.grouped import grouped_moments
from hqtool.core.samples import weighted
from hqtool.vocab import EntryRanges, Moments, Record

#: Of no values at all; where nothing can be computed.
EMPTY = Moments(0, 0, 0.0, *np.zeros((5, 1)))
NO_MOMENTS = Moments(math.nan, math.nan, math.nan, *np.full((5, 1), math.nan))


@dataclass(frozen=True, eq=False)
class EntryValues:
    """The recorded values of a tensor, and which entry each belongs to.

    Args:
        values: as recorded, of any shape and float type.
        arrangement: of the values.
        output_axis: of a weight or its gradient, the axis of the output channels, 0 or 1: its
            channels are those. None: the channels lie along the channel axis.
        total: how many finite values the full tensor has.
    """

    values: NDArray[Any]
    arrangement: Arrangement
    output_axis: int | None
    total: int

    def count(self, per: str) -> int:
        """How many entries the full tensor has; `per` as in `EntryRanges`."""
        return self.arrangement.count(self._part(per))

    def extremes(self, per: str) -> EntryRanges | None:
        """The extremes of the finite values of each entry, NaN where it has none.

        Of a sample they are those of the values kept. None where entries were cut to pieces.
        """
        if self._cut(per):
            return None
        count, index = self.count(per), self._index(per)
        low, high = self._finite_or(math.inf), self._finite_or(-math.inf)
        lo, hi = _least(low, index, count), -_least(-high, index, count)
        places, values = self._known_extremes(per)
        np.minimum.at(lo, places, values)
        np.maximum.at(hi, places, values)
        known = lo <= hi
        return EntryRanges(
            per, np.where(known, lo, np.nan) + 0.0, np.where(known, hi, np.nan) + 0.0
        )

    def spread(self, per: str) -> Array | None:
        """The population standard deviation of each entry's values; NaN where it has none."""
        if self._cut(per):
            return None
        x, index = self._flat(per)
        count = self.count(per)
        unit = float(np.abs(x).max(initial=0.0)) or 1.0
        wide = x.astype(np.float64) / unit
        with np.errstate(invalid="ignore"):
            number = np.bincount(index, minlength=count)
            mean = np.bincount(index, wide, count) / number
            squares = np.bincount(index, (wide - mean[index]) ** 2, count)
            found: Array = unit * np.sqrt(squares / number)
        return found

    def moments(
        self,
        ranges: EntryRanges,
        format_: ElementFormat,
        rounding: str,
        noise: Array | None = None,
        exponent: int = 0,
    ) -> Moments:
        """Moments with each entry under the levels of its own range, one figure for all of them.

        Args:
            noise: of 'stochastic-sampled', one a recorded value.
            exponent: e, where values and ranges are to be divided by 2^e.

        Returns:
            NaN throughout where entries were cut to pieces.
        """
        if self._cut(ranges.per):
            return NO_MOMENTS
        known = filled(ranges, self.count(ranges.per))
        with np.errstate(over="ignore"):
            lo, hi = (np.ldexp(ends, -exponent) for ends in (known.lo, known.hi))
        levels = format_.levels(lo, hi, exponent)
        x, index = self._arranged(ranges.per)
        if not x.size:
            return EMPTY
        u = None if noise is None else self._alike(self._planes(noise))
        x = np.ldexp(x, -exponent) if exponent else x
        return self.for_the_tensor(grouped_moments(x, levels, index, rounding, u))

    def blocks(self, rows: int, size: int, exponent: int = 0) -> Blocks:
        """The values in blocks of this shape, divided by 2^exponent."""
        x, finite = self.values, np.isfinite(self.values)
        x = np.ldexp(x, -exponent) if exponent else x
        return Blocks(x, None if finite.all() else finite, self.arrangement, rows, size)

    @property
    def whole_samples(self) -> NDArray[Any] | None:
        """(samples, values of each); None where not all values of the tensor are known, finite."""
        if self.arrangement.layout is not None or not np.isfinite(self.values).all():
            return None
        return self.values.reshape(self.count("sample"), -1)

    def for_the_tensor(self, found: Moments) -> Moments:
        """Of a sample, weighted up to all finite values of the tensor.

        Returns:
            NaN throughout where none of those values counts.
        """
        if self.arrangement.layout is None:
            return found
        return weighted(EMPTY, found, self.total / found.count) if found.count else NO_MOMENTS

    # --- values and their entries

    def _part(self, per: str) -> str:
        """What the arrangement calls such an entry: the output channels lie along axis 0 or 1."""
        return "sample" if per == "channel" and self.output_axis == 0 else per

    def _cut(self, per: str) -> bool:
        """Rows are known only where they were kept whole."""
        return per == "row" and not self.arrangement.whole_rows

    def _index(self, per: str) -> Indices:
        return self.arrangement.index(self._part(per))

    def _planes(self, values: NDArray[Any]) -> NDArray[Any]:
        return self.arrangement.planes(values)

    def _finite_or(self, other: float) -> NDArray[Any]:
        planes = self._planes(self.values)
        finite = np.isfinite(planes)
        return planes if finite.all() else np.where(finite, planes, other)

    def _alike(self, planes: NDArray[Any]) -> NDArray[Any]:
        """The entries of an array at the finite values; of all where every value is finite."""
        finite = np.isfinite(self._planes(self.values))
        return planes if finite.all() else np.broadcast_to(planes, finite.shape)[finite]

    def _arranged(self, per: str) -> tuple[NDArray[Any], Indices]:
        """The finite values, and the entry of each: broadcasts to their shape."""
        return self._alike(self._planes(self.values)), self._alike(self._index(per))

    def _flat(self, per: str) -> tuple[NDArray[Any], Indices]:
        x, index = self._arranged(per)
        return x.reshape(-1), np.broadcast_to(index, x.shape).reshape(-1)

    def _known_extremes(self, per: str) -> tuple[Indices, Array]:
        """The tensor's extremes that are known beside the sample: the entry and value of each.

        Rows that were not kept whole stay unknown.
        """
        layout = self.arrangement.layout
        if layout is None or per == "row":
            return np.empty(0, np.int64), np.empty(0)
        places = replace(layout, fibres=layout.extreme_places, length=1, stride=1)
        index = replace(self.arrangement, layout=places).index(self._part(per)).reshape(-1)
        finite = np.isfinite(layout.extremes)
        return index[finite], layout.extremes[finite].astype(np.float64)


def entries_of(
    record: Record, channel_axis: int | None, output_axis: int | None
) -> EntryValues | None:
    """A record's values by entries; None where it is unknown where they lie.

    Args:
        channel_axis, output_axis: see `arrangement_of` and `EntryValues`.
    """
    arrangement = arrangement_of(record, channel_axis)
    flattened = bool(record.rank_numels) and len(record.shape) < 2  # its axes are lost
    if arrangement is None or record.values is None or flattened:
        return None
    total = record.numel - record.stats.nnan - record.stats.ninf
    return EntryValues(record.values, arrangement, output_axis, total)


def _least(x: NDArray[Any], index: Indices, count: int) -> Array:
    """The least value of each entry; ∞ where it has none.

    Args:
        x: (before, channels, after); `index` broadcasts to that.
    """
    found = np.full(count, math.inf)
    along = tuple(axis for axis, size in enumerate(index.shape) if size == 1 != x.shape[axis])
    if x.size:
        least = np.minimum.reduce(x, axis=along, keepdims=True) if along else x
        np.minimum.at(found, np.broadcast_to(index, least.shape).reshape(-1), least.reshape(-1))
    return found
