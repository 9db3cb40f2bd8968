"""How far the result of a search is from the best cosine of an exhaustive scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hqtool.core.metrics import cosine, figure
from hqtool.core.questions import Observation
from hqtool.core.search import LOWEST_RATIO, Array
from hqtool.vocab import Range

#: Ratios of the exhaustive scan, log-spaced from LOWEST_RATIO to 1; how many are computed at once.
RATIOS, RATIOS_AT_ONCE = 2048, 64

#: A second maximum counts when the dip before it is deeper than this share of 1 − best.
DIP = 0.05


@dataclass(frozen=True, slots=True)
class SearchGap:
    """One search compared with an exhaustive scan.

    Args:
        gap: best cosine of the scan minus the search's; 0 where the search is as good.
        multimodal: the cosine has more than one clear maximum.
    """

    gap: float
    multimodal: bool


def search_gap(obs: Observation, chosen: Range) -> SearchGap | None:
    """Compare a search's range with those of `RATIOS` ratios; None where nothing can be scanned."""
    if obs.held is None or obs.stats.range is None:
        return None
    curve: Array = obs.once(("cosine curve", obs.format), lambda: _curve(obs))
    mine = obs.moments([chosen])
    if mine is None or np.isnan(curve).any():
        return None
    gap = float(curve.max() - figure(cosine, mine)[0])
    return SearchGap(max(gap, 0.0), _has_two_maxima(curve))


def _curve(obs: Observation) -> Array:
    """The cosine at every ratio of the scan."""
    lo, hi = obs.stats.range or Range(0.0, 0.0)
    ratios = np.geomspace(LOWEST_RATIO, 1.0, RATIOS)
    parts = [
        figure(cosine, moments)
        for some in np.array_split(ratios, RATIOS // RATIOS_AT_ONCE)
        if (moments := obs.moments([Range(r * lo, r * hi) for r in some.tolist()]))
    ]
    return np.concatenate(parts)


def _has_two_maxima(curve: Array) -> bool:
    """Whether the curve rises again by more than a dip, left or right of its highest point."""
    top = int(np.argmax(curve))
    dip = DIP * (1 - curve[top])
    sides = (curve[top::-1], curve[top:])
    return any(bool((side - np.minimum.accumulate(side) > dip).any()) for side in sides)
