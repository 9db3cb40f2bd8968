"""Schedules: when an estimator must look at the tensor it is about to quantize."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from hqtool.estimators.protocol import State


class Schedule(Protocol):
    """When to look, and when to read: an online statistic can be read without a look.

    It counts steps of a site, and all records of a step fare alike.
    """

    def must_look(self, state: State) -> bool:
        """The coming step's tensors cannot be quantized before they were read."""

    def reads(self, state: State) -> bool:
        """The statistic is taken of the coming step's tensors."""

    def next_due(self, state: State) -> int:
        """`State.due` after a reading in the coming step."""


@dataclass(frozen=True, slots=True)
class EveryStep:
    """Dynamic quantization: look at every tensor (section 3.2)."""

    def must_look(self, state: State) -> bool:
        return True

    def reads(self, state: State) -> bool:
        return True

    def next_due(self, state: State) -> int:
        return state.due


@dataclass(frozen=True, slots=True)
class PreviousStep:
    """In hindsight: quantize with earlier tensors' readings, look only before there is one (§4)."""

    def must_look(self, state: State) -> bool:
        return state.range is None

    def reads(self, state: State) -> bool:
        return True

    def next_due(self, state: State) -> int:
        return state.due


@dataclass(frozen=True, slots=True)
class EveryInterval:
    """Look at steps 0, T, 2T, … and hold in between; a look that taught nothing comes again next.

    Args:
        interval: T, in steps of the site, ≥ 1.
    """

    interval: int

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise ValueError(f"interval={self.interval} is less than 1")

    def must_look(self, state: State) -> bool:
        return state.steps >= state.due

    def reads(self, state: State) -> bool:
        return state.steps >= state.due

    def next_due(self, state: State) -> int:
        return (state.steps // self.interval + 1) * self.interval
