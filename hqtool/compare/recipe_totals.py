"""What whole recipes, or single quantizers everywhere, cost: over a tensor kind, and over all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hqtool.compare.results import Summary
from hqtool.compare.unquantized import NONE
from hqtool.estimators.quantizer import label_of
from hqtool.traffic.bill import DEFAULT_BITS
from hqtool.vocab import COUNTERPARTS, FORWARD, TENSOR_KINDS, Site

ACCUMULATOR_BYTES = DEFAULT_BITS.acc / 8


@dataclass(frozen=True, slots=True)
class RecipeTotal:
    """One recipe, or one quantizer, at the sites of one tensor kind, or at all sites.

    Figures of quality are plain means over the sites that it quantizes and that have them; None is
    missing.

    Args:
        recipe: its name; of a quantizer its label.
        tensor: None: of all kinds together.
        sites: number of sites replayed.
        unquantized: how many of them the recipe leaves as they are.
        sqnr_db_low: mean of the sites' worst tenths of records.
        noise: summed over the sites; see `network_noise`. None where nothing is quantized.
        exact: whether no scored record has an error.
        static_bytes, traffic_bytes: moved in a step if no look were taken, and as replayed, over
            the sites that have a bill; see `bill_of`. None without any.
        looks: tensors looked at in a step.
        worst: the quantized site of lowest SQNR, None where none has a figure.
        on_chip_bytes: of accumulator output that looks moved within the buffer in a step.
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
    on_chip_bytes: float = 0.0
    noise: float | None = None


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


def lane_totals(summaries: Iterable[Summary]) -> list[RecipeTotal]:
    """The same of each quantizer that was asked for by itself, at all sites."""
    of_lane: dict[str, list[Summary]] = {}
    for s in summaries:
        if s.recipe is None:
            of_lane.setdefault(label_of(s.estimator, s.format, s.rounding), []).append(s)
    return [total for name, of in of_lane.items() for total in _totals(name, of)]


def network_noise(noises: Iterable[tuple[str, float | None]], layers: int) -> float | None:
    """How much noise quantization adds to a network: Σ(x−q)²/Σx², summed over its sites.

    That of weights, inputs and outputs adds up on its way to the loss. The update of a layer has
    the noise of its own gradients, so that theirs is a mean over layers. It ranks recipes that
    quantize different tensors as accuracy does: `benchmarks/truth.md`, candidate `noise_split`.

    Args:
        noises: tensor kind and noise of each site that is quantized.
        layers: of the network.

    Returns:
        None where nothing is quantized, or a site has no scored record.
    """
    given = list(noises)
    known = [
        noise if tensor in FORWARD else noise / layers
        for tensor, noise in given
        if noise is not None
    ]
    return math.fsum(known) if known and len(known) == len(given) else None


def gain_db(
    recipe: str, base: str, summaries: Sequence[Summary]
) -> tuple[float | None, int | None]:
    """Mean SQNR of one recipe less that of another, over the sites that both quantize.

    Returns:
        the difference in dB, None where no such site has both figures; and the number of those
        sites, None where the recipes quantize the same ones.
    """
    of = {name: _quantized(name, summaries) for name in (recipe, base)}
    shared = of[recipe].keys() & of[base].keys()
    pairs = [(of[recipe][site], of[base][site]) for site in shared]
    gains = [db - other for db, other in pairs if db is not None and other is not None]
    gain = math.fsum(gains) / len(gains) if gains else None
    return gain, None if of[recipe].keys() == of[base].keys() else len(shared)


def alike(summaries: Sequence[Summary]) -> bool:
    """Whether all recipes that quantize anything quantize the same sites."""
    names = {s.recipe for s in summaries if s.recipe is not None}
    sets = {frozenset(_quantized(name, summaries)) for name in names}
    return len(sets - {frozenset()}) <= 1


def at_shared_sites(summaries: Sequence[Summary]) -> list[Summary]:
    """The summaries at the sites that all recipes quantize; one that quantizes nothing is left out.

    Means over them can be compared between recipes.
    """
    names = {s.recipe for s in summaries if s.recipe is not None}
    sets = [sites.keys() for name in names if (sites := _quantized(name, summaries))]
    shared = set(sets[0]).intersection(*sets) if sets else set()
    return [s for s in summaries if s.format != NONE and _site(s) in shared]


def _quantized(recipe: str, summaries: Sequence[Summary]) -> dict[Site, float | None]:
    """SQNR in dB of each site that a recipe quantizes."""
    own = (s for s in summaries if s.recipe == recipe and s.format != NONE)
    return {_site(s): s.metrics["sqnr_db"] for s in own}


def _totals(recipe: str, summaries: Sequence[Summary]) -> list[RecipeTotal]:
    kinds = [kind for kind in TENSOR_KINDS if any(s.tensor == kind for s in summaries)]
    bills = _bills(summaries)
    layers = len({s.layer for s in summaries})
    of_kinds = [
        _total(recipe, kind, [s for s in summaries if s.tensor == kind], bills, layers)
        for kind in kinds
    ]
    return [*of_kinds, _total(recipe, None, summaries, bills, layers)]


class BytesMoved(NamedTuple):
    """Mean bytes for a record of a site; None where there is no bill.

    Args:
        static, traffic: between chip and memory, without looks and with them.
        on_chip: of looks within the buffer.
    """

    static: float | None
    traffic: float | None
    on_chip: float | None


def _bills(summaries: Sequence[Summary]) -> dict[Site, BytesMoved]:
    """What a recipe's sites move."""
    of_site = {_site(s): s for s in summaries}
    named = {s.tensor for s in summaries if s.format != NONE}
    found = {}
    for site, s in of_site.items():
        kind = COUNTERPARTS.get(s.tensor)
        stored = of_site.get(Site(s.layer, kind)) if kind and s.tensor not in named else None
        found[site] = bill_of(s, stored)
    return found


def bill_of(summary: Summary, stored: Summary | None) -> BytesMoved:
    """What a site moves under a recipe: what is not quantized moves as float32.

    Args:
        stored: the layer's summary of the other kind of `COUNTERPARTS`, where the recipe quantizes
            the summary's own kind nowhere: what a layer puts out is stored as its like is read.
    """
    static = summary.static_bytes
    if static is None:
        return BytesMoved(None, None, None)
    if stored is None or stored.format == NONE:
        return BytesMoved(static, summary.traffic_bytes, summary.on_chip * ACCUMULATOR_BYTES)
    static *= stored.bits / summary.bits
    of_one = summary.elements * ACCUMULATOR_BYTES / stored.elements if stored.elements else 0.0
    return BytesMoved(static, static + stored.spilled * of_one, stored.on_chip * of_one)


def _site(summary: Summary) -> Site:
    return Site(summary.layer, summary.tensor)


def _total(
    recipe: str,
    tensor: str | None,
    summaries: Sequence[Summary],
    bills: Mapping[Site, BytesMoved],
    layers: int,
) -> RecipeTotal:
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
        static_bytes=_sum(_a_step(s, bills[_site(s)].static) for s in summaries),
        traffic_bytes=_sum(_a_step(s, bills[_site(s)].traffic) for s in summaries),
        on_chip_bytes=_sum(_a_step(s, bills[_site(s)].on_chip) for s in summaries) or 0.0,
        looks=sum(s.looks / s.replayed_steps for s in quantized if s.replayed_steps),
        worst=_worst(quantized),
        noise=network_noise(((s.tensor, s.metrics["noise"]) for s in quantized), layers),
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
