"""Messages on stderr while another program runs in this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from hqtool.display import encodable_in, harmless

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
    stream = _streams[-1] if _streams else sys.stderr
    if messages and stream is not None:
        lines = "".join(f"hqtool: {harmless(message)}\n" for message in messages)
        with suppress(OSError, ValueError):  # closed or full: training goes on all the same
            stream.write(encodable_in(lines, stream))
            stream.flush()
