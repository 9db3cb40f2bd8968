"""Formats and metrics in plain Python floats, one value at a time: slow, obvious, the reference."""

from __future__ import annotations

import bisect
import math


def grid(lo, hi, bits, scheme):
    """(Δ, lowest level, highest level), written as DESIGN section 3 defines them."""
    if scheme == "symmetric":
        m = max(abs(lo), abs(hi))
        top = 2 ** (bits - 1) - 1
        return m / top, -top, top
    if scheme == "fullrange":
        m = max(abs(lo), abs(hi))
        return m / ((2**bits - 1) / 2), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    assert scheme == "asymmetric"
    lo, hi = min(lo, 0.0), max(hi, 0.0)
    step = (hi - lo) / (2**bits - 1)
    z = min(max(round(-lo / step), 0), 2**bits - 1) if step else 0
    return step, 0 - z, 2**bits - 1 - z


def metrics(x, lo, hi, bits, scheme="asymmetric", rounding="nearest"):
    """Every metric of DESIGN section 3 over the finite values of x; None where missing."""
    step, first, last = grid(lo, hi, bits, scheme)
    score = ROUNDINGS[rounding]
    return _summary(x, lambda v: score(v, step, first, last))


def metrics_of_levels(x, levels, scale, rounding="nearest"):
    """The same for any format, from its levels: ascending numbers in units of the scale."""
    score = ROUNDINGS_TO_LEVELS[rounding]
    return _summary(x, lambda v: score(v, levels, scale))


def _summary(x, score):
    """The metrics, from each value's (x−q)², q², xq, whether saturated and whether underflowed."""
    values = len(x)
    x = [float(v) for v in x if math.isfinite(v)]
    rows = [score(v) for v in x]
    err, qq, xq, saturated, underflowed = (math.fsum(r[i] for r in rows) for i in range(5))
    xx = math.fsum(v * v for v in x)
    nonzero = sum(v != 0 for v in x)
    some = len(x) > 0
    cosine = (
        (1.0 if nonzero == 0 else 0.0 if qq == 0 else xq / math.sqrt(xx * qq)) if some else None
    )
    ratio = (1.0 if nonzero == 0 else math.sqrt(qq / xx)) if some else None
    return {
        "mse": err / len(x) if some else None,
        "sqnr_db": 10 * math.log10(xx / err) if xx > 0 and err > 0 else None,
        "cosine": cosine,
        "norm_ratio": ratio,
        "gain": (1.0 if nonzero == 0 else xq / xx) if some else None,
        "saturation": saturated / len(x) if some else None,
        "underflow": underflowed / nonzero if nonzero else None,
        "nonfinite": (values - len(x)) / values if values else None,
        "noise": (err / xx if nonzero else 0.0) if some else None,
    }


def _nearest(v, step, first, last):
    if step == 0:
        return v * v, 0.0, 0.0, v != 0, v != 0
    code = round(v / step)
    kept = min(max(code, first), last)
    q = kept * step
    beyond = max(v - last * step, first * step - v)
    return (v - q) ** 2, q * q, v * q, beyond > (0.5 + 1e-6) * step, kept == 0 and v != 0


def _stochastic(v, step, first, last):
    """Both outcomes of floor(x/Δ + u), weighted by their probability."""
    if step == 0:
        return _nearest(v, step, first, last)
    below = math.floor(v / step)
    chance_up = v / step - below
    outcomes = [(below, 1 - chance_up), (below + 1, chance_up)]
    kept = [(min(max(code, first), last), code, p) for code, p in outcomes]
    saturated = sum(p for k, code, p in kept if k != code)
    underflowed = sum(p for k, _, p in kept if k == 0) if v != 0 else 0.0
    if v < first * step or v > last * step:
        q = (first if v < 0 else last) * step
        return (v - q) ** 2, q * q, v * q, saturated, underflowed
    lower, upper = below * step, (below + 1) * step
    variance = max((v - lower) * (upper - v), 0.0)
    return variance, v * v + variance, v * v, saturated, underflowed


#: Roundings whose moments can be computed without random numbers.
ROUNDINGS = {"nearest": _nearest, "stochastic": _stochastic}


def float_levels(exponent_bits, mantissa_bits):
    """The numbers of eXmY, one code after the other, as DESIGN section 3 defines them."""
    positive = []
    for code in range(1, 2 ** (exponent_bits + mantissa_bits)):
        exponent, mantissa = code >> mantissa_bits, code % 2**mantissa_bits
        bias = 2 ** (exponent_bits - 1) - 1
        if exponent == 0:
            positive.append(mantissa / 2**mantissa_bits * 2.0 ** (1 - bias))
        else:
            positive.append((1 + mantissa / 2**mantissa_bits) * 2.0 ** (exponent - bias))
    largest = {(4, 3): 448.0, (5, 2): 57344.0}.get((exponent_bits, mantissa_bits), math.inf)
    positive = [v for v in positive if v <= largest]
    return [-v for v in reversed(positive)] + [0.0, *positive]


def scale_of(levels, lo, hi, rule="free"):
    """max(|lo|, |hi|) over the largest level; or the next power of two, or 1."""
    scale = max(abs(lo), abs(hi)) / max(abs(v) for v in levels)
    if rule == "one":
        return 1.0
    if rule == "pow2" and scale:
        power = 2.0 ** math.floor(math.log2(scale))
        return power if power == scale else 2 * power
    return scale


def nearest_level(y, levels):
    """Of two as near, the one an even number of places from 0, or from the lowest without a 0."""
    zero = levels.index(0.0) if 0.0 in levels else 0
    upper = bisect.bisect_right(levels, y)
    if upper == 0:
        return levels[0]
    if upper == len(levels):
        return levels[-1]
    below, above = y - levels[upper - 1], levels[upper] - y
    if below == above:
        return levels[upper if (upper - zero) % 2 == 0 else upper - 1]
    return levels[upper if above < below else upper - 1]


def _nearest_of_levels(v, levels, scale):
    if scale == 0:
        return v * v, 0.0, 0.0, v != 0, v != 0
    level = nearest_level(v / scale, levels)
    q = level * scale
    low, high = levels[1] - levels[0], levels[-1] - levels[-2]
    beyond_low = levels[0] * scale - v > (0.5 + 1e-6) * low * scale
    beyond_high = v - levels[-1] * scale > (0.5 + 1e-6) * high * scale
    return (v - q) ** 2, q * q, v * q, beyond_low or beyond_high, level == 0 and v != 0


def _stochastic_of_levels(v, levels, scale):
    """Between two levels either of them; beyond an end clipped to it."""
    if scale == 0:
        return v * v, 0.0, 0.0, v != 0, v != 0
    y = v / scale
    upper = bisect.bisect_right(levels, y)
    if 0 < upper < len(levels):
        below, above = levels[upper - 1], levels[upper]
        chance = (y - below) / (above - below)
        to_zero = (1 - chance if below == 0 else 0.0) + (chance if above == 0 else 0.0)
        variance = max((v - below * scale) * (above * scale - v), 0.0)
        return variance, v * v + variance, v * v, 0.0, to_zero if v != 0 else 0.0
    end, inner = (levels[0], levels[1]) if upper == 0 else (levels[-1], levels[-2])
    clipped = min(abs(y - end) / abs(end - inner), 1.0)
    q = end * scale
    return (v - q) ** 2, q * q, v * q, clipped, float(end == 0 and v != 0)


ROUNDINGS_TO_LEVELS = {"nearest": _nearest_of_levels, "stochastic": _stochastic_of_levels}
