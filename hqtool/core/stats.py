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
    nnan = int(np.isnan(values).sum())
    magnitudes = np.abs(x)
    nonzero = magnitudes[magnitudes > 0]
    mean = float(x.mean()) if x.size else math.nan
    return Stats(
        min=_or_nan(x.min, x),
        max=_or_nan(x.max, x),
        absmax=_or_nan(magnitudes.max, x),
        mean=mean,
        std=_root_mean_square(x - mean) if x.size else math.nan,
        l2=_root_mean_square(x) * math.sqrt(x.size) if x.size else math.nan,
        nzero=x.size - nonzero.size,
        nnan=nnan,
        ninf=values.size - x.size - nnan,
        min_nonzero=_or_nan(nonzero.min, nonzero),
    )


def _or_nan(reduce: Any, x: NDArray[np.float64]) -> float:
    return float(reduce()) if x.size else math.nan


def _root_mean_square(x: NDArray[np.float64]) -> float:
    """√(mean x²), scaled by the largest magnitude so that squares neither over- nor underflow."""
    scale = float(np.abs(x).max())
    return scale * math.sqrt(float(np.mean((x / scale) ** 2))) if scale else 0.0
