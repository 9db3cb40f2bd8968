"""Scoring records: the metrics of their values in every lane, many records at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hqtool.core.formats.format import ElementFormat
from hqtool.core.metrics import METRICS, measure
from hqtool.core.moments.batch import moments_of_each
from hqtool.core.moments.joining import in_rows
from hqtool.core.noise import noise_of
from hqtool.core.observation import PreparedValues
from hqtool.vocab import Decision, Range, Record, Site

#: (metrics, records, lanes), NaN is missing.
Figures = NDArray[np.float64]

#: Rows of `Figures`.
MSE, SQNR_DB, UNDERFLOW, NONFINITE = map(
    list(METRICS).index, ("mse", "sqnr_db", "underflow", "nonfinite")
)

#: A batch ends when it has so many records, or so many values.
MOST_RECORDS, ENOUGH_VALUES = 64, 1 << 15


class Decided(NamedTuple):
    """A record to score, and each lane's decision on it."""

    record: Record
    values: PreparedValues
    decisions: list[Decision]


def batches(decided: Iterable[Decided]) -> Iterator[list[Decided]]:
    """The records in order, in batches of bounded size."""
    batch: list[Decided] = []
    held = 0
    for each in decided:
        batch.append(each)
        held += each.values.size
        if len(batch) >= MOST_RECORDS or held >= ENOUGH_VALUES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def score(
    batch: Sequence[Decided], formats: Sequence[ElementFormat], rounding: str, seed: int, site: Site
) -> Figures:
    """Each lane's metrics of each record; without a range all but `nonfinite` are missing.

    Args:
        formats: one for each lane.
        rounding: a name of `ROUNDINGS`.
        seed: of the noise of 'stochastic-sampled'.
    """
    given = [[decision.range for decision in each.decisions] for each in batch]
    ranges = [[(ends and ends.widest) or Range(0.0, 0.0) for ends in row] for row in given]
    if rounding == "stochastic-sampled":
        moments = in_rows(
            each.values.moments(row, formats, rounding, noise_of(seed, site, each.record))
            for each, row in zip(batch, ranges, strict=True)
        )
    else:
        moments = moments_of_each([each.values for each in batch], ranges, formats, rounding)
    figures = np.array(list(measure(moments).values()))
    figures[:, [[ends is None for ends in row] for row in given]] = np.nan
    figures[NONFINITE] = moments.nonfinite  # known even where there is no range
    return figures
