"""Loss scaling (AMP): by which factor gradients are scaled, and which updates were skipped."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from hqtool.patch import replaced


class ScalerWatch:
    """Watches every `GradScaler`.

    Args:
        on_scale: called with the factor at each `scale(loss)`.
        on_skip: called with the optimizer whose step was skipped, for gradients overflowed.
    """

    def __init__(
        self, on_scale: Callable[[float], None], on_skip: Callable[[Optimizer], None]
    ) -> None:
        self._on_scale = on_scale
        self._on_skip = on_skip
        self._updates = 0

    def attach(self, stack: ExitStack) -> None:
        """Watch until the stack is closed."""
        stack.enter_context(replaced(GradScaler, "scale", self._wrap_scale))
        stack.enter_context(replaced(GradScaler, "step", self._wrap_step))

    def updated(self) -> None:
        """To be called after each step of an optimizer: it was not skipped."""
        self._updates += 1

    def _wrap_scale(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def scale(scaler: GradScaler, outputs: Any) -> Any:
            scaled = original(scaler, outputs)
            self._on_scale(scaler.get_scale())
            return scaled

        return scale

    def _wrap_step(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def step(scaler: GradScaler, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
            before = self._updates
            result = original(scaler, optimizer, *args, **kwargs)
            if self._updates == before:
                self._on_skip(optimizer)
            return result

        return step


def scale_left(optimizer: Optimizer) -> float:
    """The factor that gradients still carry when the optimizer steps: fused ones unscale late."""
    scale = getattr(optimizer, "grad_scale", None)
    return 1.0 if scale is None else float(scale)
