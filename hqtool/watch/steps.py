"""Where training steps end."""

from __future__ import annotations

import torch

from hqtool.watch.listener import Listener
from hqtool.watch.position import Positions


class Steps:
    """Finds the ends of training steps, and tells the listener.

    A step ends once an optimizer has stepped. The next one begins with the first backward pass
    after the next forward pass: optimizers that step one after the other, without a forward pass
    in between, end one step together. So a GAN, which runs a forward pass for each of its two
    optimizers, has a step for each; a forward pass that no backward pass reaches begins no step.

    Where updates are made by hand a step ends where a forward pass begins, the first one after a
    backward pass: with `step_on` "forward" any, with "auto" where no optimizer updates a model
    that a backward pass of this step has reached.

    Args:
        step_on: "optimizer", "forward" or "auto".
        positions: its step is advanced.

    Attributes:
        by_forward: with "auto", steps were ended by forward passes, for want of an optimizer.
        ended: the step has ended, and the next one has not begun.
    """

    def __init__(self, step_on: str, positions: Positions, listener: Listener) -> None:
        self.by_forward = False
        self.ended = False
        self._step_on = step_on
        self._positions = positions
        self._listener = listener
        self._ended_by: tuple[str, ...] = ()
        self._backward_passes: set[int] = set()  # of this step, and since its end
        self._went_back = False  # in this step
        self._is_updated = False  # a model that a backward pass of this step has reached
        self._forward_since_end = self._backward_since_end = False
        self._commits_later = False
        self._named: tuple[str, ...] = ()  # the optimizers that the listener was told of last

    @property
    def step(self) -> int:
        """The step that training is in, or that has ended last."""
        return self._positions.step

    def begin_at(self, step: int) -> None:
        """The first step has this number; nothing changes once a backward pass has come."""
        if not (self.ended or self._backward_passes or self._positions.step):
            self._positions.step = step

    def forward_begins(self, recomputed_in: int | None = None) -> int:
        """A forward pass begins, with gradients enabled.

        Args:
            recomputed_in: the backward pass within which it does, to compute activations again.

        Returns:
            the step that it belongs to, if it trains.
        """
        if recomputed_in not in self._backward_passes:
            self.finish()
        if recomputed_in is not None:
            self._backward_passes.add(recomputed_in)
        self._forward_since_end = True
        return self._positions.step + self.ended

    def went_back(self, backward: int, is_updated: bool) -> None:
        """A backward pass has reached a forward pass.

        Args:
            is_updated: an optimizer updates its model.
        """
        if self.ended and self._forward_since_end:
            self._advance()
        self._backward_passes.add(backward)
        self._backward_since_end = True
        if not self.ended:
            self._went_back = True
            self._is_updated = self._is_updated or is_updated

    def stepped(self, optimizer: str) -> None:
        """An optimizer has stepped, or its step was skipped because gradients overflowed."""
        if self._step_on == "forward":
            return
        if optimizer in self._ended_by:
            if not (self._forward_since_end or self._backward_since_end):
                return
            self._advance()
        self._end((*self._ended_by, optimizer))

    def finish(self) -> None:
        """End a step whose update was made by hand, unless it has ended: it is complete."""
        if not self.ended and self._went_back and self._is_made_by_hand():
            self.by_forward = self._step_on == "auto"
            self._end(())

    def _is_made_by_hand(self) -> bool:
        return self._step_on == "forward" or (self._step_on == "auto" and not self._is_updated)

    def _end(self, by: tuple[str, ...]) -> None:
        self.ended, self._ended_by = True, by
        self._forward_since_end = self._backward_since_end = False
        if backward_pass() == -1:
            self._commit()
        elif not self._commits_later:
            self._commits_later = True
            torch.autograd.Variable._execution_engine.queue_callback(self._commit)

    def _commit(self) -> None:
        """Tell the listener that the step has ended.

        Where optimizers step within a backward pass, perhaps one for each parameter, the step ends
        with that backward pass, for more gradients are still to come.
        """
        self._commits_later = False
        with self._listener.guard("steps"):
            self._listener.commit(self._positions.step)

    def name_optimizers(self) -> None:
        """Tell which optimizers ended this step, if others than before; it must be complete."""
        if self.ended and self._ended_by != self._named:
            self._named = self._ended_by
            self._listener.name_optimizers(self._positions.step, self._named)

    def _advance(self) -> None:
        self.name_optimizers()
        self._positions.step += 1
        self.ended, self._ended_by = False, ()
        self._went_back = self._is_updated = False
        self._backward_passes.clear()


def backward_pass() -> int:
    """The number of the backward pass that is running in this thread; -1 where none is."""
    task: int = torch._C._current_graph_task_id()
    return task
