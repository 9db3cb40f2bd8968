"""Messages on stderr while another program runs in this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from hqtool.display import encodable_in, harmless
from hqtool.errors import HqtoolError

#: What sys.stderr was before each program that is running, the latest last.
_streams: list[TextIO | None] = []


@contextmanager
def program_runs() -> Iterator[None]:
    """Within the block, messages go to the stream that sys.stderr is now.

    A program may put another stream in its place, and count or compare what is written to that.
    """
    _streams.append(sys.stderr)
    try:
        yield
    finally:
        _streams.pop()


def say(*messages: str) -> None:
    """Print lines to stderr in a single write, for other processes may write there, too."""
    _write("".join(f"hqtool: {harmless(message)}\n" for message in messages))


def complain(error: HqtoolError) -> None:
    """Print an error's cause and remedy, as the command line does."""
    remedy = f"  {harmless(error.remedy)}\n" if error.remedy else ""
    _write(f"hqtool: {harmless(error.cause)}\n{remedy}")


def _write(lines: str) -> None:
    stream = _streams[-1] if _streams else sys.stderr
    if lines and stream is not None:
        with suppress(OSError, ValueError):  # closed or full: training goes on all the same
            stream.write(encodable_in(lines, stream))
            stream.flush()
