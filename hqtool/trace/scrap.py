"""Handing HDF5 a scrap file in place of a trace that it must not touch any more.

HDF5 finishes every open file when a process exits. That must not reach the trace in a forked
child, which would write into its parent's file and mark it closed, nor after a failed write, when
what HDF5 still has to write no longer fits the file.
"""

from __future__ import annotations

import os
import tempfile
from typing import IO

#: File descriptors that no forked child may write to.
_shielded: set[int] = set()


def put_scrap(descriptor: int) -> None:
    """Put a scrap file behind this process's descriptor."""
    with _scrap() as scrap:
        os.dup2(scrap.fileno(), descriptor, inheritable=False)


def shield(descriptor: int) -> None:
    """From now on a forked child finds a scrap file behind this descriptor."""
    _shielded.add(descriptor)


def unshield(descriptor: int) -> None:
    """The descriptor is about to be closed."""
    _shielded.discard(descriptor)


def _scrap() -> IO[bytes]:
    """A file that is gone when it is closed; in memory where possible, for disks may be full."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("scrap"), "r+b")
    return tempfile.TemporaryFile()


def _put_scrap_behind_all() -> None:
    for descriptor in _shielded:
        put_scrap(descriptor)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_put_scrap_behind_all)
