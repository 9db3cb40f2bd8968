"""Progress on stderr, with rate and remaining time, only where it is a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Seconds between two updates of the line.
PAUSE = 0.1


@contextmanager
def progress_of(noun: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A callback (done, of) that rewrites one line, which is erased at the end."""
    shown = sys.stderr.isatty() and not quiet
    start = last = time.monotonic()

    def update(done: int, of: int) -> None:
        nonlocal last
        now = time.monotonic()
        if shown and now - last > PAUSE:
            last = now
            rate = done / (now - start)
            line = f"{done}/{of} {noun}, {rate:.1f}/s, {(of - done) / rate:.0f} s left"
            print(f"\r{line}", end="\033[K", file=sys.stderr, flush=True)

    try:
        yield update
    finally:
        if shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
