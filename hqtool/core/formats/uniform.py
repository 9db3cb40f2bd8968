"""Uniform formats: levels k·Δ for whole numbers k (DESIGN section 3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Self

import numpy as np

from hqtool.core.formats.format import Array, Gaps, Indices, Levels
from hqtool.errors import UsageError

BITS_ALLOWED = range(2, 17)


@dataclass(frozen=True, slots=True, eq=False)
class UniformLevels(Levels):
    """The whole numbers first ≤ k ≤ last, in units of Δ; always first ≤ 0 ≤ last.

    Args:
        first, last: lowest and highest level, counted from zero's (code − zero point): whole
            numbers in float64.
    """

    first: Any
    last: Any

    @property
    def lowest(self) -> Any:
        return self.first

    @property
    def highest(self) -> Any:
        return self.last

    @property
    def low_gap(self) -> float:
        return 1.0

    @property
    def high_gap(self) -> float:
        return 1.0

    @property
    def gaps(self) -> Gaps:
        return Gaps()

    def nearest(self, y: Any, xp: Any = np) -> Any:
        return xp.clip(xp.round(y), self.first, self.last)

    def nearest_for_sums(self, y: Array) -> Array:
        found: Array = np.rint(y)
        np.maximum(found, self.first, out=found)
        np.minimum(found, self.last, out=found)
        return found

    def neighbours(self, y: Any, xp: Any = np) -> tuple[Any, Any]:
        below = xp.floor(y)
        return below, below + 1

    def drawn(self, y: Any, noise: Any, xp: Any = np) -> Any:
        return xp.floor(y + noise)

    def chance_of_zero(self, y: Array) -> Array:
        """Beyond levels that end at 0, values are clipped to 0."""
        chance = np.maximum(1.0 - np.abs(y), 0.0)
        beyond = (y < 0) & (self.first == 0) | (y > 0) & (self.last == 0)
        return np.where(beyond, 1.0, chance)

    @property
    def sizes(self) -> Indices:
        found: Indices = (self.last - self.first).astype(np.intp) + 1
        return found

    @property
    def zero_at(self) -> Indices:
        found: Indices = (-self.first).astype(np.intp)
        return found

    def extended(self) -> Array:
        return _cut(_whole_numbers(), self.first - 1, self.last + 1)

    def edges(self) -> Array:
        return _cut(_edges(), self.first, self.last + 1)

    def changed(self, change: Callable[[Any], Any]) -> Self:
        scale, first, last = map(change, (self.scale, self.first, self.last))
        return type(self)(scale, first, last, exponent=self.exponent)

    def _with_lanes_of(self, parts: Sequence[Self]) -> Self:
        columns = [(part.scale, part.first, part.last) for part in parts]
        scale, first, last = (np.concatenate(each) for each in zip(*columns, strict=True))
        return replace(self, scale=scale, first=first, last=last)


#: No level, and none that is added beyond an end, is farther from 0.
FARTHEST = 2 ** BITS_ALLOWED[-1]


@cache
def _whole_numbers() -> Array:
    """−FARTHEST … FARTHEST: cutting them out is faster than counting."""
    return np.arange(-FARTHEST, FARTHEST + 1.0)


@cache
def _edges() -> Array:
    """For each whole number k the edge below it: k − ½, or the next float64 where k is odd."""
    k = _whole_numbers()
    return np.where(k % 2 == 0, k - 0.5, np.nextafter(k - 0.5, np.inf))


def _cut(table: Array, first: Array, last: Array) -> Array:
    """All lanes' entries for the whole numbers first … last in one array."""
    start, end = (first + FARTHEST).astype(np.intp), (last + (FARTHEST + 1)).astype(np.intp)
    return np.concatenate([table[i:j] for i, j in zip(start.tolist(), end.tolist(), strict=True)])


def asymmetric(lo: Array, hi: Array, bits: Any) -> UniformLevels:
    """2^b levels over the range widened to hold 0, zero on a level."""
    lo, hi = np.minimum(lo, 0.0), np.maximum(hi, 0.0)
    top = 2.0**bits - 1
    with np.errstate(all="ignore"):
        step = (hi - lo) / top
        if np.isinf(step).any():  # the span itself overflows
            step = np.where(np.isinf(step), hi / top - lo / top, step)
        zero_point = np.minimum(np.maximum(np.rint(-lo / step), 0.0), top)
    zero_point[step == 0] = 0.0
    return UniformLevels(step, 0.0 - zero_point, top - zero_point)


def asymmetric_over(lo: float, hi: float, bits: int) -> UniformLevels:
    """`asymmetric` over one finite range, as plain numbers."""
    lo, hi, top = min(float(lo), 0.0), max(float(hi), 0.0), 2.0**bits - 1
    step = (hi - lo) / top
    if step == math.inf:
        step = hi / top - lo / top
    zero_point = min(max(float(round(-lo / step)), 0.0), top) if step else 0.0
    return UniformLevels(step, 0.0 - zero_point, top - zero_point)


def symmetric(lo: Array, hi: Array, bits: Any) -> UniformLevels:
    """2^b − 1 levels, mirrored about zero, up to the larger magnitude of the range's ends."""
    top = np.full(lo.size, 2.0 ** (bits - 1) - 1)
    return UniformLevels(np.maximum(np.abs(lo), np.abs(hi)) / top, -top, top)


def fullrange(lo: Array, hi: Array, bits: Any) -> UniformLevels:
    """2^b levels, one more below zero than above, Δ = m/((2^b−1)/2): torch.ao's symmetric qint8.

    Its floor under the scale (1.19e-7) is left out.
    """
    half = np.full(lo.size, 2.0 ** (bits - 1))
    return UniformLevels(np.maximum(np.abs(lo), np.abs(hi)) / (half - 0.5), -half, half - 1)


#: Scheme → the function that makes its levels, at one bit-width or at one for each lane (float64).
#: A new scheme is one more function.
SCHEMES: dict[str, Callable[[Array, Array, Any], UniformLevels]] = {
    "asymmetric": asymmetric,
    "symmetric": symmetric,
    "fullrange": fullrange,
}


def check_bits(bits: int) -> None:
    """Raises: UsageError: bits outside 2…16."""
    if bits not in BITS_ALLOWED:
        raise UsageError(f"{bits} bits is out of bounds", "choose 2 to 16 bits")


@dataclass(frozen=True, slots=True)
class UniformFormat:
    """Levels of equal distance: how many bits, and how they lie about zero.

    Raises:
        UsageError: bits outside 2…16, or an unknown scheme.
    """

    bits: int
    scheme: str = "asymmetric"

    def __post_init__(self) -> None:
        check_bits(self.bits)
        if self.scheme not in SCHEMES:
            raise UsageError(f"unknown scheme '{self.scheme}'", f"known: {', '.join(SCHEMES)}")

    @property
    def needs_range(self) -> bool:
        return True

    @property
    def family(self) -> Hashable:
        return UniformLevels

    def levels(self, lo: Array, hi: Array, exponent: int = 0) -> UniformLevels:
        made = SCHEMES[self.scheme](lo, hi, self.bits)
        return replace(made, exponent=exponent) if exponent else made

    def levels_over(self, lo: float, hi: float) -> UniformLevels | None:
        """Those of one finite range, as plain numbers: numpy takes ten times as long.

        None of a scheme that `levels` alone knows.
        """
        return asymmetric_over(lo, hi, self.bits) if self.scheme == "asymmetric" else None


def levels_of_widths(
    scheme: str, widths: Sequence[float], lo: Array, hi: Array, exponent: int = 0
) -> UniformLevels:
    """The levels of one scheme over each range, at the bit-width of the same index.

    They are those of `UniformFormat.levels`, in one call for all widths.

    Args:
        widths: where they are fewer than the ranges, they recur.
    """
    bits = np.resize(np.array(widths, np.float64), lo.size)
    made = SCHEMES[scheme](lo, hi, bits)
    return replace(made, exponent=exponent) if exponent else made
