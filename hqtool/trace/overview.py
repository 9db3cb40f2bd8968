"""What a trace holds of each site, from its rows alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hqtool.trace.schema import ELEMENT_NAMES, ELEMENTS
from hqtool.vocab import Range, Site


@dataclass(frozen=True, slots=True)
class SiteSummary:
    """What a trace holds of one site.

    Args:
        records: their number; `with_values` of them keep values, `sampled` of those a sample.
        shapes: of the full tensors, in order of appearance in the trace.
        first_step, last_step: the lowest and the highest.
        dtypes: names of the element types of the values kept.
        payload_bytes: size of the values kept.
        range: lowest and highest finite value of all records, loss scales divided out; None
            where there is none.
        nonfinite: NaN and infinities in the full tensors of all records.
        nonfinite_records: how many records hold some; `nonfinite_step` is the first step of one,
            None where none does.
    """

    site: Site
    records: int
    with_values: int
    sampled: int
    shapes: tuple[tuple[int, ...], ...]
    first_step: int
    last_step: int
    dtypes: tuple[str, ...]
    payload_bytes: int
    range: Range | None
    nonfinite: int = 0
    nonfinite_records: int = 0
    nonfinite_step: int | None = None


#: Later than every step: where none is meant.
_NEVER = np.iinfo(np.int64).max


class RowTally(NamedTuple):
    """Rows of one block that share site, shape, element type and sampling, counted.

    The first four fields are numbers as a row has them.
    """

    site: int
    shape: int
    element: int
    sampled: int
    records: int
    size: int
    first_step: int
    last_step: int
    nonfinite: int
    nonfinite_records: int
    nonfinite_step: int  # _NEVER where no row has any
    min: float
    max: float


_SHARED_FIELDS = list(RowTally._fields[:4])


def tallies_of(rows: NDArray[Any]) -> list[RowTally]:
    """The tallies of a block of rows (1-D, of dtype ROW, at least one)."""
    labels = [rows[name] for name in _SHARED_FIELDS]
    keys = np.ravel_multi_index(labels, [int(label.max()) + 1 for label in labels])
    order = np.argsort(keys, kind="stable")
    rows, starts = rows[order], np.flatnonzero(np.diff(keys[order], prepend=-1))
    nonfinite = rows["stats"]["nnan"] + rows["stats"]["ninf"]
    numbers = [
        np.diff(starts, append=rows.size),
        np.add.reduceat(rows["size"], starts),
        np.minimum.reduceat(rows["step"], starts),
        np.maximum.reduceat(rows["step"], starts),
        np.add.reduceat(nonfinite, starts),
        np.add.reduceat((nonfinite > 0).astype(np.int64), starts),
        np.minimum.reduceat(np.where(nonfinite > 0, rows["step"], _NEVER), starts),
    ]
    columns = [
        rows[_SHARED_FIELDS][starts].tolist(),
        np.stack(numbers, 1).tolist(),
        _ranges(rows, starts),
    ]
    return [RowTally(*alike, *n, *ends) for alike, n, ends in zip(*columns, strict=True)]


def _ranges(rows: NDArray[Any], starts: NDArray[Any]) -> list[tuple[float, float]]:
    """(min, max) of the rows from each start to the next one, loss scales divided out."""
    scale = rows["loss_scale"]
    factor = np.where((scale > 0) & np.isfinite(scale), scale, 1.0)
    lo = np.fmin.reduceat(rows["stats"]["min"] / factor, starts)
    hi = np.fmax.reduceat(rows["stats"]["max"] / factor, starts)
    return list(zip(lo.tolist(), hi.tolist(), strict=True))


def summary_of(
    site: Site, tallies: Iterable[RowTally], shapes: Mapping[int, tuple[int, ...]]
) -> SiteSummary:
    """The summary of a site's tallies (at least one); `shapes` by number."""
    tallies = list(tallies)
    kept = [tally for tally in tallies if tally.element]
    elements = [ELEMENT_NAMES[number] for number in sorted({tally.element for tally in kept})]
    return SiteSummary(
        site=site,
        records=sum(tally.records for tally in tallies),
        with_values=sum(tally.records for tally in kept),
        sampled=sum(tally.records for tally in kept if tally.sampled),
        shapes=tuple(shapes[number] for number in sorted({tally.shape for tally in tallies})),
        first_step=min(tally.first_step for tally in tallies),
        last_step=max(tally.last_step for tally in tallies),
        dtypes=tuple(elements),
        payload_bytes=sum(_nbytes(tally) for tally in kept),
        range=_hull(Range(tally.min, tally.max) for tally in tallies if not math.isnan(tally.min)),
        nonfinite=sum(tally.nonfinite for tally in tallies),
        nonfinite_records=sum(tally.nonfinite_records for tally in tallies),
        nonfinite_step=_first(tally.nonfinite_step for tally in tallies),
    )


def joined_overview(overviews: Iterable[Iterable[SiteSummary]]) -> list[SiteSummary]:
    """What several traces hold of each site, all counts added up; in order of appearance."""
    of_site: dict[Site, list[SiteSummary]] = {}
    for summary in itertools.chain.from_iterable(overviews):
        of_site.setdefault(summary.site, []).append(summary)
    return [_joined(summaries) for summaries in of_site.values()]


def _joined(parts: Sequence[SiteSummary]) -> SiteSummary:
    """The summaries of one site as one."""
    return SiteSummary(
        site=parts[0].site,
        records=sum(part.records for part in parts),
        with_values=sum(part.with_values for part in parts),
        sampled=sum(part.sampled for part in parts),
        shapes=tuple(dict.fromkeys(shape for part in parts for shape in part.shapes)),
        first_step=min(part.first_step for part in parts),
        last_step=max(part.last_step for part in parts),
        dtypes=tuple(dict.fromkeys(dtype for part in parts for dtype in part.dtypes)),
        payload_bytes=sum(part.payload_bytes for part in parts),
        range=_hull(part.range for part in parts if part.range is not None),
        nonfinite=sum(part.nonfinite for part in parts),
        nonfinite_records=sum(part.nonfinite_records for part in parts),
        nonfinite_step=_first(p.nonfinite_step for p in parts if p.nonfinite_step is not None),
    )


def _first(steps: Iterable[int]) -> int | None:
    first = min(steps, default=_NEVER)
    return None if first == _NEVER else first


def _hull(ranges: Iterable[Range]) -> Range | None:
    """The smallest range that holds all of them; None where there is none."""
    ranges = list(ranges)
    return Range(min(r.lo for r in ranges), max(r.hi for r in ranges)) if ranges else None


def _nbytes(tally: RowTally) -> int:
    return tally.size * ELEMENTS[ELEMENT_NAMES[tally.element]].itemsize
