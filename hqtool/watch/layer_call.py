"""One call of one layer: reading what flows in and out of it, forward and backward."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hqtool.capture.recorder import Recorder
from hqtool.vocab import Site
from hqtool.watch.input_gradient import InputGradient
from hqtool.watch.position import Clock, Position

#: A site; making one costs more than finding it.
_site = functools.lru_cache(maxsize=1 << 14)(Site)


class LayerCall:
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
        self._input_gradient: InputGradient | None = None

    def reads(self, x: Tensor) -> None:
        """Record the input; to be called before the layer reads it."""
        self._record("input", x)
        if self._awaits(x, "grad_input"):
            with self._recorder.guard(_site(self._layer, "grad_input")):
                self._input_gradient = InputGradient(x)

    def wrote(self, outputs: Sequence[Tensor]) -> None:
        """Record the output, the first of what the layer wrote."""
        self._record("output", outputs[0])
        if self._awaits(outputs[0], "grad_output"):
            with self._recorder.guard(_site(self._layer, "grad_output")):
                outputs[0].register_hook(self._recording("grad_output"))  # type: ignore[no-untyped-call]
        input_gradient, self._input_gradient = self._input_gradient, None
        if input_gradient is not None:
            with self._recorder.guard(_site(self._layer, "grad_input")):
                input_gradient.call(self._recording("grad_input"), outputs)

    def _awaits(self, tensor: Tensor, kind: str) -> bool:
        """Whether a gradient of this tensor can come and is wanted."""
        flows = tensor.requires_grad and torch.is_grad_enabled()
        return flows and self._recorder.wants(_site(self._layer, kind))

    def _record(self, kind: str, tensor: Tensor) -> None:
        self._recorder.record(_site(self._layer, kind), self._position, tensor)

    def _here(self) -> Position:
        if self._position.step != self._clock.step:
            self._position = self._clock.place(self._layer, self._forward)
        return self._position

    def _recording(self, kind: str) -> Callable[[Tensor], None]:
        """What records the first gradient it is called with, and counts any further one.

        Further ones come with double backward and with several backward passes over one graph.
        """
        recorder, site = self._recorder, _site(self._layer, kind)
        came = False

        def record(gradient: Tensor) -> None:
            nonlocal came
            if came:
                recorder.count("repeated_gradients")
            else:
                recorder.record(site, self._here(), gradient, recorder.loss_scale)
            came = True

        return record
