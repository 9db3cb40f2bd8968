"""Whether the values of a trace are what their checksums say."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqtool.trace.raw import RawTrace
from hqtool.trace.schema import ELEMENT_NAMES, ELEMENTS, Row

#: Bytes of values read at a time, and at most one record's more.
SPAN_BYTES = 4 << 20

#: By a row's `element`.
_ITEM_BYTES = np.array([0, *(ELEMENTS[name].itemsize for name in ELEMENT_NAMES[1:])])


def damaged_values(trace: RawTrace, rows: NDArray[Any], payload: int) -> int:
    """How many records keep values that do not read, or do not match their checksum.

    Args:
        rows: 1-D, of dtype ROW.
        payload: bytes of the payload that are committed.
    """
    return sum(_damaged_in(trace, near, payload) for near in _near_each_other(rows))


def _near_each_other(rows: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The rows that keep values, in groups whose values begin in the same span."""
    kept = rows[rows["element"] > 0]
    kept = kept[np.argsort(kept["offset"], kind="stable")]
    if kept.size:
        yield from np.split(kept, np.flatnonzero(np.diff(kept["offset"] // SPAN_BYTES)) + 1)


def _damaged_in(trace: RawTrace, rows: NDArray[Any], payload: int) -> int:
    """Read all together; one by one where that fails."""
    try:
        starts = rows["offset"]
        stops = starts + rows["size"] * _ITEM_BYTES[rows["element"]]
        first, last = int(starts.min()), int(stops.max())
        if not 0 <= first <= last <= payload:
            raise ValueError("values outside the payload")
        data = trace.items("payload", first, last).data
        spans = zip((starts - first).tolist(), (stops - first).tolist(), strict=True)
        found = [zlib.crc32(data[start:stop]) for start, stop in spans]
        return int(np.count_nonzero(rows["crc"] != found))
    except Exception:  # whatever HDF5 makes of damage
        return sum(_is_damaged(trace, Row(*row.item()), payload) for row in rows)


def _is_damaged(trace: RawTrace, row: Row, payload: int) -> bool:
    try:
        trace.bits(row, payload)
    except Exception:
        return True
    return False
