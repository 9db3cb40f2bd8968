"""Lanes: an estimator at one number format on its way down a site's records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hqtool.core.grid import Format
from hqtool.core.observation import Observation, PreparedValues
from hqtool.estimators.protocol import Estimator, Reading, State, advance, decide
from hqtool.estimators.search_gap import SearchGap, search_gap
from hqtool.registry import Choice
from hqtool.vocab import Decision, Record, Stats


@dataclass(slots=True)
class Lane:
    """What an estimator knows at one format, and what it did past calibration.

    Args:
        readings: of the records of the step that is under way.
        passes: elements of accumulator output its looks and searches moved: twice each tensor
            it looked at, once more for each evaluation.
    """

    choice: Choice[Estimator]
    format: Format
    state: State = field(default_factory=State)
    readings: list[Reading | None] = field(default_factory=list)
    looks: int = 0
    evaluations: int = 0
    postponed: int = 0
    passes: int = 0
    gaps: list[SearchGap] = field(default_factory=list)

    def count(self, decision: Decision, record: Record) -> None:
        """Add what it did at a record."""
        if decision.looked:
            self.looks += 1
            self.evaluations += decision.evaluations
            self.passes += (2 + decision.evaluations) * record.numel
        elif decision.postponed:
            self.postponed += 1

    def hold_against_scan(
        self, decision: Decision, record: Record, values: PreparedValues | None
    ) -> None:
        """Where it searched: how far from the best did it end?"""
        if decision.evaluations and decision.range is not None:
            gap = search_gap(Observation(record.stats, self.format, values), decision.range)
            self.gaps += [gap] if gap is not None else []

    def end_step(self) -> None:
        """Learn from the step's readings."""
        self.state = advance(self.choice.value, self.state, self.readings)
        self.readings = []


def lanes_of(choices: Sequence[Choice[Estimator]], formats: Sequence[Format]) -> list[list[Lane]]:
    """For each estimator its lanes, one a format."""
    return [[Lane(choice, format_) for format_ in formats] for choice in choices]


def decide_at_each(
    lanes: Sequence[Lane], stats: Stats, values: PreparedValues | None
) -> list[Decision]:
    """One record's decisions in the lanes of one estimator.

    They are made once for all lanes that know the same, if the format was not asked for.
    """
    formats = tuple(lane.format for lane in lanes)
    estimator, known = lanes[0].choice.value, lanes[0].state
    shared: tuple[Decision, Reading | None] | None = None
    decisions = []
    for lane in lanes:
        made = shared if lane.state == known else None
        if made is None:
            obs = Observation(stats, lane.format, values, formats)
            made = decide(estimator, lane.state, obs)
            if lane is lanes[0] and not obs.format_was_asked:
                shared = made
        lane.readings.append(made[1])
        decisions.append(made[0])
    return decisions
