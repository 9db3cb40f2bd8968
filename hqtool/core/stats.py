"""The statistics of one tensor."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqtool.core.magnitude import exponent_beyond
from hqtool.vocab import Stats


def finite_values(values: NDArray[Any]) -> NDArray[Any]:
    """The finite values, flattened (a view where all are finite)."""
    flat = values.reshape(-1)
    keep = np.isfinite(flat)
    return flat if keep.all() else flat[keep]


def stats_of(values: NDArray[Any]) -> Stats:
    """Exact statistics of a tensor of any shape, accumulated in float64.

    Non-finite values are counted and otherwise left out.
    """
    x = finite_values(values).astype(np.float64)
    left_out = values.size - x.size
    nnan = int(np.isnan(values).sum()) if left_out else 0
    if x.size == 0:
        nan = math.nan
        return Stats(nan, nan, nan, nan, nan, nan, 0, nnan, left_out - nnan, nan)
    lo, hi = float(x.min()) + 0.0, float(x.max()) + 0.0  # a zero without its sign
    absmax, nzero = max(abs(lo), abs(hi)), x.size - int(np.count_nonzero(x))
    smallest = _smallest_nonzero(np.abs(x), nzero)
    mean, std, l2 = _mean_std_l2(x, absmax)
    return Stats(lo, hi, absmax, mean, std, l2, nzero, nnan, left_out - nnan, smallest)


def _mean_std_l2(x: NDArray[np.float64], absmax: float) -> tuple[float, float, float]:
    """Mean, std and l2, of values shifted to where their sums and squares stay within float64."""
    exponent = exponent_beyond(absmax)
    if exponent:
        x = np.ldexp(x, -exponent)
    mean, unit = float(x.mean()), 2.0**exponent
    return unit * mean + 0.0, unit * _root(x - mean, x.size), unit * _root(x, 1)


def _smallest_nonzero(magnitudes: NDArray[np.float64], nzero: int) -> float:
    nonzero = magnitudes[magnitudes > 0] if nzero else magnitudes
    return float(nonzero.min()) if nonzero.size else math.nan


def _root(x: NDArray[np.float64], divisor: int) -> float:
    """√(Σx²/divisor), scaled where squares would underflow."""
    total = _square_sum(x)
    if 1e-200 < total < 1e300:
        return math.sqrt(total / divisor)
    scale = float(np.abs(x).max(initial=0.0))
    return scale * math.sqrt(_square_sum(x / scale) / divisor) if scale else 0.0


def _square_sum(x: NDArray[np.float64]) -> float:
    with np.errstate(over="ignore", under="ignore"):
        return float(np.einsum("i,i->", x, x))
