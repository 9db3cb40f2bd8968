"""Lanes: ranges and formats side by side, grouped by family, and the levels of such a group."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from hqtool.core.formats.format import Array, ElementFormat, Indices, Levels
from hqtool.vocab import Range


def levels_of(
    ranges: Sequence[Range], formats: Sequence[ElementFormat], exponent: int = 0
) -> Levels:
    """The levels of each range in the format of the same index; formats of one family.

    Args:
        ranges: at least one.
        exponent: e, for values that were divided by 2^e: so are the ranges, before anything else.
    """
    ends = _ends(ranges, exponent)
    alike: dict[ElementFormat, list[int]] = {}
    for i, each in enumerate(formats):
        alike.setdefault(each, []).append(i)
    if len(alike) == 1:
        return formats[0].levels(ends[:, 0], ends[:, 1], exponent)
    parts = [each.levels(ends[i, 0], ends[i, 1], exponent) for each, i in alike.items()]
    order = np.argsort(np.concatenate(list(alike.values())))
    return type(parts[0]).joined(parts).at(order)


def levels_over(format_: ElementFormat, wanted: Range) -> Levels:
    """The levels of one format over one range, as plain numbers (`Levels.one`)."""
    return levels_of([wanted], [format_]).one()


def _ends(ranges: Sequence[Range], exponent: int) -> Array:
    ends = np.array(ranges, np.float64).reshape(-1, 2)
    if not exponent:
        return ends
    with np.errstate(over="ignore"):
        scaled: Array = np.ldexp(ends, -exponent)
    return scaled


def by_family(
    formats: Sequence[ElementFormat], numbers: Sequence[int] | None = None
) -> list[Indices]:
    """The indices of the formats of each family, in the order in which the families appear.

    Args:
        numbers: the formats' indices; 0, 1, 2, … where None.
    """
    found: dict[Hashable, list[int]] = {}
    for i, each in enumerate(formats):
        found.setdefault(each.family, []).append(i if numbers is None else numbers[i])
    return [np.array(indices, np.intp) for indices in found.values()]
