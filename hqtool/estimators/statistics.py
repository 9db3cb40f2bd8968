"""Statistics: observation → range. `needs_values` says whether exact statistics suffice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from hqtool.core.grid import Format
from hqtool.core.metrics import cosine, figure
from hqtool.core.observation import Observation
from hqtool.core.search import Array, Indices, golden_section
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
        coarse: ratios to scan before, log-spaced; 0 scans none but a = 1.
    """

    tol: float
    coarse: int = 0
    needs_values: ClassVar[bool] = True

    def __call__(self, obs: Observation) -> Reading | None:
        if obs.stats.range is None or obs.values is None:
            return None
        found = obs.values.once((self, obs.formats), lambda: self._search(obs))
        return found[obs.format]

    def _search(self, obs: Observation) -> dict[Format, Reading]:
        """The readings at every format of the record, searched side by side."""
        formats = obs.formats or (obs.format,)
        lo, hi = obs.stats.range or Range(0.0, 0.0)

        def kept(which: Indices, a: Array) -> Array:
            wanted = [Range(r * lo, r * hi) for r in a.tolist()]
            moments = obs.moments(wanted, [formats[i] for i in which])
            return np.fmax(figure(cosine, moments), 0.0) if moments else np.zeros(a.size)

        ratios, evaluations = golden_section(kept, len(formats), self.tol, self.coarse)
        pairs = zip(ratios.tolist(), evaluations.tolist(), strict=True)
        readings = [Reading(Range(r * lo, r * hi), e) for r, e in pairs]
        return dict(zip(formats, readings, strict=True))
