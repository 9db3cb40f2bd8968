"""Files that are written: what must not be overwritten, and how a new file replaces an old one.

An output that is an input is always refused; a file is overwritten only if asked. A regular file is
replaced as a whole, in the folder where it lies, so that a symlink to it stays; a device or FIFO
is written to, never replaced.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from hqtool.errors import DataError, UsageError
from hqtool.file_lock import claimed, is_held

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

#: What stands for stdout in place of a file's name.
STDOUT = "-"


class ReaderGone(Exception):
    """The reader of a pipe has closed it, which is no error; so this is no OSError."""


class Target(io.FileIO):
    """A file to write whose failures say what could not be written.

    Args:
        file: its path, or an open descriptor, which is left open.
        name: what error messages call it.
        mode: 'x' creates the file, 'w' opens what is there.
    """

    def __init__(self, file: str | int, name: str, mode: str = "w") -> None:
        super().__init__(file, mode, closefd=isinstance(file, str))
        self._shown = name
        self._failed = False

    def write(self, data: ReadableBuffer, /) -> int | None:  # type: ignore[override]
        """As FileIO does. After a failure, which is reported once, all else is dropped.

        Raises:
            ReaderGone: the reader of a pipe has closed it.
            DataError: anything else that goes wrong.
        """
        if self._failed:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except OSError as error:
            self._failed = True
            if isinstance(error, BrokenPipeError):
                raise ReaderGone from None
            raise cannot_write(self._shown, error) from error


def text_of(target: Target, **how: str | bool | None) -> TextIO:
    """A buffered text stream onto a target; the arguments are TextIOWrapper's."""
    return io.TextIOWrapper(io.BufferedWriter(target), **how)  # type: ignore[arg-type]


def cannot_write(name: str, error: OSError) -> DataError:
    """The error of an output that fails."""
    return DataError(f"cannot write {name}: {error.strerror}", "check folder and disk")


def check_outputs(
    outputs: Mapping[str, str],
    inputs: Mapping[str, str],
    *,
    force: bool,
    regular: Iterable[str] = (),
) -> None:
    """Refuse, before any work is done, outputs that must not or cannot be written.

    Args:
        outputs: the option that names each output → the file, or '-'.
        inputs: path of each input → what errors call it.
        force: existing files may be overwritten; never an input.
        regular: those of the outputs that must be regular files.

    Raises:
        UsageError: an output is an input, or another output, or exists (without `force`), or is
            nothing that could be written to.
        DataError: its folder is missing or read-only.
    """
    places = {option: STDOUT if names_stdout(path) else path for option, path in outputs.items()}
    _check_distinct(places)
    for option, path in places.items():
        if path == STDOUT and option not in regular:
            continue
        is_stream = _is_stream(option, path)
        for source, noun in inputs.items():
            if same_file(path, source):
                which = "" if path == source else f", {source}"
                raise UsageError(f"{option} {path} is {noun}{which}", "choose another name")
        if is_stream and option in regular:
            raise UsageError(f"{option} {path} is not a regular file", "name a file")
        if not is_stream:
            _check_regular(path, force, folder=option not in regular)


def same_file(one: str, other: str) -> bool:
    """Whether two paths lead to one file, through whatever links; it need not exist."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


def place_new(partial: str, target: str, *, force: bool) -> None:
    """Move a finished file to its place; it takes the permissions of the file it replaces.

    Raises:
        UsageError: a file is there (without `force`), or it is a trace that is being written.
        OSError: it cannot be moved there.
    """
    with claimed(target) as free:
        if not free:
            raise being_written(target)
        if force:
            with suppress(OSError):
                shutil.copymode(target, partial)
        elif os.path.lexists(target):
            raise UsageError(f"{target} exists by now", "choose another name, or overwrite with -f")
        os.replace(partial, target)


def being_written(path: str) -> UsageError:
    """The error for an output that is a trace which another process is writing."""
    cause = f"{path} is a trace that is being written, by another process or this one"
    return UsageError(cause, "wait until it is closed, or choose another name")


@contextmanager
def written(path: str, *, force: bool = True, lines: bool = False) -> Iterator[tuple[TextIO, str]]:
    """An output as an open stream, and the path that is written to; a file is moved to `path` last.

    A device, FIFO or open descriptor is written to at once. After an error nothing of a file is
    left, nor after Ctrl-C or SIGTERM unless `lines`.

    Args:
        path: one that `check_outputs` accepted; not '-'.
        lines: each line is of use by itself: after Ctrl-C or SIGTERM the whole ones are kept.

    Raises:
        DataError: it cannot be written.
        UsageError: the file has come to exist meanwhile (without `force`).
    """
    if _is_stream("output", path):
        number = _descriptor(path)
        with _opened(path if number is None else number, path, "w") as out:
            yield out, path
        return
    target = os.path.realpath(path)
    partial = f"{target}.{os.getpid()}.part"
    try:
        with _opened(partial, path, "x") as out:
            yield out, partial
        place_new(partial, target, force=force)
    except (KeyboardInterrupt, SystemExit):
        if lines and _cut_to_whole_lines(partial):
            os.replace(partial, target)
        raise
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            os.unlink(partial)


@contextmanager
def _opened(file: str | int, name: str, mode: str) -> Iterator[TextIO]:
    """A text stream in UTF-8; lone surrogates, which UTF-8 cannot hold, are escaped."""
    try:
        target = Target(file, name, mode)
    except OSError as error:
        raise cannot_write(name, error) from error
    with text_of(target, encoding="utf-8", errors="backslashreplace", newline="") as out:
        yield out


def _cut_to_whole_lines(path: str) -> int:
    """Cut off an unfinished last line; the bytes left, 0 also where there is no such file."""
    try:
        with open(path, "r+b") as out:
            whole = sum(len(line) for line in out if line.endswith(b"\n"))
            out.truncate(whole)
            return whole
    except OSError:
        return 0


def _check_distinct(places: Mapping[str, str]) -> None:
    """Refuse one place for two outputs, unless it is a device: there nothing can be lost."""
    earlier: list[tuple[str, str]] = []
    for option, path in places.items():
        for other, its in earlier:
            both_stdout = path == its == STDOUT
            apart = STDOUT in (path, its) or _is_device(path) or not same_file(path, its)
            if both_stdout or not apart:
                where = "stdout" if both_stdout else path
                raise UsageError(f"{other} and {option} both want {where}", "name two files")
        earlier.append((option, path))


def _check_regular(path: str, force: bool, folder: bool) -> None:
    if is_held(path):
        raise being_written(path)
    if os.path.exists(path) and not force:
        raise UsageError(f"{path} exists", "choose another name, or overwrite with -f")
    if folder:
        place = os.path.dirname(os.path.realpath(path))
        if not os.path.isdir(place):
            raise DataError(f"cannot write {path}: its folder does not exist", "create the folder")
        if not os.access(place, os.W_OK | os.X_OK):
            raise DataError(f"cannot write {path}: its folder is read-only", "name another folder")


def _is_stream(option: str, path: str) -> bool:
    """Whether a path is a device, FIFO or open descriptor; else it is, or can be, a regular file.

    Raises:
        UsageError: it is none of them.
        DataError: it cannot be reached.
    """
    if not path or path == STDOUT or "\0" in path:
        raise UsageError(f"{option} needs the name of a file, not {path!r}", "name a file")
    if _descriptor(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = stat.S_IFDIR if path.endswith(os.sep) else stat.S_IFREG
    except OSError as error:
        raise cannot_write(path, error) from error
    if stat.S_ISREG(mode):
        return False
    if stat.S_ISCHR(mode) or stat.S_ISFIFO(mode):
        return True
    what = "a folder" if stat.S_ISDIR(mode) else "not a file"
    raise UsageError(f"{option} {path} is {what}", "name a file")


def _is_device(path: str) -> bool:
    with suppress(OSError):
        return stat.S_ISCHR(os.stat(path).st_mode)
    return False


def names_stdout(path: str) -> bool:
    """Whether an output is stdout, by whatever name."""
    return path == STDOUT or _descriptor(path) == 1


def _descriptor(path: str) -> int | None:
    """The open descriptor of this process that a path names, such as /dev/stdout or /dev/fd/3."""
    path = os.path.abspath(path)
    with suppress(OSError):
        path = os.path.join(os.path.dirname(path), os.readlink(path)) if _at_dev(path) else path
    folder, name = os.path.split(path)
    own = re.fullmatch(r"/proc/(self|[0-9]+)/fd", os.path.realpath(folder))
    return int(name) if own and name.isdecimal() and _is_own(own[1]) else None


def _at_dev(path: str) -> bool:
    return path in ("/dev/stdin", "/dev/stdout", "/dev/stderr")


def _is_own(process: str) -> bool:
    return process in ("self", str(os.getpid()))
