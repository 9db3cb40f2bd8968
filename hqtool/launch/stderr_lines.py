"""Messages on stderr while another program runs in this process."""

from __future__ import annotations

import sys
from contextlib import suppress

from hqtool.display import encodable_in, harmless


def say(*messages: str) -> None:
    """Print lines to stderr in a single write, for other processes may write there, too."""
    if messages:
        lines = "".join(f"hqtool: {harmless(message)}\n" for message in messages)
        with suppress(OSError, ValueError):  # closed or full: training goes on all the same
            if sys.stderr is not None:
                sys.stderr.write(encodable_in(lines, sys.stderr))
                sys.stderr.flush()
