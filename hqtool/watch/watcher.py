"""Watching training in this process, from the first hook to the last."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from hqtool.errors import UsageError
from hqtool.spec_table import short_repr
from hqtool.watch.eager_mode import EagerMode
from hqtool.watch.layer_types import LayerTypes
from hqtool.watch.listener import Listener
from hqtool.watch.loss_scale import LossScale, scale_left
from hqtool.watch.module_calls import ModuleCalls
from hqtool.watch.names import Names
from hqtool.watch.operands import Operands
from hqtool.watch.optimizers import Optimizers, ids_of, objects_of
from hqtool.watch.parameter_owners import Owners
from hqtool.watch.position import Positions
from hqtool.watch.reporter import Reporter
from hqtool.watch.steps import Steps
from hqtool.watch.unrecorded import Unrecorded


@dataclass(frozen=True, slots=True)
class Watched:
    """What a watcher has found that its listener was not told.

    Args:
        unrecorded: name of what trained without being reported → why.
        left_out: name of a layer that ran but was not asked for → the reason in words.
        skipped_steps: steps whose update a GradScaler skipped.
        steps_by_forward: steps were ended by forward passes, for want of an optimizer.
        runs_eagerly: torch.compile was used, and what it compiled ran eagerly.
        passes_without_gradients, passes_without_backward: forward passes that ran with gradients
            disabled, and those that no backward pass reached.
    """

    unrecorded: dict[str, str]
    left_out: dict[str, str]
    skipped_steps: tuple[int, ...]
    steps_by_forward: bool
    runs_eagerly: bool
    passes_without_gradients: int
    passes_without_backward: int


def require_model(model: object) -> None:
    """Raises: UsageError: it is no model of torch."""
    if not isinstance(model, nn.Module):
        cause = f"{short_repr(model)} is no torch.nn.Module"
        raise UsageError(cause, "give the model that trains")


class Watcher:
    """Watches training in this process, from `attach` to `detach`, and tells a listener.

    Steps are numbered from 0; see `Steps` for where they end. A step that a GradScaler skips ends,
    too.

    Args:
        step_on: what ends a step: "optimizer", "forward" or "auto".
        module_types: names of the classes whose modules are layers; empty: the usual.
        with_evaluation: report passes that only evaluate, too.
        model: watch only its modules; None: those of any model.
        on_compile: called once, when torch.compile is first used: what it compiles runs eagerly.
        operands: acts on the operands of all layers as they run; None: training stays as it is.

    Attributes:
        reporter: tells where in training gradients belong.
    """

    def __init__(
        self,
        listener: Listener,
        *,
        step_on: str = "auto",
        module_types: tuple[str, ...] = (),
        with_evaluation: bool = False,
        model: nn.Module | None = None,
        on_compile: Callable[[], None] = lambda: None,
        operands: Operands | None = None,
    ) -> None:
        types = LayerTypes(module_types)
        positions = Positions()
        self._listener = listener
        self._model = model
        self._optimizers = Optimizers(model, self._optimizer_came)
        self._names = Names(types.may_be_named, model)
        self._owners = Owners(model)
        self._names.exempt(self._owners.unowned)
        acts = operands is not None  # on all layers, whatever their classes
        wants = listener.asks_for
        self._unrecorded = Unrecorded(self._names, types, self._owners, wants, can_choose=not acts)
        self._steps = Steps(step_on, positions, listener)
        self._loss_scale = LossScale(listener.guard, self._update_skipped)
        self.reporter = Reporter(
            listener,
            self._names,
            positions,
            self._steps,
            self._optimizers,
            self._loss_scale,
            self._unrecorded,
        )
        self._calls = ModuleCalls(
            listener,
            self._names,
            types,
            self._steps,
            self._optimizers,
            self.reporter,
            self._unrecorded,
            self._owners,
            with_evaluation=with_evaluation,
            operands=operands,
        )
        self._eager = EagerMode(on_compile)
        self._skipped_steps: list[int] = []
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
        in_use = objects_of(nn.Module, Optimizer)
        modules = [each for each in in_use if issubclass(type(each), nn.Module)]
        if self._model is None:
            self._names.meet(modules)
        stack.enter_context(_deeper_recursion())
        optimizers = [each for each in in_use if issubclass(type(each), Optimizer)]
        self._optimizers.attach(stack, optimizers)
        self._calls.attach(stack)
        self._loss_scale.attach(stack)
        self._eager.attach(stack, modules)

    def detach(self) -> None:
        """Stop watching, and leave torch as it was."""
        self._attached.close()

    def end_step_by_hand(self) -> None:
        """End the last step if its update was made by hand."""
        self._steps.finish()

    def begin_at(self, step: int) -> None:
        """Number steps from here on, unless training has begun."""
        self._steps.begin_at(step)

    def finish(self) -> Watched:
        """End the last step if its update was made by hand; return what else was found."""
        with self._listener.guard("steps"):
            self._steps.finish()
            self._steps.name_optimizers()
            self._unrecorded.finish()
        return Watched(
            unrecorded=dict(sorted(self._unrecorded.reasons.items())),
            left_out=dict(sorted(self._unrecorded.left_out.items())),
            skipped_steps=tuple(self._skipped_steps),
            steps_by_forward=self._steps.by_forward,
            runs_eagerly=self._eager.used,
            passes_without_gradients=self._calls.passes_without_gradients,
            passes_without_backward=self._calls.passes_begun - self.reporter.passes_reached,
        )

    def _module_placed(self, parent: nn.Module, name: str, child: nn.Module | None) -> None:
        with self._listener.guard("names"):
            if child is not None:
                self._names.note_parent(parent, child)

    def _before_update(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        with self._listener.guard("unrecorded layers"):
            if _is_power_of_two(self._steps.step):  # looking at every parameter takes time
                self._look_for_unrecorded(optimizer)
        with self._listener.guard("weights"):
            if not {"weight", "grad_weight"}.isdisjoint(self._listener.kinds):
                self.reporter.record_weights(ids_of(optimizer), scale_left(optimizer))
        if not any(map(callable, (*args[1:], *kwargs.values()))):
            self._calls.products.update_begins()

    def _look_for_unrecorded(self, optimizer: Optimizer) -> None:
        self._unrecorded.updated(optimizer)
        self._calls.products.judge(
            self._steps.step,
            within=self._unrecorded.are_outside_layers,
            outside=self._unrecorded.are_outside_modules,
            are_awaited=self._unrecorded.awaits(self._optimizers.held()),
        )

    def _optimizer_came(self) -> None:
        self._calls.products.optimizer_came()

    def _after_update(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._calls.products.update_ends()
        self._loss_scale.updated()
        self._updated(optimizer)

    def _update_skipped(self, optimizer: Optimizer) -> None:
        self._skipped_steps.append(self._steps.step)
        self._updated(optimizer)

    def _updated(self, optimizer: Optimizer) -> None:
        """An optimizer has stepped, or its step was skipped."""
        with self._listener.guard("steps"):
            if (name := self._optimizers.name(optimizer)) is not None:
                self._steps.stepped(name)


@contextmanager
def _deeper_recursion() -> Iterator[None]:
    """Raise the recursion limit, for watching adds frames to each of nested modules."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(2 * before)
    try:
        yield
    finally:
        if sys.getrecursionlimit() == 2 * before:  # else the script has set its own
            sys.setrecursionlimit(before)


def _is_power_of_two(number: int) -> bool:
    return number & (number - 1) == 0
