"""Block formats in plain Python floats, block by block: slow, obvious, the reference."""

from __future__ import annotations

import bisect
import math
from typing import NamedTuple

import numpy as np


def magnitudes(exponent_bits, fraction_bits, codes):
    """The first so many magnitudes of eXmY with IEEE's bias, in the order of their codes."""
    bias, found = 2 ** (exponent_bits - 1) - 1, []
    for code in range(codes):
        exponent, fraction = divmod(code, 2**fraction_bits)
        if exponent == 0:
            found.append(fraction / 2**fraction_bits * 2.0 ** (1 - bias))
        else:
            found.append((1 + fraction / 2**fraction_bits) * 2.0 ** (exponent - bias))
    return found


class Elements(NamedTuple):
    """Levels, ascending, and which of them a tie goes to."""

    levels: list[float]
    even: list[bool]
    fraction_bits: int

    @property
    def largest(self):
        return self.levels[-1]


def floats(exponent_bits, fraction_bits, codes):
    positive = magnitudes(exponent_bits, fraction_bits, codes)
    levels = [-m for m in positive[:0:-1]] + positive
    even = [code % 2 == 0 for code in [*range(codes - 1, 0, -1), *range(codes)]]
    return Elements(levels, even, fraction_bits)


#: OCP's element formats; of e4m3 the last code is NaN, of e5m2 the last four are Inf and NaN.
ELEMENTS = {
    "e4m3": floats(4, 3, 127),
    "e5m2": floats(5, 2, 124),
    "e3m2": floats(3, 2, 32),
    "e2m3": floats(2, 3, 32),
    "e2m1": floats(2, 1, 8),
    "int8": Elements([k / 64 for k in range(-128, 128)], [k % 2 == 0 for k in range(-128, 128)], 6),
}

#: Name → (elements, size of a block, how the scale is made).
FORMATS = {
    "mxfp8": ("e4m3", 32, "mx"),
    "mxfp8-e5m2": ("e5m2", 32, "mx"),
    "mxfp6-e3m2": ("e3m2", 32, "mx"),
    "mxfp6-e2m3": ("e2m3", 32, "mx"),
    "mxfp4": ("e2m1", 32, "mx"),
    "mxint8": ("int8", 32, "mx"),
    "nvfp4": ("e2m1", 16, "nvfp4"),
    "e4m3-block128": ("e4m3", 128, "real"),
}


def nearest(elements, y):
    levels = elements.levels
    if y <= levels[0] or y >= levels[-1]:
        return levels[0] if y < 0 else levels[-1]
    above = bisect.bisect_right(levels, y)
    lower, upper = levels[above - 1], levels[above]
    if y - lower == upper - y:
        return lower if elements.even[above - 1] else upper
    return lower if y - lower < upper - y else upper


def floor_log2(v):
    return math.frexp(v)[1] - 1


def e8m0(amax, elements, rule):
    """The four rules of FIELD section 1."""
    if amax == 0:
        return 1.0
    exponent = floor_log2(amax)
    significand = amax / 2.0**exponent
    emax = floor_log2(elements.largest)
    if rule == "floor":
        exponent -= emax
    elif rule == "ceil":
        exponent += (significand > 1) - emax
    elif rule == "even":
        exponent += (significand + 0.5 * 2**-elements.fraction_bits >= 2) - emax
    else:
        ratio = amax / elements.largest
        exponent = floor_log2(ratio) + (ratio > 2.0 ** floor_log2(ratio))
    return 2.0 ** min(max(exponent, -127), 127)


def scale_of(kind, amax, elements, rule, m):
    if kind == "mx":
        return e8m0(amax, elements, rule)
    if kind == "real":
        scale = amax / elements.largest
        if rule == "pow2" and scale:
            return 2.0 ** (floor_log2(scale) + (scale > 2.0 ** floor_log2(scale)))
        return scale
    largest = np.finfo(np.float32).max
    with np.errstate(over="ignore"):
        whole = float(min(np.float32(448 * 6 / m), largest)) if m else 1.0
    return nearest(ELEMENTS["e4m3"], amax * (whole or 1.0) / 6) / (whole or 1.0)


def blocks_of(shape, axis, size, rows):
    """The places of each block's values, in row-major order of the tensor."""
    found = {}
    for place, index in enumerate(np.ndindex(shape)):
        before = 0
        for d in range(axis):
            before = before * shape[d] + index[d]
        key = before // rows, index[axis] // size, index[axis + 1 :]
        found.setdefault(key, []).append(place)
    return list(found.values())


def rows_of(x, axis, name, rule="floor", rounding="nearest", m=0.0, rows=1):
    """For each finite value (x, (x−q)², q², x·q, saturated, underflowed)."""
    elements, size, kind = FORMATS[name]
    elements, flat = ELEMENTS[elements], [float(v) for v in x.reshape(-1)]
    found = []
    for places in blocks_of(x.shape or (1,), axis, size, rows):
        block = [flat[place] for place in places if math.isfinite(flat[place])]
        scale = scale_of(kind, max(map(abs, block), default=0.0), elements, rule, m)
        found += [(v, *ROUNDINGS[rounding](v, scale, elements)) for v in block]
    return found


def _nearest(v, s, elements):
    if s == 0:
        return v * v, 0.0, 0.0, v != 0, v != 0
    y, levels = v / s, elements.levels
    q = nearest(elements, y) * s
    low, high = levels[1] - levels[0], levels[-1] - levels[-2]
    beyond = y > levels[-1] + (0.5 + 1e-6) * high or y < levels[0] - (0.5 + 1e-6) * low
    return (v - q) ** 2, q * q, v * q, beyond, q == 0 and v != 0


def _stochastic(v, s, elements):
    """Both neighbouring levels, weighted by their probability."""
    if s == 0:
        return _nearest(v, s, elements)
    y, levels = v / s, elements.levels
    low, high = levels[1] - levels[0], levels[-1] - levels[-2]
    if y < levels[0] or y > levels[-1]:
        end, gap = (levels[0], low) if y < 0 else (levels[-1], high)
        q = end * s
        return (v - q) ** 2, q * q, v * q, min(abs(y - end) / gap, 1.0), 0.0
    above = min(bisect.bisect_right(levels, y), len(levels) - 1)
    lower, upper = levels[above - 1], levels[above]
    up = (y - lower) / (upper - lower)
    variance = max((v - lower * s) * (upper * s - v), 0.0)
    zero = (1 - up if lower == 0 else up if upper == 0 else 0.0) if v != 0 else 0.0
    return variance, v * v + variance, v * v, 0.0, zero


ROUNDINGS = {"nearest": _nearest, "stochastic": _stochastic}


def metrics(x, axis, name, **settings):
    """Every metric of DESIGN section 3; None where missing."""
    found = rows_of(x, axis, name, **settings)
    values, count = x.size, len(found)
    xx = math.fsum(row[0] ** 2 for row in found)
    err, qq, xq, saturated, underflowed = (math.fsum(row[i] for row in found) for i in range(1, 6))
    nonzero = sum(row[0] != 0 for row in found)
    cosine = 1.0 if nonzero == 0 else 0.0 if qq == 0 else xq / math.sqrt(xx * qq)
    ratio = 1.0 if nonzero == 0 else math.sqrt(qq / xx)
    return {
        "mse": err / count if count else None,
        "sqnr_db": 10 * math.log10(xx / err) if xx > 0 and err > 0 else None,
        "cosine": cosine if count else None,
        "norm_ratio": ratio if count else None,
        "gain": (1.0 if nonzero == 0 else xq / xx) if count else None,
        "saturation": saturated / count if count else None,
        "underflow": underflowed / nonzero if nonzero else None,
        "nonfinite": (values - count) / values if values else None,
        "noise": (err / xx if nonzero else 0.0) if count else None,
    }
