"""A site's tensors quantized as a replay would, as arrays: for what takes more than moments."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hqtool.core.noise import noise_key
from hqtool.core.observation import values_of
from hqtool.core.recorded import RecordedObservation
from hqtool.estimators.protocol import advance, decide, widest
from hqtool.estimators.quantizer import NEAREST, Quantizer
from hqtool.trace.history import SiteHistory
from hqtool.training.tensors.quantized import Quantized
from hqtool.training.tensors.quantizing import Axes, quantized
from hqtool.vocab import AnyRange, Record, Site


def kept_records(history: SiteHistory) -> dict[int, Record]:
    """The records with values, by their index among all."""
    return {int(i): history.record(int(i)) for i in np.flatnonzero(history.has_values)}


def ranges_of(
    history: SiteHistory, quantizer: Quantizer, kept: dict[int, Record]
) -> Iterator[tuple[int, AnyRange | None]]:
    """The range that a quantizer's estimator gives each of the kept records, by its index.

    All records are gone through, step by step, as in training.
    """
    estimator, state = quantizer.estimator.value, quantizer.estimator.value.start()
    for start, end in pairwise([*history.starts.tolist(), len(history)]):
        shown = [
            decide(estimator, state, _observation(history, quantizer, kept, index))
            for index in range(start, end)
        ]
        decisions, readings = zip(*shown, strict=True)
        used = [each.range for each in decisions if each.range is not None]
        state = advance(estimator, state, readings, widest(used))
        for index, decision in zip(range(start, end), decisions, strict=True):
            if index in kept:
                yield index, decision.range


def _observation(
    history: SiteHistory, quantizer: Quantizer, kept: dict[int, Record], index: int
) -> RecordedObservation:
    values = values_of(kept[index], *history.axes) if index in kept else None
    about = (), int(history.steps[index]), history.shape(index)
    return RecordedObservation(history.stats_at(index), quantizer.format.value, values, *about)


def quantized_values(
    site: Site,
    history: SiteHistory,
    quantizer: Quantizer | None,
    kept: dict[int, Record],
    seed: int = 0,
) -> list[Quantized]:
    """The kept tensors, quantized; as they are where the quantizer is None."""
    if quantizer is None:
        return [Quantized(_tensor(record.values), None) for record in kept.values()]
    wanted = dict(ranges_of(history, quantizer, kept))
    axes = Axes(history.axes.channel or -1, history.axes.output)
    stochastic = quantizer.rounding != NEAREST
    return [
        quantized(
            _tensor(record.values),
            quantizer.format.value,
            wanted[index],
            axes,
            noise_key(seed, site, record.step, record.micro, record.call) if stochastic else None,
        )
        for index, record in kept.items()
    ]


def _tensor(values: NDArray[np.floating] | None) -> Tensor:
    if values is None or values.ndim < 2:
        raise ValueError("the trace must keep whole tensors: hqtool capture --full")
    return torch.from_numpy(np.ascontiguousarray(values))
