"""Metrics: functions from moments to one figure for each grid, NaN where there is none.

Moments of many tensors are as good as those of one: every metric works entry by entry. 0/0 is NaN,
so whatever is a share of nothing is missing; callers silence numpy's warnings (`figure`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hqtool.vocab import Moments

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of merit.

    Args:
        unit: '' where dimensionless; 'x²' is the tensor's own unit squared.
        meaning: one line, for help and documentation.
        of: moments → one figure for each grid; NaN is missing.
    """

    name: str
    unit: str
    meaning: str
    of: Callable[[Moments], Array]


def mse(m: Moments) -> Array:
    """Mean of (x−q)²; missing where float64 cannot hold it."""
    found: Array = np.ldexp(m.err / m.count, 2 * m.exponent)
    return np.where((found == 0) & (m.err > 0), np.nan, found)


def sqnr_db(m: Moments) -> Array:
    """10·log10(Σx² / Σ(x−q)²); missing for an all-zero tensor and for zero error ('exact')."""
    return np.where((m.xx > 0) & (m.err > 0), 10 * np.log10(m.xx / m.err), np.nan)


def cosine(m: Moments) -> Array:
    """x·q / (‖x‖‖q‖); 1 for an all-zero tensor, 0 where only q is all zero."""
    found: Array = np.minimum(m.xq / (np.sqrt(m.xx) * np.sqrt(m.qq)), 1.0)
    known = np.where(_within(m.qq), found, np.nan)
    return _one_where_all_zero(m, np.where((m.qq == 0) & (m.xq == 0), 0.0, known))


def norm_ratio(m: Moments) -> Array:
    """‖q‖ / ‖x‖; 1 for an all-zero tensor."""
    found: Array = np.sqrt(m.qq) / np.sqrt(m.xx)
    return _one_where_all_zero(m, np.where(_within(m.qq) | (m.xq == 0), found, np.nan))


def gain(m: Moments) -> Array:
    """x·q / x·x, below 1 where quantization shrinks; 1 for an all-zero tensor."""
    return _one_where_all_zero(m, m.xq / m.xx)


def saturation(m: Moments) -> Array:
    """Share of the values clipped at an end of the levels (see `Moments.saturated`)."""
    found: Array = m.saturated / m.count
    return found


def underflow(m: Moments) -> Array:
    """Share of the nonzero values whose code is zero's; missing where every value is zero."""
    found: Array = m.underflowed / m.nonzero
    return found


def noise(m: Moments) -> Array:
    """Σ(x−q)² / Σx², the reciprocal of SQNR; 0 for an all-zero tensor."""
    found: Array = np.where(m.xx > 0, m.err / m.xx, np.nan)
    return np.where((m.nonzero == 0) & (m.count > 0), 0.0, found)


def nonfinite(m: Moments) -> Array:
    """Share of NaN and infinities among all values of the record."""
    return np.full_like(m.qq, m.nonfinite)


def _within(squares: Array) -> NDArray[np.bool_]:
    """Which sums of squares float64 holds."""
    found: NDArray[np.bool_] = np.isfinite(squares) & (squares > 0)
    return found


def _one_where_all_zero(m: Moments, found: Array) -> Array:
    """1 for tensors that are all zero, and missing for those without a finite value."""
    return np.where(m.nonzero == 0, np.where(m.count == 0, np.nan, 1.0), found)


#: All metrics, in the order of tables and files. A new metric is one more entry.
METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric("mse", "x²", "mean squared error", mse),
        Metric(
            "sqnr_db",
            "dB",
            "signal to quantization noise, 10·log10(Σx²/Σ(x−q)²); +6 dB is one bit",
            sqnr_db,
        ),
        Metric(
            "cosine",
            "",
            "direction kept: x·q/(‖x‖‖q‖), 1 is perfect; blind to magnitude",
            cosine,
        ),
        Metric("norm_ratio", "", "magnitude kept: ‖q‖/‖x‖, 1 is perfect", norm_ratio),
        Metric("gain", "", "shrinkage: x·q/x·x, 1 is perfect; norm_ratio hides it", gain),
        Metric("saturation", "share", "values clipped at an end of the grid", saturation),
        Metric("underflow", "share", "nonzero values that become 0", underflow),
        Metric("nonfinite", "share", "NaN and infinities, left out of all else", nonfinite),
        Metric("noise", "", "quantization noise to signal: Σ(x−q)²/Σx²; adds up over sites", noise),
    )
}


def figure(of: Callable[[Moments], Array], m: Moments) -> Array:
    """One metric's figures; infinite ones, of sums that float64 cannot hold, are missing, too."""
    with np.errstate(all="ignore"):
        found = of(m)
    return np.where(np.isfinite(found), found, np.nan)


def measure(m: Moments) -> dict[str, Array]:
    """Every metric by name, each with one figure a grid as `figure` has it; NaN is missing."""
    with np.errstate(all="ignore"):
        found = np.array([metric.of(m) for metric in METRICS.values()])
    found[~np.isfinite(found)] = np.nan
    return dict(zip(METRICS, found, strict=True))
