"""Replacing an attribute of another package by a wrapper of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def replace(owner: Any, name: str, wrap: Callable[[Any], Any]) -> Any:
    """Replace `owner.name` by `wrap` of it, for good; returns the original."""
    original = getattr(owner, name)
    setattr(owner, name, wrap(original))
    return original


@contextmanager
def replaced(owner: Any, name: str, wrap: Callable[[Any], Any]) -> Iterator[None]:
    """Replace `owner.name` by `wrap` of it within a `with` block."""
    original = replace(owner, name, wrap)
    try:
        yield
    finally:
        setattr(owner, name, original)
