"""Running models eagerly that use torch.compile: within compiled code no module is called."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from hqtool.patch import replaced


class EagerMode:
    """Lets everything that `torch.compile` compiles run eagerly.

    The compiler takes seconds to load, so eager mode is set only once a script uses it.

    Args:
        on_use: called once, when the script first compiles something, or has done so before.

    Attributes:
        used: whether the script compiles anything.
    """

    def __init__(self, on_use: Callable[[], None] = lambda: None) -> None:
        self.used = False
        self._on_use = on_use
        self._stack = ExitStack()

    def attach(self, stack: ExitStack, modules: Iterable[nn.Module] = ()) -> None:
        """Force eager mode until the stack is closed.

        Args:
            modules: those made before, of which some may be compiled.
        """
        self._stack = stack
        if "torch._dynamo" in sys.modules:
            self._force()
        if any(map(_is_compiled, modules)):
            self._use()
        stack.enter_context(replaced(torch, "compile", self._wrap_compile))

    def _use(self) -> None:
        self.used = True
        self._on_use()

    def _force(self) -> None:
        self._stack.enter_context(torch.compiler.set_stance("force_eager"))

    def _wrap_compile(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def compile(*args: Any, **kwargs: Any) -> Any:
            if not self.used:
                self._use()
                self._force()
            return original(*args, **kwargs)

        return compile


def _is_compiled(module: nn.Module) -> bool:
    """Whether `torch.compile(module)` has made it, or `module.compile()` was called."""
    attributes = vars(module)
    return "_orig_mod" in attributes.get("_modules", ()) or bool(
        attributes.get("_compiled_call_impl")
    )
