"""How offline scores rank beside the accuracy that trainings lost, and which one is chosen.

The rule was fixed before any training had ended, and is all in `chosen` and `wins`.
"""

from __future__ import annotations

import csv
import gzip
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

HERE = Path(__file__).parent
RUNS, SCORES = HERE / "runs.csv.gz", HERE / "scores.csv.gz"

#: The setting that trains in full precision.
BASELINE = "none"

#: The models on which a candidate is chosen, and those on which it is judged.
CHOOSE_ON, JUDGE_ON = ("residual", "plain"), ("depthwise", "transformer")

#: What hqtool shows today, and what a candidate must reach where it was not chosen.
TODAY, BAR = "sqnr", 0.9

DRAWS, SEED, COVERAGE = 2000, 0, 0.95

#: A table of fewer settings has no correlation of its own.
FEWEST = 5

Array = NDArray[np.float64]


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a compressed CSV."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def write_rows(path: Path, names: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows as a compressed CSV; the same rows give the same bytes."""
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as packed:
        text = "\n".join(",".join(map(str, row)) for row in (names, *rows))
        packed.write((text + "\n").encode())


@dataclass(frozen=True, slots=True)
class Lost:
    """What one model's settings lost.

    Args:
        settings: with at least one run that ended, the baseline aside.
        tables: of each setting.
        losses: (settings, seeds) accuracy less than the baseline's of the same seed; NaN where
            there is no such run. A run that diverged has the accuracy 0.
    """

    model: str
    settings: tuple[str, ...]
    tables: tuple[str, ...]
    losses: Array

    @property
    def mean(self) -> Array:
        """(settings,) over the seeds."""
        return np.nanmean(self.losses, axis=1)


def lost_by_model(runs: Iterable[dict[str, str]]) -> dict[str, Lost]:
    """The losses of every model with a baseline."""
    of_model: dict[str, list[dict[str, str]]] = defaultdict(list)
    for run in runs:
        of_model[run["model"]].append(run)
    found = {model: _lost(model, each) for model, each in of_model.items()}
    return {model: lost for model, lost in found.items() if lost.settings}


def _lost(model: str, runs: Sequence[dict[str, str]]) -> Lost:
    accuracy = {(r["setting"], r["seed"]): a for r in runs if (a := _accuracy(r)) is not None}
    seeds = sorted({seed for setting, seed in accuracy if setting == BASELINE}, key=int)
    tables = {r["setting"]: r["table"] for r in runs if r["setting"] != BASELINE}
    losses = {
        setting: [accuracy[BASELINE, s] - accuracy.get((setting, s), math.nan) for s in seeds]
        for setting in tables
    }
    kept = {name: each for name, each in losses.items() if not np.isnan(each).all()}
    return Lost(
        model,
        tuple(kept),
        tuple(tables[name] for name in kept),
        np.array(list(kept.values()), float).reshape(len(kept), len(seeds)),
    )


def _accuracy(run: dict[str, str]) -> float | None:
    """0 of a run that diverged; None of one that failed."""
    if run["status"] == "diverged":
        return 0.0
    return float(run["accuracy"]) if run["status"] == "finished" else None


def scores_of(lost: Lost, scores: Iterable[dict[str, str]]) -> dict[str, Array]:
    """Candidate → its figure for each of a model's settings, NaN where there is none."""
    place = {setting: i for i, setting in enumerate(lost.settings)}
    found: dict[str, Array] = defaultdict(lambda: np.full(len(place), np.nan))
    for row in scores:
        if row["model"] == lost.model and row["setting"] in place:
            found[row["candidate"]][place[row["setting"]]] = float(row["value"])
    return found


# --- correlations -------------------------------------------------------------------------------


def spearman(one: Array, other: Array) -> Array:
    """Spearman's ρ along the last axis, ties at their mean rank; NaN where one does not vary."""
    a, b = (stats.rankdata(each, axis=-1) for each in np.broadcast_arrays(one, other))
    a, b = (each - each.mean(axis=-1, keepdims=True) for each in (a, b))
    size = np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
    with np.errstate(invalid="ignore"):
        found: Array = (a * b).sum(axis=-1) / np.where(size > 0, size, np.nan)
    return found


@dataclass(frozen=True, slots=True)
class Correlation:
    """Of one candidate on one model, intervals by bootstrap over settings and seeds.

    Args:
        above: by how much ρ exceeds that of `TODAY`, with its interval.
        within: mean ρ of the tables taken by themselves.
    """

    value: float
    low: float
    high: float
    above: float
    above_low: float
    above_high: float
    within: float


def correlations(lost: Lost, scores: dict[str, Array]) -> dict[str, Correlation]:
    """Every candidate's, over the settings of which all have a figure."""
    known = ~np.isnan(np.array(list(scores.values()))).any(axis=0)
    settings, losses = _drawn(lost.losses[known])
    whole = {name: float(spearman(each[known], lost.mean[known])) for name, each in scores.items()}
    drawn = {name: spearman(each[known][settings], losses) for name, each in scores.items()}
    return {
        name: Correlation(
            whole[name],
            *_interval(drawn[name]),
            whole[name] - whole[TODAY],
            *_interval(drawn[name] - drawn[TODAY]),
            _within(lost, each, known),
        )
        for name, each in scores.items()
    }


def _drawn(losses: Array) -> tuple[NDArray[np.int64], Array]:
    """(draws, settings): which settings, and their mean loss over seeds that are drawn, too."""
    rng = np.random.default_rng(SEED)
    n, seeds = losses.shape
    settings = rng.integers(n, size=(DRAWS, n))
    weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=DRAWS).astype(float)
    there = ~np.isnan(losses)
    sums, counts = weights @ np.where(there, losses, 0.0).T, weights @ there.T
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nanmean(losses, axis=1))
    return settings, np.take_along_axis(means, settings, axis=1)


def _interval(draws: Array) -> tuple[float, float]:
    tail = 100 * (1 - COVERAGE) / 2
    low, high = np.nanpercentile(draws, [tail, 100 - tail])
    return float(low), float(high)


def _within(lost: Lost, score: Array, known: NDArray[np.bool_]) -> float:
    tables = np.array(lost.tables)
    parts = [(tables == table) & known for table in dict.fromkeys(lost.tables)]
    found = [float(spearman(score[p], lost.mean[p])) for p in parts if p.sum() >= FEWEST]
    return float(np.nanmean(found)) if found else math.nan


def ceiling(lost: Lost) -> float:
    """The ρ that a score without any error would have: √ of the means' split-half reliability.

    Half of the seeds ranks beside the other half, over all ways to halve them; Spearman and Brown
    make of it the reliability of the mean over all. NaN of fewer than two seeds.
    """
    whole = ~np.isnan(lost.losses).any(axis=1)
    seeds = lost.losses.shape[1]
    halves = [set(half) for half in combinations(range(seeds), seeds // 2)] if seeds > 1 else []
    found = [_agreement(lost.losses[whole], half) for half in halves]
    if not found:
        return math.nan
    r = max(0.0, float(np.mean(found)))
    return math.sqrt(2 * r / (1 + r))


def _agreement(losses: Array, half: set[int]) -> float:
    mine = np.isin(np.arange(losses.shape[1]), list(half))
    return float(spearman(losses[:, mine].mean(axis=1), losses[:, ~mine].mean(axis=1)))


# --- the rule -----------------------------------------------------------------------------------


def chosen(found: dict[str, dict[str, Correlation]]) -> str:
    """The candidate of highest mean ρ over the models to choose on; of equal ones the first.

    Args:
        found: model → candidate → its correlation.
    """
    first, *others = (found[model] for model in CHOOSE_ON)
    shared = [name for name in first if all(name in other for other in others)]
    return max(shared, key=lambda name: sum(found[model][name].value for model in CHOOSE_ON))


def wins(found: dict[str, dict[str, Correlation]], name: str) -> bool:
    """Whether on each model to judge on it beats `TODAY` by more than the interval is wide."""
    return all(found[model][name].above_low > 0 for model in JUDGE_ON if model in found)


def reaches(found: dict[str, dict[str, Correlation]], name: str) -> bool:
    """Whether it reaches the bar on a model that had no part in choosing it."""
    return any(found[model][name].value >= BAR for model in JUDGE_ON if model in found)
