"""Scoring records: the metrics of their values in every lane, many records at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hqtool.core.metrics import METRICS, measure
from hqtool.core.moments.batch import moments_of_each
from hqtool.core.moments.joining import in_rows
from hqtool.core.noise import Noise, noise_key
from hqtool.core.observation import PreparedValues
from hqtool.estimators.quantizer import Quantizer
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
    """A record, and each lane's decision on it; without values it cannot be scored."""

    record: Record
    values: PreparedValues | None
    decisions: list[Decision]


def batches(decided: Iterable[Decided]) -> Iterator[list[Decided]]:
    """The records in order, in batches of bounded size."""
    batch: list[Decided] = []
    held = 0
    for each in decided:
        batch.append(each)
        held += 0 if each.values is None else each.values.size
        if len(batch) >= MOST_RECORDS or held >= ENOUGH_VALUES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def score(
    batch: Sequence[Decided], quantizers: Sequence[Quantizer], seed: int, site: Site
) -> Figures:
    """Each lane's metrics of each record; without the range that its format needs all but
    `nonfinite` are missing, without values all.

    Args:
        quantizers: one for each lane.
        seed: of the noise of 'stochastic-sampled'.
    """
    figures = np.full((len(METRICS), len(batch), len(quantizers)), np.nan)
    with_values = places_with_values(batch)
    places: dict[str, list[int]] = {}
    for place, quantizer in enumerate(quantizers):
        places.setdefault(quantizer.rounding, []).append(place)
    for rounding, some in places.items() if with_values else ():
        formats = [quantizers[place].format.value for place in some]
        found = _score([batch[i] for i in with_values], some, formats, rounding, seed, site)
        figures[np.ix_(range(len(METRICS)), with_values, some)] = found
    return figures


def places_with_values(batch: Sequence[Decided]) -> list[int]:
    """Which of the records can be scored."""
    return [i for i, each in enumerate(batch) if each.values is not None]


def _score(
    batch: Sequence[Decided],
    places: Sequence[int],
    formats: Sequence[Any],
    rounding: str,
    seed: int,
    site: Site,
) -> Figures:
    """The metrics of the lanes at these places, whose rounding is the same."""
    values = [each.values for each in batch if each.values is not None]
    given = [[each.decisions[place].range for place in places] for each in batch]
    needs = [each.needs_range for each in formats]
    lacks = [
        [ends is None and need for ends, need in zip(row, needs, strict=True)] for row in given
    ]
    ranges: list[list[Any]] = [
        [Range(0.0, 0.0) if lack else ends for lack, ends in zip(*rows, strict=True)]
        for rows in zip(lacks, given, strict=True)
    ]
    if rounding == "stochastic-sampled":
        moments = in_rows(
            own.moments(row, formats, rounding, _noise(seed, site, each.record))
            for each, own, row in zip(batch, values, ranges, strict=True)
        )
    else:
        moments = moments_of_each(values, ranges, formats, rounding)
    figures = np.array(list(measure(moments).values()))
    figures[:, lacks] = np.nan
    figures[NONFINITE] = moments.nonfinite  # known even where there is no range
    return figures


def _noise(seed: int, site: Site, record: Record) -> Noise:
    return Noise(noise_key(seed, site, record.step, record.micro, record.call))
