"""torch.compile: within compiled code no module is called, so models run eagerly."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch

from hqtool.patch import replaced


class EagerMode:
    """Lets what `torch.compile` returns run eagerly.

    The compiler takes seconds to load: it is told only once a script uses it.
    """

    def __init__(self) -> None:
        self.used = False
        self._stack = ExitStack()

    def attach(self, stack: ExitStack) -> None:
        """Force eager mode until the stack is closed."""
        self._stack = stack
        if "torch._dynamo" in sys.modules:
            self._force()
        stack.enter_context(replaced(torch, "compile", self._wrap_compile))

    def _force(self) -> None:
        self._stack.enter_context(torch.compiler.set_stance("force_eager"))

    def _wrap_compile(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def compile(*args: Any, **kwargs: Any) -> Any:
            if not self.used:
                self.used = True
                self._force()
            return original(*args, **kwargs)

        return compile
