"""What an estimator is, and the two pure functions with which replay and training run it.

A step is `decide` for each of its records, all from the state before the step, and one `advance`
after the last of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from hqtool.core.entry_ranges import joined_ranges
from hqtool.core.questions import Asked, Observation
from hqtool.vocab import AnyRange, Decision, EntryRanges, Look, Range


class Reading(NamedTuple):
    """What an estimator read from a tensor, or from all tensors of a step.

    Args:
        range: the range that its statistic gives; None where it gives something else.
        evaluations: how many passes over the tensor a search took for it.
        figures: numbers beside or instead of the range, such as shares of values clipped.
        weight: how much they count among those of a step: mostly the number of elements.
    """

    range: AnyRange | None
    evaluations: int = 0
    figures: tuple[float, ...] = ()
    weight: float = 1.0


class Plan(NamedTuple):
    """What an estimator is going to do with each record of the next step.

    Args:
        range: what is known to quantize them with; None: nothing, or the format needs none.
        reads: whether it reads something of them; at a look it always does.
        looks: whether it must look at each of them before it quantizes it.
        always: it looks at every step; where a record lacks values to look at, it would look all
            the same, and never makes up for it.
        scale_one: quantize with the levels of the format itself; `range` is None then.
        per: the granularity of its looks, as in `Look`.
    """

    range: AnyRange | None
    reads: bool = False
    looks: bool = False
    always: bool = False
    scale_one: bool = False
    per: str = "tensor"


class Estimator(Protocol):
    """Chooses the ranges of a site's records step by step; one object serves replay and training.

    It is a frozen value without memory: all that it knows of a site is in the state, a frozen
    value of its own that nobody else looks into. One with a method `join`, from the readings of a
    step's records (at least one) to the reading of the step, joins them in its own way; without,
    `joined` does.
    """

    @property
    def asks(self) -> frozenset[str]:
        """The questions of `QUESTIONS` that `read` may ask; any other one is refused."""

    def start(self) -> Any:
        """The state before a site's first step."""

    def plan(self, state: Any) -> Plan:
        """The plan for the next step, from the state before it."""

    def read(self, state: Any, obs: Observation) -> Reading | None:
        """What it reads of a tensor, where `plan` reads.

        None where `obs` lacks what it takes, or where the tensor teaches nothing.
        """

    def learn(self, state: Any, reading: Reading | None, used: AnyRange | None = None) -> Any:
        """The state after one more step.

        Args:
            reading: of all its records; None: nothing was read.
            used: the range that quantized them (the widest ends, where each was looked at); None
                where nothing did, or where a decision is under way.
        """


def decide(estimator: Estimator, state: Any, obs: Observation) -> tuple[Decision, Reading | None]:
    """The decision on one record, and what was read of it, for `advance`.

    Args:
        state: the state before the record's step, the same for each record of the step.

    A look adds the record's own reading to what is known. A tensor without finite values other
    than 0 teaches nothing: it is quantized with the known range, or with (0, 0) where none is known
    and it is all zero. It takes a look to find that out, so the decision has `looked` where one was
    due. Where a record lacks the values that a look needs, the look is `postponed`, unless the
    estimator looks at every step: then the look counts, though nothing is learned from it.

    Raises:
        UndeclaredQuestionError: the estimator asks what it does not declare.
        TypeError: it reads what is no `Reading`.
    """
    plan, asked = estimator.plan(state), asked_by(estimator, obs)
    reading = estimator.read(state, asked) if plan.reads or plan.looks else None
    if reading is not None and not isinstance(reading, Reading):
        raise TypeError(f"{reading!r} is read, and is no Reading")
    if not plan.looks:
        return Decision(_standing(plan, asked)), reading
    if reading is not None:
        plan = estimator.plan(estimator.learn(state, reading))
    known = _standing(plan, asked)
    if known is None and obs.all_zero:
        known = Range(0.0, 0.0)
    if reading is None and obs.teaches and not plan.always:
        return Decision(known, postponed=True), None
    if isinstance(known, EntryRanges):
        known = _zero_where_all_zero(known, obs)
    return Decision(known, _look(plan, reading, obs)), reading


def asked_by(estimator: Estimator, obs: Observation) -> Asked:
    """An observation that answers what the estimator declares."""
    return Asked(obs, estimator.asks, f"a {type(estimator).__name__} estimator")


def _standing(plan: Plan, asked: Asked) -> AnyRange | None:
    return asked.range_at_scale_one if plan.scale_one else plan.range


def _look(plan: Plan, reading: Reading | None, obs: Observation) -> Look:
    """A look at the whole tensor, or at one of its samples or rows after the other.

    It is the same whether the tensor taught something, and whether its values were recorded.
    """
    evaluations = reading.evaluations if reading else 0
    return Look(plan.per, obs.part_size(plan.per), evaluations)


def _zero_where_all_zero(known: EntryRanges, obs: Observation) -> EntryRanges:
    """(0, 0) for entries that a look has found to be all zero, where nothing else is known."""
    found = obs.extremes(known.per)
    if not isinstance(found, EntryRanges) or len(found) != len(known):
        return known
    zero = np.isnan(known.lo) & (found.lo == 0) & (found.hi == 0)
    lo, hi = (np.where(zero, 0.0, ends) for ends in (known.lo, known.hi))
    return EntryRanges(known.per, lo, hi)


def advance(
    estimator: Estimator,
    state: Any,
    readings: Iterable[Reading | None],
    used: AnyRange | None = None,
) -> Any:
    """The state after a step, from the readings of its records, joined as if of one batch.

    Args:
        used: the range that quantized them; of several, `widest` gives it.
    """
    taken = [reading for reading in readings if reading is not None]
    return estimator.learn(state, joined_by(estimator, taken) if taken else None, used)


def joined_by(estimator: Estimator, readings: Sequence[Reading]) -> Reading:
    """At least one reading joined as the estimator does it: the reading of their step."""
    together: Reading = getattr(estimator, "join", joined)(readings)
    return together


def joined(readings: Sequence[Reading]) -> Reading:
    """The lowest and the highest end of at least one reading, and all their passes.

    Their figures, as many in each, are averaged by weight.
    """
    if len(readings) == 1:
        return readings[0]
    ranges = [each.range for each in readings if each.range is not None]
    weights = [each.weight for each in readings]
    figures = zip(*(each.figures for each in readings), strict=True)
    return Reading(
        range=widest(ranges),
        evaluations=sum(each.evaluations for each in readings),
        figures=tuple(_mean(each, weights) for each in figures),
        weight=sum(weights),
    )


def _mean(figures: Iterable[float], weights: Sequence[float]) -> float:
    pairs = zip(figures, weights, strict=True)
    return sum(figure * weight for figure, weight in pairs) / sum(weights)


def widest(ranges: Sequence[AnyRange]) -> AnyRange | None:
    """The lowest and the highest end, entry by entry; None of no range."""
    if len(ranges) < 2:
        return ranges[0] if ranges else None
    return joined_ranges(ranges)
