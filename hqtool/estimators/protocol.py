"""What an estimator is, and the one driver that runs any of them over a site's records."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from hqtool.core.observation import Observation
from hqtool.vocab import Decision, Range


class Reading(NamedTuple):
    """What a statistic made of an observation, and how many passes a search took for it."""

    range: Range
    evaluations: int = 0


class State(NamedTuple):
    """What an estimator knows of a site between two records; immutable: replay is repeatable.

    Args:
        seen: records observed so far: an estimator's clock.
        readings: how many of them its statistic was read from.
        evaluations: passes that searches took, all readings together.
        range: what it would quantize with now; None before the first reading.
        recent: the last readings, where a smoothing needs more than `range`.
        due: value of `seen` at which the next periodic look is due.
    """

    seen: int = 0
    readings: int = 0
    evaluations: int = 0
    range: Range | None = None
    recent: tuple[Range, ...] = ()
    due: int = 0


class Estimator(Protocol):
    """Chooses the range of each record in turn; the same object serves replay and training.

    An attribute `by_format = False` promises that it never asks an observation's moments: it
    then decides alike at every bit-width, and replay asks it once for all of them.
    """

    def before(self, state: State) -> Range | None:
        """The range for the coming tensor; None: it must look at the tensor first."""

    def observe(self, state: State, obs: Observation) -> State:
        """The state after a tensor went by."""


def decide(estimator: Estimator, state: State, obs: Observation) -> tuple[Decision, State]:
    """One record through one estimator: what quantizes it, and the state after it.

    An estimator that must look uses what it knows after observing this very tensor. Whether it
    looked is read off the state, never off a label: a look that found nothing to read (no
    values recorded, nothing finite) leaves the old range standing and is postponed.
    """
    planned = estimator.before(state)
    after = estimator.observe(state, obs)
    if planned is not None:
        return Decision(planned, looked=False), after
    looked = after.readings > state.readings
    spent = after.evaluations - state.evaluations
    return Decision(after.range, looked, spent, postponed=not looked), after
