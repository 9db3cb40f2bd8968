"""What an estimator is, and the two pure functions by which replay and training run any of them.

A step is `decide` for each of its records, all from the state before the step, and one `advance`
after the last of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from hqtool.core.observation import Observation
from hqtool.vocab import Decision, Range


class Reading(NamedTuple):
    """What a statistic made of a tensor, and how many passes a search took for it."""

    range: Range
    evaluations: int = 0


class State(NamedTuple):
    """What an estimator knows of a site between two steps; immutable: replay is repeatable.

    Args:
        steps: steps of the site that went by: an estimator's clock.
        range: what it would quantize with now; None before the first reading.
        recent: the last steps' readings, where a smoothing needs more than `range`.
        due: value of `steps` from which on the next periodic look is due.
    """

    steps: int = 0
    range: Range | None = None
    recent: tuple[Range, ...] = ()
    due: int = 0


class Plan(NamedTuple):
    """What an estimator is about to do with each record of the coming step.

    Args:
        range: what quantizes them; None: it must look at each of them first.
        reads: its statistic is to be taken of them; a look always does.
    """

    range: Range | None
    reads: bool


class Estimator(Protocol):
    """Chooses the ranges of a site's records step by step; one object serves replay and training.

    It is a frozen value without memory: all that it knows of a site is in the state.
    """

    def plan(self, state: State) -> Plan:
        """What comes next, from what is known before the step."""

    def read(self, state: State, obs: Observation) -> Reading | None:
        """Its statistic of a tensor, where `plan` reads; None where `obs` lacks what it needs."""

    def learn(self, state: State, reading: Reading | None) -> State:
        """The state after one more step; None: nothing was read in it."""


def decide(estimator: Estimator, state: State, obs: Observation) -> tuple[Decision, Reading | None]:
    """What quantizes one record, and what was read of it for `advance`.

    Args:
        state: the state before the record's step, for each of the step's records alike.

    A look adds the record's own reading to what is known. A tensor that holds no finite value
    other than 0 teaches nothing: what is known quantizes it, else (0, 0) where it is all zero. It
    takes a look to find that out, so where one was due the decision has `looked`. Where a record
    lacks what a look needs, which are its values, none happened: it is `postponed`.
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
    """The state after a step, from the readings of its records: joined, as one batch gives them."""
    return estimator.learn(state, joined([reading for reading in readings if reading is not None]))


def joined(readings: list[Reading]) -> Reading | None:
    """The lowest and the highest end, and all passes; None of none."""
    if len(readings) < 2:
        return readings[0] if readings else None
    lo, hi = min(r.range.lo for r in readings), max(r.range.hi for r in readings)
    return Reading(Range(lo, hi), sum(r.evaluations for r in readings))
