"""Putting something of ours in the place of something of another package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def replace(owner: Any, name: str, wrap: Callable[[Any], Any]) -> Any:
    """Replace `owner.name` by `wrap` of it, for good; what it was."""
    original = getattr(owner, name)
    setattr(owner, name, wrap(original))
    return original


@contextmanager
def replaced(owner: Any, name: str, wrap: Callable[[Any], Any]) -> Iterator[None]:
    """Replace `owner.name` by `wrap` of it."""
    original = replace(owner, name, wrap)
    try:
        yield
    finally:
        setattr(owner, name, original)
