"""Seeing every call of a function of torch in a thread, however a script came by the function.

Replacing functions in their modules would miss `from torch import matmul`, and torch.jit, which
knows functions by their identity, could not compile what calls them. A mode sees calls from
Python alone, as hooks on modules do, and takes about a microsecond for each.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

#: A function that was called, with its arguments; what it is to return.
Seen = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


class FunctionMode(TorchFunctionMode):
    """Passes calls of some functions to `see`, all others on.

    What such a function calls itself is not seen. A thread sees none but its own calls.
    """

    def __init__(self, functions: Container[Callable[..., Any]], see: Seen) -> None:
        super().__init__()
        self._functions = functions
        self._see = see

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by torch, in place of the function."""
        if func in self._functions:
            return self._see(func, args, kwargs or {})
        return func(*args, **kwargs) if kwargs else func(*args)

    def is_on(self) -> bool:
        """Whether this thread sees."""
        return self._place() is not None

    def put(self) -> None:
        """See the calls of this thread, below the modes that a script uses.

        A mode that ends takes the topmost one away, whichever that is; and the default device
        takes the lowest one for its own.
        """
        if not self.is_on():
            _push([*_pop(torch._C._len_torch_function_stack() - _has_default_device()), self])

    def take_out(self) -> None:
        """See no more of them."""
        place = self._place()
        if place is not None:
            above = _pop(torch._C._len_torch_function_stack() - place)
            _push(above[:-1])

    @contextmanager
    def absent(self) -> Iterator[None]:
        """See none for the time of a `with` block."""
        was_on = self.is_on()
        self.take_out()
        try:
            yield
        finally:
            if was_on:
                self.put()

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
    """Take modes away; the topmost comes first."""
    return [torch._C._pop_torch_function_stack() for _ in range(count)]


def _push(modes: list[Any]) -> None:
    """Put them back; the first one is the topmost then."""
    for mode in reversed(modes):
        torch._C._push_on_torch_function_stack(mode)
