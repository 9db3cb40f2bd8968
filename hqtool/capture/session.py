"""A capture from its first hook to its last: what happens to training meanwhile."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from hqtool.capture.provenance import provenance
from hqtool.capture.recorder import Recorder
from hqtool.capture.settings import CaptureSettings
from hqtool.launch.process_rank import path_of_rank, rank_of_process
from hqtool.trace.writer import TraceWriter
from hqtool.watch.eager_mode import EagerMode
from hqtool.watch.layer_types import LayerTypes
from hqtool.watch.loss_scale import ScalerWatch, scale_left
from hqtool.watch.module_calls import ModuleCalls
from hqtool.watch.names import Names, Pass
from hqtool.watch.optimizers import Optimizers, ids_of, objects_of
from hqtool.watch.position import Clock
from hqtool.watch.steps import Steps
from hqtool.watch.unrecorded import Unrecorded


class Session:
    """Records training in this process into a trace, from `attach` to `close`.

    Steps are numbered from 0; see `Steps` for where they end. A step that a GradScaler skips ends,
    too.

    Args:
        writer: an open trace.
        settings: what to record.
        model: record only its modules; None: those of any model.
        on_commit: called with the recorder after each step.
    """

    def __init__(
        self,
        writer: TraceWriter,
        settings: CaptureSettings,
        model: nn.Module | None = None,
        on_commit: Callable[[Recorder], None] = lambda recorder: None,
    ) -> None:
        self.recorder = Recorder(writer, settings, on_commit)
        types = LayerTypes(settings.module_types)
        self._model = model
        self._clock = Clock()
        self._optimizers = Optimizers(self._concerns)
        self._steps = Steps(settings.step_on, self._clock, self._optimizers.exist, self._step_ends)
        self._names = Names(types.is_named, model)
        self._unrecorded = Unrecorded(self._names, types, settings.wants)
        self._calls = ModuleCalls(
            self._names,
            types,
            self._clock,
            self.recorder,
            self._steps,
            self._unrecorded,
            self._is_trained,
        )
        self._scalers = ScalerWatch(self._loss_scaled, self._update_skipped)
        self._eager = EagerMode()
        self._skipped_steps: list[int] = []
        self._ended: tuple[int, tuple[str, ...]] = (0, ())  # the last step, by which optimizers
        self._named: tuple[str, ...] = ()
        self._attached = ExitStack()
        self.recorder.unrecorded = self._unrecorded.reasons
        self.recorder.left_out = self._unrecorded.left_out

    def attach(self) -> None:
        """Begin to watch."""
        stack = self._attached
        for handle in (
            register_module_module_registration_hook(self._module_placed),
            register_optimizer_step_pre_hook(self._before_update),
            register_optimizer_step_post_hook(self._after_update),
        ):
            stack.callback(handle.remove)
        in_use = objects_of(nn.Module, Optimizer)
        if self._model is None:
            self._names.meet(each for each in in_use if issubclass(type(each), nn.Module))
        stack.enter_context(_deeper_recursion())
        optimizers = [each for each in in_use if issubclass(type(each), Optimizer)]
        self._optimizers.attach(stack, optimizers)
        self._calls.attach(stack)
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
        with self.recorder.guard("steps"):
            self._steps.finish()
            self._name_optimizers()
        unrecorded = self._unrecorded.reasons | self._unrecorded.left_out
        notes = {
            "unrecorded_layers": dict(sorted(unrecorded.items())),
            "skipped_steps": self._skipped_steps,
            "steps_by_forward": self.recorder.steps_by_forward,
            "torch_compile": "run eagerly" if self._eager.used else None,
        }
        self.recorder.note(notes)
        self.recorder.close(state)

    def _module_placed(self, parent: nn.Module, name: str, child: nn.Module | None) -> None:
        with self.recorder.guard("names"):
            if child is not None:
                self._names.note_parent(parent, child)

    def _is_trained(self, module: nn.Module, running: Sequence[Pass]) -> bool:
        """Whether an optimizer updates what runs, or gradients pass on through it."""
        if self._model is not None:
            return True
        roots = self._names.roots(module, running)
        return any(map(self._optimizers.update, roots)) or _carries_gradient(running[0])

    def _before_update(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        with self.recorder.guard("unrecorded layers"):
            if self.recorder.settings.keeps_values(self._clock.step):
                self._unrecorded.updated(optimizer)
        with self.recorder.guard("weights"):
            if {"weight", "grad_weight"} & set(self.recorder.settings.tensors):
                self._calls.record_weights(ids_of(optimizer), scale_left(optimizer))

    def _after_update(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._scalers.updated()
        self._updated(optimizer)

    def _update_skipped(self, optimizer: Optimizer) -> None:
        self._skipped_steps.append(self._clock.step)
        self._updated(optimizer)

    def _loss_scaled(self, factor: float) -> None:
        self.recorder.loss_scale = factor

    def _updated(self, optimizer: Optimizer) -> None:
        """An optimizer has stepped, or would have."""
        with self.recorder.guard("steps"):
            if (name := self._optimizers.name(optimizer)) is not None:
                self._steps.stepped(name)

    def _concerns(self, optimizer: Optimizer) -> bool:
        """Whether an optimizer updates what is recorded."""
        if self._model is None:
            return True
        return not set(ids_of(optimizer)).isdisjoint(map(id, self._model.parameters()))

    def _step_ends(self, by: tuple[str, ...]) -> None:
        if self._clock.step == 0:
            self.recorder.note({"torch": _torch_state(self.recorder.devices)})
        self.recorder.steps_by_forward = self._steps.by_forward
        if self._clock.step != self._ended[0]:
            self._name_optimizers()
        self._ended = self._clock.step, by
        self.recorder.commit(self._clock.step)

    def _name_optimizers(self) -> None:
        """Note which optimizers ended the last step, where it differs from those before."""
        step, by = self._ended
        if by != self._named:
            self._named = by
            self.recorder.name_optimizers(step, by)


@contextmanager
def open_session(
    model: nn.Module, path: str | os.PathLike[str], settings: CaptureSettings
) -> Iterator[Session]:
    """Record a model's training inside a `with` block; see `hqtool.capture`."""
    rank = rank_of_process()
    run = provenance([Path(sys.argv[0]).name, *sys.argv[1:]], settings) | rank
    writer = TraceWriter(path_of_rank(path, rank), force=settings.force, run=run)
    session = Session(writer, settings, model)
    state = "truncated"
    try:
        session.attach()
        yield session
        state = "complete"
    finally:
        session.detach()
        session.close(state)


@contextmanager
def _deeper_recursion() -> Iterator[None]:
    """Room for the frames that watching adds to each of nested modules."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(2 * before)
    try:
        yield
    finally:
        if sys.getrecursionlimit() == 2 * before:  # else the script has set its own
            sys.setrecursionlimit(before)


def _carries_gradient(running: Pass) -> bool:
    """Whether what a module was called with has a gradient to come."""
    inputs = (*running.args, *running.kwargs.values())
    return any(isinstance(each, Tensor) and each.requires_grad for each in inputs)


def _torch_state(devices: set[str]) -> dict[str, Any]:
    """What a run depends on besides its script; reading it draws no random number."""
    return {
        "seed": torch.initial_seed(),
        "threads": torch.get_num_threads(),
        "devices": sorted(devices),
    }
