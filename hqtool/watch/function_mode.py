"""Intercepting all calls of some functions of torch in a thread, however they were imported.

Replacing the functions in their modules would miss `from torch import matmul`, and torch.jit, which
knows functions by their identity, could not compile code that calls them. A mode of torch
intercepts calls from Python only, as hooks on modules do, and takes about a microsecond a call.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

#: Takes a function that was called, with its arguments; returns what the call is to return.
FunctionHandler = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


class FunctionMode(TorchFunctionMode):
    """Calls `see` in place of some functions; all other functions run as usual.

    Calls that such a function makes itself are not intercepted, nor those in other threads.
    """

    def __init__(self, functions: Container[Callable[..., Any]], see: FunctionHandler) -> None:
        super().__init__()
        self._functions = functions
        self._see = see

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by torch, in place of the function."""
        if func in self._functions:
            return self._see(func, args, kwargs or {})
        return func(*args, **kwargs) if kwargs else func(*args)

    def is_on(self) -> bool:
        """Whether calls in this thread are intercepted."""
        return self._place() is not None

    def install(self) -> None:
        """Intercept the calls of this thread, below the modes that a script uses.

        A mode of the script must stay on top: at its end torch removes the topmost mode, whichever
        that is. The mode of the default device must stay at the bottom, where torch looks for it.
        """
        if not self.is_on():
            _push([*_pop(torch._C._len_torch_function_stack() - _has_default_device()), self])

    def remove(self) -> None:
        """Intercept no more calls of this thread."""
        place = self._place()
        if place is not None:
            above = _pop(torch._C._len_torch_function_stack() - place)
            _push(above[:-1])

    @contextmanager
    def absent(self) -> Iterator[None]:
        """Intercept no calls for the time of a `with` block."""
        was_on = self.is_on()
        self.remove()
        try:
            yield
        finally:
            if was_on:
                self.install()

    def _place(self) -> int | None:
        for place in range(torch._C._len_torch_function_stack()):
            if torch._C._get_function_stack_at(place) is self:
                return place
        return None


def _has_default_device() -> bool:
    """Whether the lowest mode is the one that `torch.set_default_device` has put there."""
    if not torch._C._len_torch_function_stack():
        return False
    default = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    return torch._C._get_function_stack_at(0) is default


def _pop(count: int) -> list[Any]:
    """Take modes off the stack; the topmost comes first."""
    return [torch._C._pop_torch_function_stack() for _ in range(count)]


def _push(modes: list[Any]) -> None:
    """Put modes back onto the stack, so that the first one is the topmost."""
    for mode in reversed(modes):
        torch._C._push_on_torch_function_stack(mode)
