"""Running one estimator over one site's tensors, step by step, for tests of estimators."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from hqtool.core.formats.uniform import UniformFormat
from hqtool.core.observation import values_of
from hqtool.core.recorded import RecordedObservation
from hqtool.core.stats import stats_of
from hqtool.estimators.protocol import Estimator, advance, decide, widest
from hqtool.vocab import Decision, Record


def observe(
    x: Any,
    bits: int = 8,
    scheme: str = "asymmetric",
    values: bool = True,
    format_: Any = None,
) -> RecordedObservation:
    """A tensor as an estimator sees it; with `values=False`, its statistics alone.

    Args:
        format_: another one than that of `bits` and `scheme`.
    """
    x = np.asarray(x, "f8")
    stats = stats_of(x)
    kept = values_of(Record(0, 0, 0, x.shape, stats, x)) if values else None
    aimed_at = format_ or UniformFormat(bits, scheme)
    return RecordedObservation(stats, aimed_at, kept, shape=x.shape)


def decisions(estimator: Estimator, observations: Iterable[RecordedObservation]) -> list[Decision]:
    """An estimator's decisions at the records of a site, in order; each record is one step."""
    return [d for step in decisions_of_steps(estimator, ([o] for o in observations)) for d in step]


def decisions_of_steps(
    estimator: Estimator, steps: Iterable[Iterable[RecordedObservation]]
) -> list[list[Decision]]:
    """An estimator's decisions at each record of each step."""
    state, found = estimator.start(), []
    for step in steps:
        made = [decide(estimator, state, observation) for observation in step]
        used = widest([decision.range for decision, _ in made if decision.range is not None])
        state = advance(estimator, state, [reading for _, reading in made], used)
        found.append([decision for decision, _ in made])
    return found
