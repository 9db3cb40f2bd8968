"""Where training steps end."""

from __future__ import annotations

from collections.abc import Callable

from hqtool.watch.position import Clock


class Steps:
    """Finds the ends of training steps.

    A step ends once an optimizer has stepped, and the next one begins with the next forward pass:
    optimizers that step one after the other, with no forward pass between, end one step together.
    So a GAN, which passes forward for either optimizer, has a step for each.

    Where updates are made by hand a step ends where a forward pass begins: with `step_on`
    "forward" any, with "auto" the first one after a backward pass, as long as the script has made
    no optimizer.

    Args:
        step_on: "optimizer", "forward" or "auto", as in `CaptureSettings`.
        clock: is advanced.
        optimizers_exist: whether there is any.
        on_end: called when a step ends, with the names of the optimizers that ended it; again
            when a further one has.

    Attributes:
        by_forward: steps were found without an optimizer, though none was asked for.
    """

    def __init__(
        self,
        step_on: str,
        clock: Clock,
        optimizers_exist: Callable[[], bool],
        on_end: Callable[[tuple[str, ...]], None],
    ) -> None:
        self.by_forward = False
        self._step_on = step_on
        self._clock = clock
        self._optimizers_exist = optimizers_exist
        self._on_end = on_end
        self._begun = False  # a forward pass has
        self._went_back = False
        self._ended = False  # the next forward pass begins another
        self._ended_by: tuple[str, ...] = ()

    def stepped(self, optimizer: str) -> None:
        """An optimizer has stepped, or would have but for gradients that overflowed."""
        if self._step_on != "forward" and optimizer not in self._ended_by:
            self._end((*self._ended_by, optimizer))

    def forward_begins(self) -> None:
        """A forward pass that is recorded begins."""
        self.finish()
        if self._ended:
            self._advance()
        self._begun = True

    def went_back(self) -> None:
        """A backward pass has reached the model."""
        self._went_back = True

    def await_backward(self) -> bool:
        """Whether backward passes matter."""
        return self._step_on == "auto" and not self._went_back and not self._optimizers_exist()

    def finish(self) -> None:
        """End a step that was made by hand, if it has not ended: no more of it follows."""
        if not self._ended and self._made_by_hand():
            self.by_forward = self._step_on == "auto"
            self._end(())

    def _made_by_hand(self) -> bool:
        if self._step_on == "forward":
            return self._begun
        return self._step_on == "auto" and self._went_back and not self._optimizers_exist()

    def _end(self, by: tuple[str, ...]) -> None:
        self._ended, self._ended_by = True, by
        self._on_end(by)

    def _advance(self) -> None:
        self._clock.step += 1
        self._ended, self._ended_by, self._went_back = False, (), False
