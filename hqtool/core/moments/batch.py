"""Moments of many records at once: for small records, calls cost more time than arithmetic."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import cast

import numpy as np

from hqtool.core.formats.format import ElementFormat, Format
from hqtool.core.formats.lanes import by_family, levels_of
from hqtool.core.moments.dense import CHUNK, dense_moments_of_rows
from hqtool.core.moments.joining import by_lane, in_rows, rows_in_order
from hqtool.core.observation import PreparedValues, lanes_with_parts
from hqtool.vocab import AnyRange, Moments, Range


def moments_of_each(
    prepared: Sequence[PreparedValues],
    ranges: Sequence[Sequence[AnyRange | None]],
    formats: Sequence[Format],
    rounding: str = "nearest",
) -> Moments:
    """The moments of every record, to the last bit those of `PreparedValues.moments`.

    Args:
        ranges: for each record one range for each format; None where the format needs none.
        formats: the same for all records.

    Returns:
        (records, formats) arrays, (records, 1) where an entry does not depend on the format.
    """
    apart = lanes_with_parts(ranges, formats)
    if apart:
        return _with_parts(prepared, ranges, formats, rounding, apart)
    whole = cast("Sequence[Sequence[Range]]", ranges)
    elements = cast("Sequence[ElementFormat]", formats)
    alike: dict[Hashable, list[int]] = {}
    for i, values in enumerate(prepared):
        alike.setdefault(_kind(values, len(formats)) or i, []).append(i)
    parts = [
        _of_few([prepared[i] for i in which], [whole[i] for i in which], elements, rounding)
        if len(which) > 1
        else in_rows([prepared[which[0]].moments(whole[which[0]], formats, rounding)])
        for which in alike.values()
    ]
    order = np.argsort(np.concatenate(list(alike.values())))
    return rows_in_order(parts, order)


def _with_parts(
    prepared: Sequence[PreparedValues],
    ranges: Sequence[Sequence[AnyRange | None]],
    formats: Sequence[Format],
    rounding: str,
    apart: Sequence[int],
) -> Moments:
    """The same where in some lanes parts have levels of their own: those record by record."""
    others = [i for i in range(len(formats)) if i not in set(apart)]
    parts = [
        in_rows(
            values.moments([row[i] for i in apart], [formats[i] for i in apart], rounding)
            for values, row in zip(prepared, ranges, strict=True)
        )
    ]
    if others:
        rest = [[row[i] for i in others] for row in ranges]
        parts.append(moments_of_each(prepared, rest, [formats[i] for i in others], rounding))
    return by_lane(parts, [apart, others][: len(parts)])


def _kind(values: PreparedValues, lanes: int) -> Hashable:
    """A key shared by records to compute together; None where a record is faster by itself."""
    few = values.few
    together = few is not None and 0 < 2 * few.size * lanes <= CHUNK
    return (few.size, few.dtype) if few is not None and together else None


def _of_few(
    prepared: Sequence[PreparedValues],
    ranges: Sequence[Sequence[Range]],
    formats: Sequence[ElementFormat],
    rounding: str,
) -> Moments:
    """The moments of small records of one size and type, all in one pass for each family."""
    rows = np.stack([values.few for values in prepared if values.few is not None])
    shares = np.array([[values.nonfinite] for values in prepared])
    groups = by_family(formats)
    parts = []
    for lanes in groups:
        wanted = [row[i] for row in ranges for i in lanes]
        levels = levels_of(wanted, [formats[i] for i in lanes], records=len(prepared))
        parts.append(dense_moments_of_rows(rows, levels, rounding, shares))
    return by_lane(parts, groups)
