"""Parts of a model whose activations are computed again in the backward pass (checkpointing)."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.utils.checkpoint

from hqtool.patch import replaced


class Segment:
    """One checkpointed part of a pass: what was decided when it first ran, in order.

    Attributes:
        is_first: it runs for the first time.
    """

    def __init__(self) -> None:
        self.is_first = True
        self._kept: list[Any] = []
        self._products: list[Any] = []
        self._inner: list[Segment] = []
        self._next = self._next_product = self._next_inner = 0

    def again(self, make: Callable[[], Any]) -> Any:
        """The first time what `make` gives, which is kept; later that which was kept then."""
        place, self._next = self._next, self._next + 1
        if place == len(self._kept):
            self._kept.append(make())
        return self._kept[place]

    def product(self, make: Callable[[], Any]) -> Any:
        """As `again`, of the products of two activations, which are named where they first run."""
        place, self._next_product = self._next_product, self._next_product + 1
        if place == len(self._products):
            self._products.append(make())
        return self._products[place]

    def within(self) -> Segment:
        """The next segment that begins within this one; the same each time."""
        place, self._next_inner = self._next_inner, self._next_inner + 1
        if place == len(self._inner):
            self._inner.append(Segment())
        return self._inner[place]

    def begins(self) -> None:
        """It runs, from its beginning."""
        self._next = self._next_product = self._next_inner = 0


#: The attribute of a function behind a decorator of torch that it calls in the function's place.
_CALLED = "__dynamo_disable"

_NO_CODE = (lambda: None).__code__


@contextmanager
def _called_instead(function: Any, wrap: Callable[[Any], Any]) -> Iterator[None]:
    """Let whoever calls the decorated function call a wrapper of it, within a `with` block."""
    earlier = getattr(function, _CALLED, None)
    setattr(function, _CALLED, wrap(earlier or function))
    try:
        yield
    finally:
        setattr(function, _CALLED, earlier)  # None: as if there were none


class Checkpoints(threading.local):
    """Knows in which checkpointed part of the model this thread is.

    A part runs a first time, in one kind of checkpointing without gradients, and again in the
    backward pass. `torch.utils.checkpoint.checkpoint` is given a function for it that says so.

    Args:
        runs_again: called when a part begins to run again.
    """

    def __init__(self, runs_again: Callable[[], None]) -> None:
        self._runs_again = runs_again
        self._running: list[Segment] = []

    @property
    def segment(self) -> Segment | None:
        """The innermost part that runs, if gradients were enabled around it."""
        return self._running[-1] if self._running else None

    def attach(self, stack: ExitStack) -> None:
        """Follow checkpointing until the stack is closed, also by those who imported it before."""
        entry: Any = torch.utils.checkpoint.checkpoint
        if _CALLED in getattr(entry, "__code__", _NO_CODE).co_consts:
            stack.enter_context(_called_instead(entry.__wrapped__, self._wrap))
        else:
            stack.enter_context(replaced(torch.utils.checkpoint, "checkpoint", self._wrap))

    def _wrap(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def checkpoint(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled() or torch.compiler.is_compiling():
                return original(function, *args, **kwargs)
            around = self.segment
            segment = Segment() if around is None else around.within()

            def run(*args: Any, **kwargs: Any) -> Any:
                with self._in(segment):
                    return function(*args, **kwargs)

            return original(run, *args, **kwargs)

        return checkpoint

    @contextmanager
    def _in(self, segment: Segment) -> Iterator[None]:
        segment.begins()
        if not segment.is_first:
            self._runs_again()
        self._running.append(segment)
        try:
            yield
        finally:
            self._running.pop()
            segment.is_first = False
