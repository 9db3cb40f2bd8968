"""Joining moments: of several records as rows, of several groups of lanes as columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqtool.core.formats.format import Indices
from hqtool.vocab import Moments


def in_rows(each: Iterable[Moments]) -> Moments:
    """The moments of single records, joined as rows of arrays."""
    rows = [
        Moments(*(np.reshape(entry, (1, -1)) for entry in entries_of(moments))) for moments in each
    ]
    return rows_in_order(rows, np.arange(len(rows)))


def rows_in_order(parts: Sequence[Moments], order: Indices) -> Moments:
    """The rows of all parts, taken in this order."""
    if len(parts) == 1:
        return parts[0]
    columns = zip(*map(entries_of, parts), strict=True)
    return Moments(*(np.concatenate(_of_one_width(column))[order] for column in columns))


def _of_one_width(rows: Sequence[NDArray[np.float64]]) -> Sequence[NDArray[np.float64]]:
    """Arrays (records, 1) widened to (records, lanes), where others have an entry a lane."""
    width = max(each.shape[1] for each in rows)
    return [np.broadcast_to(each, (each.shape[0], width)) for each in rows] if width > 1 else rows


def by_lane(parts: Sequence[Moments], lanes: Sequence[Sequence[int]]) -> Moments:
    """The moments of groups of lanes as one, in the order of the lanes.

    Args:
        lanes: for each part the indices of its lanes; all indices together are 0, 1, 2, …
    """
    if len(parts) == 1:
        return parts[0]
    order = np.argsort(np.concatenate(lanes))
    first = entries_of(parts[0])
    columns = list(zip(*map(entries_of, parts), strict=True))
    per_lane = [np.concatenate(column, axis=-1)[..., order] for column in columns[3:8]]
    return Moments(*_once(columns[:3], columns[3], order), *per_lane, *first[8:])


def _once(
    columns: Sequence[Sequence[Any]], wide: Sequence[NDArray[np.float64]], order: Indices
) -> list[Any]:
    """What is the same for all lanes; an entry a lane where some count other values.

    Args:
        wide: of each part an array with an entry a lane.
    """
    if all(_equal(one, column[0]) for column in columns for one in column):
        return [column[0] for column in columns]
    shapes = [each.shape for each in wide]
    return [
        np.concatenate(list(map(np.full, shapes, column)), axis=-1)[..., order]
        for column in columns
    ]


def _equal(one: Any, other: Any) -> bool:
    """Of most tensors these are plain numbers."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    return bool(one == other)


def entries_of(moments: Moments) -> list[NDArray[np.float64]]:
    """All fields in order: three for all lanes, five with an entry a lane, two for all lanes."""
    return [getattr(moments, name) for name in Moments.__slots__]
