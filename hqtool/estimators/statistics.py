"""Statistics: observation → range. `needs_values` says whether exact statistics suffice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from hqtool.core.metrics import cosine
from hqtool.core.observation import Observation
from hqtool.core.search import golden_section
from hqtool.estimators.protocol import Reading
from hqtool.vocab import Range


class Statistic(Protocol):
    """Reads a range off an observation; None where the observation cannot tell."""

    needs_values: ClassVar[bool]

    def __call__(self, obs: Observation) -> Reading | None: ...


@dataclass(frozen=True, slots=True)
class MinMax:
    """(min, max) of the tensor; paper eq. 1."""

    needs_values: ClassVar[bool] = False

    def __call__(self, obs: Observation) -> Reading | None:
        wanted = obs.stats.range
        return None if wanted is None else Reading(wanted)


@dataclass(frozen=True, slots=True)
class MaxAbs:
    """(−max|x|, max|x|); [23] in the paper, and amax of FP8 recipes."""

    needs_values: ClassVar[bool] = False

    def __call__(self, obs: Observation) -> Reading | None:
        m = obs.stats.absmax
        return None if obs.stats.range is None else Reading(Range(-m, m))


@dataclass(frozen=True, slots=True)
class Deviations:
    """(−k·σ, k·σ), σ the population standard deviation; [15] in the paper.

    Args:
        k: number of standard deviations, > 0.
    """

    k: float
    needs_values: ClassVar[bool] = False

    def __call__(self, obs: Observation) -> Reading | None:
        if obs.stats.range is None:
            return None
        return Reading(Range(-self.k * obs.stats.std, self.k * obs.stats.std))


@dataclass(frozen=True, slots=True)
class BestCosine:
    """(a·min, a·max) for the clip ratio a ∈ (0, 1] of highest cosine; section 5.1, [25].

    Searched by golden section under rounding to nearest at the observation's number format.

    Args:
        tol: relative width of the bracket at which the search ends.
    """

    tol: float
    needs_values: ClassVar[bool] = True

    def __call__(self, obs: Observation) -> Reading | None:
        full = obs.stats.range
        if full is None or obs.values is None:
            return None

        def kept(a: float) -> float:
            moments = obs.moments(_scaled(full, a))
            return (moments and cosine(moments)) or 0.0

        ratio, evaluations = golden_section(kept, self.tol)
        return Reading(_scaled(full, ratio), evaluations)


def _scaled(full: Range, ratio: float) -> Range:
    return Range(ratio * full.lo, ratio * full.hi)
