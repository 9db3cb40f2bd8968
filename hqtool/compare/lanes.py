"""Lanes: a lane is one quantizer, run over a site's records; those of one estimator are a group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from hqtool.core.arrangement import part_size
from hqtool.core.formats.format import ElementFormat
from hqtool.core.observation import PreparedValues
from hqtool.core.recorded import RecordedObservation
from hqtool.estimators.entry_statistics import reads_channel_extremes
from hqtool.estimators.ledger import Ledger
from hqtool.estimators.plain_states import from_plain
from hqtool.estimators.protocol import Plan, Reading, advance, decide, widest
from hqtool.estimators.quantizer import Quantizer
from hqtool.estimators.schedule import EveryInterval
from hqtool.estimators.search_gap import SearchGap, search_gap
from hqtool.estimators.smoothing import Latest
from hqtool.estimators.telling import telling
from hqtool.estimators.whole_history import (
    AllDecisions,
    Quiet,
    decide_all,
    passed_over,
    quiet_steps,
    reads_stats,
)
from hqtool.trace.history import SiteHistory
from hqtool.vocab import AnyRange, Decision, Look, Range


class ReadRecord(NamedTuple):
    """What was read of a record beside its statistics.

    Args:
        values: None where only statistics were recorded.
        extremes: (2, channels) of each channel; None where they were not recorded.
    """

    values: PreparedValues | None = None
    extremes: NDArray[np.float64] | None = None


@dataclass(slots=True)
class Lane:
    """What a quantizer's estimator did after calibration.

    Args:
        place: its index among all lanes.
        ledger: its looks, and what they moved.
        learned: at how many steps, those of calibration among them, it read something.
        missed: at how many more it would have, but the trace lacks what it reads. Steps do not
            count at which it looks and makes up for it later, or reads what it forgets at once.
    """

    quantizer: Quantizer
    place: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    gaps: list[SearchGap] = field(default_factory=list)
    learned: int = 0
    missed: int = 0

    @property
    def format(self) -> ElementFormat:
        """The number format that it quantizes to."""
        return cast(ElementFormat, self.quantizer.format.value)

    def compare_with_scan(self, decision: Decision, obs: RecordedObservation) -> None:
        """Where a search was made, compare its result with an exhaustive scan."""
        if decision.evaluations and isinstance(decision.range, Range):
            gap = search_gap(obs, decision.range)
            self.gaps += [gap] if gap is not None else []


class PrecomputedLanes:
    """The lanes of an estimator whose decisions were computed in advance.

    Args:
        decisions: at each format of `_decided_at`.
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
        self._index = _decided_at(lanes)[1]
        for lane, index in zip(lanes, self._index, strict=True):
            made = decisions[index]
            looked = np.flatnonzero(made.looked[past:]) + past
            lane.ledger.count_plain(looked.size, history.numels[looked].ravel().tolist())

    def at(self, index: int) -> list[Decision]:
        """The decisions at a record."""
        made = [self._at(index, each) for each in self._decisions]
        return [made[i] for i in self._index]

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
        self._shape, self._channel_axis = history.shape, history.axes.channel
        self._past = past
        self._silent = np.flatnonzero(~(history.stats.absmax > 0))
        of_steps = np.logical_or.reduceat(history.stats.absmax > 0, history.starts)
        self._teaching_steps = np.append(0, np.cumsum(of_steps))

    def teaching_steps(self, start: int, end: int) -> int:
        """How many of the steps start … end−1 have records that teach, in calibration, too."""
        return int(self._teaching_steps[end] - self._teaching_steps[start])

    def all_between(self, start: int, end: int) -> NDArray[np.intp]:
        """The records in steps start … end−1."""
        return np.arange(*self._range(start, end))

    def silent_between(self, start: int, end: int) -> NDArray[np.intp]:
        """Those of them that teach nothing."""
        return self._silent[slice(*np.searchsorted(self._silent, self._range(start, end)))]

    def numels(self, which: NDArray[np.intp]) -> list[int]:
        """The elements of each of these records on each device, one after the other."""
        numels: list[int] = self._numels[which].ravel().tolist()
        return numels

    def held(self, which: NDArray[np.intp], per: str) -> list[int]:
        """What a chip must hold to look at each of them, in the same order."""
        if per in ("tensor", "channel"):
            return self.numels(which)
        sizes = [part_size(self._shape(i), per, self._channel_axis) for i in which.tolist()]
        return np.repeat(sizes, self._numels.shape[1]).tolist()

    def _range(self, start: int, end: int) -> tuple[int, int]:
        return max(self._past, self._first[start]), max(self._past, self._first[end])


class SteppedLanes:
    """The lanes of an estimator that is run step by step.

    One that does not ask for the number format decides alike at every format: then all lanes share
    one state; else those of each format do. A step is `begin`, `show` for each of its records if
    `begin` said so, and `end`. Steps from which nothing can be learned are passed over, all at
    once.

    Args:
        past: index of the first record past calibration.
        state: what it begins with; None: it begins anew.
    """

    def __init__(
        self, lanes: Sequence[Lane], history: SiteHistory, past: int, state: Any = None
    ) -> None:
        self.lanes = lanes
        self._history = history
        self._records = _CountedRecords(history, past)
        self._axis = history.axes.channel
        self._step = 0
        self._choice = lanes[0].quantizer.estimator
        self._estimator = self._choice.value
        by_channels = reads_channel_extremes(self._estimator)
        readable = history.has_values | (history.has_channel_extremes & by_channels)
        readable |= reads_stats(self._estimator, history.stats)
        with_values = np.add.reduceat(readable, history.starts, dtype=np.intp)
        self._with_values = np.flatnonzero(with_values)
        self._formats = tuple(dict.fromkeys(lane.format for lane in lanes))
        decided_at, self._state_of = _decided_at(lanes)
        start = self._estimator.start() if state is None else state
        self._states = [start for _ in decided_at]
        self._readings: list[list[Reading | None]] = [[] for _ in self._states]
        self._used: list[list[AnyRange]] = [[] for _ in self._states]
        self._plans: list[Plan] = []
        self._decisions: list[Decision] = []

    @property
    def _remembers(self) -> bool:
        """What it reads at a step matters at later ones."""
        latest = isinstance(getattr(self._estimator, "smoothing", None), Latest)
        schedule = getattr(self._estimator, "schedule", None)
        return not (latest and getattr(schedule, "always", False))

    def _of_state(self, number: int) -> list[Lane]:
        """The lanes that have the state of this number."""
        pairs = zip(self.lanes, self._state_of, strict=True)
        return [lane for lane, its in pairs if its == number]

    def _to_lanes(self, made: Sequence[Decision]) -> list[Decision]:
        """The decisions of all lanes, from those by state."""
        return [made[state] for state in self._state_of]

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
            if quiet.due < end:
                self._count_unread(self._of_state(number), quiet, end)
        self._states = [passed_over(self._estimator, state, end) for state in self._states]
        self._step = end

    def _count_unread(self, lanes: Sequence[Lane], quiet: Quiet, end: int) -> None:
        """Count what lanes do at quiet steps up to `end`: the looks, and what they cannot read."""
        records = self._records
        come = records.all_between(quiet.due, end)
        looked = come if quiet.always else records.silent_between(quiet.due, end)
        numels, held = records.numels(looked), records.held(looked, quiet.per)
        for lane in lanes:
            if quiet.looks:
                lane.ledger.postponed += come.size - looked.size
                lane.ledger.count_plain(looked.size, numels, held)
            if self._remembers and (quiet.always or not quiet.looks):
                lane.missed += self._records.teaching_steps(quiet.due, end)

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
        self, index: int, read: ReadRecord, format_: ElementFormat
    ) -> RecordedObservation:
        """A record as it is shown at a number format."""
        stats, step = self._history.stats_at(index), int(self._history.steps[index])
        about = self._formats, step, self._history.shape(index), read.extremes, self._axis
        return RecordedObservation(stats, format_, read.values, *about)

    def show(self, index: int, read: ReadRecord) -> list[Decision]:
        """Decide at a record.

        Raises:
            UsageError: as `telling` has it.
        """
        made = []
        for number, state in enumerate(self._states):
            obs = self.observation(index, read, self._formats[number])
            with telling(self._choice):
                decision, reading = decide(self._estimator, state, obs)
            self._readings[number].append(reading)
            self._used[number] += [] if decision.range is None else [decision.range]
            made.append(decision)
        self._decisions = self._to_lanes(made)
        return self._decisions

    def end(self) -> None:
        """Learn from the step's readings.

        Raises:
            UsageError: as `telling` has it.
        """
        with telling(self._choice):
            self._learn()

    def _learn(self) -> None:
        self._step += 1
        if not self._decisions:  # none was shown
            pairs = zip(self._states, self._plans, strict=True)
            self._states = [self._estimator.learn(state, None, p.range) for state, p in pairs]
            return
        self._count_learned()
        each = zip(self._states, self._readings, self._used, strict=True)
        self._states = [
            advance(self._estimator, state, readings, widest(used))
            for state, readings, used in each
        ]
        self._readings = [[] for _ in self._states]
        self._used = [[] for _ in self._states]

    def _count_learned(self) -> None:
        teaches = self._records.teaching_steps(self._step - 1, self._step)
        for number, (plan, readings) in enumerate(zip(self._plans, self._readings, strict=True)):
            learned = any(reading is not None for reading in readings)
            asked = self._remembers and plan.reads and (plan.always or not plan.looks)
            for lane in self._of_state(number):
                lane.learned += learned
                lane.missed += bool(asked and teaches and not learned)


Lanes = PrecomputedLanes | SteppedLanes


def groups_of(lanes: Sequence[Lane], history: SiteHistory, past: int) -> list[Lanes]:
    """The lanes of each estimator together; apart that of the quantizer that a run began with.

    Args:
        past: index of the first record after calibration.
    """
    by_estimator: dict[str, list[Lane]] = {}
    began = [lane for lane in lanes if _began(lane, history)]
    apart = {lane.place for lane in began}
    for lane in lanes:
        if lane.place not in apart:
            by_estimator.setdefault(lane.quantizer.estimator.label, []).append(lane)
    return [
        *(_group(group, history, past) for group in by_estimator.values()),
        *(SteppedLanes([lane], history, past, _began_with(history)) for lane in began),
    ]


def _began(lane: Lane, history: SiteHistory) -> bool:
    """Whether a run of this quantizer began with a state from elsewhere, which replay can follow.

    It cannot where searches are due at steps that were counted from an earlier run on.
    """
    schedule = getattr(lane.quantizer.estimator.value, "schedule", None)
    began = history.began
    is_same = began is not None and began.quantizer == lane.quantizer.label
    return is_same and not isinstance(schedule, EveryInterval)


def _began_with(history: SiteHistory) -> Any:
    return None if history.began is None else from_plain(history.began.state)


def _group(lanes: Sequence[Lane], history: SiteHistory, past: int) -> Lanes:
    estimator = lanes[0].quantizer.estimator.value
    made = [
        decide_all(estimator, history.stats, history.starts, format_)
        for format_ in _decided_at(lanes)[0]
    ]
    decisions = [each for each in made if each is not None]
    if len(decisions) < len(made):
        return SteppedLanes(lanes, history, past)
    return PrecomputedLanes(lanes, decisions, history, past)


def _decided_at(lanes: Sequence[Lane]) -> tuple[tuple[ElementFormat, ...], list[int]]:
    """The formats at which an estimator must decide, and the index of each lane's among them.

    One that does not ask for the format decides alike at all, and so at the first one alone.
    """
    formats = tuple(dict.fromkeys(lane.format for lane in lanes))
    if "format" not in lanes[0].quantizer.estimator.value.asks:
        return formats[:1], [0] * len(lanes)
    return formats, [formats.index(lane.format) for lane in lanes]
