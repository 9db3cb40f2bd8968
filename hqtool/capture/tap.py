"""One call of one layer: reading what flows in and out of it, forward and backward."""

from __future__ import annotations

import torch
from torch import Tensor

from hqtool.capture.clock import Clock, Position
from hqtool.capture.recorder import Recorder
from hqtool.vocab import Site


class Tap:
    """Records one call of a layer.

    A gradient that comes when the step of its forward pass is over belongs to the step in which
    it comes, as of one more forward pass.

    Args:
        layer: its name.
        forward: the number of the forward pass.
    """

    def __init__(self, recorder: Recorder, clock: Clock, layer: str, forward: int) -> None:
        self._recorder = recorder
        self._clock = clock
        self._layer = layer
        self._forward = forward
        self._position = clock.place(layer, forward)

    def read(self, x: Tensor) -> Tensor:
        """Record the input.

        Returns:
            what the layer must read in place of `x`: an alias of it, where a gradient is to come.
            A hook on `x` itself would see the sum over all that read `x`.

        The alias passes its gradient on as it is, and autograd adds up the gradients of `x` in
        the same order as without. Only a layer class whose own forward method reads `x` several
        times, while others read `x`, too, has its share added up first.
        """
        self._record("input", x)
        if not self._awaits(x, "grad_input"):
            return x
        alias = x
        with self._recorder.guard(f"{self._layer}/grad_input"):
            alias = _alias(x)
            self._hook(alias, "grad_input")
        return alias

    def wrote(self, y: Tensor) -> None:
        """Record the output."""
        self._record("output", y)
        if self._awaits(y, "grad_output"):
            with self._recorder.guard(f"{self._layer}/grad_output"):
                self._hook(y, "grad_output")

    def _awaits(self, tensor: Tensor, kind: str) -> bool:
        """Whether a gradient of this tensor can come and is wanted."""
        flows = tensor.requires_grad and torch.is_grad_enabled()
        return flows and self._recorder.wants(Site(self._layer, kind))

    def _record(self, kind: str, tensor: Tensor) -> None:
        self._recorder.record(Site(self._layer, kind), self._position, tensor)

    def _here(self) -> Position:
        if self._position.step != self._clock.step:
            self._position = self._clock.place(self._layer, self._forward)
        return self._position

    def _hook(self, tensor: Tensor, kind: str) -> None:
        """Let the first gradient of a tensor be recorded, and any further one be counted.

        Further ones come with double backward and with several backward passes over one graph.
        """
        recorder, site = self._recorder, Site(self._layer, kind)
        came = False

        def hook(gradient: Tensor) -> None:
            nonlocal came
            if gradient.requires_grad:
                recorder.count("gradients_to_differentiate")
            if came:
                recorder.count("repeated_gradients")
            else:
                recorder.record(site, self._here(), gradient, recorder.loss_scale)
            came = True

        tensor.register_hook(hook)  # type: ignore[no-untyped-call]


def _alias(x: Tensor) -> Tensor:
    """A new tensor over the same memory, with the same strides.

    `view_as` is not enough: it gives a channels-last tensor with one channel other strides, upon
    which a convolution may choose another kernel.
    """
    alias: Tensor = torch.ops.aten.alias.default(x)
    return alias
