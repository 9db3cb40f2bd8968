"""Reading a whole file, or a FIFO without waiting for ever when nobody writes to it."""

from __future__ import annotations

import os
import select
import stat
from pathlib import Path

from hqtool.errors import DataError

#: How long to wait for a FIFO's next bytes.
FIFO_WAIT_SECONDS = 10.0

#: Bytes to read from a FIFO at a time.
_PART_BYTES = 1 << 16


def bytes_of(path: str | Path) -> bytes:
    """All bytes of a regular file, or of a FIFO to its end.

    Raises:
        OSError: it cannot be opened or read.
        DataError: it is neither, or nothing comes for FIFO_WAIT_SECONDS.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return Path(path).read_bytes()
    if not stat.S_ISFIFO(mode):
        raise DataError("is not a regular file", "give a file")
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return b"".join(iter(lambda: _part(descriptor), b""))
    finally:
        os.close(descriptor)


def _part(descriptor: int) -> bytes:
    """The next bytes; none at the end."""
    if not select.select([descriptor], [], [], FIFO_WAIT_SECONDS)[0]:
        cause = f"is a FIFO that nobody wrote to for {FIFO_WAIT_SECONDS:g} s"
        raise DataError(cause, "start what writes to it first, or give a file")
    return os.read(descriptor, _PART_BYTES)
