"""Lanes: an estimator at one number format on its way down a site's records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hqtool.core.grid import Format
from hqtool.core.observation import Observation, PreparedValues
from hqtool.estimators.protocol import Estimator, Plan, Reading, State, advance, decide
from hqtool.estimators.search_gap import SearchGap, search_gap
from hqtool.estimators.whole_history import AllDecisions, decide_all
from hqtool.registry import Choice
from hqtool.trace.history import SiteHistory
from hqtool.vocab import Decision, Range, Stats


@dataclass(slots=True)
class Lane:
    """What an estimator did at one format, past calibration.

    Args:
        passes: elements of accumulator output its looks and searches moved: twice each tensor
            it looked at, once more for each evaluation.
    """

    choice: Choice[Estimator]
    format: Format
    looks: int = 0
    evaluations: int = 0
    postponed: int = 0
    passes: int = 0
    gaps: list[SearchGap] = field(default_factory=list)

    def count(self, decision: Decision, numel: int) -> None:
        """Add what it did at a record of so many elements, which matter only where it looked."""
        if decision.looked:
            self.looks += 1
            self.evaluations += decision.evaluations
            self.passes += (2 + decision.evaluations) * numel
        elif decision.postponed:
            self.postponed += 1

    def hold_against_scan(
        self, decision: Decision, stats: Stats, values: PreparedValues | None
    ) -> None:
        """Where it searched: how far from the best did it end?"""
        if decision.evaluations and decision.range is not None:
            gap = search_gap(Observation(stats, self.format, values), decision.range)
            self.gaps += [gap] if gap is not None else []


class PrecomputedLanes:
    """The lanes of an estimator whose decisions are known beforehand, the same at each format."""

    def __init__(
        self, lanes: Sequence[Lane], decisions: AllDecisions, history: SiteHistory, past: int
    ):
        """`past` is the index of the first record past calibration."""
        self.lanes = lanes
        looked = np.flatnonzero(decisions.looked[past:]) + past
        for lane in lanes:
            lane.looks = looked.size
            lane.passes = 2 * int(history.numels[looked].sum())
        self._all_decisions = decisions

    def at(self, index: int) -> list[Decision]:
        """The decisions at a record."""
        lo, hi = self._all_decisions.ends[:, index].tolist()
        known = Range(lo, hi) if lo == lo else None
        return [Decision(known, bool(self._all_decisions.looked[index]))] * len(self.lanes)


class SteppedLanes:
    """The lanes of an estimator that is run step by step; each lane has a state of its own.

    A step is `begin`, `show` for each of its records if `begin` said so, and `end`.
    """

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self.lanes = lanes
        self._estimator = lanes[0].choice.value
        self._formats = tuple(lane.format for lane in lanes)
        self._states = [State() for _ in lanes]
        self._readings: list[list[Reading | None]] = [[] for _ in lanes]
        self._plans: list[Plan] = []
        self._decisions: list[Decision] = []

    def begin(self) -> bool:
        """Begin a step; whether its records are to be shown: to be looked at, or read."""
        self._plans = [self._estimator.plan(state) for state in self._states]
        self._decisions = []
        return any(plan.reads or plan.range is None for plan in self._plans)

    def at(self, index: int) -> list[Decision]:
        """The decisions at the record shown last; or at any of a step that shows none."""
        return self._decisions or [Decision(plan.range, looked=False) for plan in self._plans]

    def show(self, stats: Stats, values: PreparedValues | None) -> list[Decision]:
        """Decide at a record: once for all lanes that know the same, if none asked the format."""
        shared: tuple[Decision, Reading | None] | None = None
        self._decisions = []
        for format_, state, readings in zip(
            self._formats, self._states, self._readings, strict=True
        ):
            made = shared if state == self._states[0] else None
            if made is None:
                obs = Observation(stats, format_, values, self._formats)
                made = decide(self._estimator, state, obs)
                if not self._decisions and not obs.format_was_asked:
                    shared = made
            self._decisions.append(made[0])
            readings.append(made[1])
        return self._decisions

    def end(self) -> None:
        """Learn from the step's readings."""
        if not self._decisions:  # none was shown
            self._states = [self._estimator.learn(state, None) for state in self._states]
            return
        pairs = zip(self._states, self._readings, strict=True)
        self._states = [advance(self._estimator, state, readings) for state, readings in pairs]
        for readings in self._readings:
            readings.clear()


def lanes_of(
    choice: Choice[Estimator], formats: Sequence[Format], history: SiteHistory, past: int
) -> PrecomputedLanes | SteppedLanes:
    """An estimator's lanes, one a format.

    Args:
        past: index of the first record past calibration.
    """
    lanes = [Lane(choice, format_) for format_ in formats]
    decisions = decide_all(choice.value, history.stats, history.starts)
    return (
        SteppedLanes(lanes)
        if decisions is None
        else PrecomputedLanes(lanes, decisions, history, past)
    )
