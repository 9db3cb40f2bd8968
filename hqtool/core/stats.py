"""The statistics of one tensor."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqtool.vocab import Stats


def finite_values(values: NDArray[Any]) -> NDArray[Any]:
    """The finite values, flattened (a view where none has to go)."""
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
    lo, hi, mean = float(x.min()), float(x.max()), float(x.mean())
    nzero = x.size - int(np.count_nonzero(x))
    l2 = _root(x, 1)
    magnitudes = np.abs(x, out=x)
    smallest = _smallest_nonzero(magnitudes, nzero)
    deviations = np.subtract(finite_values(values), mean, out=x, dtype=np.float64)
    std = _root(deviations, x.size)
    absmax = max(-lo, hi)
    return Stats(lo, hi, absmax, mean, std, l2, nzero, nnan, left_out - nnan, smallest)


def _smallest_nonzero(magnitudes: NDArray[np.float64], nzero: int) -> float:
    nonzero = magnitudes[magnitudes > 0] if nzero else magnitudes
    return float(nonzero.min()) if nonzero.size else math.nan


def _root(x: NDArray[np.float64], divisor: int) -> float:
    """√(Σx²/divisor), scaled where squares would over- or underflow."""
    total = _square_sum(x)
    if 1e-200 < total < 1e300:
        return math.sqrt(total / divisor)
    scale = float(np.abs(x).max(initial=0.0))
    return scale * math.sqrt(_square_sum(x / scale) / divisor) if scale else 0.0


def _square_sum(x: NDArray[np.float64]) -> float:
    with np.errstate(over="ignore", under="ignore"):
        return float(np.einsum("i,i->", x, x))
