"""Lanes: ranges and formats side by side, grouped by family, and the levels of such a group."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import cast

import numpy as np

from hqtool.core.formats.format import Array, ElementFormat, Format, Levels
from hqtool.core.formats.uniform import UniformFormat, levels_of_widths
from hqtool.vocab import Range


def levels_of(
    ranges: Sequence[Range],
    formats: Sequence[ElementFormat],
    exponent: int = 0,
    records: int = 1,
) -> Levels:
    """The levels of each range in the format of the same index; formats of one family.

    Args:
        ranges: at least one.
        exponent: e, for values that were divided by 2^e: so are the ranges, before anything else.
        records: how often the formats recur: the ranges are those of the first record in all
            formats, those of the second, and so on.
    """
    ends = _ends(ranges, exponent)
    if all(each is formats[0] for each in formats):
        return formats[0].levels(ends[:, 0], ends[:, 1], exponent)
    if (scheme := _shared_scheme(formats)) is not None:
        widths = [each.bits for each in formats]
        return levels_of_widths(scheme, widths, ends[:, 0], ends[:, 1], exponent)
    alike: dict[ElementFormat, list[int]] = {}
    for i, each in enumerate(formats):
        alike.setdefault(each, []).append(i)
    lanes = np.arange(len(ends)).reshape(records, -1)
    indices = [lanes[:, i].reshape(-1) for i in alike.values()]
    parts = [
        each.levels(ends[which, 0], ends[which, 1], exponent)
        for each, which in zip(alike, indices, strict=True)
    ]
    return type(parts[0]).joined(parts).at(np.argsort(np.concatenate(indices)))


def levels_over(format_: ElementFormat, wanted: Range) -> Levels:
    """The levels of one format over one range, as plain numbers (`Levels.one`)."""
    if type(format_) is UniformFormat and math.isfinite(wanted.lo + wanted.hi):
        made = format_.levels_over(*wanted)
        if made is not None:
            return made
    return levels_of([wanted], [format_]).one()


def _ends(ranges: Sequence[Range], exponent: int) -> Array:
    ends = np.array(ranges, np.float64).reshape(-1, 2)
    if not exponent:
        return ends
    with np.errstate(over="ignore"):
        scaled: Array = np.ldexp(ends, -exponent)
    return scaled


def _shared_scheme(formats: Sequence[ElementFormat]) -> str | None:
    """The scheme that all are uniform formats of; None where there is none."""
    distinct = _distinct(formats)
    if any(type(each) is not UniformFormat for each in distinct):
        return None
    schemes = {cast("UniformFormat", each).scheme for each in distinct}
    return schemes.pop() if len(schemes) == 1 else None


def _distinct(formats: Sequence[Format]) -> list[Format]:
    """The objects among the formats: far fewer than lanes, and found without hashing values."""
    return [*dict(zip(map(id, formats), formats, strict=True)).values()]


def by_family(formats: Sequence[Format], apart: Sequence[int] = ()) -> list[list[int]]:
    """The indices of the formats of each family, in the order in which the families appear.

    Args:
        apart: indices to leave out; all others are of element formats.
    """
    if not apart and len({cast("ElementFormat", f).family for f in _distinct(formats)}) == 1:
        return [[*range(len(formats))]]
    found: dict[Hashable, list[int]] = {}
    for i, each in enumerate(formats):
        if i not in apart:
            found.setdefault(cast("ElementFormat", each).family, []).append(i)
    return [*found.values()]
