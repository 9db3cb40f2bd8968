"""Statistics of the parts of a tensor: a range for each channel, sample or row."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hqtool.core.questions import Observation
from hqtool.estimators.protocol import Reading
from hqtool.estimators.statistics import OfStats
from hqtool.vocab import EntryRanges


@dataclass(frozen=True, slots=True)
class PerEntry:
    """A statistic of each entry of a tensor by itself, by the formula it has for a tensor.

    An entry without a finite value other than 0 teaches nothing: its range is NaN. None where the
    record tells no extremes at this granularity, or where no entry teaches.

    Args:
        statistic: of `min`, `max`, `absmax` or `std`.
        per: as in `EntryRanges`.
    """

    statistic: OfStats
    per: str

    @property
    def asks(self) -> frozenset[str]:
        """What the statistic asks, and which entries teach something."""
        return self.statistic.asks | {"extremes"}

    @property
    def reads_channel_extremes(self) -> bool:
        """The recorded extremes of channels are all it needs."""
        return self.per == "channel" and "spread" not in self.statistic.asks

    def __call__(self, obs: Observation) -> Reading | None:
        extremes = obs.extremes(self.per)
        if not isinstance(extremes, EntryRanges):
            return None
        entries = _EntryStats(obs, extremes)
        if "spread" in self.asks and entries.std is None:
            return None
        teaches = entries.absmax > 0  # not where it is NaN
        if not teaches.any():
            return None
        lo, hi = (np.where(teaches, ends, np.nan) + 0.0 for ends in self.statistic.ends(entries))
        return Reading(EntryRanges(self.per, lo, hi))


class _EntryStats:
    """The entries of `Stats` that an entry of a tensor has, as arrays with one for each."""

    def __init__(self, obs: Observation, extremes: EntryRanges) -> None:
        self._obs = obs
        self._per = extremes.per
        self.min, self.max = extremes.lo, extremes.hi

    @cached_property
    def absmax(self) -> Any:
        return np.maximum(np.abs(self.min), np.abs(self.max))

    @cached_property
    def std(self) -> Any:
        return self._obs.spread(self._per)


def reads_channel_extremes(estimator: object) -> bool:
    """Whether the recorded extremes of channels are all that an estimator needs to learn."""
    statistic = getattr(estimator, "statistic", None)
    return isinstance(statistic, PerEntry) and statistic.reads_channel_extremes


def at(per: str, statistic: OfStats) -> OfStats | PerEntry:
    """A statistic at a granularity: itself for 'tensor'."""
    return statistic if per == "tensor" else PerEntry(statistic, per)
