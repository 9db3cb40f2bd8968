"""When is now: the step, the micro-batch in it, the layer's call in that."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple


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
