"""Where in a model an operation runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from hqtool.traffic.sources.seen import Place, below


class Places:
    """Follows the calls of a model's modules."""

    def __init__(self, model: nn.Module) -> None:
        self._paths = {module: name for name, module in model.named_modules()}
        self._running = [(model, Place(""))]

    @property
    def now(self) -> Place:
        """The innermost call that runs."""
        return self._running[-1][1]

    @property
    def module(self) -> nn.Module:
        """The module that is called there."""
        return self._running[-1][0]

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Follow calls for the time of a `with` block."""
        begin = register_module_forward_pre_hook(self._begin)
        end = register_module_forward_hook(self._end)
        try:
            yield
        finally:
            begin.remove()
            end.remove()

    def _begin(self, module: nn.Module, args: Any) -> None:
        self.now.is_leaf = False
        self._running.append((module, Place(self._path(module))))

    def _end(self, module: nn.Module, args: Any, result: Any) -> None:
        self._running.pop()

    def _path(self, module: nn.Module) -> str:
        """A module that is no part of the model is named below the one that calls it."""
        if module not in self._paths:
            self._paths[module] = below(self.now.path, type(module).__name__.lower())
        return str(self._paths[module])
