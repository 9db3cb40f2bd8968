"""This process's own stdout and stderr while a command runs.

What an encoding lacks is written as an ASCII mark, a failure to write is told in one line, a reader
of a pipe who has had enough is no error, and a message that cannot be shown changes nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from hqtool.display import ASCII_MARKS
from hqtool.errors import DataError
from hqtool.outputs import ReaderGone, Target, text_of


class _Messages(Target):
    """stderr: what it does not take is lost."""

    def write(self, data: bytes) -> int | None:  # type: ignore[override]
        """As `Target.write`, but never an error."""
        try:
            return super().write(data)
        except (DataError, ReaderGone):
            return len(data)


@contextmanager
def own_streams() -> Iterator[None]:
    """Replace sys.stdout and sys.stderr, unless a test or a host program already has."""
    _fill_closed_descriptors()
    original = sys.stdout, sys.stderr
    if sys.stdout is sys.__stdout__:
        sys.stdout = _stream(Target(1, "stdout"), original[0])
    if sys.stderr is sys.__stderr__:
        sys.stderr = _stream(_Messages(2, "stderr"), original[1])
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout, sys.stderr = original


@contextmanager
def script_streams() -> Iterator[None]:
    """Python's own streams again, for a script that is run in this process."""
    own = sys.stdout, sys.stderr
    if isinstance(getattr(getattr(own[0], "buffer", None), "raw", None), Target):
        sys.stdout.flush()
        sys.stdout = sys.__stdout__  # type: ignore[assignment]
    if isinstance(getattr(getattr(own[1], "buffer", None), "raw", None), Target):
        sys.stderr = sys.__stderr__  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = own


def _stream(target: Target, original: TextIO | None) -> TextIO:
    encoding = getattr(original, "encoding", None) or "utf-8"
    at_once = target.fileno() == 2 or target.isatty()
    return text_of(target, encoding=encoding, errors=ASCII_MARKS, line_buffering=at_once)


def _fill_closed_descriptors() -> None:
    """A file opened later must not get the number of stdout: what is printed would go into it."""
    with suppress(OSError):
        while (number := os.open(os.devnull, os.O_RDONLY)) <= 2:
            pass
        os.close(number)
