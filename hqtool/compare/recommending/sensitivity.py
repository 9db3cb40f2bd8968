"""Which sites lose most at a given quantizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hqtool.compare.recommending.outcomes import Outcome
from hqtool.vocab import Site


@dataclass(frozen=True, slots=True)
class Loss:
    """What a quantizer costs at a site.

    Args:
        error: power of the error relative to the tensor's, 10^(−SQNR/10); None where missing.
        share: of the sum of all sites' errors.
        up_to_here: share of this site and all that lose more.
    """

    site: Site
    outcome: Outcome
    error: float | None
    share: float | None
    up_to_here: float | None


def sensitivity(sites: Sequence[tuple[Site, Outcome]]) -> list[Loss]:
    """The sites, those of the largest relative error first and those without figures last.

    Tensors differ in their units, so errors are added up relative to each tensor's own power.
    """
    found = [(site, outcome, _error(outcome)) for site, outcome in sites]
    found.sort(key=lambda each: -math.inf if each[2] is None else each[2], reverse=True)
    whole = math.fsum(error for *_, error in found if error is not None)
    losses, so_far = [], 0.0
    for site, outcome, error in found:
        share = error / whole if error is not None and whole else None
        so_far += share or 0.0
        losses.append(Loss(site, outcome, error, share, None if share is None else so_far))
    return losses


def _error(outcome: Outcome) -> float | None:
    db = outcome.figure("sqnr_db")
    if db is None:
        return None
    return 0.0 if math.isinf(db) else 10 ** (-db / 10)
