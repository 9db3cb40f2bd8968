"""Schedules: when an estimator must look at the tensor it is about to quantize."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from hqtool.estimators.protocol import State


class Schedule(Protocol):
    """When to look at a tensor, and when to take its statistic, which does not always need a look.

    It counts the steps of a site; all records of a step are treated alike.
    """

    def must_look(self, state: State) -> bool:
        """Whether the next step's tensors must be read before they are quantized."""

    def reads(self, state: State) -> bool:
        """Whether the statistic is taken of the next step's tensors."""

    def next_due(self, state: State) -> int:
        """`State.due` after a reading in the next step."""


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
    """In hindsight: quantize with readings of earlier steps; look only before the first (§4)."""

    def must_look(self, state: State) -> bool:
        return state.range is None

    def reads(self, state: State) -> bool:
        return True

    def next_due(self, state: State) -> int:
        return state.due


@dataclass(frozen=True, slots=True)
class EveryInterval:
    """Look at steps 0, T, 2T, … and keep the range in between; repeat a look that taught nothing.

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
