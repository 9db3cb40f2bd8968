"""Statistics that search: the clip ratio under which quantizing serves an objective best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from hqtool.core.formats.format import ElementFormat
from hqtool.core.metrics import cosine, figure, sqnr_db
from hqtool.core.questions import Observation
from hqtool.core.search import Array, Indices, golden_section
from hqtool.estimators.protocol import Reading
from hqtool.vocab import Moments, Range

#: Steps of a search are evaluated ahead, at most so many, while their arguments times the values
#: are no more than this: fewer calls weigh more than evaluations in vain.
MOST_AHEAD, VALUES_AHEAD = 5, 1 << 13

#: SQNR in dB beyond which an error is rounding noise of float64.
NO_ERROR_DB = 250.0


class Objective(NamedTuple):
    """What a search maximises, and by how much two figures of it differ by rounding noise alone."""

    of: Callable[[Moments], Array]
    equal: float


def _cosine(moments: Moments) -> Array:
    return np.fmax(figure(cosine, moments), 0.0)


def _sqnr_db(moments: Moments) -> Array:
    """In dB; `NO_ERROR_DB` where there is no error, −inf where float64 cannot hold it."""
    found = np.where(moments.err == 0, NO_ERROR_DB, figure(sqnr_db, moments))
    return np.nan_to_num(np.minimum(found, NO_ERROR_DB), nan=-np.inf)


#: Objective by name. Of cosines the noise is ten times that of constant tensors of a million
#: values, and a five-hundredth of what rounding to 16 bits takes from a cosine; of errors, whose
#: sums keep six digits, it is twice the sixth. MSE is SQNR upside down: Σx² is the tensor's own.
OBJECTIVES: dict[str, Objective] = {
    "cosine": Objective(_cosine, 1e-13),
    "sqnr": Objective(_sqnr_db, 1e-5),
}


@dataclass(frozen=True, slots=True)
class BestClip:
    """(a·min, a·max) for the clip ratio a ∈ (0, 1] that serves an objective best.

    With 'cosine' it is direction sensitive gradient clipping (section 5.1, [25]); with 'sqnr' the
    range of least squared error, as post-training quantization sets it. Of equal figures the wider
    range is best: where all nonzero values are equal, every ratio keeps the direction, but only
    a = 1 keeps the magnitude.

    Searched by golden section under rounding to nearest at the observation's number format.

    Args:
        objective: a name of `OBJECTIVES`.
        tol: relative width of the bracket at which the search ends.
        coarse: how many ratios to scan before, log-spaced; with 0 only a = 1.
    """

    objective: str
    tol: float
    coarse: int = 0
    asks: ClassVar[frozenset[str]] = frozenset({"extremes", "format", "moments"})

    def __call__(self, obs: Observation) -> Reading | None:
        if obs.held is None:
            return None
        found = obs.once((self, obs.formats), lambda: self._search(obs))
        return found[obs.format]

    def _search(self, obs: Observation) -> dict[ElementFormat, Reading]:
        """The readings at every format of the record, searched side by side."""
        formats, objective = obs.formats, OBJECTIVES[self.objective]
        lo, hi = obs.stats.range or Range(0.0, 0.0)

        def served(which: Indices, a: Array) -> Array:
            wanted = [Range(r * lo, r * hi) for r in a.tolist()]
            moments = obs.moments(wanted, [formats[i] for i in which])
            return objective.of(moments) if moments else np.zeros(a.size)

        ahead = min(MOST_AHEAD, max(1, (VALUES_AHEAD // max(1, obs.held or 0)).bit_length()))
        ratios, evaluations = golden_section(
            served, len(formats), self.tol, self.coarse, objective.equal, ahead
        )
        pairs = zip(ratios.tolist(), evaluations.tolist(), strict=True)
        readings = [Reading(Range(r * lo, r * hi), e) for r, e in pairs]
        return dict(zip(formats, readings, strict=True))
