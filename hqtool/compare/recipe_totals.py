"""What whole recipes cost: figures over all sites of a tensor kind, and over all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hqtool.compare.recipe_sites import SiteQuantizer
from hqtool.compare.results import Summary
from hqtool.vocab import TENSOR_KINDS, Site

#: Bits of an element that is not quantized.
FULL_BITS = 32


@dataclass(frozen=True, slots=True)
class RecipeTotal:
    """One recipe at the sites of one tensor kind, or at all sites.

    Figures are plain means over the sites that it quantizes and that have them; None is missing.

    Args:
        tensor: None: of all kinds together.
        sites: number of sites of the trace.
        unquantized: how many of them the recipe leaves as they are.
        sqnr_db_low: mean of the sites' worst tenths of records.
        exact: whether no scored record has an error.
        static_bytes, traffic_bytes: moved in a step if no look were taken, and as replayed; a
            tensor that is not quantized moves 32 bits an element. Over the sites of known
            geometry; None where there is none.
        looks: tensors looked at in a step.
        worst: the quantized site of lowest SQNR, None where none has a figure.
    """

    recipe: str
    tensor: str | None
    sites: int
    unquantized: int
    sqnr_db: float | None
    sqnr_db_low: float | None
    cosine: float | None
    exact: bool
    static_bytes: float | None
    traffic_bytes: float | None
    looks: float
    worst: Site | None


def recipe_totals(
    recipe: str,
    given: Mapping[Site, SiteQuantizer],
    summaries: Mapping[Site, Sequence[Summary]],
    steps: int,
) -> list[RecipeTotal]:
    """A recipe's figures for each tensor kind in the usual order, and then in total.

    Args:
        given: what the recipe gives each site.
        summaries: of each site, those of all quantizers that were replayed there.
        steps: how many steps were replayed after calibration.
    """
    costs = [_cost(each, site, summaries.get(site, ())) for site, each in given.items()]
    kinds = [kind for kind in TENSOR_KINDS if any(cost.site.tensor == kind for cost in costs)]
    of_kinds = [
        _total(recipe, kind, [cost for cost in costs if cost.site.tensor == kind], steps)
        for kind in kinds
    ]
    return [*of_kinds, _total(recipe, None, costs, steps)]


@dataclass(frozen=True, slots=True)
class _SiteCost:
    """What a recipe does at one site.

    Args:
        summary: None where it does not quantize.
        static, traffic: bytes over all replayed records; None where unknown.
    """

    site: Site
    summary: Summary | None
    static: float | None
    traffic: float | None


def _cost(given: SiteQuantizer, site: Site, summaries: Sequence[Summary]) -> _SiteCost:
    key = given.quantizer.key if given.quantizer else None
    found = [s for s in summaries if (s.estimator, s.format, s.rounding) == key]
    if not found:
        full = next(filter(None, map(_full_bytes, summaries)), None)
        return _SiteCost(site, None, full, full)
    (own,) = found
    known = own.static_bytes is not None and own.traffic_bytes is not None
    static = (own.static_bytes or 0) * own.replayed if known else None
    return _SiteCost(site, own, static, (own.traffic_bytes or 0) * own.replayed if known else None)


def _full_bytes(of: Summary) -> float | None:
    """What a site's records move unquantized: every term of a bill is proportional to the bits."""
    return None if of.static_bytes is None else of.static_bytes / of.bits * FULL_BITS * of.replayed


def _total(recipe: str, tensor: str | None, costs: Sequence[_SiteCost], steps: int) -> RecipeTotal:
    quantized = [cost.summary for cost in costs if cost.summary is not None]
    return RecipeTotal(
        recipe=recipe,
        tensor=tensor,
        sites=len(costs),
        unquantized=len(costs) - len(quantized),
        sqnr_db=_mean(s.metrics["sqnr_db"] for s in quantized),
        sqnr_db_low=_mean(s.sqnr_db_low for s in quantized),
        cosine=_mean(s.metrics["cosine"] for s in quantized),
        exact=bool(quantized) and all(s.exact for s in quantized),
        static_bytes=_a_step((cost.static for cost in costs), steps),
        traffic_bytes=_a_step((cost.traffic for cost in costs), steps),
        looks=sum(s.looks for s in quantized) / max(1, steps),
        worst=_worst(quantized),
    )


def _mean(figures: Iterable[float | None]) -> float | None:
    known = [figure for figure in figures if figure is not None]
    return sum(known) / len(known) if known else None


def _a_step(amounts: Iterable[float | None], steps: int) -> float | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) / max(1, steps) if known else None


def _worst(summaries: Iterable[Summary]) -> Site | None:
    known = [(db, s) for s in summaries if (db := s.metrics["sqnr_db"]) is not None]
    lowest = min(known, key=lambda pair: pair[0], default=None)
    return Site(lowest[1].layer, lowest[1].tensor) if lowest else None
