"""Reading a trace."""

from __future__ import annotations

import bisect
import contextlib
import itertools
import math
import operator
import os
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hqtool.core.arrangement import axes_of
from hqtool.errors import DataError, UsageError
from hqtool.trace.check import damaged_values
from hqtool.trace.content import from_stored
from hqtool.trace.hdf5_files import ClosedAtEnd
from hqtool.trace.history import SiteHistory, began_of
from hqtool.trace.journal import JournalContent, journal_content
from hqtool.trace.overview import RowTally, SiteSummary, summary_of, tallies_of
from hqtool.trace.raw import BLOCK_ROWS, RawTrace, damage_as_data_error, intact, require_crc
from hqtool.trace.schema import COMMIT, ELEMENT_NAMES, NO_STEP, ROW, Commit, Row
from hqtool.trace.trusted import remedy_of
from hqtool.vocab import Range, Record, SampleLayout, Site, Stats, UsedRange

#: Rows sorted and kept at a time, about 80 MB: a pass over a long trace serves several sites.
SORTED_ROWS = 1 << 19


class Prefix(NamedTuple):
    """A trace up to one commit: the same records whenever it is opened, however it grows."""

    path: str
    upto: Commit


class TraceReader(ClosedAtEnd):
    """Reads a trace. While it is being written, what was committed when it was opened.

    A context manager. Memory stays bounded by the largest tensor and one site's rows, or
    `SORTED_ROWS` where it has fewer.

    Args:
        path: the trace.
        recent: take only the sites and records of the last so many commits that close a step,
            which is all that is read and checked then; `steps` still has every step committed.
        upto: the last commit to take, as an earlier reader's `prefix` names it; all where None.

    Raises:
        DataError: the file is missing, not a trace, of a newer format, or damaged; or it has no
            such commit as `upto`: it is another trace by now.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        recent: int | None = None,
        upto: Commit | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self._recent = recent
        self._upto = upto
        self._raw = RawTrace(self.path)
        self._block_start = -1
        self._sorted: dict[int, NDArray[Any]] = {}
        try:
            with self._failures_as_damage():
                self._load()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; records can no longer be read."""
        self._raw.close()

    @property
    def sites(self) -> tuple[Site, ...]:
        """Every site, in the order it was first recorded."""
        return tuple(self._numbers)

    @property
    def steps(self) -> list[int]:
        """Every committed step, ascending: those with records, and those a commit names."""
        return sorted(self._steps)

    @property
    def prefix(self) -> Prefix:
        """The trace up to the last commit that this reader takes."""
        return Prefix(self.path, self._covered)

    def optimizers(self, step: int) -> tuple[str, ...]:
        """The names of the optimizers whose updates ended a step; empty where none is known."""
        ends = self._journal.step_ends
        known = bisect.bisect_right(ends, step, key=operator.itemgetter(0))
        return ends[known - 1][1] if known else ()

    @property
    def has_channel_extremes(self) -> bool:
        """Whether the extremes of each channel were recorded, beside those of each tensor."""
        return self._journal.has_channel_extremes

    @property
    def is_of_quantized_run(self) -> bool:
        """Whether the run was quantized, and it was recorded by which ranges."""
        return self._journal.has_used_ranges

    def geometry(self, layer: str) -> dict[str, Any] | None:
        """A layer's geometry as described by the recorder; None where it was not."""
        return self._journal.geometry.get(layer)

    def classes(self, layer: str) -> tuple[str, ...] | None:
        """Names of a layer's class and of those it derives from; None where they are not told."""
        return self._journal.classes.get(layer)

    def records(self, site: Site, *, values: bool = True, scaled: bool = False) -> Iterator[Record]:
        """A site's records in the order (step, micro, call), read one at a time.

        Args:
            site: one of `sites`, or an equal one.
            values: read values, where kept: in the tensor's shape and type (bfloat16 as float32),
                or 1-D where sampled; and the extremes of channels, where kept.
            scaled: give statistics and values as they were recorded. By default they are divided
                by the record's loss scale: what the gradient is without loss scaling. float16
                values are widened to float32 for it. A factor that is not a positive number cannot
                be divided out and stays.

        Raises:
            UsageError: the trace does not hold the site, or is closed.
            DataError: while iterating, the file proves damaged.
        """
        return (self.record(row, values, scaled) for row in self.rows(site))

    def rows(self, site: Site) -> Iterator[Row]:
        """A site's records without their values, in the order (step, micro, call).

        Raises:
            UsageError: the trace does not hold the site, or is closed.
            DataError: while iterating, the file proves damaged.
        """
        return (Row(*row.item()) for row in self._site_rows(site))

    def history(self, site: Site, *, scaled: bool = False) -> SiteHistory:
        """A site's records as columns; the arguments and errors are those of `records`."""
        rows = self._site_rows(site)
        stats: Any = Stats._make(rows["stats"][name] for name in Stats._fields)
        shapes, which = np.unique(rows["shape"], return_inverse=True)
        numels = [math.prod(self._journal.shapes[number]) for number in shapes.tolist()]
        if not scaled:
            factors = rows["loss_scale"]
            sound = (factors > 0) & (factors < math.inf)
            with np.errstate(all="ignore"):
                stats = stats.divided(np.where(sound, factors, 1.0))
        return SiteHistory(
            steps=rows["step"],
            stats=stats,
            numels=np.array(numels, np.int64)[which].reshape(-1, 1),
            has_values=rows["element"] > 0,
            has_channel_extremes=np.full(rows.size, self.has_channel_extremes),
            record=lambda index: self.record(Row(*rows[index].item()), scaled=scaled),
            shape=lambda index: self._journal.shapes[int(rows["shape"][index])],
            of_quantized_run=self.is_of_quantized_run,
            axes=axes_of((self.geometry(site.layer) or {}).get("op"), site.tensor),
            began=began_of(self.run, site),
        )

    def record(
        self, row: Row, values: bool = True, scaled: bool = False, extremes: bool | None = None
    ) -> Record:
        """The record of a row that `rows` gave; the arguments are those of `records`.

        Args:
            extremes: read the extremes of channels; as `values` where None.

        Raises:
            UsageError: the trace is closed.
            DataError: the file proves damaged.
        """
        with self._failures_as_damage():
            extremes = values if extremes is None else extremes
            record = self._record(row, values, extremes, self.is_of_quantized_run)
            if row.loss_scale == 1.0:
                return record
            return _scaled_range(record) if scaled else _unscaled(record)

    def overview(self) -> list[SiteSummary]:
        """What the trace holds of each site, in the order of `sites`; reads no values."""
        sites = {number: site for site, number in self._numbers.items()}
        tallies: dict[int, list[RowTally]] = {number: [] for number in sites}
        with self._failures_as_damage():
            for tally in itertools.chain.from_iterable(map(tallies_of, self._blocks())):
                tallies[tally.site].append(tally)
            return [summary_of(sites[n], tallies[n], self._journal.shapes) for n in sites]

    @property
    def payload_bytes(self) -> int:
        """Size of all values kept."""
        return self._covered.payload

    @property
    def cut_short(self) -> bool:
        """Whether the end of the file is missing, with values or without."""
        with self._failures_as_damage():
            return self._raw.cut_short()

    def damaged_values(self) -> int:
        """How many records keep values that cannot be read, or do not match their checksum.

        The extremes of channels count as values. Reads all values, `payload_bytes`. All else was
        checked when the trace was opened.

        Raises:
            UsageError: the trace is closed.
            DataError: the rows prove damaged.
        """
        with self._failures_as_damage():
            blocks, end = self._blocks(), self.payload_bytes
            return sum(damaged_values(self._raw, rows, end, self._journal) for rows in blocks)

    # Opening

    def _load(self) -> None:
        """Read all but values; the state first, for a live writer may close the trace meanwhile."""
        self.format = self._raw.format()
        self.state = self._raw.state()
        commits = self._up_to(self._trusted_commits())
        self._covered = Commit(*commits[-1].item())
        self._skipped = self._before_recent(commits)
        self._journal = self._read_journal()
        self.run: dict[str, Any] = self._journal.run
        self._steps = set(commits["step"].tolist()) - {NO_STEP}
        self._numbers = self._checked_rows()

    def _trusted_commits(self) -> NDArray[Any]:
        """The finished commits, once all of them match their checksums."""
        commits = self._raw.commits(self.state)
        if not intact(commits):
            raise ValueError("a commit record does not match its checksum")
        return commits

    def _up_to(self, commits: NDArray[Any]) -> NDArray[Any]:
        """The commits as far as `upto`."""
        if self._upto is None:
            return commits
        places = np.flatnonzero(commits == np.array(self._upto, COMMIT))
        if not places.size:
            raise DataError(f"{self.path}: another trace took its place meanwhile", "run it again")
        return commits[: places[0] + 1]

    def _before_recent(self, commits: NDArray[Any]) -> Commit:
        """The last commit before the recent ones: what it covers is not read."""
        closing = np.flatnonzero(commits["step"] != NO_STEP)
        if self._recent is None or closing.size <= self._recent:
            return Commit(NO_STEP, 0, 0, 0, 0, 0)
        return Commit(*commits[closing[-1 - self._recent]].item())

    def _read_journal(self) -> JournalContent:
        """Names, shapes, geometry and provenance."""
        journal = self._raw.items("journal", 0, self._covered.journal)
        require_crc("journal bytes", zlib.crc32(journal.data), self._covered.journal_crc)
        return journal_content(journal)

    def _checked_rows(self) -> dict[Site, int]:
        """Check the rows' checksum and note their steps; the sites they are of, with numbers."""
        crc, self._row_counts = self._skipped.rows_crc, Counter[int]()
        for block in self._blocks():
            crc = zlib.crc32(block.data, crc)
            self._steps.update(block["step"].tolist())
            met, counts = np.unique(block["site"], return_counts=True)
            self._row_counts.update(dict(zip(met.tolist(), counts.tolist(), strict=True)))
        require_crc("rows", crc, self._covered.rows_crc)
        named = self._journal.sites.items()
        return {site: number for site, number in named if number in self._row_counts}

    # Reading

    def _blocks(self) -> Iterator[NDArray[Any]]:
        """All rows to read, in blocks. The last block is kept: it is all of a short trace."""
        end = self._covered.rows
        for start in range(self._skipped.rows, end, BLOCK_ROWS):
            if start != self._block_start:
                self._block = self._raw.items("rows", start, min(end, start + BLOCK_ROWS))
                self._block_start = start
            yield self._block

    def _site_rows(self, site: Site) -> NDArray[Any]:
        """A site's rows in the order (step, micro, call)."""
        if site not in self._numbers:
            raise UsageError(f"{self.path} holds no site {site}", "see `hqtool info` for its sites")
        number = self._numbers[site]
        if number not in self._sorted:
            with self._failures_as_damage():
                self._sorted = self._sorted_from(number)
        return self._sorted[number]

    def _sorted_from(self, number: int) -> dict[int, NDArray[Any]]:
        """The sorted rows of a site and of sites with the next numbers, SORTED_ROWS in all."""
        last, total = number, self._row_counts[number]
        while (more := self._row_counts.get(last + 1)) and total + more <= SORTED_ROWS:
            last, total = last + 1, total + more
        chosen = [
            block[(number <= block["site"]) & (block["site"] <= last)] for block in self._blocks()
        ]
        rows = np.concatenate([np.empty(0, ROW), *chosen])
        rows = rows[np.lexsort((rows["call"], rows["micro"], rows["step"], rows["site"]))]
        ends = np.searchsorted(rows["site"], range(number, last + 2))
        return {number + i: rows[ends[i] : ends[i + 1]] for i in range(last + 1 - number)}

    def _record(self, row: Row, values: bool, extremes: bool, used: bool) -> Record:
        shape = self._journal.shapes[row.shape]
        return Record(
            step=row.step,
            micro=row.micro,
            call=row.call,
            shape=shape,
            stats=Stats(*row.stats),
            values=self._values(row, shape) if values and row.element else None,
            sampled=bool(row.sampled),
            loss_scale=row.loss_scale,
            layout=self._layout(row, shape) if values and row.element else None,
            channel_extremes=self._channel_extremes(row) if extremes else None,
            used=self._used_range(row) if used else None,
        )

    def _values(self, row: Row, shape: tuple[int, ...]) -> NDArray[Any]:
        bits = self._raw.bits(row, self._covered.payload)
        flat = from_stored(bits, ELEMENT_NAMES[row.element])
        return flat if row.sampled else flat.reshape(shape)

    def _layout(self, row: Row, shape: tuple[int, ...]) -> SampleLayout | None:
        layout = self._raw.layout(row, math.prod(shape), self._covered.payload)
        if layout is None:
            return None
        return replace(layout, extremes=from_stored(layout.extremes, ELEMENT_NAMES[row.element]))

    def _channel_extremes(self, row: Row) -> NDArray[np.float64] | None:
        if not self.has_channel_extremes:
            return None
        return self._raw.channel_extremes(row, self._covered.payload)

    def _used_range(self, row: Row) -> UsedRange | None:
        payload, extremes = self._covered.payload, self.has_channel_extremes
        return self._raw.used_range(row, payload, extremes=extremes)

    def _failures_as_damage(self) -> contextlib.AbstractContextManager[None]:
        """Within it any failure to read becomes a DataError that says how to repair the trace."""
        self._raw.require_open()
        return damage_as_data_error(self.path, lambda: remedy_of(self.path))


def _unscaled(record: Record) -> Record:
    """The record, its loss scale divided out; its values, fresh from the file, in place."""
    factor, values, layout = record.loss_scale, record.values, record.layout
    if not 0 < factor < math.inf:
        return record
    if values is not None:
        values = _divided(values, factor)
    if layout is not None:
        layout = replace(layout, extremes=_divided(layout.extremes, factor))
    ends = record.channel_extremes
    return replace(
        record,
        stats=record.stats.divided(factor),
        values=values,
        layout=layout,
        channel_extremes=None if ends is None else ends / factor,
        used=_with_range(record.used, 1 / factor) if _carries_scale(record) else record.used,
    )


def _scaled_range(record: Record) -> Record:
    """The record, the range used times the loss scale that the tensor carries."""
    factor = record.loss_scale
    if _carries_scale(record) or not 0 < factor < math.inf:
        return record
    return replace(record, used=_with_range(record.used, factor))


def _carries_scale(record: Record) -> bool:
    return record.used is not None and record.used.carries_scale


def _with_range(used: UsedRange | None, factor: float) -> UsedRange | None:
    if used is None or used.range is None:
        return used
    return used._replace(range=Range(used.range.lo * factor, used.range.hi * factor))


def _divided(values: NDArray[Any], factor: float) -> NDArray[Any]:
    """The values, fresh from the file, divided in place; float16 widened for it."""
    values = values.astype(np.result_type(values, np.float32), copy=False)
    with np.errstate(all="ignore"):
        np.divide(values, factor, out=values)
    return values
