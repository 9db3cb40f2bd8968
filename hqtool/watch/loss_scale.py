"""Loss scaling (AMP): the factor by which gradients are scaled, and updates that were skipped."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from hqtool.patch import replaced

#: For how many backward passes the factor is remembered: few run at once, one within another.
_REMEMBERED = 16


class LossScale:
    """Watches every `GradScaler`, and knows the factor of each backward pass.

    A backward pass has the factor of the scaled loss that it starts from. There may be several
    losses that are all scaled before the first backward pass, and others that are not scaled.

    Args:
        guard: keeps failures away from training.
        on_skip: called with the optimizer whose step was skipped, for gradients overflowed.
    """

    def __init__(
        self,
        guard: Callable[[str], AbstractContextManager[None, bool]],
        on_skip: Callable[[Optimizer], None],
    ) -> None:
        self._guard = guard
        self._on_skip = on_skip
        self._updates = 0
        self._factors: dict[int, float] = {}  # by backward pass

    def attach(self, stack: ExitStack) -> None:
        """Watch until the stack is closed."""
        stack.enter_context(replaced(GradScaler, "scale", self._wrap_scale))
        stack.enter_context(replaced(GradScaler, "step", self._wrap_step))

    def updated(self) -> None:
        """To be called after each step of an optimizer: it was not skipped."""
        self._updates += 1

    def of(self, backward: int, around: int | None = None) -> float:
        """The factor of the gradients of a backward pass; 1 where none is known.

        Args:
            around: the backward pass within which this one runs, where activations are computed
                again.
        """
        factor = self._factors.get(backward)
        if factor is None and around is not None:
            factor = self._factors.get(around)
        return 1.0 if factor is None else factor

    def _wrap_scale(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def scale(scaler: GradScaler, outputs: Any) -> Any:
            scaled = original(scaler, outputs)
            with self._guard("loss scale"):
                factor = scaler.get_scale()
                for loss in _losses_in(scaled):
                    if loss.requires_grad:
                        loss.register_hook(functools.partial(self._goes_back, factor))  # type: ignore[no-untyped-call]
            return scaled

        return scale

    def _goes_back(self, factor: float, gradient: Tensor) -> None:
        """Note the factor of a backward pass, which has reached a scaled loss first of all."""
        self._factors[torch._C._current_graph_task_id()] = factor
        while len(self._factors) > _REMEMBERED:
            del self._factors[min(self._factors)]

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
    """The factor that gradients still carry when an optimizer steps: fused ones divide it out."""
    scale = getattr(optimizer, "grad_scale", None)
    return 1.0 if scale is None else float(scale)


def _losses_in(scaled: Any) -> Iterator[Tensor]:
    """What `GradScaler.scale` returns: a tensor, or any nesting of iterables of tensors."""
    if isinstance(scaled, Tensor):
        yield scaled
    elif isinstance(scaled, (list, tuple, Mapping)):
        for each in scaled.values() if isinstance(scaled, Mapping) else scaled:
            yield from _losses_in(each)
