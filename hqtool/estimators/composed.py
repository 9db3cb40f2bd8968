"""Estimators composed of their three orthogonal parts."""

from __future__ import annotations

from dataclasses import dataclass

from hqtool.core.observation import Observation
from hqtool.estimators.protocol import Plan, Reading, State
from hqtool.estimators.schedule import Schedule
from hqtool.estimators.smoothing import Smoothing
from hqtool.estimators.statistics import Statistic
from hqtool.vocab import Range


@dataclass(frozen=True, slots=True)
class Composed:
    """statistic × smoothing × schedule: every estimator of the paper is such a value."""

    statistic: Statistic
    smoothing: Smoothing
    schedule: Schedule

    def plan(self, state: State) -> Plan:
        """The smoothed range, unless the schedule demands a look."""
        if self.schedule.must_look(state):
            return Plan(None, reads=True)
        return Plan(state.range, self.schedule.reads(state))

    def read(self, state: State, obs: Observation) -> Reading | None:
        """The statistic."""
        return self.statistic(obs)

    def learn(self, state: State, reading: Reading | None) -> State:
        """Smooth and count the step; where nothing could be read, only count it."""
        if reading is None:
            return State(state.steps + 1, *state[1:])
        memory = self.smoothing(state.range, state.recent, reading.range)
        due = self.schedule.next_due(state)
        return State(state.steps + 1, memory.range, memory.recent, due)


@dataclass(frozen=True, slots=True)
class Fixed:
    """A given range, never a look."""

    range: Range

    def plan(self, state: State) -> Plan:
        """The given range."""
        return Plan(self.range, reads=False)

    def read(self, state: State, obs: Observation) -> None:
        """Nothing."""

    def learn(self, state: State, reading: Reading | None) -> State:
        """Nothing to learn."""
        return state
