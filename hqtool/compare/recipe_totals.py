"""What whole recipes cost: figures over all sites of a tensor kind, and over all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hqtool.compare.results import Summary
from hqtool.compare.unquantized import NONE
from hqtool.vocab import TENSOR_KINDS, Site


@dataclass(frozen=True, slots=True)
class RecipeTotal:
    """One recipe at the sites of one tensor kind, or at all sites.

    Figures of quality are plain means over the sites that it quantizes and that have them; None is
    missing.

    Args:
        tensor: None: of all kinds together.
        sites: number of sites replayed.
        unquantized: how many of them the recipe leaves as they are.
        sqnr_db_low: mean of the sites' worst tenths of records.
        exact: whether no scored record has an error.
        static_bytes, traffic_bytes: moved in a step if no look were taken, and as replayed, over
            the sites that have a bill; what is not quantized moves as float32. None without any.
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


def recipe_totals(summaries: Iterable[Summary]) -> list[RecipeTotal]:
    """The figures of each recipe, for each tensor kind in the usual order, and then in total.

    Args:
        summaries: of one trace, or of ranks taken together; those of no recipe do not count.
    """
    of_recipe: dict[str, list[Summary]] = {}
    for s in summaries:
        if s.recipe is not None:
            of_recipe.setdefault(s.recipe, []).append(s)
    return [total for name, of in of_recipe.items() for total in _totals(name, of)]


def _totals(recipe: str, summaries: Sequence[Summary]) -> list[RecipeTotal]:
    kinds = [kind for kind in TENSOR_KINDS if any(s.tensor == kind for s in summaries)]
    of_kinds = [_total(recipe, kind, [s for s in summaries if s.tensor == kind]) for kind in kinds]
    return [*of_kinds, _total(recipe, None, summaries)]


def _total(recipe: str, tensor: str | None, summaries: Sequence[Summary]) -> RecipeTotal:
    quantized = [s for s in summaries if s.format != NONE]
    return RecipeTotal(
        recipe=recipe,
        tensor=tensor,
        sites=len(summaries),
        unquantized=len(summaries) - len(quantized),
        sqnr_db=_mean(s.metrics["sqnr_db"] for s in quantized),
        sqnr_db_low=_mean(s.sqnr_db_low for s in quantized),
        cosine=_mean(s.metrics["cosine"] for s in quantized),
        exact=bool(quantized) and all(s.exact for s in quantized),
        static_bytes=_sum(_a_step(s, s.static_bytes) for s in summaries),
        traffic_bytes=_sum(_a_step(s, s.traffic_bytes) for s in summaries),
        looks=sum(s.looks / s.replayed_steps for s in quantized if s.replayed_steps),
        worst=_worst(quantized),
    )


def _a_step(summary: Summary, bytes_of_record: float | None) -> float | None:
    """Bytes of a site's records in a step; None where they have no bill."""
    if bytes_of_record is None or not summary.replayed_steps:
        return None
    return bytes_of_record * summary.replayed / summary.replayed_steps


def _sum(amounts: Iterable[float | None]) -> float | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if known else None


def _mean(figures: Iterable[float | None]) -> float | None:
    known = [figure for figure in figures if figure is not None]
    return sum(known) / len(known) if known else None


def _worst(summaries: Iterable[Summary]) -> Site | None:
    known = [(db, s) for s in summaries if (db := s.metrics["sqnr_db"]) is not None]
    lowest = min(known, key=lambda pair: pair[0], default=None)
    return Site(lowest[1].layer, lowest[1].tensor) if lowest else None
