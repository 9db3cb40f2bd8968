"""Messages on stderr while another program runs in this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from hqtool.display import encodable_in, harmless

#: The streams that were stderr when programs began, the latest last.
_streams: list[TextIO | None] = []


@contextmanager
def program_runs() -> Iterator[None]:
    """Within the block messages go to what stderr was before: a program may replace it.

    What it puts there is its own; it may count or compare what is written to it.
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
