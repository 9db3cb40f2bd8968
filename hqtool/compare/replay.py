"""Replaying one site through all quantizers: a summary for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqtool.compare.lanes import Lane, Lanes, ReadRecord, SteppedLanes, groups_of
from hqtool.compare.recipe_sites import SiteQuantizer
from hqtool.compare.results import Measured, StepRow, Summary, by_metric
from hqtool.compare.scoring import (
    MSE,
    Decided,
    Figures,
    batches,
    places_with_values,
    score,
)
from hqtool.compare.settings import ReplaySettings
from hqtool.compare.sums import ReplaySums, mean_bytes
from hqtool.compare.unquantized import unquantized
from hqtool.core.observation import PreparedValues, values_of
from hqtool.estimators.quantizer import Quantizer, unique
from hqtool.trace.history import SiteHistory
from hqtool.traffic.bill import DEFAULT_BITS
from hqtool.traffic.layers import Counts
from hqtool.vocab import Decision, Record, Site


def replay(
    site: Site,
    history: SiteHistory,
    settings: ReplaySettings,
    counts: Counts | None = None,
    on_row: Callable[[StepRow], None] | None = None,
    given: Sequence[SiteQuantizer] = (),
) -> list[Summary]:
    """Run every quantizer over one site.

    The decisions of estimators that need statistics alone are computed in advance; the others are
    run step by step. Only records with values, those that an estimator must see, and with `on_row`
    those of a quantized run are visited.

    Args:
        history: the site's records; each is read and prepared once, and then dropped.
        counts: elements of the layer's tensors, for the bill; None where unknown.
        on_row: called with each scored record of each lane, in order, soon after it is known; of a
            quantized run with every record, for the ranges to be compared with those used. A lane
            is a quantizer, be it asked for by itself, by recipes, or both.
        given: what each recipe gives the site.

    Returns:
        One summary for each quantizer, in the order of the settings, and then one for each recipe.
    """
    starts = history.starts.tolist()
    past = [*starts, len(history)][min(settings.calibrate, len(starts))]
    of_recipes = [each.quantizer for each in given if each.quantizer is not None]
    quantizers = unique([*settings.quantizers, *of_recipes])
    lanes = [Lane(quantizer, i) for i, quantizer in enumerate(quantizers)]
    groups = groups_of(lanes, history, past)
    order = _order(groups)
    sums = ReplaySums(history, past, len(lanes))
    shows = history.has_values | (on_row is not None and history.of_quantized_run)
    stepped = [group for group in groups if isinstance(group, SteppedLanes)]
    decided = (
        Decided(record, values, _decisions_at(index, groups, order))
        for index, record, values in _decided(history, past, stepped, settings.search_gap, shows)
    )
    for batch in batches(decided):
        figures = score(batch, quantizers, settings.seed, site)
        scored = places_with_values(batch)
        sums.scored(figures[:, scored], [batch[i].record for i in scored])
        if on_row is not None:
            for row in _rows(site, batch, lanes, figures):
                on_row(row)
    held = settings.buffer_bytes * 8 // DEFAULT_BITS.acc
    found = dict(zip(quantizers, _summaries(site, lanes, sums, counts, held), strict=True))
    return [
        *(found[quantizer] for quantizer in settings.quantizers),
        *(
            unquantized(site, history, past, sums, counts, each.recipe)
            if each.quantizer is None
            else replace(found[each.quantizer], recipe=each.recipe)
            for each in given
        ),
    ]


def _order(groups: Sequence[Lanes]) -> list[int] | None:
    """Of each lane, its index among the lanes of one group after the other; None where the same."""
    order = np.argsort([lane.place for group in groups for lane in group.lanes]).tolist()
    return None if order == [*range(len(order))] else order


def _decisions_at(
    index: int, groups: Sequence[Lanes], order: Sequence[int] | None
) -> list[Decision]:
    """Each lane's decision at a record, in the order of lanes."""
    found = [decision for group in groups for decision in group.at(index)]
    return found if order is None else [found[i] for i in order]


def _decided(
    history: SiteHistory,
    past: int,
    stepped: Sequence[SteppedLanes],
    search_gap: bool,
    shows: NDArray[np.bool_],
) -> Iterator[tuple[int, Record, PreparedValues | None]]:
    """Each record to score or to show, at the moment when all lanes have decided on it."""
    shown = shows.tolist()
    kept = (shows | history.has_channel_extremes).tolist()
    starts = [*history.starts.tolist(), len(history)]
    wanted = np.flatnonzero(shows[past:]) + past
    found = np.searchsorted(starts, wanted, "right") - 1
    steps_wanted = iter(dict.fromkeys(found.tolist()))
    for step in _steps_to_visit(len(starts) - 1, steps_wanted, stepped):
        shown_to = [lanes for lanes in stepped if lanes.begin()]
        for index in range(starts[step], starts[step + 1]):
            is_wanted = shown[index] and index >= past
            if not (shown_to or is_wanted):
                continue
            record = history.record(index) if kept[index] else None
            values = None if record is None else values_of(record, *history.axes)
            read = ReadRecord(values, None if record is None else record.channel_extremes)
            for lanes in shown_to:
                _show(lanes, history, index, read, index >= past, search_gap)
            if is_wanted and record is not None:
                yield index, record, values
        for lanes in stepped:
            lanes.end()


def _steps_to_visit(
    steps: int, wanted: Iterator[int], stepped: Sequence[SteppedLanes]
) -> Iterator[int]:
    """The steps that hold records wanted, or to be read; lanes pass over those in between."""
    next_wanted = next(wanted, steps)
    while (step := min([steps, next_wanted, *(lanes.next_step() for lanes in stepped)])) < steps:
        for lanes in stepped:
            lanes.pass_over(step)
        yield step
        if step == next_wanted:
            next_wanted = next(wanted, steps)
    for lanes in stepped:
        lanes.pass_over(steps)


def _show(
    lanes: SteppedLanes,
    history: SiteHistory,
    index: int,
    read: ReadRecord,
    counted: bool,
    search_gap: bool,
) -> None:
    """Let lanes decide on a record, and count what they did."""
    decisions = lanes.show(index, read)
    if not counted:
        return
    numels = history.numels[index].tolist()
    for lane, decision in zip(lanes.lanes, decisions, strict=True):
        lane.ledger.count(decision, numels)
        if search_gap and decision.evaluations:
            lane.compare_with_scan(decision, lanes.observation(index, read, lane.format))


def _names(quantizer: Quantizer) -> dict[str, Any]:
    """How rows name a quantizer."""
    return {
        "estimator": quantizer.estimator.label,
        "format": quantizer.format.label,
        "rounding": quantizer.rounding,
        "bits": quantizer.bits,
    }


def _rows(
    site: Site, batch: Sequence[Decided], lanes: Sequence[Lane], figures: Figures
) -> Iterator[StepRow]:
    for (record, _, decisions), measured in zip(batch, np.moveaxis(figures, 1, 0), strict=True):
        yield from _rows_of_record(site, record, lanes, decisions, measured)


def _rows_of_record(
    site: Site,
    record: Record,
    lanes: Sequence[Lane],
    decisions: Sequence[Decision],
    figures: NDArray[np.float64],
) -> Iterator[StepRow]:
    for lane, decision, measured in zip(lanes, decisions, figures.T.tolist(), strict=True):
        lo, hi = (decision.range and decision.range.widest) or (None, None)
        least, most = record.stats.range or (None, None)
        yield StepRow(
            layer=site.layer,
            tensor=site.tensor,
            step=record.step,
            micro=record.micro,
            call=record.call,
            **_names(lane.quantizer),
            lo=lo,
            hi=hi,
            looked=decision.looked,
            metrics=by_metric(measured),
            min=least,
            max=most,
            exact=measured[MSE] == 0,
        )


def _summaries(
    site: Site, lanes: Sequence[Lane], sums: ReplaySums, counts: Counts | None, held: int
) -> list[Summary]:
    """One for each lane.

    Args:
        held: elements of accumulator output that the chip holds.
    """
    return [
        _summary(site, lane, sums, counts, held, means, low)
        for lane, means, low in zip(lanes, sums.means(), sums.lows(), strict=True)
    ]


def _summary(
    site: Site,
    lane: Lane,
    sums: ReplaySums,
    counts: Counts | None,
    held: int,
    means: Measured,
    low: float | None,
) -> Summary:
    i, moved = lane.place, lane.ledger.moved(held)
    on_chip = lane.ledger.moved() - moved
    return Summary(
        layer=site.layer,
        tensor=site.tensor,
        **_names(lane.quantizer),
        steps=int(sums.steps[i]),
        metrics=means,
        looks=lane.ledger.looks,
        evaluations=lane.ledger.evaluations,
        postponed=lane.ledger.postponed,
        sampled=int(sums.sampled[i]),
        **mean_bytes(site, lane.quantizer.bits, moved, sums, counts, on_chip),
        search_gap=max((gap.gap for gap in lane.gaps), default=None),
        multimodal=_share([gap.multimodal for gap in lane.gaps]),
        sqnr_db_low=low,
        exact=means["mse"] == 0,
        exact_steps=int(sums.exact[i]),
        unscored=int(sums.unscored[i]),
        learned_steps=lane.learned,
        missed_steps=lane.missed,
        **sums.of_site,
    )


def _share(facts: Sequence[bool]) -> float | None:
    return sum(facts) / len(facts) if facts else None
