"""Fewer points for a chart, each of them real, with the extremes kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.intp]


def kept(low: NDArray[np.float64], high: NDArray[np.float64], points: int) -> Indices:
    """Ascending indices of at most about so many records.

    All where they are no more. Else the records are cut into spans of equal length, and of each
    span the one with the lowest `low` and the one with the highest `high` are kept, and the first
    and the last of all.

    Args:
        low, high: (records,) NaN is never an extreme.
    """
    if low.size <= points:
        return np.arange(low.size)
    edges = np.linspace(0, low.size, max(2, points // 2) + 1).astype(np.intp)
    starts = edges[:-1]
    lowest = _extreme(np.where(np.isnan(low), np.inf, low), starts, np.minimum)
    highest = _extreme(np.where(np.isnan(high), -np.inf, high), starts, np.maximum)
    return np.unique(np.concatenate([[0], lowest, highest, [low.size - 1]]))


def _extreme(values: NDArray[np.float64], starts: Indices, pick: np.ufunc) -> Indices:
    """Index of the first extreme of each span."""
    found = np.repeat(pick.reduceat(values, starts), np.diff([*starts, values.size]))
    places = np.flatnonzero(values == found)
    return places[np.searchsorted(places, starts)]
