"""Statistics: observation → range."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from hqtool.core.formats.format import ElementFormat
from hqtool.core.questions import Observation
from hqtool.core.recorded import range_at_scale_one
from hqtool.estimators.protocol import Reading
from hqtool.vocab import Range


class Statistic(Protocol):
    """Reads a range from an observation; None where the record lacks the values it needs.

    One with a method `join`, from the readings of a step's records to the reading of the step, has
    them joined in its own way; without, the lowest and the highest end are taken.
    """

    @property
    def asks(self) -> frozenset[str]:
        """The questions of `QUESTIONS` that it may ask; any other one is refused."""

    def __call__(self, obs: Observation) -> Reading | None: ...


class OfStats(ABC):
    """A statistic that is a formula in the exact statistics, which every record has."""

    __slots__ = ()
    asks: ClassVar[frozenset[str]]

    @abstractmethod
    def ends(self, stats: Any) -> tuple[Any, Any]:
        """(lo, hi) of a tensor, or of many: entries of `Stats` may be floats or arrays alike."""

    def __call__(self, obs: Observation) -> Reading:
        """The range of one tensor; a −0 becomes 0."""
        lo, hi = self.ends(obs.stats)
        return Reading(Range(float(lo) + 0.0, float(hi) + 0.0))


@dataclass(frozen=True, slots=True)
class MinMax(OfStats):
    """(min, max) of the tensor; paper eq. 1."""

    asks: ClassVar[frozenset[str]] = frozenset({"extremes"})

    def ends(self, stats: Any) -> tuple[Any, Any]:
        return stats.min, stats.max


@dataclass(frozen=True, slots=True)
class MaxAbs(OfStats):
    """(−max|x|, max|x|); [23] in the paper, and amax of FP8 recipes."""

    asks: ClassVar[frozenset[str]] = frozenset({"extremes"})

    def ends(self, stats: Any) -> tuple[Any, Any]:
        return -stats.absmax, stats.absmax


@dataclass(frozen=True, slots=True)
class Deviations(OfStats):
    """(−k·σ, k·σ), σ the population standard deviation; [15] in the paper.

    Where k·σ overflows, the largest float64 is taken.

    Args:
        k: number of standard deviations, > 0.
    """

    k: float
    asks: ClassVar[frozenset[str]] = frozenset({"spread"})

    def ends(self, stats: Any) -> tuple[Any, Any]:
        with np.errstate(over="ignore"):
            reach = np.minimum(self.k * stats.std, sys.float_info.max)
        return -reach, reach


class OfStatsAndFormat(ABC):
    """A statistic that is a formula in the exact statistics and the number format."""

    __slots__ = ()
    asks: ClassVar[frozenset[str]]

    @abstractmethod
    def ends(self, stats: Any, format_: ElementFormat) -> tuple[Any, Any]:
        """(lo, hi) of a tensor that teaches, or of many: of floats or of arrays alike."""

    def __call__(self, obs: Observation) -> Reading:
        """The range of one tensor."""
        lo, hi = self.ends(obs.stats, obs.format)
        return Reading(Range(float(lo), float(hi)))


@dataclass(frozen=True, slots=True)
class AmaxOrOne(OfStatsAndFormat):
    """(−max|x|, max|x|); where the tensor holds NaN or infinities, the range of scale 1.

    TransformerEngine's current scaling: an amax that is not finite gives no scale, so 1 is taken.
    """

    asks: ClassVar[frozenset[str]] = frozenset({"extremes", "nonfinite", "format"})

    def ends(self, stats: Any, format_: ElementFormat) -> tuple[Any, Any]:
        finite, one = stats.nnan + stats.ninf == 0, range_at_scale_one(format_)
        amax = stats.absmax
        return np.where(finite, -amax, one.lo), np.where(finite, amax, one.hi)
