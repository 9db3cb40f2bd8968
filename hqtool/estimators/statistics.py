"""Statistics: observation → range."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from hqtool.core.grid import Format
from hqtool.core.metrics import cosine, figure
from hqtool.core.observation import Observation
from hqtool.core.search import Array, Indices, golden_section
from hqtool.estimators.protocol import Reading
from hqtool.vocab import Range


class Statistic(Protocol):
    """Reads a range from an observation; None where the record lacks the values it needs."""

    def __call__(self, obs: Observation) -> Reading | None: ...


class OfStats(ABC):
    """A statistic that is a formula in the exact statistics, which every record has."""

    __slots__ = ()

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

    def ends(self, stats: Any) -> tuple[Any, Any]:
        return stats.min, stats.max


@dataclass(frozen=True, slots=True)
class MaxAbs(OfStats):
    """(−max|x|, max|x|); [23] in the paper, and amax of FP8 recipes."""

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

    def ends(self, stats: Any) -> tuple[Any, Any]:
        with np.errstate(over="ignore"):
            reach = np.minimum(self.k * stats.std, sys.float_info.max)
        return -reach, reach


#: Cosines that differ by no more are equal: ten times the rounding noise of constant tensors of
#: a million values, and a five-hundredth of what rounding to 16 bits takes from a cosine.
EQUAL_COSINES = 1e-13


#: Steps of a search are evaluated ahead, at most so many, while their arguments times the values
#: are no more than this: fewer calls weigh more than evaluations in vain.
MOST_AHEAD, VALUES_AHEAD = 5, 1 << 13


@dataclass(frozen=True, slots=True)
class BestCosine:
    """(a·min, a·max) for the clip ratio a ∈ (0, 1] of highest cosine; section 5.1, [25].

    Of equal cosines the wider range is best: where all nonzero values are equal, every ratio keeps
    the direction, but only a = 1 keeps the magnitude.

    Searched by golden section under rounding to nearest at the observation's number format.

    Args:
        tol: relative width of the bracket at which the search ends.
        coarse: how many ratios to scan before, log-spaced; with 0 only a = 1.
    """

    tol: float
    coarse: int = 0

    def __call__(self, obs: Observation) -> Reading | None:
        if obs.values is None:
            return None
        found = obs.values.once((self, obs.formats), lambda: self._search(obs))
        return found[obs.format]

    def _search(self, obs: Observation) -> dict[Format, Reading]:
        """The readings at every format of the record, searched side by side."""
        formats = obs.formats
        lo, hi = obs.stats.range or Range(0.0, 0.0)

        def kept(which: Indices, a: Array) -> Array:
            wanted = [Range(r * lo, r * hi) for r in a.tolist()]
            moments = obs.moments(wanted, [formats[i] for i in which])
            return np.fmax(figure(cosine, moments), 0.0) if moments else np.zeros(a.size)

        size = obs.values.size if obs.values is not None else 0
        ahead = min(MOST_AHEAD, max(1, (VALUES_AHEAD // max(1, size)).bit_length()))
        ratios, evaluations = golden_section(
            kept, len(formats), self.tol, self.coarse, EQUAL_COSINES, ahead
        )
        pairs = zip(ratios.tolist(), evaluations.tolist(), strict=True)
        readings = [Reading(Range(r * lo, r * hi), e) for r, e in pairs]
        return dict(zip(formats, readings, strict=True))
