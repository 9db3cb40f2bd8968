"""Every call of a module passes here: which of them are layers' calls to record, and which one."""

from __future__ import annotations

import functools
import itertools
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from hqtool.capture.recorder import Recorder
from hqtool.patch import replaced
from hqtool.vocab import Site
from hqtool.watch.attention import Attention, LinearSwitch
from hqtool.watch.layer_call import LayerCall
from hqtool.watch.layer_types import LAYER_TYPES, LayerTypes, geometry_of, linear_geometry
from hqtool.watch.names import Names, Pass
from hqtool.watch.position import Clock
from hqtool.watch.steps import Steps
from hqtool.watch.unrecorded import Unrecorded

#: Classes whose forward method is watched, too: scripts call it directly.
FORWARD_TYPES = (*LAYER_TYPES, nn.Bilinear, nn.MultiheadAttention)


class _Running(threading.local):
    """What runs in this thread.

    `passes` are the forward passes that are running, outermost first, `attentions` those that
    are recorded of the attentions among them; `forward` numbers the outermost module's pass.
    """

    def __init__(self) -> None:
        self.passes: list[Pass] = []
        self.attentions: list[Attention] = []
        self.forward = 0


class ModuleCalls:
    """Records the layers among all modules called.

    Recorded are forward passes in training mode with gradients enabled, and on request those in
    eval mode. A forward pass that runs within a backward pass recomputes activations
    (checkpointing): it is recorded where nothing was the first time, for then it ran without
    gradients, and ignored where the first pass was recorded. Segments are computed again from the
    last to the first, and calls of a layer that several of them share are numbered in that order.

    Args:
        is_trained: whether a forward pass is part of training; the running passes, outermost
            first, and the module.
        steps: is told where forward passes begin and backward passes come.
    """

    def __init__(
        self,
        names: Names,
        types: LayerTypes,
        clock: Clock,
        recorder: Recorder,
        steps: Steps,
        unrecorded: Unrecorded,
        is_trained: Callable[[nn.Module, Sequence[Pass]], bool],
    ) -> None:
        self._names = names
        self._types = types
        self._clock = clock
        self._recorder = recorder
        self._steps = steps
        self._unrecorded = unrecorded
        self._is_trained = is_trained
        self._running = _Running()
        self._forwards = itertools.count()
        self._last_forward = -1
        self._ran: dict[str, int] = {}  # layer: the step of its last forward pass
        self._weights: dict[str, weakref.ref[Tensor]] = {}
        self._linear_switch = LinearSwitch(self._wrap_linear)

    def attach(self, stack: ExitStack) -> None:
        """Watch until the stack is closed."""
        stack.enter_context(replaced(nn.Module, "__call__", self._wrap_call))
        for kind in FORWARD_TYPES:
            if "forward" in vars(kind):
                stack.enter_context(replaced(kind, "forward", self._wrap_forward))

    def record_weights(self, parameters: Iterable[int], loss_scale: float) -> None:
        """Record the weights, and their gradients, that are among these parameters.

        Args:
            parameters: their `id`s.
            loss_scale: factor that the gradients carry.
        """
        wanted = set(parameters)
        for layer, reference in self._weights.items():
            weight = reference()
            if weight is not None and id(weight) in wanted:
                here = self._clock.place((layer, "weight"), next(self._forwards))
                self._recorder.record(Site(layer, "weight"), here, weight)
                if weight.grad is not None:
                    site = Site(layer, "grad_weight")
                    self._recorder.record(site, here, weight.grad, loss_scale)

    # Every call

    def _wrap_call(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Make the replacement of `nn.Module.__call__`.

        It is no hook, for torch's global ones see no keyword arguments, and miss the end of a
        forward pass that a KeyboardInterrupt leaves.
        """

        @functools.wraps(original)
        def call(module: nn.Module, /, *args: Any, **kwargs: Any) -> Any:
            if not self._is_watching():
                return original(module, *args, **kwargs)
            self._enter(module, args, kwargs)
            try:
                if not self._types.is_named(module) and not _is_scripted(module):
                    return original(module, *args, **kwargs)  # models nest deep: no more frames
                return self._run(functools.partial(original, module), module, args, kwargs)
            finally:
                self._running.passes.pop()

        return call

    def _is_watching(self) -> bool:
        return self._recorder.active and not _is_traced()

    def _wrap_forward(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Make the replacement of a class's forward method, for who calls it past `__call__`.

        torch.jit compiles the original's source, and looks its names up in the globals of what
        it is given: they must be the original's.
        """
        watched, is_own = self._wrap_call(original), self._is_own

        def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return (original if is_own(self) else watched)(self, *args, **kwargs)

        twin = FunctionType(
            forward.__code__, original.__globals__, "forward", None, forward.__closure__
        )
        return functools.wraps(original)(twin)

    def _is_own(self, module: nn.Module) -> bool:
        """Whether the innermost pass that runs is the module's own."""
        passes = self._running.passes
        return bool(passes) and passes[-1].module is module

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._running.passes:
            task = _backward_pass()
            self._running.forward = next(self._forwards) if task is None else -2 - task
        self._running.passes.append(Pass(module, args, kwargs))

    def _run(
        self,
        compute: Callable[..., Any],
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if self._types.is_layer(module):
            if name := self._name(module):
                return self._run_layer(compute, module, name, args, kwargs)
        elif self._types.is_attention(module):
            if name := self._name(module):
                return self._run_attention(compute, Attention(module, name), args, kwargs)
        elif self._name(module):
            self._unrecorded.compiled(module)
        return compute(*args, **kwargs)

    # Layers

    def _run_layer(
        self,
        compute: Callable[..., Any],
        module: nn.Module,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        weight = module._parameters.get("weight")
        geometry = functools.partial(geometry_of, name, module)
        run = functools.partial(compute, *args, **kwargs)
        return self._through(module, name, _input_of(args, kwargs), run, geometry, weight)

    def _run_attention(
        self,
        compute: Callable[..., Any],
        attention: Attention,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        self._running.attentions.append(attention)
        try:
            with self._linear_switch.on():
                return compute(*args, **kwargs)
        finally:
            self._running.attentions.pop()

    def _wrap_linear(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Make the replacement of `F.linear`, while attentions run."""

        @functools.wraps(original)
        def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
            attention = self._innermost_attention()
            if attention is None:
                return original(input, weight, bias)
            layer = attention.next_layer(weight.shape[0])
            geometry = functools.partial(linear_geometry, layer, weight.shape[1], weight.shape[0])
            project = functools.partial(original, input, weight, bias)
            return self._through(attention.module, layer, input, project, geometry, weight)

        return linear

    def _innermost_attention(self) -> Attention | None:
        """The recorded attention whose own code is running, not that of a module within."""
        for attention in self._running.attentions[-1:]:
            if self._is_own(attention.module):
                return attention
        return None

    def _through(
        self,
        module: nn.Module,
        layer: str,
        x: Tensor | None,
        run: Callable[[], Any],
        geometry: Callable[[Tensor], dict[str, Any]],
        weight: Tensor | None,
    ) -> Any:
        """Run a layer, which reads `x`, and record what there is to record of this call."""
        if x is None:
            self._unrecorded.unreadable(layer, "no tensor among its arguments")
            return run()
        layer_call = self._layer_call(layer)
        if layer_call is None:
            return run()
        layer_call.reads(x)
        result = run()
        outputs = list(_tensors_in(result))
        if outputs:
            layer_call.wrote(outputs)
            self._await_backward(outputs[0])
            self._unrecorded.recorded(module, layer)
        else:
            self._unrecorded.unreadable(layer, "its output is no tensor")
        self._recorder.describe(layer, functools.partial(geometry, x))
        if isinstance(weight, nn.Parameter):
            self._weights[layer] = weakref.ref(weight)
        return result

    def _await_backward(self, y: Tensor) -> None:
        if y.requires_grad and self._steps.await_backward():
            y.register_hook(lambda gradient: self._steps.went_back())  # type: ignore[no-untyped-call]

    # Which calls

    def _name(self, module: nn.Module) -> str | None:
        """The name under which a call is recorded; None: it is not recorded."""
        with self._recorder.guard("names"):
            if self._is_training(module):
                passes = self._running.passes
                if self._is_trained(module, passes):
                    return self._names.of(module, passes)
                self._unrecorded.untrained(module, passes)
        return None

    def _is_training(self, module: nn.Module) -> bool:
        """Whether this is a forward pass of the kind that is recorded."""
        if getattr(module, "_is_replica", False):  # DataParallel makes new ones for each pass
            self._recorder.count("skipped_replica_calls")
            return False
        if module.training:
            return torch.is_grad_enabled()
        if not self._recorder.settings.eval:
            self._recorder.count("skipped_eval_calls")
        return self._recorder.settings.eval

    def _layer_call(self, layer: str) -> LayerCall | None:
        """The layer_call of this call; None: nothing of it is to be recorded."""
        with self._recorder.guard(layer):
            if not self._recorder.settings.wants(layer):
                self._unrecorded.unwanted(layer)
            elif not self._is_recomputed(layer):
                self._begin_forward()
                return LayerCall(self._recorder, self._clock, layer, self._running.forward)
        return None

    def _is_recomputed(self, layer: str) -> bool:
        """Whether this runs within a backward pass and was recorded before."""
        if _backward_pass() is not None:
            return self._ran.get(layer, -2) >= self._clock.step - 1
        if torch.is_grad_enabled():
            self._ran[layer] = self._clock.step
        return False

    def _begin_forward(self) -> None:
        """Passes without gradients, as to evaluate, belong to the step at hand."""
        forward = self._running.forward
        if forward > self._last_forward and torch.is_grad_enabled():
            self._last_forward = forward
            self._steps.forward_begins()


def _input_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """A layer's input: the first tensor among its arguments, or a packed sequence's data."""
    for each in (*args, *kwargs.values()):
        if isinstance(each, (Tensor, PackedSequence)):
            return each.data if isinstance(each, PackedSequence) else each
    return None


def _tensors_in(result: Any) -> Iterator[Tensor]:
    """What a layer wrote, also in a tuple, list or dictionary; its output comes first."""
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, (tuple, list, Mapping)):
        parts = result.values() if isinstance(result, Mapping) else result
        for part in parts:
            yield from _tensors_in(part)


def _is_scripted(module: nn.Module) -> bool:
    return isinstance(module, torch.jit.ScriptModule)


def _backward_pass() -> int | None:
    """The number of the backward pass that is running in this thread, if one is."""
    task: int = torch._C._current_graph_task_id()
    return None if task == -1 else task


def _is_traced() -> bool:
    """Whether the call only serves to compile or trace the model."""
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
