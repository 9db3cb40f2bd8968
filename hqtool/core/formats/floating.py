"""Floating-point numbers eXmY: a sign, X bits of exponent, Y of mantissa (OCP, DESIGN section 3).

The exponent's bias is IEEE's, 2^(X−1)−1, and exponent 0 holds 0 and the subnormal numbers. No code
is an infinity. All exponents are finite, except that OCP's two FP8 formats keep codes for NaN: the
last one of e4m3, so that its maximum is 448, and e5m2's highest exponent, for 57344.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from hqtool.core.formats.codebook import Codebook
from hqtool.core.formats.format import Array, Gaps
from hqtool.errors import UsageError

#: Most bits of exponent; and of a sign, exponent and mantissa together.
MOST_EXPONENT_BITS, MOST_BITS = 8, 16

#: Codes that are not numbers, at the upper end, by (X, Y): FIELD's OCP definitions.
CODES_OF_NAN = {(4, 3): 1, (5, 2): 4}

#: Bits of a float's exponent, by its size in bits.
EXPONENT_MASKS = {32: 0x7F80_0000, 64: 0x7FF0_0000_0000_0000}


@lru_cache(maxsize=256)
def floating_codebook(exponent_bits: int, mantissa_bits: int) -> Codebook:
    """The levels of eXmY in units of its scale.

    Raises:
        UsageError: X outside 1…8, or too many bits in all.
    """
    if not 1 <= exponent_bits <= MOST_EXPONENT_BITS:
        raise UsageError(
            f"{exponent_bits} bits of exponent is out of bounds",
            f"choose 1 to {MOST_EXPONENT_BITS}",
        )
    if 1 + exponent_bits + mantissa_bits > MOST_BITS:
        raise UsageError(
            f"e{exponent_bits}m{mantissa_bits} has over {MOST_BITS} bits", "choose fewer"
        )
    kind = FloatCodebook if mantissa_bits else PowersOfTwo
    return kind(exponent_bits, mantissa_bits)


def _positive_levels(exponent_bits: int, mantissa_bits: int) -> Array:
    """The positive numbers, ascending: those of the codes 1, 2, …"""
    codes = 1 << (exponent_bits + mantissa_bits)
    code = np.arange(1, codes - CODES_OF_NAN.get((exponent_bits, mantissa_bits), 0))
    exponent, fraction = np.divmod(code, 1 << mantissa_bits)
    significand = fraction + np.where(exponent > 0, 1 << mantissa_bits, 0)
    bias = (1 << (exponent_bits - 1)) - 1
    found: Array = np.ldexp(
        significand.astype(np.float64), np.maximum(exponent, 1) - bias - mantissa_bits
    )
    return found


class PowersOfTwo(Codebook):
    """eXm0: 0 and ±2^k; ties go to the even exponent's code."""

    def __init__(self, exponent_bits: int, mantissa_bits: int) -> None:
        self._arguments = exponent_bits, mantissa_bits
        positive = _positive_levels(exponent_bits, mantissa_bits)
        super().__init__(np.concatenate([-positive[::-1], [0.0], positive]))

    def __reduce__(self) -> Any:
        return floating_codebook, self._arguments


class FloatCodebook(PowersOfTwo):
    """eXmY with Y ≥ 1: the gap at y is 2^(max(⌊log2|y|⌋, e_min) − Y), so levels need no search.

    Eight bits of exponent, all finite, reach beyond float32: values must be float64 there.
    """

    def __init__(self, exponent_bits: int, mantissa_bits: int) -> None:
        super().__init__(exponent_bits, mantissa_bits)
        self._relative_gap = 2.0**-mantissa_bits
        self._least_power = float(self.values[self.zero_at + 1]) / self._relative_gap
        self._outermost = float(self.extended[0]), float(self.extended[-1])
        self._greatest_power = 2.0 ** int(np.log2(self.highest))

    @property
    def gaps(self) -> Gaps:
        """How far apart the levels are."""
        powers = self._least_power, self._greatest_power
        return Gaps(self._relative_gap, *powers, *self._outermost)

    def _gap(self, y: Any, xp: Any) -> Any:
        """Between the neighbours of each y; beyond the ends, the gap there."""
        power = power_of_two(y, xp)
        return xp.clip(power, self._least_power, self._greatest_power) * self._relative_gap

    def nearest(self, y: Any, xp: Any = np) -> Any:
        if isinstance(y, np.ndarray) and y.dtype == np.float64 and y.ndim:
            return self._nearest_in_float64(y)
        within = xp.clip(y, self.lowest, self.highest)
        gap = self._gap(within, xp)
        return xp.round(within / gap) * gap

    def _nearest_in_float64(self, y: Array) -> Array:
        """Faster: near 1.5·2^52 gaps, float64 rounds to whole gaps, ties to even."""
        beside: Array = power_of_two(y, np)
        np.clip(beside, self._least_power, self._greatest_power, out=beside)
        beside *= 1.5 * 2.0**52 * self._relative_gap
        found = y + beside
        found -= beside
        np.copysign(found, y, out=found)  # of zeros
        return np.clip(found, self.lowest, self.highest, out=found)

    def neighbours(self, y: Any, xp: Any = np) -> tuple[Any, Any]:
        """A negative power of two has the lower gap above it."""
        gap = self._gap(y, xp)
        below = xp.floor(y / gap) * gap
        wide = (below == -gap / self._relative_gap) & (below < -self._least_power)
        return below, below + xp.where(wide, gap / 2, gap)

    def interval(self, y: Array) -> tuple[Array, Array]:
        gap = self._gap(y, np)
        below: Array = np.floor(y / gap)
        below *= gap
        return below, below + gap

    def variance(self, y: Array) -> Array:
        """The levels lie alike on both sides of 0."""
        gap, magnitude = self._gap(y, np), np.abs(y)
        above: Array = magnitude - np.floor(magnitude / gap) * gap
        above *= gap - above
        return above

    def chance_of_zero(self, y: Array) -> Array:
        """The levels next to 0 are a power of two away."""
        chance: Array = np.abs(y)
        chance *= -1.0 / float(self.values[self.zero_at + 1])
        chance += 1.0
        return np.maximum(chance, 0.0, out=chance)

    def drawn(self, y: Any, noise: Any, xp: Any = np) -> Any:
        """The place between the neighbours is looked at alone: the sum must not round beyond."""
        within = xp.clip(y, *self._outermost)
        gap = self._gap(within, xp)
        place = within / gap
        below = xp.floor(place)
        return (below + xp.floor(place - below + noise)) * gap


def power_of_two(y: Any, xp: Any) -> Any:
    """2^⌊log2|y|⌋: the bits of y's exponent alone; 0 for 0 and subnormal y, infinity for NaN."""
    bits = xp.finfo(y.dtype).bits
    if hasattr(y, "view") and bits in EXPONENT_MASKS:
        whole = xp.int64 if bits == 64 else xp.int32
        return (y.view(whole) & EXPONENT_MASKS[bits]).view(y.dtype)
    return _by_search(y, xp)


def _by_search(y: Any, xp: Any) -> Any:
    """The same where a namespace does not show the bits."""
    info = xp.finfo(y.dtype)
    first, end = (math.frexp(float(ends))[1] for ends in (info.smallest_normal, info.max))
    powers = [0.0, *(2.0**e for e in range(first - 1, end))]
    powers = xp.asarray(powers, dtype=y.dtype, device=y.device)
    at = xp.searchsorted(powers, xp.abs(y), side="right") - 1
    return xp.reshape(xp.take(powers, xp.reshape(at, (-1,))), at.shape)
