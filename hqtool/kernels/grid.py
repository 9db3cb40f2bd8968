"""Levels as the compiled kernels take them."""

from __future__ import annotations

from typing import NamedTuple


class Grid(NamedTuple):
    """The levels from `lowest` to `highest`, in units of `scale`: whole numbers, or floating point.

    Args:
        scale: > 0.
        lo, hi: no value from lo to hi is clipped; rounded to nearest, every other one is.
        relative_gap, least_power, greatest_power: of floating point, the gap between neighbours at
            y is `relative_gap` times 2^⌊log2|y|⌋ clamped to these powers; 0 of whole numbers.
        below, above: the levels of floating point that would follow beyond the ends.
    """

    scale: float
    lowest: float
    highest: float
    lo: float
    hi: float
    relative_gap: float = 0.0
    least_power: float = 0.0
    greatest_power: float = 0.0
    below: float = 0.0
    above: float = 0.0
