"""HDF5 files: opening them, whatever state their writer left them in, and creating them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from types import TracebackType
from typing import Any, Self

import h5py

from hqtool.errors import DataError, UsageError
from hqtool.file_lock import claimed
from hqtool.outputs import being_written
from hqtool.trace.schema import LIBVER

#: How often HDF5 tries to read metadata that a live writer may just be changing. It waits twice as
#: long before each new try, 2 ms before the 22nd. Its default is 100 tries, which never end on a
#: damaged file.
READ_ATTEMPTS = 22

_CLOSED = h5py.h5f.ACC_RDONLY
_WITH_WRITER = h5py.h5f.ACC_RDONLY | h5py.h5f.ACC_SWMR_READ

#: Ways to open a file, as (intent, locking): one that was closed; one that a writer has open, or
#: had when it was killed; one on a file system without locks.
_WAYS = ((_CLOSED, True), (_WITH_WRITER, True), (_WITH_WRITER, False))


class ClosedAtEnd:
    """A context manager that closes itself at the end of a `with` block."""

    def close(self) -> None:
        """Close it."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave(complete=kind is None)

    def _leave(self, *, complete: bool) -> None:
        """Leave the `with` block; it is not complete where an exception ended it."""
        self.close()


def open_to_read(path: str) -> Any:
    """The file as an h5py.File, reading without a cache of chunks.

    Raises:
        DataError: there is no such file, or HDF5 cannot open it.
    """
    if not os.path.isfile(path):
        what = "not a file" if os.path.exists(path) else "no such file"
        raise DataError(f"{path}: {what}", "give the path of a trace (hqtool capture makes one)")
    for intent, locking in _WAYS:
        try:
            return h5py.File(h5py.h5f.open(os.fsencode(path), intent, _access(locking)))
        except (OSError, RuntimeError) as error:
            failure = error
    raise DataError(
        f"{path}: cannot be opened as HDF5 ({reason(failure)})",
        "is it a trace (hqtool capture makes one), whole and readable?",
    ) from failure


def create(path: str, *, replace: bool = False) -> Any:
    """A new h5py.File that writes what it is given at once, without a cache of chunks.

    Besides its speed this is what keeps the process alive when a disk is full: a cache that
    cannot be written out makes HDF5 crash at exit.

    Raises:
        UsageError: the file exists (unless it may be replaced), or cannot be created.
    """
    mode = "w" if replace else "x"
    try:
        return h5py.File(path, mode, libver=LIBVER, locking="best-effort", rdcc_nbytes=0)
    except FileExistsError:
        raise exists_already(path) from None
    except OSError as error:
        why = reason(error)
        raise UsageError(f"{path}: cannot be created ({why})", "choose another place") from error


def require_folder(path: str) -> None:
    """Raise a UsageError where no regular file can be: the folder is missing, or it is another."""
    if os.path.lexists(path) and not os.path.isfile(path):
        raise UsageError(
            f"{path} exists and is not a regular file: it cannot be replaced", "name another file"
        )
    if not os.path.isdir(os.path.dirname(path)):
        raise UsageError(f"{path}: its folder does not exist", "create the folder first")


def rename(source: str, target: str) -> None:
    """Let `source` replace `target`, and take its permissions.

    Raises:
        UsageError: it cannot, or `target` is being written.
    """
    with claimed(target) as free:
        if not free:
            raise being_written(target)
        _replace(source, target)


def _replace(source: str, target: str) -> None:
    try:
        with contextlib.suppress(FileNotFoundError):
            shutil.copymode(target, source)
        os.replace(source, target)
    except OSError as error:
        why = reason(error)
        raise UsageError(f"{target}: cannot be replaced ({why})", "choose another name") from error


def place_of(file: os.stat_result, path: str, descriptor: int) -> str | None:
    """Where a file that was created at a path is now; None where it is deleted, or unknown.

    Args:
        descriptor: one of the file, unless it was closed; Linux knows the file's name by it.
    """
    with contextlib.suppress(OSError):
        if os.path.samestat(os.stat(path), file):
            return path
    with contextlib.suppress(OSError):
        by_now = os.readlink(f"/proc/self/fd/{descriptor}")
        if os.path.samestat(os.stat(by_now), file):
            return by_now
    return None


def exists_already(path: str) -> UsageError:
    """The error for an output that exists already."""
    return UsageError(f"{path} exists", "choose another name, or overwrite it (-f, force=True)")


def reason(error: Exception) -> str:
    """What an error says, in one line."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    said = error.args[0] if isinstance(error, KeyError) and error.args else error  # str() quotes it
    return (str(said).splitlines() or [type(error).__name__])[0]


def _access(locking: bool) -> Any:
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    metadata, slots, _, preemption = access.get_cache()
    access.set_cache(metadata, slots, 0, preemption)
    access.set_file_locking(locking, True)
    _limit_attempts(access)
    return access


def _limit_attempts(access: Any) -> None:
    """Set READ_ATTEMPTS. h5py lacks the call, but has loaded the HDF5 library that has it."""
    with contextlib.suppress(AttributeError, OSError):
        limit = ctypes.CDLL(h5py.h5p.__file__).H5Pset_metadata_read_attempts
        limit.argtypes = [ctypes.c_int64, ctypes.c_uint]
        limit(access.id, READ_ATTEMPTS)
