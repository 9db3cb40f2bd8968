"""Reporting layers' calls to a listener, as soon as it is known that they are part of training."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable
from typing import NamedTuple

from torch import Tensor

from hqtool.recipes.layer_facts import PRODUCT
from hqtool.vocab import Site
from hqtool.watch.layer_call import LayerCall
from hqtool.watch.layer_types import classes_of, output_axis_of
from hqtool.watch.listener import Listener
from hqtool.watch.loss_scale import LossScale
from hqtool.watch.names import Names, Surroundings, full_name
from hqtool.watch.optimizers import Optimizers
from hqtool.watch.position import Position, Positions
from hqtool.watch.steps import Steps, backward_pass
from hqtool.watch.tensor_types import Unseen
from hqtool.watch.unrecorded import Unrecorded

#: Makes a site, or finds it in a cache, which is faster.
_site = functools.lru_cache(maxsize=1 << 14)(Site)


class _Weight(NamedTuple):
    """A layer's weight, and the axes of its channels and of its output channels."""

    reference: weakref.ref[Tensor]
    channel_axis: int
    entry_axis: int


class Reporter:
    """Reports the calls of layers: at once where their forward pass trains, else when it does.

    A forward pass trains if a backward pass reaches it; the mode of its modules and the optimizers
    do not matter. Each backward pass through a layer gives gradients of its own: the first gets the
    position of the layer's call, any further one that of a further call. A gradient that comes in
    a later step than its forward pass belongs to that later step, as if of one more forward pass.

    Attributes:
        passes_reached: forward passes that a backward pass has reached; those that only compute
            activations again do not count.
    """

    def __init__(
        self,
        listener: Listener,
        names: Names,
        positions: Positions,
        steps: Steps,
        optimizers: Optimizers,
        loss_scale: LossScale,
        unrecorded: Unrecorded,
    ) -> None:
        self._listener = listener
        self._names = names
        self._positions = positions
        self._steps = steps
        self._optimizers = optimizers
        self._loss_scale = loss_scale
        self._unrecorded = unrecorded
        self._weights: dict[str, _Weight] = {}
        self._updates = 0
        self.passes_reached = 0

    def finished(self, call: LayerCall) -> None:
        """Take a layer's call that has ended: report it now, or once its pass trains."""
        if call.forward.trains:
            self._report(call)
        else:
            call.forward.waiting.append(call)

    def gradient(self, call: LayerCall, kind: str) -> Callable[[Tensor], None]:
        """A function to be called with each gradient of a layer's call.

        Args:
            kind: 'grad_input' or 'grad_output'.
        """
        wanted = kind in self._listener.kinds

        def came(gradient: Tensor) -> None:
            site = kind if call.name is None else _site(call.name, kind)
            with self._listener.guard(site), Unseen():
                backward = backward_pass()
                self._reached(call, backward)
                if wanted and call.name is not None:
                    self._record_gradient(call, kind, gradient, backward)

        return came

    def arrived(self, call: LayerCall) -> tuple[str, Position, float] | None:
        """A gradient has arrived at a layer's call, within a backward pass.

        Returns:
            the layer's name, the gradient's position and the loss scale that it carries; None where
            the call cannot be named.
        """
        backward = backward_pass()
        self._reached(call, backward)
        if call.name is None or backward == -1:
            return None
        factor = self._loss_scale.of(backward, call.forward.recomputed_in)
        return call.name, self._place(call, backward), factor

    def record_weights(self, parameters: Iterable[int], loss_scale: float) -> None:
        """Record the weights, and their gradients, that are among these parameters.

        Args:
            parameters: their `id`s.
            loss_scale: factor that the gradients carry.
        """
        wanted, step = set(parameters), self._positions.step
        self._updates += 1
        for layer, (reference, axis, output_axis) in self._weights.items():
            weight = reference()
            if weight is not None and id(weight) in wanted:
                here = self._positions.place(f"{layer}/weight", self._updates, step)
                self._record(layer, "weight", here, weight, axis, output_axis)
                if weight.grad is not None:
                    grad, kind = weight.grad, "grad_weight"
                    self._record(layer, kind, here, grad, axis, output_axis, loss_scale)

    def _reached(self, call: LayerCall, backward: int) -> None:
        """Note that a backward pass has reached a layer's call."""
        forward = call.forward
        if forward.backward == backward:
            return
        if forward.backward is None and forward.recomputed_in is None:
            self.passes_reached += 1
        forward.backward = backward
        waiting, forward.waiting = forward.waiting, []
        forward.updated = forward.updated or any(map(self._is_updated, (call, *waiting)))
        self._steps.went_back(backward, forward.updated)
        forward.trains = True
        for each in waiting:
            self._report(each)

    def _is_updated(self, call: LayerCall) -> bool:
        """Whether an optimizer updates a layer's weight or model, as far as can be told.

        A weight that is computed from others is not updated by hand itself (MAML's inner steps).
        """
        if not self._optimizers.exist():
            return False
        module = call.module()
        weight = None if call.weight is None else call.weight()
        if call.has_computed_weight or (weight is not None and self._optimizers.hold(weight)):
            return True
        return module is not None and self._optimizers.update(self._names.top(module))

    def _report(self, call: LayerCall) -> None:
        """Tell the listener of a call that is part of training."""
        around, call.around = call.around, None  # it may hold a module
        if around is not None:
            self._find_name(call, around)
        if call.name is None or not self._is_asked_for(call):
            return
        forward, name = call.forward, str(call.name)
        call.position = self._positions.place(name, forward.number, forward.step)
        for kind, reading in call.readings:
            self._listener.record(_site(name, kind), call.position, reading)
        call.readings = []
        if call.unreadable is not None:
            self._unrecorded.unreadable(name, call.unreadable)
            return
        if call.geometry is not None:
            classes = (PRODUCT,) if call.is_product else classes_of(call.module())
            self._listener.describe(name, functools.partial(call.geometry, name), classes)
        if call.weight is not None:
            axis = output_axis_of(call.module())
            self._weights[name] = _Weight(call.weight, call.channel_axis, axis)
        self._unrecorded.recorded(name)

    def _find_name(self, call: LayerCall, around: Surroundings) -> None:
        """Name the layer, even if its model no longer exists."""
        frames = around.frames()
        if frames is None:
            call.name = self._names.of_gone(call.label)
        else:
            module = frames[-1].module
            self._unrecorded.named(module, call.part)
            call.name = full_name(self._names.of(module, frames), call.part)

    def _is_asked_for(self, call: LayerCall) -> bool:
        """Whether the listener asks for a layer that has a name; else it is left without one."""
        asked = self._listener.asks_for(str(call.name))
        if not asked:
            self._unrecorded.unwanted(str(call.name))
            call.name = None
        return asked

    def _record_gradient(self, call: LayerCall, kind: str, gradient: Tensor, backward: int) -> None:
        assert call.name is not None
        here = self._place(call, backward)
        factor = self._loss_scale.of(backward, call.forward.recomputed_in)
        self._record(call.name, kind, here, gradient, call.channel_axis, None, factor)

    def _place(self, call: LayerCall, backward: int) -> Position:
        """The position of the gradients that a backward pass brings to a call."""
        if backward not in call.places:
            step, here = self._positions.step, call.position
            if here is None or here.step != step or call.places:
                assert call.name is not None
                here = self._positions.place(call.name, call.forward.number, step)
            call.places[backward] = here
        return call.places[backward]

    def _record(
        self,
        layer: str,
        kind: str,
        here: Position,
        tensor: Tensor,
        channel_axis: int,
        entry_axis: int | None = None,
        loss_scale: float = 1.0,
    ) -> None:
        site = _site(layer, kind)
        if kind in self._listener.kinds:
            with self._listener.guard(site), Unseen():
                reading = self._listener.read(tensor, here.step, channel_axis, entry_axis)
                if reading is not None:
                    self._listener.record(site, here, reading, loss_scale)
