"""Repair: a clean, closed trace of whatever a killed or damaged one still holds.

What counts as held: rows and journal up to the last commit whose running checksums hold, and of
those rows the values that match their own. A record whose values do not keeps its statistics.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from numpy.typing import NDArray

from hqtool.errors import DataError, UsageError
from hqtool.trace.files import exists_already, rename, require_folder
from hqtool.trace.reader import BLOCK_ROWS, TraceReader, _intact, _read
from hqtool.trace.schema import ELEMENT_NAMES, NO_STEP, Row
from hqtool.trace.writer import TraceWriter
from hqtool.vocab import Stats


class Repaired(NamedTuple):
    """What `repair` did.

    Args:
        state: of the new trace, complete or truncated.
        steps: committed steps in it.
        records: records in it.
        records_lost: committed records that are not.
        values_lost: records in it that lost their values, and kept their statistics.
    """

    state: str
    steps: int
    records: int
    records_lost: int
    values_lost: int

    @property
    def lost(self) -> bool:
        """Whether anything that had been committed is missing."""
        return bool(self.records_lost or self.values_lost)


def repair(
    source: str | os.PathLike[str], out: str | os.PathLike[str], *, force: bool = False
) -> Repaired:
    """Write a clean, closed trace of every committed record that still reads.

    Values keep their bits, records and commits their order. The run's provenance gains the note
    "repaired": the source's state, and how many records and values were lost. The result is
    complete where the source was and no commit or record is lost, else truncated. The source is
    only read, one record's values at a time, and nothing is left behind on an error.

    Args:
        source: a trace: closed, left open by a killed writer, or damaged.
        out: the trace to create.
        force: replace an existing file, though never the source.

    Raises:
        UsageError: `out` is the source, exists (without `force`) or cannot be created.
        DataError: the source is missing, no trace, or not even its beginning reads.
        TraceFull: the disk is nearly full.
    """
    target = os.path.realpath(out)
    _require_name(target, source, force)
    partial = f"{target}.{os.getpid()}.partial"
    try:
        with _Remains(source) as remains:
            done = _rewrite(remains, partial)
        _require_name(target, source, force)
        rename(partial, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
    return done


def _require_name(target: str, source: str | os.PathLike[str], force: bool) -> None:
    require_folder(target)
    if target == os.path.realpath(source) or _same_file(target, source):
        raise UsageError(f"{target} is the trace to repair", "choose another name for the new one")
    if not force and os.path.lexists(target):
        raise exists_already(target)


def _same_file(target: str, source: str | os.PathLike[str]) -> bool:
    try:
        return os.path.samefile(target, source)
    except OSError:
        return False


class _Remains(TraceReader):
    """Reads what can be believed of a trace, whatever became of the rest.

    Its `promised` is the number of records that were committed; `whole` says whether every commit
    is trusted.
    """

    def _known_state(self) -> str:
        """A state that does not read is as good as an open one: nobody closed this trace."""
        try:
            return super()._known_state()
        except (OSError, RuntimeError, ValueError):
            return "open"

    def _trusted_commits(self) -> NDArray[Any]:
        commits = self._finished_commits()
        self.promised = self._promised(commits)
        self._commits = commits[: self._sound(commits)]
        self.whole = self._commits.size == commits.size
        if not self._commits.size:
            raise ValueError("not even its first commit matches its checksums")
        return self._commits

    def _promised(self, commits: NDArray[Any]) -> int:
        """Records committed; all that are there, if the last commit does not say."""
        last, written = commits[-1:], self._dataset("rows").shape[0]
        return int(last["rows"][0]) if _intact(last) else written

    def _sound(self, commits: NDArray[Any]) -> int:
        """How many commits, from the first on, match all that they cover."""
        rows = _checksums(self._dataset("rows"), commits["rows"].tolist())
        journal = _checksums(self._dataset("journal"), commits["journal"].tolist())
        found = zip(rows, journal, strict=False)
        recorded = commits[["rows_crc", "journal_crc"]].tolist()
        sound = (
            crcs == tuple(said) and _intact(commits[n : n + 1])
            for n, (crcs, said) in enumerate(zip(found, recorded, strict=False))
        )
        return sum(itertools.takewhile(bool, sound))

    def batches(self) -> Iterator[tuple[int, Iterator[NDArray[Any]]]]:
        """The step that each commit closes, or NO_STEP, and blocks of the rows that are its own."""
        start = 0
        for step, stop in self._commits[["step", "rows"]].tolist():
            yield step, _blocks_of(self._rows, start, stop)
            start = stop

    def copy(self, row: Row, writer: TraceWriter) -> bool:
        """Write a record as it is; whether it still has the values it had.

        Raises:
            DataError, UsageError: the row is no record that a trace can hold.
            TraceFull: the disk is nearly full.
        """
        with self._damage():
            site, shape = self._site_of[row.site], self._shapes[row.shape]
        bits = self._bits_or_none(row, shape)
        writer.write(
            *(site.layer, site.tensor, row.step, bits, row.micro, row.call),
            stats=row.stats,
            shape=shape,
            sampled=bool(row.sampled) and bits is not None,
            dtype=None if bits is None else ELEMENT_NAMES[row.element],
            loss_scale=row.loss_scale,
            flags=row.flags,
        )
        return bits is not None or not row.element

    def describe(self, writer: TraceWriter) -> None:
        """Write the geometry of every layer, and which optimizers ended the steps."""
        for layer, geometry in self._geometry.items():
            writer.describe(layer, geometry)
        for step, names in self._step_ends:
            writer.name_optimizers(step, names)

    def _load(self) -> None:
        super()._load()
        self._site_of = {number: site for site, number in self._numbers.items()}

    def _bits_or_none(self, row: Row, shape: tuple[int, ...]) -> NDArray[Any] | None:
        try:
            with self._damage():
                bits = self._bits(row) if row.element else None
                return bits if bits is None or row.sampled else bits.reshape(shape)
        except DataError:
            return None


def _rewrite(remains: _Remains, partial: str) -> Repaired:
    with TraceWriter(partial, force=True, run=remains.run) as writer:
        remains.describe(writer)
        records, values_lost = _copy_all(remains, writer)
        lost = remains.promised - records
        ended = remains.state == "complete" and remains.whole and not lost
        state = "complete" if ended else "truncated"
        done = Repaired(state, len(remains.steps), records, lost, values_lost)
        writer.note("repaired", {"state": remains.state} | _losses(done))
        writer.close(state)
    return done


def _losses(done: Repaired) -> dict[str, int]:
    return {"records_lost": done.records_lost, "values_lost": done.values_lost}


def _copy_all(remains: _Remains, writer: TraceWriter) -> tuple[int, int]:
    """Copy every record, commit by commit: how many, and how many of them lost their values."""
    records = values_lost = 0
    for step, blocks in remains.batches():
        for row in _rows_of(blocks):
            with contextlib.suppress(DataError, UsageError):
                values_lost += not remains.copy(row, writer)
                records += 1
        if step != NO_STEP:
            writer.commit(step)
    return records, values_lost


def _rows_of(blocks: Iterable[NDArray[Any]]) -> Iterator[Row]:
    for block in blocks:
        for item in block:
            row = Row(*item.item())
            yield row._replace(stats=Stats(*row.stats))


def _checksums(dataset: Any, ends: Iterable[int]) -> Iterator[int]:
    """The CRC-32 of all items up to each end (ascending), as far as they read."""
    crc = start = 0
    for end in ends:
        try:
            for block in _blocks_of(dataset, start, end):
                crc = zlib.crc32(block.data, crc)
        except (OSError, RuntimeError, ValueError):
            return
        yield crc
        start = end


def _blocks_of(dataset: Any, start: int, stop: int) -> Iterator[NDArray[Any]]:
    """Items start:stop in blocks."""
    for first in range(start, stop, BLOCK_ROWS):
        yield _read(dataset, first, min(stop, first + BLOCK_ROWS))
