"""An observation that answers from what a trace recorded of a tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from hqtool.core.arrangement import part_size
from hqtool.core.formats.block import BlockFormat
from hqtool.core.formats.format import ElementFormat, Format
from hqtool.core.formats.householder import HouseholderFormat
from hqtool.core.formats.lanes import levels_over
from hqtool.core.moments.entries import EntryValues
from hqtool.core.observation import PreparedValues
from hqtool.vocab import AnyRange, EntryRanges, Moments, Range, Stats

T = TypeVar("T")


class RecordedObservation:
    """A record as an `Observation`.

    Args:
        stats: exact statistics of the full tensor.
        format: the number format aimed at.
        values: None where only statistics were recorded.
        formats: all formats this record is replayed at, `format` among them: a search that
            serves several at once costs little more than one.
        step: of the run.
        shape: of the full tensor.
        channel_extremes: (2, channels) the extremes of each channel, where they were recorded.
        channel_axis: as the layer's geometry has it (`arrangement.channel_axis_of`).
    """

    __slots__ = (
        "_channel_axis",
        "_channel_extremes",
        "_known",
        "_values",
        "format",
        "formats",
        "shape",
        "stats",
        "step",
    )

    def __init__(
        self,
        stats: Stats,
        format: ElementFormat,
        values: PreparedValues | None = None,
        formats: tuple[ElementFormat, ...] = (),
        step: int = 0,
        shape: tuple[int, ...] = (),
        channel_extremes: NDArray[np.float64] | None = None,
        channel_axis: int | None = None,
    ) -> None:
        self.stats = stats
        self.format = format
        self.formats = formats or (format,)
        self.step = step
        self.shape = shape
        self._values = values
        self._channel_extremes = channel_extremes
        self._channel_axis = channel_axis
        self._known: dict[Hashable, Any] = {}

    @property
    def held(self) -> int | None:
        """How many values were kept; None where only statistics were."""
        return None if self._values is None else self._values.size

    @property
    def teaches(self) -> bool:
        """The tensor holds a finite value other than 0."""
        return self.stats.absmax > 0

    @property
    def all_zero(self) -> bool:
        """The tensor's finite values are all 0, and there are some."""
        return self.stats.absmax == 0

    def part_size(self, per: str) -> int:
        """How many elements a part has that can be read by itself."""
        return part_size(self.shape, per, self._channel_axis)

    @property
    def range_at_scale_one(self) -> Range:
        """The range whose levels are those of the format itself."""
        return range_at_scale_one(self.format)

    def extremes(self, per: str = "tensor") -> AnyRange | None:
        """(min, max) of the whole tensor, or of each entry, as far as the record tells.

        Those of a sample's entries are of the values kept and of the tensor's known extremes.
        """
        if per == "tensor":
            return self.stats.range
        known, entries = self._channel_extremes, self._entries
        if per == "channel" and known is not None and _fits(known, entries):
            return EntryRanges(per, known[0], known[1])
        if entries is None:
            return None
        return self.once(("extremes", per), lambda: entries.extremes(per))

    def spread(self, per: str) -> NDArray[np.float64] | None:
        """The standard deviation of each entry; of a sample's, that of the values kept."""
        entries = self._entries
        if entries is None:
            return None
        return self.once(("spread", per), lambda: entries.spread(per))

    @property
    def _entries(self) -> EntryValues | None:
        return None if self._values is None else self._values.entries

    def quantiles(self, shares: Sequence[float]) -> tuple[float, ...] | None:
        """Between two values in proportion; of a sample each value counts by its weight."""
        if self._values is None or not self.stats.absmax >= 0:
            return None
        values, weights = self.once("weighted values", self._weighted_values)
        if not values.size:
            return None
        return tuple(_quantile(values, weights, share) for share in shares)

    def magnitude(self) -> float | None:
        """From the statistics where all values have one sign, else from the values."""
        if self.stats.min >= 0 or self.stats.max <= 0:
            return abs(self.stats.mean)
        if self._values is None:
            return None
        return self.once("magnitude", self._magnitude)

    def clipped(self, within: Range) -> float | None:
        """From the statistics where the range holds all values, else from the values."""
        known = self.stats.range
        if known is not None and within.lo <= known.lo and known.hi <= within.hi:
            return 0.0
        if self._values is None:
            return None
        parts = self._values.parts
        total = sum(part.size * weight for part, weight in parts)
        outside = sum(_count_outside(part, within) * weight for part, weight in parts)
        return outside / total if total else math.nan

    def moments(
        self, wanted: Sequence[AnyRange], formats: Sequence[ElementFormat] | None = None
    ) -> Moments | None:
        """Moments under rounding to nearest on the levels of each range; None without values."""
        if self._values is None:
            return None
        formats = formats or [self.format] * len(wanted)
        return self._values.moments(wanted, formats)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """The result of `make`; kept with the values, which serve all estimators and formats."""
        if self._values is not None:
            return self._values.once(key, make)
        if key not in self._known:
            self._known[key] = make()
        found: T = self._known[key]
        return found

    def _magnitude(self) -> float:
        """Values are divided by their number before they are added up: no sum overflows."""
        assert self._values is not None
        parts = [(np.abs(part), weight) for part, weight in self._values.parts]
        total = sum(part.size * weight for part, weight in parts)
        shares = [float(np.sum(part.astype(np.float64) / total)) * w for part, w in parts]
        return sum(shares) if total else math.nan

    def _weighted_values(self) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """The values ascending, and for how many of the tensor's each one stands."""
        assert self._values is not None
        parts = self._values.parts
        values = np.concatenate([part for part, _ in parts])
        weights = np.concatenate([np.full(part.size, weight) for part, weight in parts])
        order = np.argsort(values, kind="stable")
        return values[order], weights[order]


def _fits(extremes: NDArray[np.float64], entries: EntryValues | None) -> bool:
    """Whether recorded extremes of channels are of the channels that the values have."""
    return entries is None or entries.count("channel") == extremes.shape[1]


def range_at_scale_one(format_: Format) -> Range:
    """The range over which a format's levels are its own numbers, undivided.

    (−448, 448) of e4m3; of integers one where Δ = 1: (−128, 127) of int8; of nvfp4, whose tensors
    have a scale beside those of blocks, (−2688, 2688).
    """
    if isinstance(format_, BlockFormat):
        return Range(-format_.largest, format_.largest)
    if isinstance(format_, HouseholderFormat):
        return range_at_scale_one(format_.element)
    element = cast(ElementFormat, format_)
    unit = levels_over(element, Range(-1.0, 1.0))
    own = Range(float(unit.lowest), float(unit.highest))
    if levels_over(element, own).scale == 1:
        return own
    return Range(-1.0 / unit.scale, 1.0 / unit.scale)


def _count_outside(values: NDArray[Any], within: Range) -> int:
    below, above = values < within.lo, values > within.hi
    return int(np.count_nonzero(below) + np.count_nonzero(above))


def _quantile(values: NDArray[Any], weights: NDArray[np.float64], share: float) -> float:
    """The value at a share of the weight; numpy's `quantile` where all weights are equal."""
    middles = np.cumsum(weights) - weights / 2
    place = float(middles[0]) + share * float(middles[-1] - middles[0])
    upper = min(max(int(np.searchsorted(middles, place)), 1), values.size - 1)
    if values.size == 1:
        return float(values[0])
    gap = float(middles[upper] - middles[upper - 1])
    part = min(max((place - float(middles[upper - 1])) / gap, 0.0), 1.0)
    return (1 - part) * float(values[upper - 1]) + part * float(values[upper])
