"""This process's own stdout and stderr while a command runs.

Characters that an encoding lacks are written in ASCII, a failure to write is reported in one line,
a pipe that its reader closes is no error, and a message that cannot be shown is dropped.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from hqtool.display import ASCII_MARKS
from hqtool.errors import DataError
from hqtool.outputs import ReaderGone, Target, text_of

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


_Streams = tuple[TextIO, TextIO]


class _Messages(Target):
    """stderr: a message that cannot be written is dropped."""

    def write(self, data: ReadableBuffer, /) -> int | None:  # type: ignore[override]
        """As `Target.write`, but never an error."""
        try:
            return super().write(data)
        except (DataError, ReaderGone):
            return memoryview(data).nbytes


@contextmanager
def own_streams() -> Iterator[None]:
    """Replace sys.stdout and sys.stderr within a block, unless a test or host program has.

    Streams that a script has put there itself stay, for its exit functions may write to them.
    """
    _fill_closed_descriptors()
    original = sys.stdout, sys.stderr
    if sys.stdout is sys.__stdout__:
        sys.stdout = _stream(Target(1, "stdout"), original[0])
    if sys.stderr is sys.__stderr__:
        sys.stderr = _stream(_Messages(2, "stderr"), original[1])
    ours = sys.stdout, sys.stderr
    try:
        yield
        if sys.stdout is ours[0]:
            sys.stdout.flush()
    finally:
        _exchange(ours, original)


@contextmanager
def script_streams() -> Iterator[None]:
    """Restore Python's own streams within a block, for a script that is run in this process.

    Streams that the script has put there itself stay.
    """
    own = sys.stdout, sys.stderr
    if isinstance(getattr(getattr(own[0], "buffer", None), "raw", None), Target):
        sys.stdout.flush()
        sys.stdout = sys.__stdout__
    if isinstance(getattr(getattr(own[1], "buffer", None), "raw", None), Target):
        sys.stderr = sys.__stderr__
    given = sys.stdout, sys.stderr
    try:
        yield
    finally:
        _exchange(given, own)


def _exchange(present: _Streams, coming: _Streams) -> None:
    """Replace stdout and stderr by `coming`, each only if it is still the one in `present`."""
    if sys.stdout is present[0]:
        sys.stdout = coming[0]
    if sys.stderr is present[1]:
        sys.stderr = coming[1]


def _stream(target: Target, original: TextIO | None) -> TextIO:
    encoding = getattr(original, "encoding", None) or "utf-8"
    at_once = target.fileno() == 2 or target.isatty()
    if codecs.lookup(encoding).name == "ascii":
        return _AsciiText(io.BufferedWriter(target), errors=ASCII_MARKS, line_buffering=at_once)
    return text_of(target, encoding=encoding, errors=ASCII_MARKS, line_buffering=at_once)


class _AsciiText(io.TextIOWrapper):
    """Takes only ASCII but declares UTF-8: click writes UTF-8 around a stream that says ASCII."""

    def __init__(self, buffer: io.BufferedWriter, errors: str, line_buffering: bool) -> None:
        super().__init__(buffer, "utf-8", errors, line_buffering=line_buffering)

    def write(self, text: str) -> int:
        """Write what ASCII has, and for the rest what the error handler gives."""
        return super().write(text.encode("ascii", self.errors or "strict").decode("ascii"))


def _fill_closed_descriptors() -> None:
    """Open what is closed of stdin, stdout and stderr: a later file could get its number."""
    with suppress(OSError):
        while (number := os.open(os.devnull, os.O_RDONLY)) <= 2:
            pass
        os.close(number)
