"""What a study's recipes look at and move in the runs, and how they score on a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hqtool.compare.comparison import compare
from hqtool.compare.execute import Executor, serial
from hqtool.compare.recipe_totals import RecipeTotal, recipe_totals
from hqtool.compare.results import Summary
from hqtool.compare.settings import ReplaySettings
from hqtool.compare.unquantized import NONE
from hqtool.errors import HqtoolError
from hqtool.study.outcome import Result
from hqtool.study.run import TRACE
from hqtool.study.study import StudyResults
from hqtool.study.study_file import StudyRecipe

#: Steps in which ranges are initialized: looks and bytes are counted over those after them.
FIRST_STEPS = 1


@dataclass(frozen=True, slots=True)
class Moved:
    """What a recipe moves in a step after the first.

    Args:
        static: whether it looks at no tensor before it is quantized, but for weights, which lie in
            memory; None where it quantizes nothing.
        static_bytes, traffic_bytes: in a step, without looks and with them; None where unknown.
    """

    static: bool | None = None
    static_bytes: float | None = None
    traffic_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """A recipe's figures on a trace, means over the sites that it quantizes; None is missing."""

    sqnr_db: float | None
    cosine: float | None


def moved_by_recipe(
    found: StudyResults, on_warning: Callable[[str], None] = lambda line: None
) -> dict[str, Moved]:
    """By recipe's name: what the traces of its runs tell, else the study's trace.

    A recipe that quantizes nothing leaves no trace: it is billed at the sites of another's.

    Args:
        on_warning: called with what could not be read.
    """
    own = {each.name: _trace_of(found.of(each)) for each in found.study.recipes}
    spare = found.study.trace or next((path for path in own.values() if path), None)
    moved = {}
    for recipe in found.study.recipes:
        path = own[recipe.name] or spare
        try:
            moved[recipe.name] = Moved() if path is None else _moved(recipe, path)
        except HqtoolError as error:
            on_warning(f"no traffic of {recipe.name}: {error.cause}")
            moved[recipe.name] = Moved()
    return moved


def _trace_of(results: Iterable[Result]) -> str | None:
    """The trace of a recipe's first run that has one; of several ranks that of the first."""
    stem = Path(TRACE).stem
    for result in sorted(results, key=lambda result: result.outcome != "finished"):
        traces = sorted(result.run.place.glob(f"{stem}*.h5"))
        if traces:
            return str(traces[0])
    return None


def _moved(recipe: StudyRecipe, path: str) -> Moved:
    settings = ReplaySettings((), recipes=(recipe.recipe,), calibrate=FIRST_STEPS)
    summaries = compare([path], settings).summaries
    total = _in_total(recipe_totals(summaries))[recipe.name]
    return Moved(_is_static(summaries), total.static_bytes, total.traffic_bytes)


def _is_static(summaries: Iterable[Summary]) -> bool | None:
    quantized = [s for s in summaries if s.format != NONE]
    if not any(s.replayed for s in quantized):
        return None
    return not any(s.looks for s in quantized if s.tensor != "weight")


def offline_scores(
    found: StudyResults,
    executor: Executor = serial,
    on_site: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Scores]:
    """By recipe's name: how it scores on the study's trace; empty without one.

    Raises:
        DataError: the trace is broken or empty.
    """
    study = found.study
    if study.trace is None:
        return {}
    settings = ReplaySettings((), recipes=tuple(each.recipe for each in study.recipes))
    summaries = compare([study.trace], settings, executor=executor, on_site=on_site).summaries
    totals = _in_total(recipe_totals(summaries))
    return {each.name: _scores(totals[each.name]) for each in study.recipes}


def _in_total(totals: Iterable[RecipeTotal]) -> Mapping[str, RecipeTotal]:
    return {total.recipe: total for total in totals if total.tensor is None}


def _scores(total: RecipeTotal) -> Scores:
    return Scores(total.sqnr_db, total.cosine)
