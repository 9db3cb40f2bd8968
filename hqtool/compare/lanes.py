"""Lanes: a lane is one estimator at one number format, run over a site's records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hqtool.core.formats.format import ElementFormat
from hqtool.core.observation import Observation, PreparedValues
from hqtool.estimators.protocol import Estimator, Plan, Reading, State, advance, decide
from hqtool.estimators.search_gap import SearchGap, search_gap
from hqtool.estimators.whole_history import AllDecisions, decide_all, quiet_steps
from hqtool.registry import Choice
from hqtool.trace.history import SiteHistory
from hqtool.vocab import Decision, Range, Stats


@dataclass(slots=True)
class Lane:
    """What an estimator did at one format after calibration.

    Args:
        passes: elements of accumulator output that its looks and searches moved: each tensor
            twice at a look, and once more for each evaluation.
    """

    choice: Choice[Estimator]
    format: ElementFormat
    looks: int = 0
    evaluations: int = 0
    postponed: int = 0
    passes: int = 0
    gaps: list[SearchGap] = field(default_factory=list)

    def count(self, decision: Decision, numel: int) -> None:
        """Add a decision at a record of `numel` elements, which matter only where it looked."""
        if decision.looked:
            self.looks += 1
            self.evaluations += decision.evaluations
            self.passes += (2 + decision.evaluations) * numel
        elif decision.postponed:
            self.postponed += 1

    def count_unread(self, teach: int, others: int, elements: int) -> None:
        """Add looks at records without values, which find out no more than that they teach nothing.

        Args:
            teach, others: records that teach, and those that do not.
            elements: of the tensors of the latter.
        """
        self.postponed += teach
        self.looks += others
        self.passes += 2 * elements

    def compare_with_scan(
        self, decision: Decision, stats: Stats, values: PreparedValues | None
    ) -> None:
        """Where a search was made, compare its result with an exhaustive scan."""
        if decision.evaluations and isinstance(decision.range, Range):
            gap = search_gap(Observation(stats, self.format, values), decision.range)
            self.gaps += [gap] if gap is not None else []


class PrecomputedLanes:
    """The lanes of an estimator whose decisions were computed in advance, alike at each format."""

    def __init__(
        self, lanes: Sequence[Lane], decisions: AllDecisions, history: SiteHistory, past: int
    ):
        """`past` is the index of the first record after calibration."""
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


class _CountedRecords:
    """Counts a site's records past calibration, over any run of its steps.

    Args:
        past: index of the first record past calibration.
    """

    def __init__(self, history: SiteHistory, past: int) -> None:
        self.first = np.append(history.starts, len(history))
        counted = np.arange(len(history)) >= past
        teaches = history.stats.absmax > 0
        numels = history.numels.sum(axis=-1)
        self._columns = [
            np.append(0, np.cumsum(column))
            for column in (
                counted & teaches,
                counted & ~teaches,
                np.where(counted & ~teaches, numels, 0),
            )
        ]

    def between(self, start: int, end: int) -> tuple[int, int, int]:
        """In steps start … end−1: records that teach, those that do not, and their elements."""
        first, last = self.first[start], self.first[end]
        teach, not_, elements = ((column[last] - column[first]).item() for column in self._columns)
        return teach, not_, elements


class SteppedLanes:
    """The lanes of an estimator that is run step by step; each lane has a state of its own.

    A step is `begin`, `show` for each of its records if `begin` said so, and `end`. Steps from
    which nothing can be learned are passed over, all at once.

    Args:
        past: index of the first record past calibration.
    """

    def __init__(self, lanes: Sequence[Lane], history: SiteHistory, past: int) -> None:
        self.lanes = lanes
        self._records = _CountedRecords(history, past)
        with_values = np.add.reduceat(history.has_values, history.starts, dtype=np.intp)
        self._with_values = np.flatnonzero(with_values)
        self._step = 0
        self._estimator = lanes[0].choice.value
        self._formats = tuple(lane.format for lane in lanes)
        self._states = [State() for _ in lanes]
        self._readings: list[list[Reading | None]] = [[] for _ in lanes]
        self._plans: list[Plan] = []
        self._decisions: list[Decision] = []

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
        for lane, state in zip(self.lanes, self._states, strict=True):
            quiet = quiet_steps(self._estimator, state, self._step, self._with_values)
            if quiet.looks and quiet.due < end:
                lane.count_unread(*self._records.between(quiet.due, end))
        self._states = [state._replace(steps=end) for state in self._states]
        self._step = end

    def begin(self) -> bool:
        """Begin a step; returns whether its records must be shown, to be looked at or read."""
        self._plans = [self._estimator.plan(state) for state in self._states]
        self._decisions = []
        return any(plan.reads or plan.range is None for plan in self._plans)

    def at(self, index: int) -> list[Decision]:
        """The decisions at the record shown last, or at any record of a step that shows none."""
        return self._decisions or [Decision(plan.range, looked=False) for plan in self._plans]

    def show(self, stats: Stats, values: PreparedValues | None) -> list[Decision]:
        """Decide at a record: only once for lanes with equal states, unless the format was read."""
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
        self._step += 1
        if not self._decisions:  # none was shown
            self._states = [self._estimator.learn(state, None) for state in self._states]
            return
        pairs = zip(self._states, self._readings, strict=True)
        self._states = [advance(self._estimator, state, readings) for state, readings in pairs]
        for readings in self._readings:
            readings.clear()


def lanes_of(
    choice: Choice[Estimator], formats: Sequence[ElementFormat], history: SiteHistory, past: int
) -> PrecomputedLanes | SteppedLanes:
    """An estimator's lanes, one for each format.

    Args:
        past: index of the first record after calibration.
    """
    lanes = [Lane(choice, format_) for format_ in formats]
    decisions = decide_all(choice.value, history.stats, history.starts)
    if decisions is None:
        return SteppedLanes(lanes, history, past)
    return PrecomputedLanes(lanes, decisions, history, past)
