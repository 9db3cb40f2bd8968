"""Number formats, and the grids that they make of a range."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hqtool.errors import UsageError
from hqtool.vocab import Range

Array = NDArray[np.float64]

BITS_ALLOWED = range(2, 17)

#: A value is saturated when it lies more than so many gaps beyond an end of the levels: half a gap
#: is the rounding error of any value; the rest allows for errors of the arithmetic.
BEYOND = 0.5 + 1e-6


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


@dataclass(frozen=True, slots=True, eq=False)
class Grids:
    """Many grids as three arrays of one length; levels are whole numbers in float64.

    Args:
        exponent: e, where `step` is Δ divided by 2^e.
    """

    step: Array
    first: Array
    last: Array
    exponent: int = 0

    def __len__(self) -> int:
        return self.step.size

    def __getitem__(self, index: int) -> Grid:
        return Grid(float(self.step[index]), int(self.first[index]), int(self.last[index]))

    def at(self, index: NDArray[np.intp] | slice) -> Grids:
        """The grids at these indices."""
        return Grids(self.step[index], self.first[index], self.last[index], self.exponent)

    @property
    def limits(self) -> tuple[Array, Array]:
        """The lowest and the highest value that is not saturated."""
        return (self.first - BEYOND) * self.step, (self.last + BEYOND) * self.step

    def as_columns(self, tensors: int = 0) -> Grids:
        """For arithmetic with a row of values: (grids, 1) arrays.

        Args:
            tensors: 0, or among how many the grids are shared out: (tensors, grids of each, 1).
        """
        shape = (tensors, -1, 1) if tensors else (-1, 1)
        step, first, last = (each.reshape(shape) for each in (self.step, self.first, self.last))
        return Grids(step, first, last, self.exponent)

    def divided(self, exponent: int) -> Grids:
        """The same grids for values that were divided by 2^exponent."""
        if exponent == self.exponent:
            return self
        with np.errstate(over="ignore"):
            step = np.ldexp(self.step, self.exponent - exponent)
        return Grids(step, self.first, self.last, exponent)


def asymmetric(lo: Array, hi: Array, bits: Array) -> Grids:
    """2^b levels over the range widened to hold 0, zero on a level (DESIGN: grid, asymmetric)."""
    lo, hi = np.minimum(lo, 0.0), np.maximum(hi, 0.0)
    top = 2.0**bits - 1
    with np.errstate(all="ignore"):
        step = (hi - lo) / top
        if np.isinf(step).any():  # the span itself overflows
            step = np.where(np.isinf(step), hi / top - lo / top, step)
        zero_point = np.minimum(np.maximum(np.rint(-lo / step), 0.0), top)
    zero_point[step == 0] = 0.0
    return Grids(step, 0.0 - zero_point, top - zero_point)


def symmetric(lo: Array, hi: Array, bits: Array) -> Grids:
    """2^b − 1 levels, mirrored about zero, up to the larger magnitude of the range's ends."""
    top = 2.0 ** (bits - 1) - 1
    return Grids(np.maximum(np.abs(lo), np.abs(hi)) / top, -top, top)


#: Scheme → the function that makes its grids. A new scheme is one more function.
SCHEMES: dict[str, Callable[[Array, Array, Array], Grids]] = {
    "asymmetric": asymmetric,
    "symmetric": symmetric,
}


@dataclass(frozen=True, slots=True)
class Format:
    """A number format: how many bits, and how its levels lie about zero.

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
        return grids_of([wanted], [self])[0]


def grids_of(ranges: Sequence[Range], formats: Sequence[Format], exponent: int = 0) -> Grids:
    """The grid of each range in the format of the same index; all formats have one scheme.

    Args:
        exponent: e, for values that were divided by 2^e: so are the ranges, before anything else.
    """
    ends = np.array(ranges, np.float64).reshape(-1, 2)
    if exponent:
        with np.errstate(over="ignore"):
            ends = np.ldexp(ends, -exponent)
    bits = np.array([f.bits for f in formats], np.float64)
    made = SCHEMES[formats[0].scheme if formats else "asymmetric"](ends[:, 0], ends[:, 1], bits)
    return replace(made, exponent=exponent) if exponent else made
