"""Extremes, sums and counts of an array, from which its statistics follow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class ArraySums(NamedTuple):
    """Extremes, sums and counts of some values; all but `nnan` and `ninf` are of the finite ones.

    Args:
        smallest: the smallest nonzero magnitude; infinite where there is none.
        size: how many values are finite.
        total: Σx; NaN, like `squares`, where it could not be computed well enough.
        squares: Σx².
        least_spread: variance/mean² from which on Σx²/n − mean² is good to 1e-7.
    """

    lo: float = float("inf")
    hi: float = float("-inf")
    smallest: float = float("inf")
    size: int = 0
    total: float = 0.0
    squares: float = 0.0
    nzero: int = 0
    nnan: int = 0
    ninf: int = 0
    least_spread: float = 0.0


def added(parts: Iterable[ArraySums]) -> ArraySums:
    """What the parts come to together; there is at least one."""
    lo, hi, smallest, *sums, spread = zip(*parts, strict=True)
    return ArraySums._make((min(lo), max(hi), min(smallest), *map(sum, sums), max(spread)))
