"""When is now: the step, the micro-batch in it, the layer's call in that."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Hashable
from typing import NamedTuple

from torch.optim import Optimizer


class Position(NamedTuple):
    """Where in training a record belongs."""

    step: int
    micro: int
    call: int


class Clock:
    """Counts steps, and places each call of a layer within its step.

    A layer's first call in a further forward pass of the same step is a further micro-batch; its
    further calls in the same forward pass are calls 1, 2, …
    """

    def __init__(self) -> None:
        self.step = 0
        self._last: dict[Hashable, tuple[Position, int]] = {}

    def place(self, recurring: Hashable, forward: int) -> Position:
        """The position of the next call.

        Args:
            recurring: what is called, a layer.
            forward: the number of the forward pass the call belongs to.
        """
        last, last_forward = self._last.get(recurring, (Position(-1, 0, 0), -1))
        if last.step != self.step:
            here = Position(self.step, 0, 0)
        elif last_forward != forward:
            here = Position(self.step, last.micro + 1, 0)
        else:
            here = last._replace(call=last.call + 1)
        self._last[recurring] = here, forward
        return here


class OptimizerRounds:
    """Tells which optimizer steps end a training step, where there are several optimizers.

    A training step ends once all of them have stepped: those alive that have not been found idle.
    Where one steps a second time before that (a critic trained more often, an optimizer meant for
    a later phase), the step ends there, and from then on each step of that one ends a step.

    Args:
        concerns: whether an optimizer updates what is recorded; others are ignored.
    """

    def __init__(self, concerns: Callable[[Optimizer], bool]) -> None:
        self._concerns = concerns
        self._expected: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._known: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._stepped: weakref.WeakSet[Optimizer] = weakref.WeakSet()

    def ends(self, optimizer: Optimizer) -> bool:
        """Whether the step that `optimizer` has just made ends a training step."""
        if not self._concerns(optimizer):
            return False
        self._meet(optimizer)
        if optimizer in self._stepped:
            self._expected = weakref.WeakSet([optimizer])
        self._stepped.add(optimizer)
        ended = set(self._expected) <= set(self._stepped)
        if ended:
            self._stepped.clear()
        return ended

    def _meet(self, optimizer: Optimizer) -> None:
        """A first step: the optimizers alive by now, all new ones, are expected to follow."""
        if optimizer not in self._known:
            alive = filter(self._concerns, live_optimizers())
            new = [each for each in alive if each not in self._known]
            self._expected.update(new)
            self._known.update(new)


def live_optimizers() -> list[Optimizer]:
    """All optimizers in use whose steps can be seen.

    By their type alone: `isinstance` would ask foreign objects for attributes.
    """
    gc.collect()  # those in use only: optimizers lie in reference cycles
    found = [thing for thing in gc.get_objects() if issubclass(type(thing), Optimizer)]
    return [each for each in found if getattr(type(each).step, "hooked", False)]
