"""Waiting until a process trains; waiting costs next to nothing."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import get_worker_info

from hqtool.patch import replaced


def at_first_training(act: Callable[[], None]) -> ExitStack:
    """Call `act` just before the first forward pass with gradients enabled.

    The workers of data loaders are left out: they may run a network on their data, but do not
    train.

    Returns:
        a stack that ends the wait when it is closed.
    """
    waiting, once = ExitStack(), threading.Lock()

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(module: nn.Module, /, *args: Any, **kwargs: Any) -> Any:
            if not _may_train():
                return original(module, *args, **kwargs)
            waiting.close()
            if once.acquire(blocking=False):
                act()
            return module(*args, **kwargs)

        return call

    waiting.enter_context(replaced(nn.Module, "__call__", wrap))
    return waiting


def _may_train() -> bool:
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return False
    return get_worker_info() is None


def at_first_update(act: Callable[[], None]) -> ExitStack:
    """Call `act` at the first step of any optimizer.

    Returns:
        a stack that ends the wait when it is closed.
    """
    waiting = ExitStack()

    def stepped(*_: Any) -> None:
        waiting.close()
        act()

    waiting.callback(register_optimizer_step_post_hook(stepped).remove)
    return waiting
