"""Schedules: when an estimator must look at the tensor it is about to quantize."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol


class ComposedState(NamedTuple):
    """What a composed estimator knows of a site between two steps.

    Args:
        steps: how many steps of the site have passed.
        memory: what its smoothing keeps, a frozen value of its own; None before the first reading.
        due: the number of steps after which the next periodic look is due.
    """

    steps: int = 0
    memory: Any = None
    due: int = 0


class Schedule(Protocol):
    """When to look at a tensor, and when to take its statistic, which does not always need a look.

    It counts the steps of a site; all records of a step are treated alike.
    """

    def must_look(self, state: ComposedState) -> bool:
        """Whether the next step's tensors must be read before they are quantized."""

    def reads(self, state: ComposedState) -> bool:
        """Whether the statistic is taken of the next step's tensors."""

    def next_due(self, state: ComposedState) -> int:
        """`ComposedState.due` after a reading in the next step."""


@dataclass(frozen=True, slots=True)
class EveryStep:
    """Dynamic quantization: look at every tensor (section 3.2)."""

    #: A look that finds no values recorded is not made up for at a later step.
    always: ClassVar[bool] = True

    def must_look(self, state: ComposedState) -> bool:
        return True

    def reads(self, state: ComposedState) -> bool:
        return True

    def next_due(self, state: ComposedState) -> int:
        return state.due


@dataclass(frozen=True, slots=True)
class PreviousStep:
    """In hindsight: quantize with readings of earlier steps; look only before the first (§4)."""

    def must_look(self, state: ComposedState) -> bool:
        return state.memory is None

    def reads(self, state: ComposedState) -> bool:
        return True

    def next_due(self, state: ComposedState) -> int:
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

    def must_look(self, state: ComposedState) -> bool:
        return state.steps >= state.due

    def reads(self, state: ComposedState) -> bool:
        return state.steps >= state.due

    def next_due(self, state: ComposedState) -> int:
        return (state.steps // self.interval + 1) * self.interval
