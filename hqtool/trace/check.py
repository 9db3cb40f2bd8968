"""Checking the values of a trace against their checksums."""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqtool.errors import HqtoolError
from hqtool.trace.journal import JournalContent
from hqtool.trace.raw import RawTrace
from hqtool.trace.schema import ELEMENT_NAMES, ELEMENTS, UNIFORM, Row
from hqtool.vocab import SampleLayout

#: Bytes of values read at a time; the last record may reach beyond them.
SPAN_BYTES = 4 << 20

#: Size of one value by a row's `element`.
_ITEM_BYTES = np.array([0, *(ELEMENTS[name].itemsize for name in ELEMENT_NAMES[1:])])


def damaged_values(
    trace: RawTrace, rows: NDArray[Any], payload: int, journal: JournalContent
) -> int:
    """How many records keep values that cannot be read, or do not match their checksum.

    The extremes of channels and the ranges used count as values.

    Args:
        rows: 1-D, of dtype ROW.
        payload: bytes of the payload that are committed.
        journal: the trace's.
    """
    numels = {number: math.prod(shape) for number, shape in journal.shapes.items()}
    before = functools.partial(_damaged_before, trace, payload, journal)
    damaged = [
        _damaged_near(trace, near, payload, numels) | before(near)
        for near in _near_each_other(rows)
    ]
    damaged.append(before(rows[rows["element"] == 0]))
    return sum(int(np.count_nonzero(each)) for each in damaged)


def _damaged_before(
    trace: RawTrace, payload: int, journal: JournalContent, rows: NDArray[Any]
) -> NDArray[np.bool_]:
    """For each row, whether what stands before its values is damaged."""
    damaged = np.zeros(rows.size, bool)
    if journal.has_channel_extremes:
        damaged |= _failing(rows, lambda row: trace.channel_extremes(row, payload))
    if journal.has_used_ranges:
        extremes = journal.has_channel_extremes
        damaged |= _failing(rows, lambda row: trace.used_range(row, payload, extremes=extremes))
    return damaged


def _damaged_near(
    trace: RawTrace, rows: NDArray[Any], payload: int, numels: Mapping[int, int]
) -> NDArray[np.bool_]:
    damaged = _damaged_in(trace, rows, payload)
    laid_out = np.flatnonzero(rows["sampled"] > UNIFORM)
    read = functools.partial(_layout, trace, payload, numels)
    damaged[laid_out] |= _failing(rows[laid_out], read)
    return damaged


def _near_each_other(rows: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The rows that keep values, in groups whose values begin in the same span."""
    kept = rows[rows["element"] > 0]
    kept = kept[np.argsort(kept["offset"], kind="stable")]
    if kept.size:
        yield from np.split(kept, np.flatnonzero(np.diff(kept["offset"] // SPAN_BYTES)) + 1)


def _damaged_in(trace: RawTrace, rows: NDArray[Any], payload: int) -> NDArray[np.bool_]:
    """For each row, whether its values are damaged: read together, or singly if that fails."""
    try:
        starts = rows["offset"]
        stops = starts + rows["size"] * _ITEM_BYTES[rows["element"]]
        first, last = int(starts.min()), int(stops.max())
        if not 0 <= first <= last <= payload:
            raise ValueError("values outside the payload")
        data = trace.items("payload", first, last).data
        spans = zip((starts - first).tolist(), (stops - first).tolist(), strict=True)
        differs: NDArray[np.bool_] = rows["crc"] != [zlib.crc32(data[a:b]) for a, b in spans]
        return differs
    except Exception:  # HDF5 reports damage in many ways
        return _failing(rows, lambda row: trace.bits(row, payload))


def _layout(
    trace: RawTrace, payload: int, numels: Mapping[int, int], row: Row
) -> SampleLayout | None:
    return trace.layout(row, numels[row.shape], payload)


def _failing(rows: NDArray[Any], read: Callable[[Row], Any]) -> NDArray[np.bool_]:
    """For each row, whether reading it fails."""
    return np.array([_fails(read, Row(*row.item())) for row in rows], bool)


def _fails(read: Callable[[Row], Any], row: Row) -> bool:
    try:
        read(row)
    except HqtoolError:
        raise
    except Exception:  # HDF5 reports damage in many ways
        return True
    return False
