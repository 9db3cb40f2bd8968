"""Levels of lanes as the compiled kernels take them, and sums under them."""

from __future__ import annotations

from typing import NamedTuple


class LaneGaps(NamedTuple):
    """The gaps between levels, in units of their scale; the levels lie alike on both sides of 0.

    Args:
        relative: of floating point, the gap between neighbours at y is this times 2^⌊log2|y|⌋
            clamped to the next two; 0 of whole numbers, whose gap is 1.
        least_power, greatest_power: what the power of two is clamped to.
        at_zero: between 0 and the levels next to it.
        low, high: at the lowest and the highest level.
        beyond: so many gaps beyond an end, rounding to nearest saturates.
    """

    relative: float
    least_power: float
    greatest_power: float
    at_zero: float
    low: float
    high: float
    beyond: float


class LaneSums(NamedTuple):
    """Sums over values x and what they become, q, or over their expectations.

    Args:
        nonzero: how many x are not 0.
        xx, qq, xq, err: Σx², Σq², Σxq, Σ(x−q)².
        saturated, underflowed: how many values are.
    """

    nonzero: float
    xx: float
    qq: float
    xq: float
    err: float
    saturated: float
    underflowed: float
