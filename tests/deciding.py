"""Running one estimator over one site's tensors, step by step, for tests of estimators."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from hqtool.core.formats.uniform import UniformFormat
from hqtool.core.observation import Observation, PreparedValues
from hqtool.core.stats import stats_of
from hqtool.estimators.protocol import Estimator, State, advance, decide
from hqtool.vocab import Decision


def observe(x: Any, bits: int = 8, scheme: str = "asymmetric", values: bool = True) -> Observation:
    """A tensor as an estimator sees it; with `values=False`, its statistics alone."""
    x = np.asarray(x, "f8")
    return Observation(
        stats_of(x), UniformFormat(bits, scheme), PreparedValues(x) if values else None
    )


def decisions(estimator: Estimator, observations: Iterable[Observation]) -> list[Decision]:
    """An estimator's decisions at the records of a site, in order; each record is one step."""
    return [d for step in decisions_of_steps(estimator, ([o] for o in observations)) for d in step]


def decisions_of_steps(
    estimator: Estimator, steps: Iterable[Iterable[Observation]]
) -> list[list[Decision]]:
    """An estimator's decisions at each record of each step."""
    state, found = State(), []
    for step in steps:
        made = [decide(estimator, state, observation) for observation in step]
        state = advance(estimator, state, [reading for _, reading in made])
        found.append([decision for decision, _ in made])
    return found
