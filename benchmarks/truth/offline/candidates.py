"""The candidates: one number for each setting, the greater the more loss it foretells."""

from __future__ import annotations

from benchmarks.truth.offline.gradient_scores import GRADIENT_SCORES
from benchmarks.truth.offline.replayed import Replayed
from benchmarks.truth.offline.site_scores import SITE_SCORES, Score, meanings

CANDIDATES: tuple[Score, ...] = (*SITE_SCORES, *GRADIENT_SCORES)

#: Candidate → what it is.
MEANINGS = meanings(CANDIDATES)


def scores(replayed: Replayed) -> dict[str, float]:
    """Every candidate of one setting by name."""
    return {score.__name__: float(score(replayed)) for score in CANDIDATES}
