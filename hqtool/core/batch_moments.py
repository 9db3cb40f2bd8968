"""Moments of many records at once: for small records, calls cost more time than arithmetic."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from hqtool.core.dense import CHUNK, dense_moments_of_rows
from hqtool.core.grid import Format, grids_of
from hqtool.core.observation import PreparedValues
from hqtool.vocab import Moments, Range


def moments_of_each(
    prepared: Sequence[PreparedValues],
    ranges: Sequence[Sequence[Range]],
    formats: Sequence[Format],
    rounding: str = "nearest",
) -> Moments:
    """The moments of every record, to the last bit those of `PreparedValues.moments`.

    Args:
        ranges: for each record one range for each format.
        formats: the same for all records.

    Returns:
        (records, formats) arrays, (records, 1) where an entry does not depend on the grid.
    """
    alike: dict[Hashable, list[int]] = {}
    for i, values in enumerate(prepared):
        alike.setdefault(_kind(values, len(formats)) or i, []).append(i)
    parts = []
    for which in alike.values():
        some = [prepared[i] for i in which]
        wanted = [ends for i in which for ends in ranges[i]]
        grids = grids_of(wanted, [*formats] * len(which), some[0].exponent)
        if len(which) == 1:
            parts.append(in_rows([some[0].moments(grids, rounding)]))
        else:
            rows = np.stack([values.few for values in some if values.few is not None])
            shares = np.array([[values.nonfinite] for values in some])
            parts.append(dense_moments_of_rows(rows, grids, rounding, shares))
    order = np.argsort(np.concatenate(list(alike.values())))
    return _joined(parts, order)


def in_rows(each: Iterable[Moments]) -> Moments:
    """The moments of single records, joined as rows of arrays."""
    rows = [
        Moments(*(np.reshape(entry, (1, -1)) for entry in _entries(moments))) for moments in each
    ]
    return _joined(rows, np.arange(len(rows)))


def _kind(values: PreparedValues, grids: int) -> Hashable:
    """A key shared by records to compute together; None where a record is faster by itself."""
    few = values.few
    together = few is not None and 0 < 2 * few.size * grids <= CHUNK
    return (few.size, few.dtype) if few is not None and together else None


def _joined(parts: Sequence[Moments], order: NDArray[np.intp]) -> Moments:
    if len(parts) == 1:
        return parts[0]
    columns = zip(*map(_entries, parts), strict=True)
    return Moments(*(np.concatenate(column)[order] for column in columns))


def _entries(moments: Moments) -> list[NDArray[np.float64]]:
    return [getattr(moments, name) for name in Moments.__slots__]
