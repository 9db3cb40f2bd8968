"""A study's journal: a line of JSON for each run that ended, written to the disk at once.

The first line says what is studied. A process that is killed leaves at most one unfinished last
line, which is cut off when the journal is opened again. While it is open it is locked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hqtool.errors import DataError, UsageError
from hqtool.file_lock import hold

SCHEMA = "hqtool.study-journal/1"

Entry = Mapping[str, Any]


class Journal:
    """The journal in a file, which is made where it is missing; open until `close`.

    Raises:
        UsageError: another process has it open.
        DataError: it cannot be opened, or a line of it, not the last one, is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            cause = f"cannot open {path}: {error.strerror}"
            raise DataError(cause, "name another folder with -o") from error
        try:
            self._take()
        except BaseException:
            os.close(self._file)
            raise

    def _take(self) -> None:
        if not hold(self._file):
            cause = f"{self._path.parent}: another process is running this study"
            raise UsageError(cause, "wait until it ends, or name another folder with -o")
        text = self._whole_lines()
        self.entries: list[Entry] = list(map(self._entry, range(1, 1 + len(text)), text))

    def _whole_lines(self) -> list[bytes]:
        """All lines; an unfinished last one is cut off the file."""
        with open(self._file, "rb", closefd=False) as source:
            lines = source.read().splitlines(keepends=True)
        if lines and not _is_whole(lines[-1]):
            lines.pop()
        os.ftruncate(self._file, sum(map(len, lines)))
        os.lseek(self._file, 0, os.SEEK_END)
        return lines

    def _entry(self, number: int, line: bytes) -> Entry:
        if not _is_whole(line):
            cause = f"{self._path}, line {number}: damaged"
            raise DataError(cause, "repair the line, or name another folder with -o")
        entry: Entry = json.loads(line)
        return entry

    def enter(self, entry: Entry) -> None:
        """Add a line; it is on the disk when this returns.

        Raises:
            DataError: it cannot be written.
        """
        line = (json.dumps(entry, allow_nan=False) + "\n").encode("ascii")
        try:
            _write(self._file, line)
            os.fsync(self._file)
            if not self.entries:
                _sync_folder(self._path.parent)
        except OSError as error:
            cause = f"cannot write {self._path}: {error.strerror}"
            raise DataError(cause, "check the disk, then run the study again") from error
        self.entries.append(entry)

    def close(self) -> None:
        """Let others open it."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _is_whole(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _sync_folder(folder: Path) -> None:
    """Keep a new file's name through a loss of power; not every system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
