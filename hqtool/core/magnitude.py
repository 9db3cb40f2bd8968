"""Magnitudes whose squares leave float64: how far to shift them, by an exact power of two."""

from __future__ import annotations

import math

#: Between 2^-SAFE and 2^SAFE squares, their sums and those of quantization errors keep all digits.
SAFE = 400


def exponent_beyond(absmax: float) -> int:
    """By how many powers of two a magnitude lies outside 2^±`SAFE`; 0 inside, of 0 and of NaN.

    A tensor divided by 2 to this power has squares that neither over- nor underflow. The division
    is exact, except for values that are negligible beside the largest.
    """
    exponent = math.frexp(absmax)[1] if absmax else 0
    return exponent - max(-SAFE, min(exponent, SAFE))
