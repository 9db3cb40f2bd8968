"""Detaching HDF5 from a trace that it must not touch any more.

HDF5 writes to every file that is open when a process exits. A forked child would write into its
parent's trace and mark it closed; and after a failed write, what HDF5 still has to write does not
fit the file any more. So an empty temporary file takes the trace's place behind the descriptor.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

#: File descriptors that no forked child may write to, and the files behind them.
_detached_in_children: dict[int, os.stat_result] = {}


def detach(descriptor: int) -> None:
    """Put an empty temporary file behind this process's descriptor."""
    file = _temporary_file()
    if file != descriptor:  # it gets that number itself where the program has closed the descriptor
        os.dup2(file, descriptor, inheritable=False)
        os.close(file)


@contextmanager
def detached(descriptor: int) -> Iterator[None]:
    """Detach a descriptor within the block; then what lay behind it before lies there again."""
    before = _duplicate(descriptor)
    detach(descriptor)
    try:
        yield
    finally:
        if before is not None:
            duplicate, inheritable = before
            os.dup2(duplicate, descriptor, inheritable)
            os.close(duplicate)


def is_behind(file: os.stat_result, descriptor: int) -> bool:
    """Whether a descriptor still leads to a file: a program may have closed and reused it."""
    try:
        return os.path.samestat(os.fstat(descriptor), file)
    except OSError:
        return False


def detach_in_children(descriptor: int) -> None:
    """Detach this descriptor in every child that is forked from now on."""
    _detached_in_children[descriptor] = os.fstat(descriptor)


def forget(descriptor: int) -> None:
    """Undo `detach_in_children`, before the descriptor is closed."""
    _detached_in_children.pop(descriptor, None)


def _duplicate(descriptor: int) -> tuple[int, bool] | None:
    """Another descriptor of the same, and whether the first is inheritable; None if closed."""
    try:
        return os.dup(descriptor), os.get_inheritable(descriptor)
    except OSError:
        return None


def _temporary_file() -> int:
    """A descriptor of a file that is gone when closed; in memory if possible: disks get full."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("detached")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _detach_all() -> None:
    for descriptor, file in _detached_in_children.items():
        if is_behind(file, descriptor):
            detach(descriptor)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_detach_all)
