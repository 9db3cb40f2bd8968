"""A capture from its first hook to its last: what happens to training meanwhile."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from hqtool.capture.calls import ModuleCalls
from hqtool.capture.clock import Clock, OptimizerRounds
from hqtool.capture.eager import EagerMode
from hqtool.capture.names import Names
from hqtool.capture.patch import replaced
from hqtool.capture.provenance import provenance
from hqtool.capture.recorder import Recorder
from hqtool.capture.scaling import ScalerWatch, scale_left
from hqtool.capture.settings import Settings
from hqtool.trace.writer import TraceWriter


class Session:
    """Records training in this process into a trace, from `attach` to `close`.

    A step lasts from the end of one optimizer step to the end of the next; step 0 begins at the
    start. For several optimizers see `OptimizerRounds`. A step that a GradScaler skips ends, too.

    Args:
        writer: an open trace.
        settings: what to record.
        model: record only its modules; None: those of any model.
        on_commit: called with the recorder after each step.
    """

    def __init__(
        self,
        writer: TraceWriter,
        settings: Settings,
        model: nn.Module | None = None,
        on_commit: Callable[[Recorder], None] = lambda recorder: None,
    ) -> None:
        self.recorder = Recorder(writer, settings, on_commit)
        self._model = model
        self._clock = Clock()
        self._rounds = OptimizerRounds(self._concerns)
        self._names = Names(model)
        self._calls = ModuleCalls(self._names, self._clock, self.recorder, self._forward_begins)
        self._scalers = ScalerWatch(self._loss_scaled, self._update_skipped)
        self._eager = EagerMode()
        self._skipped_steps: list[int] = []
        self._begun = False
        self._attached = ExitStack()

    def attach(self) -> None:
        """Begin to watch."""
        stack = self._attached
        for handle in (
            register_module_module_registration_hook(self._module_placed),
            register_optimizer_step_pre_hook(self._before_update),
            register_optimizer_step_post_hook(self._after_update),
        ):
            stack.callback(handle.remove)
        stack.enter_context(replaced(nn.Module, "__call__", self._calls.wrap))
        self._scalers.attach(stack)
        self._eager.attach(stack)

    def detach(self) -> None:
        """Leave torch as it was."""
        self._attached.close()

    def close(self, state: str) -> None:
        """Write the last notes and close the trace.

        Args:
            state: "complete" or "truncated".
        """
        if self.recorder.settings.step_on == "forward" and self._begun:
            self._end_step()
        notes = {
            "unrecorded_layers": self._calls.unrecorded(),
            "skipped_steps": self._skipped_steps,
            "torch_compile": "run eagerly" if self._eager.used else None,
        }
        self.recorder.note(notes)
        self.recorder.close(state)

    def _module_placed(self, parent: nn.Module, name: str, child: nn.Module | None) -> None:
        with self.recorder.guard("names"):
            if child is not None:
                self._names.note_parent(parent, child)

    def _before_update(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        with self.recorder.guard("unrecorded layers"):
            if self.recorder.settings.keeps_values(self._clock.step):
                self._calls.note_bypassed()
        with self.recorder.guard("weights"):
            if {"weight", "grad_weight"} & set(self.recorder.settings.tensors):
                self._calls.record_weights(_parameters_of(optimizer), scale_left(optimizer))

    def _after_update(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._scalers.updated()
        self._round(optimizer)

    def _update_skipped(self, optimizer: Optimizer) -> None:
        self._skipped_steps.append(self._clock.step)
        self._round(optimizer)

    def _loss_scaled(self, factor: float) -> None:
        self.recorder.loss_scale = factor

    def _round(self, optimizer: Optimizer) -> None:
        """An optimizer has stepped, or would have."""
        with self.recorder.guard("steps"):
            ended = self._rounds.ends(optimizer)
            if ended and self.recorder.settings.step_on == "optimizer":
                self._end_step()

    def _concerns(self, optimizer: Optimizer) -> bool:
        """Whether an optimizer updates what is recorded."""
        if self._model is None:
            return True
        return not _parameters_of(optimizer).isdisjoint(map(id, self._model.parameters()))

    def _forward_begins(self) -> None:
        if self.recorder.settings.step_on == "forward" and self._begun:
            self._end_step()
        self._begun = True

    def _end_step(self) -> None:
        if self._clock.step == 0:
            self.recorder.note({"torch": _torch_state(self.recorder.devices)})
        self.recorder.commit(self._clock.step)
        self._clock.step += 1


@contextmanager
def open_session(
    model: nn.Module, path: str | os.PathLike[str], settings: Settings
) -> Iterator[Session]:
    """Record a model's training inside a `with` block; see `hqtool.capture`."""
    run = provenance([Path(sys.argv[0]).name, *sys.argv[1:]], settings)
    session = Session(TraceWriter(path, force=settings.force, run=run), settings, model)
    state = "truncated"
    try:
        session.attach()
        yield session
        state = "complete"
    finally:
        session.detach()
        session.close(state)


def _parameters_of(optimizer: Optimizer) -> set[int]:
    """The `id`s of the parameters an optimizer updates."""
    return {id(each) for group in optimizer.param_groups for each in group["params"]}


def _torch_state(devices: set[str]) -> dict[str, Any]:
    """What a run depends on besides its script; reading it draws no random number."""
    return {
        "seed": torch.initial_seed(),
        "threads": torch.get_num_threads(),
        "devices": sorted(devices),
    }
