"""What an estimator is, and the two pure functions with which replay and training run it.

A step is `decide` for each of its records, all from the state before the step, and one `advance`
after the last of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from hqtool.core.observation import Observation
from hqtool.estimators.entry_ranges import joined_ranges
from hqtool.vocab import AnyRange, Decision, Range


class Reading(NamedTuple):
    """The range that a statistic read from a tensor, and how many passes a search took for it."""

    range: AnyRange
    evaluations: int = 0


class State(NamedTuple):
    """What an estimator knows of a site between two steps; immutable: replay is repeatable.

    Args:
        steps: how many steps of the site have passed.
        range: the range it would quantize with now; None before the first reading.
        recent: the last steps' readings, where a smoothing needs more than `range`.
        due: the number of steps after which the next periodic look is due.
    """

    steps: int = 0
    range: AnyRange | None = None
    recent: tuple[AnyRange, ...] = ()
    due: int = 0


class Plan(NamedTuple):
    """What an estimator is going to do with each record of the next step.

    Args:
        range: the range that quantizes them; None: it must look at each of them first.
        reads: whether it takes its statistic of them; at a look it always does.
    """

    range: AnyRange | None
    reads: bool


class Estimator(Protocol):
    """Chooses the ranges of a site's records step by step; one object serves replay and training.

    It is a frozen value without memory: all that it knows of a site is in the state.
    """

    def plan(self, state: State) -> Plan:
        """The plan for the next step, from the state before it."""

    def read(self, state: State, obs: Observation) -> Reading | None:
        """Its statistic of a tensor, where `plan` reads; None where `obs` lacks what it needs."""

    def learn(self, state: State, reading: Reading | None) -> State:
        """The state after one more step; None: nothing was read in it."""


def decide(estimator: Estimator, state: State, obs: Observation) -> tuple[Decision, Reading | None]:
    """The decision on one record, and what was read of it, for `advance`.

    Args:
        state: the state before the record's step, the same for each record of the step.

    A look adds the record's own reading to what is known. A tensor without finite values other
    than 0 teaches nothing: it is quantized with the known range, or with (0, 0) where none is known
    and it is all zero. It takes a look to find that out, so the decision has `looked` where one was
    due. Where a record lacks the values that a look needs, the look is `postponed`.
    """
    plan = estimator.plan(state)
    reading = estimator.read(state, obs) if plan.reads and obs.teaches else None
    if plan.range is not None:
        return Decision(plan.range, looked=False), reading
    if reading is not None:
        own = estimator.learn(state, reading).range
        return Decision(own, looked=True, evaluations=reading.evaluations), reading
    known = Range(0.0, 0.0) if state.range is None and obs.all_zero else state.range
    return Decision(known, looked=not obs.teaches, postponed=obs.teaches), None


def advance(estimator: Estimator, state: State, readings: Iterable[Reading | None]) -> State:
    """The state after a step, from the readings of its records, joined as if of one batch."""
    return estimator.learn(state, joined([reading for reading in readings if reading is not None]))


def joined(readings: list[Reading]) -> Reading | None:
    """The lowest and the highest end of readings, and all their passes; None without readings."""
    if len(readings) < 2:
        return readings[0] if readings else None
    widest = joined_ranges([reading.range for reading in readings])
    return Reading(widest, sum(reading.evaluations for reading in readings))
