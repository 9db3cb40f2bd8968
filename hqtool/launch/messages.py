"""Messages of a program that runs another one: whole lines on stderr."""

from __future__ import annotations

import sys


def say(*messages: str) -> None:
    """Whole lines on stderr, in one piece: other processes may write there, too."""
    if messages:
        lines = "".join(f"hqtool: {message}\n" for message in messages)
        print(lines, end="", file=sys.stderr, flush=True)


def many(count: int, noun: str, plural: str = "s") -> str:
    """A number of things: '1 step', '2 steps'."""
    return f"{count:,} {noun}{'' if count == 1 else plural}"
