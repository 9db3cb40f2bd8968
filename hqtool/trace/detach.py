"""Detaching HDF5 from a trace that it must not touch any more.

HDF5 writes to every file that is open when a process exits. A forked child would write into its
parent's trace and mark it closed; and after a failed write, what HDF5 still has to write does not
fit the file any more. So an empty temporary file takes the trace's place behind the descriptor.
"""

from __future__ import annotations

import os
import tempfile
from typing import IO

#: File descriptors that no forked child may write to.
_detached_in_children: set[int] = set()


def detach(descriptor: int) -> None:
    """Put an empty temporary file behind this process's descriptor."""
    with _temporary_file() as file:
        os.dup2(file.fileno(), descriptor, inheritable=False)


def detach_in_children(descriptor: int) -> None:
    """Detach this descriptor in every child that is forked from now on."""
    _detached_in_children.add(descriptor)


def forget(descriptor: int) -> None:
    """Undo `detach_in_children`, before the descriptor is closed."""
    _detached_in_children.discard(descriptor)


def _temporary_file() -> IO[bytes]:
    """A file that is gone when it is closed; in memory where possible, for disks may be full."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("detached"), "r+b")
    return tempfile.TemporaryFile()


def _detach_all() -> None:
    for descriptor in _detached_in_children:
        detach(descriptor)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_detach_all)
