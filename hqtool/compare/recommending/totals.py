"""Whole choices side by side: the mixed one, and each quantizer at every site."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hqtool.compare.pareto import Point, on_front
from hqtool.compare.recipe_totals import network_noise
from hqtool.compare.recommending.choosing import SiteChoice, Verdict
from hqtool.compare.recommending.outcomes import NONE, Outcome, mean_figure
from hqtool.compare.recommending.targets import FIGURES, LOWER_IS_BETTER, Measured
from hqtool.vocab import Site

#: The name of the choice that takes each site's own quantizer.
MIXED = "mixed"


@dataclass(frozen=True, slots=True)
class Total:
    """A choice for all sites.

    Args:
        choice: the quantizer that all sites have, or 'mixed'.
        bytes: moved in a mean step, at all sites together.
        mean, worst: each figure's mean over the sites, and that of its worst site.
        noise: of the network; see `network_noise`.
        met: at how many sites it meets the conditions; those left unquantized mostly do.
        on_front: whether no other choice is as cheap and better, or cheaper and as good.
    """

    choice: str
    bytes: float
    mean: Measured
    worst: Measured
    noise: float | None
    met: int
    on_front: bool = False


def totals(choices: Sequence[SiteChoice], by: str) -> list[Total]:
    """The mixed choice, every candidate at all sites, and no quantization, in this order.

    Args:
        choices: one for each site, all with the same candidates.
        unquantized: the outcome of `none` at each site.
        by: the figure that stands for quality on the front.
    """
    sites = [choice.site for choice in choices]
    mixed = _total(MIXED, sites, [c.chosen for c in choices], sum(map(_is_good, choices)))
    uniform = [
        _uniform(sites, column)
        for column in zip(*(choice.verdicts for choice in choices), strict=True)
    ]
    if NONE not in {total.choice for total in uniform}:
        uniform.append(_uniform(sites, [choice.unquantized for choice in choices]))
    found = [mixed, *uniform]
    front = on_front([Point(goodness(total.mean[by], by), (total.bytes,)) for total in found])
    return [replace(total, on_front=on) for total, on in zip(found, front, strict=True)]


def _is_good(choice: SiteChoice) -> bool:
    return choice.met or not choice.unquantized.missed


def _uniform(sites: Sequence[Site], verdicts: Sequence[Verdict]) -> Total:
    """The total of one quantizer, from the verdict on it at each site."""
    outcomes = [verdict.outcome for verdict in verdicts]
    met = sum(not verdict.missed for verdict in verdicts)
    return _total(outcomes[0].quantizer, sites, outcomes, met)


def _total(choice: str, sites: Sequence[Site], outcomes: Sequence[Outcome], met: int) -> Total:
    columns = {name: [outcome.figure(name) for outcome in outcomes] for name in FIGURES}
    mean = {name: mean_figure(values) for name, values in columns.items()}
    worst = {name: worst_figure(name, values) for name, values in columns.items()}
    noises = zip((site.tensor for site in sites), columns["noise"], strict=True)
    noise = network_noise(noises, len({site.layer for site in sites}))
    return Total(choice, math.fsum(each.bytes for each in outcomes), mean, worst, noise, met)


def worst_figure(name: str, values: Sequence[float | None]) -> float | None:
    """The worst of the known values; of figures of which 1 is best, the farthest from it."""
    known = [value for value in values if value is not None]
    return min(known, key=lambda value: goodness(value, name), default=None)


def goodness(value: float | None, name: str) -> float:
    """A figure as a number of which more is better; a missing one is worst."""
    if value is None:
        return -math.inf
    if name in LOWER_IS_BETTER:
        return -value
    return -abs(value - 1) if name in ("norm_ratio", "gain") else value
