"""Making a trace of .npz archives."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from hqtool.errors import DataError, UsageError
from hqtool.outputs import same_file
from hqtool.trace.content import element_of
from hqtool.trace.hdf5_files import ClosedAtEnd, exists_already, reason, rename, require_folder
from hqtool.trace.signature import HDF5
from hqtool.trace.writer import MARGIN_BYTES, TraceWriter
from hqtool.vocab import TENSOR_KINDS, Site

#: Archives kept open at once.
MAX_OPEN = 64

_KEY = re.compile(rf"(.+)/({'|'.join(TENSOR_KINDS)})/([0-9]{{1,18}})", re.DOTALL)
_KEY_FORM = f"name arrays LAYER/KIND/STEP, KIND one of {', '.join(TENSOR_KINDS)}"


class Converted(NamedTuple):
    """What `convert_npz` wrote: how many sites, steps and records."""

    sites: int
    steps: int
    records: int


class _ArrayEntry(NamedTuple):
    """An array in an archive; entries sort in the order they are written."""

    step: int
    file: int  # index into the files
    position: int  # in the archive
    site: Site
    key: str


def convert_npz(
    files: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    force: bool = False,
) -> Converted:
    """Write a trace of the arrays in .npz archives, one step after the other.

    Arrays are named "LAYER/KIND/STEP" (a layer's name may contain slashes), hold float16, float32
    or float64 values in any shape, and are read one at a time. Nothing is left behind on an error.

    Args:
        files: the archives; each array may occur in one of them only.
        out: the trace to create.
        force: replace an existing file.

    Raises:
        UsageError: no files; or `out` exists (without `force`) or cannot be created.
        DataError: a file is missing or not an archive, or an array is misnamed, of another type,
            damaged or given twice.
        TraceFull: the disk is nearly full.
    """
    paths, target = [os.fspath(file) for file in files], os.path.realpath(out)
    if not paths:
        raise UsageError("nothing to convert", "give .npz archives")
    for path in paths:
        if same_file(target, path):
            raise UsageError(f"{target} is one of the files to convert", "choose another name")
    _require_name(target, force)
    entries = _entries(paths)
    partial = f"{target}.{os.getpid()}.partial"
    try:
        _write(entries, paths, partial)
        _require_name(target, force)
        rename(partial, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
    sites, steps = {entry.site for entry in entries}, {entry.step for entry in entries}
    return Converted(len(sites), len(steps), len(entries))


def _require_name(target: str, force: bool) -> None:
    require_folder(target)
    if not force and os.path.lexists(target):
        raise exists_already(target)


def _entries(paths: Sequence[str]) -> list[_ArrayEntry]:
    """Every array of every archive, in the order to write them."""
    found: dict[tuple[Site, int], _ArrayEntry] = {}
    for file, path in enumerate(paths):
        for position, key in enumerate(_keys(path)):
            site, step = _site_and_step(path, key)
            entry = _ArrayEntry(step, file, position, site, key)
            other = found.setdefault((site, step), entry)
            if other is not entry:
                raise DataError(
                    f"{path}: {key}: recorded before, as {other.key} in {paths[other.file]}",
                    "give every array once",
                )
    return sorted(found.values())


def _keys(path: str) -> list[str]:
    with _open_archive(path) as archive:
        keys = list(archive.files)
    if not keys:
        raise DataError(f"{path}: no arrays in it", _KEY_FORM)
    return keys


def _site_and_step(path: str, key: str) -> tuple[Site, int]:
    """The site and step that a key names."""
    match = _KEY.fullmatch(key)
    if match is None:
        raise DataError(f"{path}: array {key!r} is misnamed", _KEY_FORM)
    layer, kind, step = match.groups()
    return Site(layer, kind), int(step)


def _write(entries: Sequence[_ArrayEntry], paths: Sequence[str], partial: str) -> None:
    run = {"command": "convert", "files": list(paths)}
    with _Archives(paths) as archives, _writer(partial, run) as writer:
        for step, group in groupby(entries, key=lambda entry: entry.step):
            for entry in group:
                values = _read_array(paths[entry.file], archives.open(entry.file), entry.key)
                writer.write(entry.site.layer, entry.site.tensor, step, values)
            writer.commit(step)


def _writer(partial: str, run: Mapping[str, Any]) -> TraceWriter:
    return TraceWriter(partial, force=True, run=run, reserve_bytes=MARGIN_BYTES)


def _read_array(path: str, archive: NpzFile, key: str) -> NDArray[Any]:
    """An array, if a trace can hold it."""
    try:
        values = np.asarray(archive[key])
    except Exception as error:  # zipfile, zlib and numpy report damage in many ways
        why = reason(error)
        raise DataError(f"{path}: {key}: cannot be read ({why})", "save it again") from error
    try:
        element_of(values)
    except DataError as error:
        raise DataError(f"{path}: {key}: {error.cause}", error.remedy) from None
    return values


@contextlib.contextmanager
def _open_archive(path: str) -> Iterator[NpzFile]:
    """An open archive. numpy would leave a file open that is not an archive: it is opened here."""
    with _open_file(path) as file, _load_archive(path, file) as archive:
        yield archive


def _open_file(path: str) -> BinaryIO:
    if os.path.exists(path) and not os.path.isfile(path):
        raise DataError(f"{path}: cannot be opened (not a regular file)", "give .npz archives")
    try:
        return open(path, "rb")
    except OSError as error:
        raise DataError(
            f"{path}: cannot be opened ({reason(error)})", "give .npz archives"
        ) from None


def _load_archive(path: str, file: BinaryIO) -> NpzFile:
    _require_numpy_file(path, file)
    try:
        archive = np.load(file, allow_pickle=False)
    except Exception as error:  # zipfile and numpy refuse other files in many ways
        why = reason(error)
        raise DataError(f"{path}: not an .npz archive ({why})", "save it by numpy.savez") from error
    if not isinstance(archive, NpzFile):
        raise DataError(f"{path}: a single array, not an .npz archive", "save it by numpy.savez")
    return archive


def _require_numpy_file(path: str, file: BinaryIO) -> None:
    """Refuse what numpy would take for a pickle."""
    start = file.read(len(HDF5))
    file.seek(0)
    if start == HDF5:
        remedy = "give .npz archives; is it a trace already (hqtool info)?"
        raise DataError(f"{path}: an HDF5 file, not an .npz archive", remedy)
    if not start.startswith((b"PK", b"\x93NUMPY")):
        raise DataError(f"{path}: not an .npz archive", "save it by numpy.savez")


class _Archives(ClosedAtEnd):
    """Opens archives when they are needed, and keeps some of them open.

    Args:
        paths: the archives.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._open: dict[int, tuple[NpzFile, contextlib.ExitStack]] = {}

    def close(self) -> None:
        while self._open:
            self._close_oldest()

    def open(self, file: int) -> NpzFile:
        """The archive with this index, opened unless it is open."""
        if file not in self._open:
            if len(self._open) == MAX_OPEN:
                self._close_oldest()
            stack = contextlib.ExitStack()
            self._open[file] = stack.enter_context(_open_archive(self._paths[file])), stack
        return self._open[file][0]

    def _close_oldest(self) -> None:
        self._open.pop(next(iter(self._open)))[1].close()
