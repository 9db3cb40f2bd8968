"""An estimator put together from its three orthogonal parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hqtool.core.observation import Observation
from hqtool.estimators.protocol import State
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

    @property
    def by_format(self) -> bool:
        """Whether its ranges depend on bits and scheme: where the statistic needs values."""
        return self.statistic.needs_values

    def before(self, state: State) -> Range | None:
        """The smoothed range, unless the schedule demands a look."""
        return None if self.schedule.must_look(state) else state.range

    def observe(self, state: State, obs: Observation) -> State:
        """Read, smooth and count; where nothing could be read only the clock goes on."""
        reading = self.statistic(obs) if self.schedule.reads(state) else None
        if reading is None:
            return state._replace(seen=state.seen + 1)
        memory = self.smoothing(state.range, state.recent, reading.range)
        return State(
            seen=state.seen + 1,
            readings=state.readings + 1,
            evaluations=state.evaluations + reading.evaluations,
            range=memory.range,
            recent=memory.recent,
            due=self.schedule.next_due(state),
        )


@dataclass(frozen=True, slots=True)
class Fixed:
    """A given range, never a look."""

    range: Range
    by_format: ClassVar[bool] = False

    def before(self, state: State) -> Range:
        """The given range."""
        return self.range

    def observe(self, state: State, obs: Observation) -> State:
        """Nothing to learn."""
        return state
