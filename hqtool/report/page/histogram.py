"""How a site's recorded values are spread, on a symmetric logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Bins on the whole axis.
BINS = 61

#: The axis is linear below this share of the largest magnitude, and logarithmic beyond.
LINEAR_SHARE = 2.0**-12

#: Levels of a format nearer to each other than this share of the axis are shown as one.
LEVEL_SHARE = 1 / 240


class Histogram(NamedTuple):
    """Shares of the values in bins.

    Args:
        unit: magnitude below which the axis is linear: positions are asinh(x / unit).
        edges: (bins + 1,) in the tensor's own unit.
        shares: (bins,) of all finite values, those that a sample stands for included.
        records: how many tensors these are of.
    """

    unit: float
    edges: NDArray[np.float64]
    shares: NDArray[np.float64]
    records: int

    @property
    def width(self) -> float:
        """Of a bin, between positions on the axis."""
        return 2 * math.asinh(float(self.edges[-1]) / self.unit) / self.shares.size


#: Of one record: its finite values, and for how many of the tensor's each of them stands.
Parts = Sequence[tuple[NDArray[np.float64], float]]


def histogram_of(records: Iterable[Parts]) -> Histogram | None:
    """The histogram of all records together; None where no value is finite, or all are 0."""
    taken = [[part for part in parts if part[0].size] for parts in records]
    values = [part for parts in taken for part in parts]
    largest = max((float(np.abs(x).max()) for x, _ in values), default=0.0)
    if largest == 0.0:
        return None
    unit = largest * LINEAR_SHARE
    end = math.asinh(largest / unit)
    places = np.linspace(-end, end, BINS + 1)
    counts = np.zeros(BINS)
    for x, weight in values:
        positions = np.clip(np.arcsinh(x.astype(np.float64) / unit), -end, end)
        counts += weight * np.histogram(positions, places)[0]
    edges = np.sinh(places) * unit
    return Histogram(unit, edges, counts / counts.sum(), sum(map(bool, taken)))


def distinct_levels(levels: NDArray[np.float64], unit: float, largest: float) -> list[float]:
    """Ascending levels that can be told apart on the axis, the ends among them.

    Args:
        largest: magnitude at the end of the axis.
    """
    width = 2 * math.asinh(largest / unit) * LEVEL_SHARE
    places = np.round(np.arcsinh(levels / unit) / width)
    first = np.flatnonzero(np.diff(places, prepend=np.nan) != 0)
    chosen = np.union1d(first, [levels.size - 1]) if levels.size else first
    return [float(level) for level in levels[chosen]]
