"""Every call of a module passes here: which of them are layers' calls to record, and which one."""

from __future__ import annotations

import functools
import itertools
import threading
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hqtool.capture.attention import Attention, LinearSwitch
from hqtool.capture.clock import Clock
from hqtool.capture.layers import UNRECORDED_TYPES, geometry_of, is_layer, linear_geometry
from hqtool.capture.names import Names
from hqtool.capture.recorder import Recorder
from hqtool.capture.tap import Tap
from hqtool.vocab import Site


class _Running(threading.local):
    """What runs in this thread.

    `modules` are those whose forward passes are running, outermost first, `attentions` those that
    are recorded of the attentions among them; `forward` numbers the outermost module's pass.
    """

    def __init__(self) -> None:
        self.modules: list[nn.Module] = []
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
        on_forward: called at the first recorded layer of each forward pass, before it.
    """

    def __init__(
        self, names: Names, clock: Clock, recorder: Recorder, on_forward: Callable[[], None]
    ) -> None:
        self._names = names
        self._clock = clock
        self._recorder = recorder
        self._on_forward = on_forward
        self._running = _Running()
        self._forwards = itertools.count()
        self._last_forward = -1
        self._ran: dict[str, int] = {}  # layer: the step of its last forward pass
        self._weights: dict[str, weakref.ref[Tensor]] = {}
        self._unrecorded: dict[str, str] = {}
        self._linear_switch = LinearSwitch(self._wrap_linear)

    def unrecorded(self) -> dict[str, str]:
        """Layers that trained but were not recorded, with the reason."""
        return dict(sorted(self._unrecorded.items()))

    def note_bypassed(self) -> None:
        """Note the layers that have a gradient, but were never seen to run.

        Their `forward` was called directly, or their weight was given to a function.
        """
        seen = {id(reference()) for reference in self._weights.values()}
        for name, module in self._names.layers():
            weight = module._parameters.get("weight") if module.training else None
            if weight is not None and weight.grad is not None and id(weight) not in seen:
                self._unrecorded.setdefault(name, "not called as a module")

    def record_weights(self, parameters: set[int], loss_scale: float) -> None:
        """Record the weights, and their gradients, that are among these parameters.

        Args:
            parameters: their `id`s.
            loss_scale: factor that the gradients carry.
        """
        for layer, reference in self._weights.items():
            weight = reference()
            if weight is not None and id(weight) in parameters:
                here = self._clock.place((layer, "weight"), next(self._forwards))
                self._recorder.record(Site(layer, "weight"), here, weight)
                if weight.grad is not None:
                    site = Site(layer, "grad_weight")
                    self._recorder.record(site, here, weight.grad, loss_scale)

    def wrap(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Make the replacement of `nn.Module.__call__`.

        It is no hook, for torch's global ones see no keyword arguments, and miss the end of a
        forward pass that a KeyboardInterrupt leaves.
        """

        @functools.wraps(original)
        def call(module: nn.Module, /, *args: Any, **kwargs: Any) -> Any:
            if not self._recorder.active or _is_traced():
                return original(module, *args, **kwargs)
            self._enter(module)
            try:
                return self._run(functools.partial(original, module), module, args, kwargs)
            finally:
                self._running.modules.pop()

        return call

    def _enter(self, module: nn.Module) -> None:
        if not self._running.modules:
            task = _backward_pass()
            self._running.forward = next(self._forwards) if task is None else -2 - task
        self._running.modules.append(module)

    def _run(
        self,
        compute: Callable[..., Any],
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if is_layer(module) and (name := self._name(module)):
            return self._run_layer(compute, module, name, args, kwargs)
        if isinstance(module, nn.MultiheadAttention) and (name := self._name(module)):
            return self._run_attention(compute, Attention(module, name), args, kwargs)
        if isinstance(module, UNRECORDED_TYPES) and (name := self._name(module)):
            self._unrecorded[name] = f"{type(module).__name__} is not recorded"
        return compute(*args, **kwargs)

    def _run_layer(
        self,
        compute: Callable[..., Any],
        module: nn.Module,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        weight = module._parameters.get("weight")
        x, with_input = _input_of(compute, args, kwargs)
        geometry = functools.partial(geometry_of, name, module)
        return self._through(name, x, with_input, geometry, weight)

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
            project = functools.partial(original, weight=weight, bias=bias)
            return self._through(layer, input, project, geometry, weight)

        return linear

    def _innermost_attention(self) -> Attention | None:
        """The recorded attention whose own code is running, not that of a module within."""
        for attention in self._running.attentions[-1:]:
            if self._running.modules[-1] is attention.module:
                return attention
        return None

    def _through(
        self,
        layer: str,
        x: Any,
        compute: Callable[[Any], Any],
        geometry: Callable[[Tensor], dict[str, Any]],
        weight: Tensor | None,
    ) -> Any:
        """Run a layer on `x` and record what there is to record of this call."""
        tap = self._tap(layer) if isinstance(x, Tensor) else None
        if tap is None:
            return compute(x)
        result = compute(tap.read(x))
        y = _first_tensor(result)
        if y is not None:
            tap.wrote(y)
        self._recorder.describe(layer, functools.partial(geometry, x))
        if isinstance(weight, nn.Parameter):
            self._weights[layer] = weakref.ref(weight)
        return result

    def _name(self, module: nn.Module) -> str | None:
        """The name under which a call is recorded; None: it is not recorded."""
        with self._recorder.guard("names"):
            if self._is_training(module):
                return self._names.of(module, self._running.modules[0])
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

    def _tap(self, layer: str) -> Tap | None:
        """The tap of this call; None: nothing of it is to be recorded."""
        with self._recorder.guard(layer):
            if not self._recorder.settings.wants(layer):
                self._unrecorded[layer] = "not among the layers asked for"
            elif not self._is_recomputed(layer):
                self._begin_forward()
                place = self._clock.place(layer, self._running.forward)
                return Tap(self._recorder, layer, place)
        return None

    def _is_recomputed(self, layer: str) -> bool:
        """Whether this runs within a backward pass and was recorded before."""
        if _backward_pass() is not None:
            return self._ran.get(layer, -2) >= self._clock.step - 1
        if torch.is_grad_enabled():
            self._ran[layer] = self._clock.step
        return False

    def _begin_forward(self) -> None:
        forward = self._running.forward
        if forward > self._last_forward:
            self._last_forward = forward
            self._on_forward()


def _input_of(
    compute: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, Callable[[Any], Any]]:
    """A call's first argument, and the call as a function of it."""
    if args:
        return args[0], lambda x: compute(x, *args[1:], **kwargs)
    if kwargs:
        key = next(iter(kwargs))
        return kwargs[key], lambda x: compute(**{**kwargs, key: x})
    return None, lambda x: compute()


def _first_tensor(result: Any) -> Tensor | None:
    """A layer's output, also where it comes in a tuple or list."""
    parts = result if isinstance(result, (tuple, list)) else (result,)
    return next((part for part in parts if isinstance(part, Tensor)), None)


def _backward_pass() -> int | None:
    """The number of the backward pass that is running in this thread, if one is."""
    task: int = torch._C._current_graph_task_id()
    return None if task == -1 else task


def _is_traced() -> bool:
    """Whether the call only serves to compile or trace the model."""
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
