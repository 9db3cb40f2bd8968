"""Suggesting the known name that is nearest to a mistyped one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The question "did you mean 'NAME'?" with the nearest known name; empty where none is near."""
    by_small_letters = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), by_small_letters, n=1)
    return f"did you mean '{by_small_letters[near[0]]}'? " if near else ""


def known_names(word: str, known: Iterable[str]) -> str:
    """The remedy for an unknown name: the nearest one, and all."""
    names = list(known)
    return f"{did_you_mean(word, names)}known: {', '.join(names)}"
