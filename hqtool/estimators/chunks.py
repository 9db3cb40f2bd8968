"""RangeBN's chunks: extremes of parts of the batch, averaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hqtool.core.questions import Observation
from hqtool.estimators.protocol import Reading
from hqtool.vocab import EntryRanges, Range

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ChunkMeans:
    """(mean of the chunks' minima, mean of their maxima); RangeBN [1] in the paper.

    A chunk is `size` samples of the batch, one after the other, the last one what is left of them:
    its authors' code views a tensor as (B // 16, −1), and averages over the first axis. It rounds
    outliers off, since every chunk but one lacks the largest value.

    Args:
        size: samples in a chunk, ≥ 1.
        count: instead, into how many chunks as equal as can be the batch is cut; 0: by size.
    """

    size: int
    count: int = 0
    asks: ClassVar[frozenset[str]] = frozenset({"extremes"})

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size={self.size} is less than 1")
        if self.count < 0:
            raise ValueError(f"count={self.count} is less than 0")

    def __call__(self, obs: Observation) -> Reading | None:
        samples = obs.extremes("sample")
        if not isinstance(samples, EntryRanges):
            return None
        starts = self._starts(len(samples))
        lows = np.fmin.reduceat(samples.lo, starts)
        highs = np.fmax.reduceat(samples.hi, starts)
        return Reading(Range(_mean(lows), _mean(highs)))

    def _starts(self, samples: int) -> NDArray[np.intp]:
        """The first sample of each chunk."""
        if not self.count:
            return np.arange(0, samples, min(self.size, samples))
        count = min(self.count, samples)
        return np.arange(count) * samples // count


def _mean(ends: Array) -> float:
    """Of the chunks that have finite values; divided first, so that no sum overflows."""
    known = ends[~np.isnan(ends)]
    return float(np.sum(known / known.size)) + 0.0
