"""Where in training a record belongs: its step, micro-batch and call."""

from __future__ import annotations

from typing import NamedTuple


class Position(NamedTuple):
    """Where in training a record belongs: the step, the micro-batch in it, the call in that."""

    step: int
    micro: int
    call: int


#: For so many steps of a layer its last position is remembered; in older ones counting restarts.
_STEPS_REMEMBERED = 64


class Positions:
    """Counts steps, and gives each call of a layer its place within a step.

    A layer's first call in a further forward pass of the same step is a further micro-batch; its
    further calls in the same forward pass are calls 1, 2, …

    Attributes:
        step: the step that training is in.
    """

    def __init__(self) -> None:
        self.step = 0
        self._last: dict[str, dict[int, tuple[Position, int]]] = {}

    def place(self, layer: str, forward: int, step: int) -> Position:
        """The place of a layer's next call.

        Args:
            layer: its name.
            forward: the number of the forward pass that the call belongs to.
            step: the step that it belongs to.
        """
        steps = self._last.setdefault(layer, {})
        if step not in steps:
            here = Position(step, 0, 0)
        else:
            last, last_forward = steps[step]
            if last_forward == forward:
                here = last._replace(call=last.call + 1)
            else:
                here = Position(step, last.micro + 1, 0)
        steps[step] = here, forward
        if len(steps) > _STEPS_REMEMBERED:
            del steps[min(steps)]
        return here
