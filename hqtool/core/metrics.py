"""Metrics: each a function from moments to a number, or None where it cannot be computed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from hqtool.vocab import Moments


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of merit.

    Args:
        unit: '' where dimensionless; 'x²' is the tensor's own unit squared.
        meaning: one line, for help and documentation.
        loss: what ranking minimises: 0 is perfect.
    """

    name: str
    unit: str
    meaning: str
    of: Callable[[Moments], float | None]
    loss: Callable[[float], float]


def mse(m: Moments) -> float | None:
    """Mean of (x−q)²."""
    return _finite(m.err / m.count) if m.count else None


def sqnr_db(m: Moments) -> float | None:
    """10·log10(Σx² / Σ(x−q)²); None for an all-zero tensor and for zero error ('exact')."""
    if not (m.xx > 0 and m.err > 0):
        return None
    return _finite(10 * math.log10(m.xx / m.err))


def cosine(m: Moments) -> float | None:
    """x·q / (‖x‖‖q‖); 1 for an all-zero tensor, 0 where only q is all zero."""
    if not m.count:
        return None
    if m.nonzero == 0:
        return 1.0
    if m.qq == 0:
        return 0.0
    if m.xx == 0:  # every square underflowed
        return None
    return _finite(min(m.xq / (math.sqrt(m.xx) * math.sqrt(m.qq)), 1.0))


def norm_ratio(m: Moments) -> float | None:
    """‖q‖ / ‖x‖; 1 for an all-zero tensor."""
    if not m.count:
        return None
    if m.nonzero == 0:
        return 1.0
    return _finite(math.sqrt(m.qq) / math.sqrt(m.xx)) if m.xx > 0 else None


def saturation(m: Moments) -> float | None:
    """Share of the values whose code before clipping lies outside the grid's codes."""
    return m.saturated / m.count if m.count else None


def underflow(m: Moments) -> float | None:
    """Share of the nonzero values whose code is zero's; None where every value is zero."""
    return m.underflowed / m.nonzero if m.nonzero else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


#: In the order tables and files show them. A new metric is one more line.
METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric("mse", "x²", "mean squared error", mse, abs),
        Metric(
            "sqnr_db",
            "dB",
            "signal to quantization noise, 10·log10(Σx²/Σ(x−q)²); +6 dB is one bit",
            sqnr_db,
            lambda db: -db,
        ),
        Metric(
            "cosine",
            "",
            "direction kept: x·q/(‖x‖‖q‖), 1 is perfect; blind to magnitude",
            cosine,
            lambda c: 1 - c,
        ),
        Metric(
            "norm_ratio",
            "",
            "magnitude kept: ‖q‖/‖x‖, 1 is perfect",
            norm_ratio,
            lambda r: abs(1 - r),
        ),
        Metric("saturation", "share", "values clipped at an end of the grid", saturation, abs),
        Metric("underflow", "share", "nonzero values that become 0", underflow, abs),
    )
}


def measure(m: Moments) -> dict[str, float | None]:
    """Every metric of one record by name."""
    return {name: metric.of(m) for name, metric in METRICS.items()}
