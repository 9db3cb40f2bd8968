"""Repair: a clean, closed trace of whatever a killed or damaged one still holds.

What it still holds is decided by `trusted`. A record whose values are damaged keeps its statistics.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any, NamedTuple

from numpy.typing import NDArray

from hqtool.errors import DataError, UsageError
from hqtool.outputs import same_file
from hqtool.sizes import counted
from hqtool.trace.hdf5_files import exists_already, rename, require_folder
from hqtool.trace.journal import JournalContent
from hqtool.trace.schema import ELEMENT_NAMES, NO_STEP, Row
from hqtool.trace.trusted import NO_RESCUE, KeptBits, TrustedPart
from hqtool.trace.writer import MARGIN_BYTES, TraceWriter
from hqtool.vocab import Site, UsedRange


class Repaired(NamedTuple):
    """What `repair` did.

    Args:
        state: of the new trace, complete or truncated.
        steps: committed steps in it.
        records: records in it.
        records_lost: committed records that are not in it.
        values_lost: records in it that lost their values and kept their statistics.
        extremes_lost: records in it that lost the extremes of their channels.
    """

    state: str
    steps: int
    records: int
    records_lost: int
    values_lost: int
    extremes_lost: int = 0

    @property
    def lost(self) -> bool:
        """Whether anything that had been committed is missing."""
        return bool(self.records_lost or self.values_lost or self.extremes_lost)


def repair(
    source: str | os.PathLike[str], out: str | os.PathLike[str], *, force: bool = False
) -> Repaired:
    """Write a clean, closed trace of every committed record that can still be read.

    Values keep their bits, records and commits their order. The run's provenance gains the note
    "repaired": the source's state, and how many records, values and extremes were lost. The result
    is complete where the source was and no commit or record is lost, else truncated. The source is
    only read, one record's values at a time, and nothing is left behind on an error.

    Args:
        source: a trace: closed, left open by a killed writer, or damaged.
        out: the trace to create.
        force: replace an existing file, though never the source.

    Raises:
        UsageError: `out` is the source, exists (without `force`) or cannot be created.
        DataError: the source is missing, not a trace, or has no record that can be read.
        TraceFull: the disk is nearly full.
    """
    target = os.path.realpath(out)
    _require_name(target, source, force)
    partial = f"{target}.{os.getpid()}.partial"
    try:
        with TrustedPart(source) as trusted:
            done = _rewrite(trusted, partial)
        _require_name(target, source, force)
        rename(partial, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
    return done


def _require_name(target: str, source: str | os.PathLike[str], force: bool) -> None:
    require_folder(target)
    if same_file(target, os.fspath(source)):
        raise UsageError(f"{target} is the trace to repair", "choose another name for the new one")
    if not force and os.path.lexists(target):
        raise exists_already(target)


def _writer(partial: str, trusted: TrustedPart) -> TraceWriter:
    run = trusted.journal.run
    return TraceWriter(
        partial,
        force=True,
        run=run,
        reserve_bytes=MARGIN_BYTES,
        channel_extremes=trusted.journal.has_channel_extremes,
        used_ranges=trusted.journal.has_used_ranges,
    )


def _rewrite(trusted: TrustedPart, partial: str) -> Repaired:
    with _writer(partial, trusted) as writer:
        _describe(trusted.journal, writer)
        steps, records, values_lost, extremes_lost = _copy_all(trusted, writer)
        if not records:
            raise _nothing_saved(trusted)
        lost = trusted.committed - records
        ended = trusted.state == "complete" and trusted.whole and not lost
        state = "complete" if ended else "truncated"
        done = Repaired(state, steps, records, lost, values_lost, extremes_lost)
        writer.note("repaired", {"state": trusted.state} | _losses(done))
        writer.close(state)
    return done


def _nothing_saved(trusted: TrustedPart) -> DataError:
    committed = trusted.committed
    what = (
        f"none of its {counted(committed, 'record')} can be saved"
        if committed
        else "it holds no records"
    )
    return DataError(f"{trusted.path}: {what}; nothing was written", NO_RESCUE)


def _describe(journal: JournalContent, writer: TraceWriter) -> None:
    """Write geometry and classes of every layer, and which optimizers ended the steps."""
    for layer, geometry in journal.geometry.items():
        writer.describe(layer, geometry)
    for layer, classes in journal.classes.items():
        writer.name_classes(layer, classes)
    for step, names in journal.step_ends:
        writer.name_optimizers(step, names)


def _losses(done: Repaired) -> dict[str, int]:
    extremes = {"extremes_lost": done.extremes_lost} if done.extremes_lost else {}
    return {"records_lost": done.records_lost, "values_lost": done.values_lost} | extremes


def _copy_all(trusted: TrustedPart, writer: TraceWriter) -> tuple[int, int, int, int]:
    """Copy all records; the number of steps, of records, and of those that lost their values.

    Last comes the number of those that lost the extremes of their channels.
    """
    sites = {number: site for site, number in trusted.journal.sites.items()}
    steps, records, values_lost, extremes_lost = set[int](), 0, 0, 0
    for closed, rows in trusted.batches():
        for row in rows:
            with contextlib.suppress(DataError, UsageError, KeyError):
                site, shape = sites[row.site], trusted.journal.shapes[row.shape]
                kept = trusted.values(row, shape)
                extremes, sound = _extremes(trusted, row)
                _copy(row, site, shape, kept, extremes, trusted.used_range(row), writer)
                steps.add(row.step)
                records += 1
                values_lost += kept is None and row.element > 0
                extremes_lost += not sound
        if closed != NO_STEP:
            steps.add(closed)
            writer.commit(closed)
    return len(steps), records, values_lost, extremes_lost


def _extremes(trusted: TrustedPart, row: Row) -> tuple[NDArray[Any] | None, bool]:
    """The extremes of a record's channels, and whether they are sound."""
    try:
        return trusted.channel_extremes(row), True
    except ValueError:
        return None, False


def _copy(
    row: Row,
    site: Site,
    shape: tuple[int, ...],
    kept: KeptBits | None,
    extremes: NDArray[Any] | None,
    used: UsedRange | None,
    writer: TraceWriter,
) -> None:
    """Write a record as it was, with its values where they could be read.

    Raises:
        DataError, UsageError: the row is not a record that a trace can hold.
        TraceFull: the disk is nearly full.
    """
    writer.write(
        *(site.layer, site.tensor, row.step, kept and kept.bits, row.micro, row.call),
        stats=row.stats,
        shape=shape,
        sampled=bool(row.sampled) and kept is not None,
        dtype=None if kept is None else ELEMENT_NAMES[row.element],
        loss_scale=row.loss_scale,
        flags=row.flags,
        layout=kept and kept.layout,
        channel_extremes=extremes,
        used=used,
    )
