"""The summary of a site that a recipe leaves as it is."""

from __future__ import annotations

import numpy as np

from hqtool.compare.results import Measured, Summary
from hqtool.compare.sums import ReplaySums, mean_bytes
from hqtool.core.metrics import METRICS
from hqtool.trace.history import SiteHistory
from hqtool.traffic.layers import Counts
from hqtool.vocab import Site

#: How rows name what is not quantized.
NONE = "none"

#: Bits that it is billed at: float32.
WIDE_BITS = 32

#: The metrics of a tensor that stays as it is.
_EXACT: Measured = {
    "mse": 0.0,
    "cosine": 1.0,
    "norm_ratio": 1.0,
    "gain": 1.0,
    "saturation": 0.0,
    "underflow": 0.0,
    "noise": 0.0,
}


def unquantized(
    site: Site,
    history: SiteHistory,
    past: int,
    sums: ReplaySums,
    counts: Counts | None,
    recipe: str | None,
) -> Summary:
    """Exact wherever values could be scored, never a look, and billed as float32.

    Args:
        past: index of the first record after calibration.
    """
    kept = np.flatnonzero(history.has_values[past:]) + past
    largest = history.stats.absmax[kept]
    finite = int(np.count_nonzero(largest == largest))
    elements = history.numels[kept].sum(axis=-1)
    nonfinite = (history.stats.nnan + history.stats.ninf)[kept]
    lost = nonfinite[elements > 0] / elements[elements > 0]  # an empty tensor has no share
    return Summary(
        layer=site.layer,
        tensor=site.tensor,
        estimator=NONE,
        format=NONE,
        rounding=NONE,
        bits=WIDE_BITS,
        steps=finite,
        metrics=_metrics(finite, float(lost.mean()) if lost.size else None),
        looks=0,
        evaluations=0,
        postponed=0,
        sampled=0,
        **mean_bytes(site, WIDE_BITS, 0, sums, counts),
        exact=finite > 0,
        exact_steps=int(np.count_nonzero(largest > 0)),
        unscored=kept.size - finite,
        recipe=recipe,
        **sums.of_site,
    )


def _metrics(scored: int, nonfinite: float | None) -> Measured:
    known = _EXACT if scored else {}
    return {name: known.get(name) for name in METRICS} | {"nonfinite": nonfinite}
