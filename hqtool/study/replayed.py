"""What a study's recipes look at and move in the runs, and how they score on a trace."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hqtool.compare.comparison import compare
from hqtool.compare.execute import Executor, serial
from hqtool.compare.recipe_totals import RecipeTotal, at_shared_sites, recipe_totals
from hqtool.compare.results import Summary
from hqtool.compare.settings import ReplaySettings
from hqtool.compare.unquantized import NONE
from hqtool.errors import DataError, HqtoolError
from hqtool.study.outcome import Result
from hqtool.study.run import TRACE
from hqtool.study.study import StudyResults
from hqtool.study.study_file import Study, StudyRecipe
from hqtool.trace.reader import TraceReader
from hqtool.vocab import COUNTERPARTS

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
    """How a recipe scores on a trace; None is missing.

    Args:
        sqnr_db, cosine: means over the sites that all recipes quantize.
        noise: summed over all sites that this one quantizes (`network_noise`).
    """

    sqnr_db: float | None
    cosine: float | None
    noise: float | None


def moved_by_recipe(
    found: StudyResults, on_warning: Callable[[str], None] = lambda line: None
) -> dict[str, Moved]:
    """By recipe's name: whether it was static in its own runs, and what it moves.

    All recipes are billed at the sites of one trace, so that what one of them leaves as it is
    counts as float32: that of the runs, or the study's, which holds the most that they name.

    Args:
        on_warning: called with what could not be read.
    """
    recipes = found.study.recipes
    own = {each.name: path for each in recipes if (path := _trace_of(found.of(each)))}
    static: dict[str, bool | None] = {}
    totals: Mapping[str, RecipeTotal] = {}
    lacking: set[str] = set()
    try:
        base, lacking = _base(recipes, [*own.values(), *filter(None, [found.study.trace])])
        totals = _in_total(recipe_totals(_replayed(base, recipes))) if base else {}
        for each in recipes:
            path = own.get(each.name, base)
            static[each.name] = None if path is None else _is_static(_replayed(path, [each]))
    except HqtoolError as error:
        on_warning(f"no traffic: {error.cause}")
    for name in sorted(lacking):
        on_warning(f"no traffic of {name}: no trace holds all tensors that recipes name")
    billed = {name: total for name, total in totals.items() if name not in lacking}
    return {each.name: _moved(static.get(each.name), billed.get(each.name)) for each in recipes}


def _base(recipes: Sequence[StudyRecipe], paths: Iterable[str]) -> tuple[str | None, set[str]]:
    """The trace to bill on, and the recipes that name kinds of tensors which it does not hold."""
    best: tuple[str | None, set[str]] = None, set()
    most = -len(recipes) - 1, 0
    for path in dict.fromkeys(paths):
        with TraceReader(path) as reader:
            held, size = {site.tensor for site in reader.sites}, len(reader.sites)
        lacking = {each.name for each in recipes if not _holds(held, each)}
        if (-len(lacking), size) > most:
            best, most = (path, lacking), (-len(lacking), size)
    return best


def _holds(held: Collection[str], recipe: StudyRecipe) -> bool:
    return all(kind in held or COUNTERPARTS.get(kind) in held for kind in recipe.recipe.tensors)


def _trace_of(results: Iterable[Result]) -> str | None:
    """The trace of a recipe's first run that has one; of several ranks that of the first."""
    stem = Path(TRACE).stem
    for result in sorted(results, key=lambda result: result.outcome != "finished"):
        traces = sorted(result.run.place.glob(f"{stem}*.h5"))
        if traces:
            return str(traces[0])
    return None


def _replayed(path: str, recipes: Sequence[StudyRecipe]) -> list[Summary]:
    """The recipes at every site of a trace, after the steps that initialize ranges."""
    given = tuple(each.recipe for each in recipes)
    return compare([path], ReplaySettings((), recipes=given, calibrate=FIRST_STEPS)).summaries


def _moved(static: bool | None, total: RecipeTotal | None) -> Moved:
    if total is None:
        return Moved(static)
    return Moved(static, total.static_bytes, total.traffic_bytes)


def _is_static(summaries: Iterable[Summary]) -> bool | None:
    quantized = [s for s in summaries if s.format != NONE]
    if not any(s.replayed for s in quantized):
        return None
    return not any(s.looks for s in quantized if s.tensor != "weight")


def require_scorable(study: Study) -> None:
    """Raises: DataError: the study's trace cannot be read, or holds nothing."""
    if study.trace is None:
        return
    with TraceReader(study.trace) as reader:
        if not reader.sites:
            raise DataError(f"{study.trace}: nothing was recorded", "name another trace, or none")


def offline_scores(
    found: StudyResults,
    executor: Executor = serial,
    on_site: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Scores]:
    """By recipe's name: how it scores on the study's trace; empty without one.

    Means are over the sites that all recipes quantize, for only those can be compared.

    Raises:
        DataError: the trace is broken or empty.
    """
    study = found.study
    if study.trace is None:
        return {}
    settings = ReplaySettings((), recipes=tuple(each.recipe for each in study.recipes))
    summaries = compare([study.trace], settings, executor=executor, on_site=on_site).summaries
    shared, whole = (
        _in_total(recipe_totals(each)) for each in (at_shared_sites(summaries), summaries)
    )
    return {
        each.name: _scores(shared.get(each.name), whole.get(each.name)) for each in study.recipes
    }


def _in_total(totals: Iterable[RecipeTotal]) -> Mapping[str, RecipeTotal]:
    return {total.recipe: total for total in totals if total.tensor is None}


def _scores(shared: RecipeTotal | None, whole: RecipeTotal | None) -> Scores:
    noise = whole.noise if whole else None
    if shared is None:
        return Scores(None, None, noise)
    return Scores(shared.sqnr_db, shared.cosine, noise)
