"""Statistics whose ends, or steps, are powers of two: a shift in hardware takes no multiplier."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hqtool.core.formats.format import ElementFormat
from hqtool.estimators.statistics import OfStats, OfStatsAndFormat


def ceil_log2(x: Any) -> Any:
    """⌈log2 x⌉ exactly, of one float ≥ 0 or an array of them; far below any double's for 0."""
    mantissa, exponent = np.frexp(x)
    return np.where(mantissa > 0, exponent - (mantissa == 0.5), -5000)


def round_log2(x: Any) -> Any:
    """log2 x to the nearest whole number, exactly, of one float > 0 or an array; none is a tie."""
    mantissa, exponent = np.frexp(x)
    return exponent - (mantissa < math.sqrt(0.5))


@dataclass(frozen=True, slots=True)
class Shift(OfStatsAndFormat):
    """±2^round(log2 max|x|)·(1−2^(1−b)): the power of two next to max|x|, less one step of b bits.

    WAGE [21] and WAGEUBN [22] divide the error by the power of two, Shift, and clip it to
    ±(1−2^(1−b)). Meant for symmetric integers: their step is then Shift/2^(b−1).
    """

    asks: ClassVar[frozenset[str]] = frozenset({"extremes", "format"})

    def ends(self, stats: Any, format_: ElementFormat) -> tuple[Any, Any]:
        reach = np.ldexp(1 - 2.0 ** (1 - format_.bits), round_log2(stats.absmax))
        return -reach, reach


@dataclass(frozen=True, slots=True)
class PowerOfTwoDeviations(OfStats):
    """±2^⌈log2(k·σ/√0.1)⌉, σ the population standard deviation; [15] in the paper.

    Sakr and Shanbhag set the fixed point of a tensor by it: k = 8 for activation gradients, 2 for
    weight gradients. Where it overflows, the largest float64 is taken.

    Args:
        k: number of standard deviations, > 0.
    """

    k: float
    asks: ClassVar[frozenset[str]] = frozenset({"spread"})

    def ends(self, stats: Any) -> tuple[Any, Any]:
        with np.errstate(all="ignore"):
            within = np.minimum(self.k / math.sqrt(0.1) * stats.std, sys.float_info.max)
            reach = np.minimum(np.ldexp(1.0, ceil_log2(within)), sys.float_info.max)
        return -reach, reach


@dataclass(frozen=True, slots=True)
class FixedPoint(OfStatsAndFormat):
    """±2^s·(2^(b−1)−1) for the least whole s that holds max|x|: s = ⌈log2(max|x|/(2^(b−1)−1))⌉.

    The shift of fixed-point back-propagation [23]: the step of symmetric integers is then 2^s.
    Where it overflows, the largest float64 is taken.
    """

    asks: ClassVar[frozenset[str]] = frozenset({"extremes", "format"})

    def ends(self, stats: Any, format_: ElementFormat) -> tuple[Any, Any]:
        top = 2.0 ** (format_.bits - 1) - 1
        (mantissa, exponent), (share, octave) = np.frexp(stats.absmax), math.frexp(top)
        with np.errstate(over="ignore"):
            reach = np.ldexp(top, exponent - octave + (mantissa > share))
        reach = np.minimum(reach, sys.float_info.max)
        return -reach, reach
