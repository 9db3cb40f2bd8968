"""How often an estimator looks at a tensor, and how much of it at a time: found by running it."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from typing import cast

import numpy as np

from hqtool.core.formats.format import ElementFormat
from hqtool.core.observation import values_of
from hqtool.core.recorded import RecordedObservation
from hqtool.core.stats import stats_of
from hqtool.estimators.protocol import advance, decide
from hqtool.estimators.quantizer import Quantizer
from hqtool.estimators.telling import telling
from hqtool.traffic.pricing.store import NO_LOOKS, Looks
from hqtool.vocab import EntryRanges, Look, Record

#: For so many steps an estimator is run; rarer looks are not billed.
STEPS = 4096

#: The shape of the tensor that it is run on, (samples, channels, height, width).
PROBE_SHAPE = (8, 32, 4, 4)

#: Which of its axes is the channels', counted from the last one, -1.
CHANNEL_AXIS = -3


@lru_cache(maxsize=1024)
def looks_of(quantizer: Quantizer) -> Looks:
    """The looks of a quantizer's estimator after its first step.

    The estimator itself is run, on one tensor of normally distributed values that recurs for
    `STEPS` steps. Looks that recur count by the distance of the first two, so that a search every
    hundredth step costs a hundredth of one.
    """
    with telling(quantizer.estimator):
        looked = [(step, look) for step, look in _run(quantizer) if step > 0]
    if not looked:
        return NO_LOOKS
    (first, look), *later = looked
    distance = later[0][0] - first if later else first
    return Looks(Fraction(1, distance), look.evaluations, look.per)


@lru_cache(maxsize=1024)
def entries_per(quantizer: Quantizer) -> str:
    """What shares a range, be it looked for or known: 'tensor', 'channel', 'sample' or 'row'."""
    estimator = quantizer.estimator.value
    with telling(quantizer.estimator):
        decision, _ = decide(estimator, estimator.start(), _probe(quantizer))
    return decision.range.per if isinstance(decision.range, EntryRanges) else "tensor"


def _run(quantizer: Quantizer) -> Iterator[tuple[int, Look]]:
    """The first looks, each with its step: two after step 0 at most."""
    estimator, obs = quantizer.estimator.value, _probe(quantizer)
    state, found = estimator.start(), 0
    for step in range(STEPS):
        decision, reading = decide(estimator, state, obs)
        if decision.look is not None and decision.look.dynamic:
            yield step, decision.look
            found += step > 0
        if found == 2:
            return
        state = advance(estimator, state, [reading], decision.range)


def _probe(quantizer: Quantizer) -> RecordedObservation:
    """The tensor that estimators are run on, at a quantizer's format."""
    values = np.random.default_rng(0).standard_normal(PROBE_SHAPE).astype(np.float32)
    stats = stats_of(values)
    record = Record(0, 0, 0, values.shape, stats, values)
    format_ = cast(ElementFormat, quantizer.format.value)
    read = values_of(record, CHANNEL_AXIS)
    return RecordedObservation(stats, format_, read, shape=values.shape, channel_axis=CHANNEL_AXIS)
