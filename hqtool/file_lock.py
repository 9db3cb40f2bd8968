"""Locks on files that are being written, so that no other process replaces them meanwhile.

A lock belongs to the open file, not to a process (Linux, F_OFD_SETLK). It ends when the last
descriptor of that open file is closed, even by kill -9, but not when the process closes the file
where it has opened it a second time. The locked byte lies beyond the end of any file, where no
reader locks anything. A child process that is being started has the descriptor until its own
program begins, so that the lock may outlive a killed process for an instant: whoever wants it
waits that long. Where the system or the file system lacks such locks, nothing is locked.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

#: The byte that is locked.
_PLACE = 1 << 62

#: Seconds to wait for a lock that is held, and between two tries.
_PATIENCE, _PAUSE = 1.0, 0.01


def hold(descriptor: int) -> bool:
    """Lock a file that is open for writing, until it is closed; children do not inherit it.

    Returns:
        False where another process holds the lock.
    """
    os.set_inheritable(descriptor, False)
    return _lock(descriptor, exclusive=True)


def is_held(path: str | os.PathLike[str]) -> bool:
    """Whether a file is locked; False where there is none."""
    with claimed(path) as free:
        return not free


@contextmanager
def claimed(path: str | os.PathLike[str]) -> Iterator[bool]:
    """Keep others from locking or replacing a file within the block.

    Yields:
        False where another process holds the lock; True where there is no file.
    """
    opened = _open_regular(path)
    if opened is None:
        yield True
        return
    descriptor, writable = opened
    try:
        yield _lock(descriptor, exclusive=writable) and _is_still_at(descriptor, path)
    finally:
        os.close(descriptor)


def _is_still_at(descriptor: int, path: str | os.PathLike[str]) -> bool:
    """Whether nobody has replaced a file since it was opened."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return True


def _open_regular(path: str | os.PathLike[str]) -> tuple[int, bool] | None:
    """A descriptor of a regular file, and whether it can write; None where there is no file."""
    for mode in (os.O_RDWR, os.O_RDONLY):
        try:
            if stat.S_ISREG(os.stat(path).st_mode):
                return os.open(path, mode), mode == os.O_RDWR
        except OSError:
            continue
    return None


def _lock(descriptor: int, *, exclusive: bool) -> bool:
    """Lock within `_PATIENCE` seconds; False where another open file still holds the lock then."""
    deadline = time.monotonic() + _PATIENCE
    while not (locked := _try_to_lock(descriptor, exclusive=exclusive)):
        if time.monotonic() > deadline:
            break
        time.sleep(_PAUSE)
    return locked


def _try_to_lock(descriptor: int, *, exclusive: bool) -> bool:
    if sys.platform != "linux":
        return True
    import fcntl

    kind = fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK
    wanted = struct.pack("hhqqi4x", kind, os.SEEK_SET, _PLACE, 1, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN)
    return True
