"""The part of a damaged trace that can still be trusted.

It consists of the rows and the journal up to the last commit whose running checksums match, and
of those rows' values that match their own checksums.
"""

from __future__ import annotations

import itertools
import math
import os
import shlex
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hqtool.errors import HqtoolError
from hqtool.trace.hdf5_files import ClosedAtEnd
from hqtool.trace.journal import JournalContent, journal_content
from hqtool.trace.raw import RawTrace, damage_as_data_error, intact
from hqtool.trace.schema import Row
from hqtool.vocab import SampleLayout, Stats, UsedRange

#: The remedy where nothing can be repaired.
NO_RESCUE = "use a sound copy, or record again"


class KeptBits(NamedTuple):
    """A record's values as stored: in the tensor's shape, or 1-D where they are a sample.

    Args:
        layout: where a sample lies, its extremes as stored.
    """

    bits: NDArray[Any]
    layout: SampleLayout | None


class TrustedPart(ClosedAtEnd):
    """Reads the part of a trace that can be trusted. A context manager.

    Attributes:
        path: the trace's.
        state: the trace's; open where it cannot be read, for then nobody closed the trace.
        journal: what its journal says.
        committed: how many records were committed.
        whole: whether every commit can be trusted.

    Args:
        path: a trace: closed, left open by a killed writer, or damaged.

    Raises:
        DataError: the file is missing, not a trace, or not even its beginning can be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._raw = RawTrace(path)
        self.path = self._raw.path
        try:
            with damage_as_data_error(self.path, lambda: NO_RESCUE):
                self._load()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; nothing can be read any more."""
        self._raw.close()

    @property
    def records(self) -> int:
        """How many records the trusted commits cover."""
        return int(self._commits["rows"][-1])

    def batches(self) -> Iterator[tuple[int, Iterator[Row]]]:
        """For each commit the step it closes, or NO_STEP, and the rows it added."""
        start = 0
        for step, stop in self._commits[["step", "rows"]].tolist():
            yield step, _rows_of(self._raw.blocks("rows", start, stop))
            start = stop

    def values(self, row: Row, shape: tuple[int, ...]) -> KeptBits | None:
        """What a row keeps of the values of a tensor in that shape.

        Returns:
            None where it keeps none, or they are damaged.
        """
        if not row.element:
            return None
        payload = int(self._commits["payload"][-1])
        try:
            bits = self._raw.bits(row, payload)
            layout = self._raw.layout(row, math.prod(shape), payload)
            return KeptBits(bits if row.sampled else bits.reshape(shape), layout)
        except Exception:  # HDF5 reports damage in many ways
            return None

    def channel_extremes(self, row: Row) -> NDArray[np.float64] | None:
        """The extremes of each channel, (2, channels); None where they are not known.

        Raises:
            ValueError: they are damaged.
        """
        if not self.journal.has_channel_extremes:
            return None
        try:
            return self._raw.channel_extremes(row, int(self._commits["payload"][-1]))
        except Exception as error:  # HDF5 reports damage in many ways
            raise ValueError("extremes of channels are damaged") from error

    def used_range(self, row: Row) -> UsedRange | None:
        """What quantized a record's tensor; None where that is not known, or damaged."""
        if not self.journal.has_used_ranges:
            return None
        payload, extremes = int(self._commits["payload"][-1]), self.journal.has_channel_extremes
        try:
            return self._raw.used_range(row, payload, extremes=extremes)
        except Exception:  # HDF5 reports damage in many ways
            return None

    def _load(self) -> None:
        self._raw.format()
        self.state = self._state()
        commits = self._raw.commits(self.state)
        self.committed = self._committed(commits)
        self._commits = commits[: self._sound(commits)]
        self.whole = self._commits.size == commits.size
        if not self._commits.size:
            raise ValueError("not even its first commit matches its checksums")
        self.journal: JournalContent = journal_content(
            self._raw.items("journal", 0, int(self._commits["journal"][-1]))
        )

    def _state(self) -> str:
        try:
            return self._raw.state()
        except (OSError, RuntimeError, ValueError):
            return "open"

    def _committed(self, commits: NDArray[Any]) -> int:
        """How many records were committed; all in the file where the last commit is damaged."""
        return int(commits["rows"][-1]) if intact(commits[-1:]) else self._raw.length("rows")

    def _sound(self, commits: NDArray[Any]) -> int:
        """How many commits, from the first on, match all that they cover."""
        rows = self._checksums("rows", commits["rows"].tolist())
        journal = self._checksums("journal", commits["journal"].tolist())
        found = zip(rows, journal, strict=False)
        recorded = commits[["rows_crc", "journal_crc"]].tolist()
        sound = (
            crcs == tuple(said) and intact(commits[n : n + 1])
            for n, (crcs, said) in enumerate(zip(found, recorded, strict=False))
        )
        return sum(itertools.takewhile(bool, sound))

    def _checksums(self, name: str, ends: Iterable[int]) -> Iterator[int]:
        """The CRC-32 of a dataset's items up to each end (ascending), until one cannot be read."""
        crc = start = 0
        for end in ends:
            try:
                for block in self._raw.blocks(name, start, end):
                    crc = zlib.crc32(block.data, crc)
            except (OSError, RuntimeError, ValueError):
                return
            yield crc
            start = end


def remedy_of(path: str) -> str:
    """What to do about a damaged trace: the command that repairs it, where that saves a record."""
    root, suffix = os.path.splitext(path)
    try:
        with TrustedPart(path) as trusted:
            repairable = trusted.records > 0
    except HqtoolError:
        repairable = False
    command = f"hqtool repair {shlex.quote(path)} -o {shlex.quote(f'{root}.repaired{suffix}')}"
    return f"rescue what still reads: {command}" if repairable else NO_RESCUE


def _rows_of(blocks: Iterable[NDArray[Any]]) -> Iterator[Row]:
    for block in blocks:
        for item in block:
            row = Row(*item.item())
            yield row._replace(stats=Stats(*row.stats))
