"""A record's values, prepared to answer for many formats and ranges."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from types import UnionType
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from hqtool.core.formats.block import BlockFormat
from hqtool.core.formats.format import Array, ElementFormat, Format, Levels
from hqtool.core.formats.householder import HouseholderFormat
from hqtool.core.formats.lanes import by_family, levels_of
from hqtool.core.magnitude import exponent_beyond
from hqtool.core.moments.dense import dense_moments, dense_moments_of_parts
from hqtool.core.moments.entries import NO_MOMENTS, EntryValues, entries_of
from hqtool.core.moments.joining import by_lane
from hqtool.core.moments.sorted import SortedValues
from hqtool.core.noise import Draws
from hqtool.core.samples import is_extreme, weighted
from hqtool.core.stats import finite_values
from hqtool.vocab import AnyRange, EntryRanges, Moments, Range, Record

T = TypeVar("T")

#: Up to so many values, a pass over them for each question is faster than sorting them once.
FEW_VALUES = 2048


class PreparedValues:
    """A record's values, prepared to answer for many lanes: sorted once, unless they are few.

    Args:
        values: array of any shape and float type; non-finite values are left out.
        all_finite: known to hold none of them.
        extremes: of a sample, the values that are known exactly; finite, none of them in `values`.
        total: of a sample with extremes, how many finite values the tensor has: its moments count
            the extremes once, and the other values for the rest of the tensor.
        nonfinite: share of NaN and infinities in the whole tensor; of `values` where None.
        entries: the values by channels, samples, rows and blocks; None where it is unknown where
            they lie.
    """

    def __init__(
        self,
        values: NDArray[Any],
        all_finite: bool = False,
        extremes: NDArray[Any] | None = None,
        total: int = 0,
        nonfinite: float | None = None,
        entries: EntryValues | None = None,
    ) -> None:
        self._values = values
        self._all_finite = all_finite
        self._extremes = extremes
        self._total = total
        self._nonfinite = nonfinite
        self.entries = entries
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

    @property
    def parts(self) -> list[tuple[NDArray[Any], float]]:
        """The finite values, 1-D, and for how many of the tensor's each of them stands."""
        drawn = (self._finite, 1.0 if self._extremes is None else self._weight)
        return [drawn] if self._extremes is None else [(self._extremes, 1.0), drawn]

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

    def moments(
        self,
        ranges: Sequence[AnyRange | None],
        formats: Sequence[Format],
        rounding: str = "nearest",
        noise: Draws | None = None,
    ) -> Moments:
        """Moments under each range in the format of the same index; all formats may differ.

        Args:
            ranges: of the tensor, or of its entries; where it is unknown which entry or block a
                value belongs to, the moments are NaN. None where the format needs no range.
            rounding: 'nearest', 'stochastic' (in expectation), or 'stochastic-sampled'.
            noise: of 'stochastic-sampled'; one draw, the same for all.
        """
        u = self._draw(noise) if noise is not None else (None, None)
        apart = lanes_with_parts([ranges], formats)
        groups = by_family(formats, apart)
        parts = []
        for lanes in groups:
            wanted = cast("list[Range]", [ranges[i] for i in lanes])
            alike = cast("list[ElementFormat]", [formats[i] for i in lanes])
            levels = levels_of(wanted, alike, self.exponent)
            parts.append(self._completed(self._under(levels, rounding, *u)))
        drawn = None if noise is None or not apart else self._draw_for_entries(u[0], noise)
        found = (self._apart(ranges[i], formats[i], rounding, drawn) for i in apart)
        parts += [self._completed(each) for each in found]
        return by_lane(parts, [*groups, *([i] for i in apart)])

    def _apart(
        self, wanted: AnyRange | None, format_: Format, rounding: str, u: Array | None
    ) -> Moments:
        """Moments of one lane in which parts of the tensor have levels of their own."""
        if isinstance(format_, BlockFormat):
            return self._in_blocks(wanted, format_, rounding, u)
        if isinstance(format_, HouseholderFormat):
            return self._mixed(format_, rounding, u)
        return self._by_entry(
            cast("EntryRanges", wanted), cast("ElementFormat", format_), rounding, u
        )

    def _in_blocks(
        self, wanted: AnyRange | None, format_: BlockFormat, rounding: str, u: Array | None
    ) -> Moments:
        """Moments under a block format; those that follow from the values alone are kept."""
        if self.entries is None:
            return NO_MOMENTS
        ends = Range(0.0, 0.0)
        if format_.needs_range and wanted is not None:
            ends = wanted.widest or ends
        if u is not None:
            return self._blocked(ends, format_, rounding, u)
        key = (format_, rounding, ends)
        return self.once(key, lambda: self._blocked(ends, format_, rounding, None))

    def _blocked(
        self, wanted: Range, format_: BlockFormat, rounding: str, u: Array | None
    ) -> Moments:
        assert self.entries is not None
        rows, size, entries = format_.rows, format_.size, self.entries
        blocks = self.once(
            ("blocks", rows, size), lambda: entries.blocks(rows, size, self.exponent)
        )
        found = blocks.moments(format_, wanted, rounding, u, self.exponent)
        return entries.for_the_tensor(found)

    def _mixed(self, format_: HouseholderFormat, rounding: str, u: Array | None) -> Moments:
        """Moments under a format that mixes the samples; NaN unless all values are known."""
        samples = None if self.entries is None else self.entries.whole_samples
        if samples is None:
            return NO_MOMENTS
        x = self._scaled(samples).astype(np.float64)
        if u is not None:
            return format_.moments(x, rounding, u.reshape(x.shape))
        return self.once((format_, rounding), lambda: format_.moments(x, rounding))

    def _by_entry(
        self, ranges: EntryRanges, format_: ElementFormat, rounding: str, u: Array | None
    ) -> Moments:
        """Moments with a range for each entry, one figure for all of them."""
        if self.entries is None:
            return NO_MOMENTS
        return self.entries.moments(ranges, format_, rounding, u, self.exponent)

    def _draw(self, noise: Draws) -> tuple[Array, Array | None]:
        """Noise for the values, and for the extremes of a sample."""
        drawn = noise.random(self._finite.size)
        return drawn, None if self._extremes is None else noise.random(self._extremes.size)

    def _draw_for_entries(self, drawn: Array | None, noise: Draws) -> Array | None:
        """Noise for all recorded values: of a whole tensor the same that other lanes have."""
        if self.entries is None or drawn is None:
            return None
        values = self.entries.values
        if self._extremes is not None:
            return noise.random(values.size)
        u = np.zeros(values.size)
        u[np.isfinite(values).reshape(-1)] = drawn
        return u

    def _under(
        self, levels: Levels, rounding: str, u: Array | None, u_extremes: Array | None
    ) -> Moments:
        """Moments of the finite values under levels of one family."""
        drawn = self._scaled(self._finite)
        if self._extremes is None:
            return _moments(drawn, lambda: self._sorted, levels, rounding, u)
        extremes = self._scaled(self._extremes)
        if u is None and max(drawn.size, extremes.size) <= FEW_VALUES:
            known, found = dense_moments_of_parts([extremes, drawn], levels, rounding)
        else:
            found = _moments(drawn, lambda: self._sorted, levels, rounding, u)
            known = _moments(extremes, lambda: self._sorted_extremes, levels, rounding, u_extremes)
        return weighted(known, found, self._weight)

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


def lanes_with_parts(
    ranges: Sequence[Sequence[AnyRange | None]], formats: Sequence[Format]
) -> list[int]:
    """The lanes in which parts of a tensor have levels of their own: its entries, or blocks.

    Args:
        ranges: of each record one for each format.
    """
    blocked = _of_type(formats, BlockFormat | HouseholderFormat)
    by_entry = (i for row in ranges for i in _of_type(row, EntryRanges))
    return sorted({*blocked, *by_entry})


def _of_type(each: Sequence[object], types: type | UnionType) -> list[int]:
    """The indices of the instances; of most sequences there are none, which their types tell."""
    if not any(issubclass(found, types) for found in set(map(type, each))):
        return []
    return [i for i, one in enumerate(each) if isinstance(one, types)]


def _moments(
    values: NDArray[Any],
    ascending: Callable[[], SortedValues],
    levels: Levels,
    rounding: str,
    u: Array | None,
) -> Moments:
    """Moments by a pass over the values where they are few or drawn, else from the sorted ones."""
    if u is not None or values.size <= FEW_VALUES:
        return dense_moments(values, levels, rounding, u)
    return ascending().moments(levels, rounding)


def values_of(
    record: Record, channel_axis: int | None = None, output_axis: int | None = None
) -> PreparedValues | None:
    """A record's values, prepared; None where only statistics were recorded.

    Args:
        channel_axis: as the layer's geometry has it (`arrangement.channel_axis_of`).
        output_axis: of a weight or its gradient, the axis of the output channels.
    """
    if record.values is None:
        return None
    entries = entries_of(record, channel_axis, output_axis)
    nonfinite, layout = record.stats.nnan + record.stats.ninf, record.layout
    share = nonfinite / record.numel if record.numel else math.nan
    if layout is None:
        return PreparedValues(record.values, nonfinite == 0, nonfinite=share, entries=entries)
    rest = record.values[~is_extreme(layout)]
    extremes, total = finite_values(layout.extremes), record.numel - nonfinite
    return PreparedValues(rest, nonfinite == 0, extremes, total, share, entries)
