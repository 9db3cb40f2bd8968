"""What a capture costs: bytes a step, and so the size of a trace to come."""

from __future__ import annotations

from typing import NamedTuple

from hqtool.capture.settings import CaptureSettings
from hqtool.trace.schema import COMMIT, ROW


class StepCost(NamedTuple):
    """What one step adds to a trace, in bytes.

    Args:
        records: how many records it has.
        values: size of the values, where they are kept.
        extremes: size of the extremes of channels.
    """

    records: float
    values: float
    extremes: float = 0.0

    @property
    def statistics(self) -> float:
        """Of a step without values."""
        return self.records * ROW.itemsize + self.extremes + COMMIT.itemsize

    def mean(self, settings: CaptureSettings) -> float:
        """Of a step, as long as values are kept as often as was asked for."""
        return self.statistics + self.values * settings.burst / settings.every

    def total(self, settings: CaptureSettings, steps: int) -> float:
        """Of the first so many steps, whatever the budget."""
        with_values = sum(map(settings.keeps_values, range(steps)))
        return steps * self.statistics + with_values * self.values

    def steps_to_thinning(self, settings: CaptureSettings) -> int | None:
        """How many steps fill the half of the budget after which values are kept more rarely."""
        budget = settings.budget_bytes
        return None if budget is None else int(budget / 2 / self.mean(settings))


def about(count: int) -> str:
    """A number to two digits."""
    digits = max(0, len(str(count)) - 2)
    return f"{round(count, -digits):,}"
