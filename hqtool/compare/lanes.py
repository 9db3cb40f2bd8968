"""Lanes: a lane is one estimator at one number format, run over a site's records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hqtool.core.formats.format import ElementFormat
from hqtool.core.observation import PreparedValues
from hqtool.core.questions import UndeclaredQuestionError
from hqtool.core.recorded import RecordedObservation
from hqtool.errors import UsageError
from hqtool.estimators.ledger import Ledger
from hqtool.estimators.protocol import Estimator, Plan, Reading, advance, decide, widest
from hqtool.estimators.search_gap import SearchGap, search_gap
from hqtool.estimators.whole_history import AllDecisions, decide_all, passed_over, quiet_steps
from hqtool.registry import Choice
from hqtool.trace.history import SiteHistory
from hqtool.vocab import AnyRange, Decision, Look, Range


@dataclass(slots=True)
class Lane:
    """What an estimator did at one format after calibration.

    Args:
        ledger: its looks, and what they moved.
    """

    choice: Choice[Estimator]
    format: ElementFormat
    ledger: Ledger = field(default_factory=Ledger)
    gaps: list[SearchGap] = field(default_factory=list)

    def compare_with_scan(self, decision: Decision, obs: RecordedObservation) -> None:
        """Where a search was made, compare its result with an exhaustive scan."""
        if decision.evaluations and isinstance(decision.range, Range):
            gap = search_gap(obs, decision.range)
            self.gaps += [gap] if gap is not None else []


class PrecomputedLanes:
    """The lanes of an estimator whose decisions were computed in advance.

    Args:
        decisions: of each lane, or one for all of them.
        past: index of the first record after calibration.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        decisions: Sequence[AllDecisions],
        history: SiteHistory,
        past: int,
    ) -> None:
        self.lanes = lanes
        self._decisions = decisions
        self._numels = history.numels
        self._times = len(lanes) // len(decisions)
        for lane, made in zip(lanes, [*decisions] * self._times, strict=True):
            looked = np.flatnonzero(made.looked[past:]) + past
            lane.ledger.count_plain(looked.size, history.numels[looked].ravel().tolist())

    def at(self, index: int) -> list[Decision]:
        """The decisions at a record."""
        return [self._at(index, made) for made in self._decisions] * self._times

    def _at(self, index: int, made: AllDecisions) -> Decision:
        lo, hi = made.ends[:, index].tolist()
        known = Range(lo, hi) if lo == lo else None
        looked = bool(made.looked[index])
        return Decision(known, Look("tensor", int(self._numels[index].sum())) if looked else None)


class _CountedRecords:
    """Counts a site's records past calibration, over any run of its steps.

    Args:
        past: index of the first record past calibration.
    """

    def __init__(self, history: SiteHistory, past: int) -> None:
        self._first = np.append(history.starts, len(history))
        self._numels = history.numels
        self._past = past
        self._teaches = np.append(0, np.cumsum(history.stats.absmax > 0))
        self._silent = np.flatnonzero(~(history.stats.absmax > 0))

    def between(self, start: int, end: int) -> tuple[int, int, list[int]]:
        """In steps start … end−1: records that teach, those that do not, and their elements."""
        first, last = max(self._past, self._first[start]), max(self._past, self._first[end])
        teach = int(self._teaches[last] - self._teaches[first])
        silent = self._silent[slice(*np.searchsorted(self._silent, [first, last]))]
        return teach, silent.size, self._numels[silent].ravel().tolist()


class SteppedLanes:
    """The lanes of an estimator that is run step by step.

    One that does not ask for the number format decides alike at every format: then all lanes share
    one state; else each has its own. A step is `begin`, `show` for each of its records if `begin`
    said so, and `end`. Steps from which nothing can be learned are passed over, all at once.

    Args:
        past: index of the first record past calibration.
    """

    def __init__(self, lanes: Sequence[Lane], history: SiteHistory, past: int) -> None:
        self.lanes = lanes
        self._history = history
        self._records = _CountedRecords(history, past)
        with_values = np.add.reduceat(history.has_values, history.starts, dtype=np.intp)
        self._with_values = np.flatnonzero(with_values)
        self._step = 0
        self._choice = lanes[0].choice
        self._estimator = self._choice.value
        self._formats = tuple(lane.format for lane in lanes)
        self._each_its_own = "format" in self._estimator.asks
        self._states = self._of_lanes([self._estimator.start() for _ in lanes])
        self._readings: list[list[Reading | None]] = [[] for _ in self._states]
        self._used: list[list[AnyRange]] = [[] for _ in self._states]
        self._plans: list[Plan] = []
        self._decisions: list[Decision] = []

    def _of_lanes(self, lanes: Sequence[Any]) -> list[Any]:
        """An entry for each lane that has a state of its own."""
        return [*lanes] if self._each_its_own else [*lanes[:1]]

    def _to_lanes(self, made: Sequence[Decision]) -> list[Decision]:
        """The decisions of all lanes."""
        return [*made] if self._each_its_own else [*made] * len(self.lanes)

    def next_step(self) -> int:
        """The first step to come in which a record may be read; no step's number if none is."""
        return min(
            quiet_steps(self._estimator, state, self._step, self._with_values).end
            for state in self._states
        )

    def pass_over(self, end: int) -> None:
        """Go on to a step, no later than `next_step`, and count the looks that read nothing."""
        if end == self._step:
            return
        for number, state in enumerate(self._states):
            quiet = quiet_steps(self._estimator, state, self._step, self._with_values)
            if quiet.looks and quiet.due < end:
                postponed, looks, numels = self._records.between(quiet.due, end)
                for lane in [self.lanes[number]] if self._each_its_own else self.lanes:
                    lane.ledger.postponed += postponed
                    lane.ledger.count_plain(looks, numels)
        self._states = [passed_over(self._estimator, state, end) for state in self._states]
        self._step = end

    def begin(self) -> bool:
        """Begin a step; returns whether its records must be shown, to be looked at or read."""
        self._plans = [self._estimator.plan(state) for state in self._states]
        self._decisions = []
        return any(plan.reads or plan.looks or plan.scale_one for plan in self._plans)

    def at(self, index: int) -> list[Decision]:
        """The decisions at the record shown last, or at any record of a step that shows none."""
        if self._decisions:
            return self._decisions
        return self._to_lanes([Decision(plan.range) for plan in self._plans])

    def observation(
        self, index: int, values: PreparedValues | None, format_: ElementFormat
    ) -> RecordedObservation:
        """A record as it is shown at a number format."""
        stats, step = self._history.stats_at(index), int(self._history.steps[index])
        shape = self._history.shape(index)
        return RecordedObservation(stats, format_, values, self._formats, step, shape)

    def show(self, index: int, values: PreparedValues | None) -> list[Decision]:
        """Decide at a record.

        Raises:
            UsageError: the estimator asks a question that it does not declare.
        """
        made = []
        for number, state in enumerate(self._states):
            decision, reading = self._decided(
                state, self.observation(index, values, self._formats[number])
            )
            self._readings[number].append(reading)
            self._used[number] += [] if decision.range is None else [decision.range]
            made.append(decision)
        self._decisions = self._to_lanes(made)
        return self._decisions

    def _decided(self, state: Any, obs: RecordedObservation) -> tuple[Decision, Reading | None]:
        try:
            return decide(self._estimator, state, obs)
        except UndeclaredQuestionError as error:
            cause = f"estimator '{self._choice.label}': {error.cause}"
            raise UsageError(cause, error.remedy) from None

    def end(self) -> None:
        """Learn from the step's readings."""
        self._step += 1
        if not self._decisions:  # none was shown
            pairs = zip(self._states, self._plans, strict=True)
            self._states = [self._estimator.learn(state, None, p.range) for state, p in pairs]
            return
        each = zip(self._states, self._readings, self._used, strict=True)
        self._states = [
            advance(self._estimator, state, readings, widest(used))
            for state, readings, used in each
        ]
        self._readings = [[] for _ in self._states]
        self._used = [[] for _ in self._states]


def lanes_of(
    choice: Choice[Estimator], formats: Sequence[ElementFormat], history: SiteHistory, past: int
) -> PrecomputedLanes | SteppedLanes:
    """An estimator's lanes, one for each format.

    Args:
        past: index of the first record after calibration.
    """
    lanes = [Lane(choice, format_) for format_ in formats]
    apart = formats if "format" in choice.value.asks else formats[:1]
    made = [decide_all(choice.value, history.stats, history.starts, each) for each in apart]
    decisions = [each for each in made if each is not None]
    if len(decisions) < len(made):
        return SteppedLanes(lanes, history, past)
    return PrecomputedLanes(lanes, decisions, history, past)
