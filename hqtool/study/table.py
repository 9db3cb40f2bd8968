"""A study's table: a row for each recipe, and how offline scores rank beside the metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hqtool.study.figures import Estimate, Spread, paired_difference, rank_correlation, spread
from hqtool.study.outcome import Outcome, Result
from hqtool.study.replayed import Moved, Scores
from hqtool.study.study import StudyResults
from hqtool.study.study_file import StudyRecipe


@dataclass(frozen=True, slots=True)
class RecipeRow:
    """What a study found of one recipe.

    Args:
        outcomes: how many of its runs ended in which way.
        metric: over the runs that finished.
        difference: from the baseline, over `pairs` seeds; None of the baseline itself.
        seconds: mean of the finished runs.
        scores: on the study's trace; None without one.
    """

    recipe: StudyRecipe
    outcomes: Mapping[Outcome, int]
    metric: Spread
    difference: Estimate | None
    pairs: int
    seconds: float | None
    moved: Moved
    scores: Scores | None = None


@dataclass(frozen=True, slots=True)
class StudyTable:
    """All of it.

    Args:
        correlations: name of an offline score → its rank correlation with the metric, and over how
            many recipes; empty without a trace.
    """

    found: StudyResults
    rows: tuple[RecipeRow, ...]
    correlations: Mapping[str, tuple[Estimate, int]]

    @property
    def complete(self) -> bool:
        """Whether no run failed or timed out, and any gave a figure."""
        lost = any(row.outcomes["failed"] or row.outcomes["timed-out"] for row in self.rows)
        return not lost and any(row.outcomes["finished"] for row in self.rows)


def table_of(
    found: StudyResults, moved: Mapping[str, Moved], scores: Mapping[str, Scores]
) -> StudyTable:
    """The table of a study's runs.

    Args:
        moved, scores: by recipe's name; either may lack some.
    """
    named = {recipe.name: recipe for recipe in found.study.recipes}
    baseline = _by_seed(found.of(named[found.study.baseline]))
    rows = tuple(
        _row(found, recipe, baseline, moved.get(name, Moved()), scores.get(name))
        for name, recipe in named.items()
    )
    names = ("sqnr_db", "cosine", "noise") if scores else ()
    return StudyTable(found, rows, {name: _correlation(rows, name) for name in names})


def _row(
    found: StudyResults,
    recipe: StudyRecipe,
    baseline: Mapping[int, float],
    moved: Moved,
    scores: Scores | None,
) -> RecipeRow:
    results = found.of(recipe)
    figures = _by_seed(results)
    difference, pairs = paired_difference(figures, baseline)
    is_baseline = recipe.name == found.study.baseline
    return RecipeRow(
        recipe=recipe,
        outcomes=_counted(results),
        metric=spread(list(figures.values())),
        difference=None if is_baseline else difference,
        pairs=pairs,
        seconds=spread([r.ended.seconds for r in results if r.outcome == "finished"]).mean,
        moved=moved,
        scores=scores,
    )


def _counted(results: list[Result]) -> dict[Outcome, int]:
    names: tuple[Outcome, ...] = ("finished", "diverged", "failed", "timed-out")
    return {name: sum(r.outcome == name for r in results) for name in names}


def _by_seed(results: list[Result]) -> dict[int, float]:
    return {r.run.seed: r.metric for r in results if r.metric is not None}


def _correlation(rows: tuple[RecipeRow, ...], name: str) -> tuple[Estimate, int]:
    pairs = [
        (score, row.metric.mean)
        for row in rows
        if row.scores is not None
        and (score := getattr(row.scores, name)) is not None
        and row.metric.mean is not None
    ]
    scores, means = zip(*pairs, strict=True) if pairs else ((), ())
    return rank_correlation(scores, means), len(pairs)
