"""Number formats and grids: what a range becomes at b bits."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hqtool.errors import UsageError
from hqtool.vocab import Range

BITS_ALLOWED = range(2, 17)


@dataclass(frozen=True, slots=True)
class Grid:
    """The values k·Δ for the whole numbers first ≤ k ≤ last; always first ≤ 0 ≤ last.

    Args:
        step: Δ, in the tensor's own unit; 0 quantizes everything to 0.
        first, last: lowest and highest level, counted from zero's (code − zero point).
    """

    step: float
    first: int
    last: int


def asymmetric(wanted: Range, bits: int) -> Grid:
    """2^b levels over the range widened to hold 0, zero on a level (DESIGN: grid, asymmetric)."""
    lo, hi = min(wanted.lo, 0.0), max(wanted.hi, 0.0)
    top = 2**bits - 1
    step = (hi - lo) / top if math.isfinite(hi - lo) else hi / top - lo / top
    zero_point = min(max(round(-lo / step), 0), top) if step else 0
    return Grid(step, -zero_point, top - zero_point)


def symmetric(wanted: Range, bits: int) -> Grid:
    """2^b − 1 levels, mirrored about zero, up to the larger magnitude of the range's ends."""
    top = 2 ** (bits - 1) - 1
    return Grid(max(abs(wanted.lo), abs(wanted.hi)) / top, -top, top)


#: A new scheme is one more function here.
SCHEMES = {"asymmetric": asymmetric, "symmetric": symmetric}


@dataclass(frozen=True, slots=True)
class Format:
    """A number format: how many bits, and how they lie about zero.

    Raises:
        UsageError: bits outside 2…16, or an unknown scheme.
    """

    bits: int
    scheme: str = "asymmetric"

    def __post_init__(self) -> None:
        if self.bits not in BITS_ALLOWED:
            raise UsageError(f"{self.bits} bits is out of bounds", "choose 2 to 16 bits")
        if self.scheme not in SCHEMES:
            raise UsageError(f"unknown scheme '{self.scheme}'", f"known: {', '.join(SCHEMES)}")

    def grid(self, wanted: Range) -> Grid:
        """The grid of this format over a range."""
        return SCHEMES[self.scheme](wanted, self.bits)
