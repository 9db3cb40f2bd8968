"""Formats and metrics in plain Python floats, one value at a time: slow, obvious, the reference."""

from __future__ import annotations

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
    values = len(x)
    x = [float(v) for v in x if math.isfinite(v)]
    step, first, last = grid(lo, hi, bits, scheme)
    score = ROUNDINGS[rounding]
    rows = [score(v, step, first, last) for v in x]
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
