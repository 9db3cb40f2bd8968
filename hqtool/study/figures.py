"""The figures of a study: means over seeds, differences with their intervals, rank correlation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: The coverage of intervals.
CONFIDENCE = 0.95

#: How often a rank correlation is computed anew for its interval, and the seed of these draws.
RESAMPLES, SEED = 2000, 0

#: Fewer recipes have no rank correlation that would say anything.
FEWEST_RECIPES = 3


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95 % confidence interval; None where the data do not give one."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and sample standard deviation (n − 1); None where there are too few figures."""

    mean: float | None
    std: float | None


def spread(figures: Sequence[float]) -> Spread:
    """Of a recipe's figures over seeds."""
    n = len(figures)
    mean = math.fsum(figures) / n if n else None
    if mean is None or n < 2:
        return Spread(mean, None)
    return Spread(mean, math.sqrt(math.fsum((f - mean) ** 2 for f in figures) / (n - 1)))


def paired_difference(
    figures: Mapping[int, float], baseline: Mapping[int, float]
) -> tuple[Estimate, int]:
    """The mean difference from a baseline over the seeds that both have, and how many these are.

    The interval is Student's t of the paired differences, with n − 1 degrees of freedom.

    Args:
        figures, baseline: by seed.
    """
    differences = [figures[seed] - baseline[seed] for seed in figures if seed in baseline]
    n, found = len(differences), spread(differences)
    if found.mean is None or found.std is None:
        return Estimate(found.mean), n
    from scipy import stats

    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * found.std / math.sqrt(n)
    return Estimate(found.mean, found.mean - half, found.mean + half), n


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> Estimate:
    """Spearman's rank correlation of two figures of the same recipes, ties at their mean rank.

    The interval is the percentile bootstrap over recipes; draws in which one of the figures is the
    same throughout have no correlation and do not count. Everything is missing of fewer than
    `FEWEST_RECIPES`, and where one of the figures is the same of all recipes.
    """
    pairs = np.array([one, other], dtype=np.float64)
    if pairs.shape[1] < FEWEST_RECIPES:
        return Estimate(None)
    value = float(_correlations(pairs[:, None])[0])
    if math.isnan(value):
        return Estimate(None)
    n = pairs.shape[1]
    drawn = np.random.default_rng(SEED).integers(n, size=(RESAMPLES, n))
    again = _correlations(pairs[:, drawn])
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.nanpercentile(again, [tail, 100 - tail])
    return Estimate(value, float(low), float(high))


def _correlations(pairs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spearman's ρ of each draw; NaN where one of the two does not vary.

    Args:
        pairs: (2, draws, recipes).
    """
    from scipy import stats

    ranks = stats.rankdata(pairs, axis=-1)
    ranks -= ranks.mean(axis=-1, keepdims=True)
    product = (ranks[0] * ranks[1]).sum(axis=-1)
    size = np.sqrt((ranks**2).sum(axis=-1).prod(axis=0))
    found: NDArray[np.float64] = np.full(size.shape, np.nan)
    np.divide(product, size, out=found, where=size > 0)
    return found
