"""Estimators composed of their three orthogonal parts, and those that read nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from hqtool.core.questions import Observation
from hqtool.estimators.protocol import Plan, Reading, joined
from hqtool.estimators.schedule import ComposedState, Schedule
from hqtool.estimators.smoothing import Smoothing
from hqtool.estimators.statistics import Statistic
from hqtool.vocab import AnyRange, Range


@dataclass(frozen=True, slots=True)
class Composed:
    """statistic × smoothing × schedule: every estimator of the paper is such a value."""

    statistic: Statistic
    smoothing: Smoothing
    schedule: Schedule

    @property
    def asks(self) -> frozenset[str]:
        """What the statistic asks, and the schedule, if it asks anything."""
        return self.statistic.asks | getattr(self.schedule, "asks", frozenset())

    def start(self) -> ComposedState:
        """Nothing read yet."""
        return ComposedState()

    def plan(self, state: ComposedState) -> Plan:
        """The smoothed range; the schedule says whether to look."""
        known = None if state.memory is None else self.smoothing.range(state.memory)
        always = getattr(self.schedule, "always", False)
        reads, looks = self.schedule.reads(state), self.schedule.must_look(state)
        per = getattr(self.statistic, "per", "tensor")
        return Plan(known, reads, looks, always, per=per)

    def read(self, state: ComposedState, obs: Observation) -> Reading | None:
        """The statistic, of a tensor that teaches something."""
        return self.statistic(obs) if obs.teaches else None

    def join(self, readings: Sequence[Reading]) -> Reading:
        """As the statistic does, or by the widest ends."""
        join = getattr(self.statistic, "join", joined)
        together: Reading = join(readings)
        return together

    def learn(
        self, state: ComposedState, reading: Reading | None, used: AnyRange | None = None
    ) -> ComposedState:
        """Smooth and count the step; where nothing could be read, only count it."""
        if reading is None or reading.range is None:
            return state._replace(steps=state.steps + 1)
        memory = self.smoothing(state.memory, reading.range)
        return ComposedState(state.steps + 1, memory, self.schedule.next_due(state))


@dataclass(frozen=True, slots=True)
class Fixed:
    """A given range, never a look."""

    range: Range
    asks: ClassVar[frozenset[str]] = frozenset()

    def start(self) -> None:
        """Nothing to know."""

    def plan(self, state: None) -> Plan:
        """The given range."""
        return Plan(self.range)

    def read(self, state: None, obs: Observation) -> None:
        """Nothing."""

    def learn(self, state: None, reading: Reading | None, used: AnyRange | None = None) -> None:
        """Nothing to learn."""


@dataclass(frozen=True, slots=True)
class Local:
    """No range at all: for formats whose blocks find their scales by themselves, on chip."""

    asks: ClassVar[frozenset[str]] = frozenset()

    def start(self) -> None:
        """Nothing to know."""

    def plan(self, state: None) -> Plan:
        """No range and no look."""
        return Plan(None)

    def read(self, state: None, obs: Observation) -> None:
        """Nothing."""

    def learn(self, state: None, reading: Reading | None, used: AnyRange | None = None) -> None:
        """Nothing to learn."""
