"""How a range scales the levels of a codebook: the largest level onto the range's farther end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from hqtool.core.formats.format import Array

#: A name of `SCALINGS`.
Scaling = Literal["free", "pow2", "one"]


def free(reach: Array, largest: float, exponent: int) -> Array:
    """s = m / max: the largest level is the range's larger magnitude m."""
    return reach / largest


def pow2(reach: Array, largest: float, exponent: int) -> Array:
    """m / max rounded up to a power of two, so that nothing within the range is clipped."""
    mantissa, power = np.frexp(reach / largest)
    with np.errstate(over="ignore"):
        found: Array = np.ldexp(np.where(mantissa == 0, 0.0, 0.5), power + (mantissa > 0.5))
    return found


def one(reach: Array, largest: float, exponent: int) -> Array:
    """s = 1 whatever the range, also where it is (0, 0): the levels as they are."""
    return np.full_like(reach, 2.0**-exponent)


#: Name → (m = max(|lo|, |hi|) of each range; the largest magnitude of the levels; e, where the
#: values and m were divided by 2^e) → s, divided by 2^e, too.
SCALINGS: dict[str, Callable[[Array, float, int], Array]] = {
    each.__name__: each for each in (free, pow2, one)
}
