"""Comparing quantizers on traces: choose sites, replay each, collect the results."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import NamedTuple

from hqtool.compare.execute import Beside, Executor, SiteResult, Task, serial
from hqtool.compare.recipe_sites import RecipeSites, SiteQuantizer, classes_of, recipe_sites
from hqtool.compare.results import Summary
from hqtool.compare.settings import ReplaySettings
from hqtool.errors import DataError, UsageError
from hqtool.nearest import known_names
from hqtool.recipes.recipe import Recipe
from hqtool.trace.overview import SiteSummary
from hqtool.trace.ranks import Ranks, RanksReader, ranks_of_one_run
from hqtool.trace.reader import Prefix, TraceReader
from hqtool.vocab import TENSOR_KINDS, Site


@dataclass(frozen=True, slots=True)
class Selection:
    """Which sites to take.

    Args:
        layers: globs on layer names, any of which must match; empty takes all.
        tensors: tensor kinds; empty takes all.

    Raises:
        UsageError: an unknown tensor kind.
    """

    layers: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for kind in self.tensors:
            if kind not in TENSOR_KINDS:
                remedy = known_names(kind, TENSOR_KINDS)
                raise UsageError(f"unknown tensor kind '{kind}'", remedy)

    def takes(self, site: Site) -> bool:
        """Whether a site is chosen."""
        by_layer = not self.layers or any(fnmatchcase(site.layer, glob) for glob in self.layers)
        return by_layer and (not self.tensors or site.tensor in self.tensors)

    def check(self, sites: Sequence[Site]) -> None:
        """Refuse a selection that chooses nothing.

        Raises:
            UsageError: a glob matches no layer, or all together leave no site.
        """
        for glob in self.layers:
            if not any(fnmatchcase(site.layer, glob) for site in sites):
                raise UsageError(f"no layer matches '{glob}'", _some_layers(sites))
        if sites and not any(map(self.takes, sites)):
            kinds = ", ".join(dict.fromkeys(site.tensor for site in sites))
            raise UsageError("no site is selected", f"tensor kinds in the trace: {kinds}")


def _some_layers(sites: Sequence[Site]) -> str:
    names = list(dict.fromkeys(site.layer for site in sites))
    return f"layers in the trace: {', '.join(names[:6])}{', …' if len(names) > 6 else ''}"


@dataclass(frozen=True, slots=True)
class TraceFacts:
    """What a comparison reports of each trace it read."""

    path: str
    state: str
    steps: int
    sites: int


@dataclass(frozen=True, slots=True)
class RanksFacts:
    """What a comparison reports of ranks that it took together.

    Args:
        records: how many records of the selected sites all ranks have together.
        sites_left_out: how many selected sites some rank lacks.
    """

    ranks: Ranks
    records: int
    sites_left_out: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """The results of one compare, sites in the order of their traces.

    Args:
        ranks: None where each trace was taken on its own.
        recipes: what they give the sites of each trace, or of all ranks together.
    """

    traces: tuple[TraceFacts, ...]
    selection: Selection
    settings: ReplaySettings
    results: tuple[SiteResult, ...]
    ranks: RanksFacts | None = None
    recipes: tuple[RecipeSites, ...] = ()

    @property
    def records_left_out(self) -> int:
        """How many of `ranks.records` were left out, because some rank lacks them."""
        if self.ranks is None:
            return 0
        joint = sum(result.summaries[0].records for result in self.results)
        return self.ranks.records - joint * len(self.ranks.ranks.given)

    @property
    def summaries(self) -> list[Summary]:
        """Every site's summaries, those of recipes included, one list."""
        return [summary for result in self.results for summary in result.summaries]


def compare(
    paths: Sequence[str],
    settings: ReplaySettings,
    selection: Selection = Selection(),
    executor: Executor = serial,
    on_site: Callable[[int, int], None] = lambda done, of: None,
    on_spool: Callable[[str], None] | None = None,
    spool_folder: str | None = None,
    *,
    reduce_ranks: bool = False,
    on_warning: Callable[[str], None] = lambda line: None,
    beside: Beside | None = None,
) -> Comparison:
    """Replay the selected sites of every trace, as far as it is committed now.

    Args:
        executor: how to run the replay of each site; the results do not depend on it.
        on_site: called with (sites done, sites in all) as they end.
        on_spool: called with the path of each site's scored records (JSON lines), in the order
            of sites; the file is gone afterwards.
        spool_folder: the folder of those files.
        reduce_ranks: the traces are ranks of one run; replay their joint records.
        on_warning: called with what limits the results, before the work begins.
        beside: what else to make of each site's history; its results are `SiteResult.beside`.

    Raises:
        DataError: a trace is missing, broken or empty; or those to be reduced do not belong
            together.
        UsageError: the selection chooses nothing, there is but one rank to reduce, or a file is
            given twice.
    """
    if not reduce_ranks:
        require_different(paths)
    recipes = settings.recipes
    survey = _survey_ranks(paths, recipes, selection) if reduce_ranks else _survey(paths, recipes)
    if survey.ranks is not None and (gap := survey.ranks.ranks.gap):
        on_warning(f"{gap}: ranges are those of the others")
    tasks = [replace(task, beside=beside) for task in _tasks(survey, settings, selection)]
    with tempfile.TemporaryDirectory(prefix=".hqtool-", dir=spool_folder) as folder:
        if on_spool is not None:
            tasks = [
                replace(task, spool=os.path.join(folder, f"{i}.jsonl"))
                for i, task in enumerate(tasks)
            ]
        results = []
        for result in _in_order(executor(tasks), lambda done: on_site(done, len(tasks))):
            results.append(result)
            if on_spool is not None and result.task.spool is not None:
                on_spool(result.task.spool)
                os.unlink(result.task.spool)
    return Comparison(
        survey.traces, selection, settings, tuple(results), survey.ranks, survey.recipes
    )


def require_different(paths: Sequence[str]) -> None:
    """Refuse a file that is given twice, be it under another name.

    Raises:
        UsageError: names both.
    """
    met: dict[tuple[int, int], str] = {}
    for path in paths:
        try:
            found = os.stat(path)
        except OSError:
            continue  # opening it will report the error
        first = met.setdefault((found.st_dev, found.st_ino), path)
        if first is not path or paths.count(path) > 1:
            cause = f"{first} and {path} are the same file"
            raise UsageError(cause, "give each trace once")


class _Found(NamedTuple):
    """A site, the traces that its records come from, and what each recipe gives it."""

    traces: tuple[Prefix, ...]
    summary: SiteSummary
    given: tuple[SiteQuantizer, ...]


@dataclass(frozen=True, slots=True)
class _Survey:
    """The sites that can be replayed.

    Args:
        recipes: what they give the sites of each trace, or of all ranks together.
    """

    traces: tuple[TraceFacts, ...]
    found: tuple[_Found, ...]
    recipes: tuple[RecipeSites, ...]
    ranks: RanksFacts | None = None


def _survey(paths: Sequence[str], recipes: Sequence[Recipe]) -> _Survey:
    """The sites of every trace on its own."""
    facts: list[TraceFacts] = []
    found: list[_Found] = []
    given: list[RecipeSites] = []
    for path in paths:
        with TraceReader(path) as reader:
            facts.append(_facts_of(reader))
            given.append(_given(reader, recipes))
            found += _found((reader.prefix,), reader.overview(), given[-1])
    return _Survey(tuple(facts), tuple(found), tuple(given))


def _survey_ranks(paths: Sequence[str], recipes: Sequence[Recipe], selection: Selection) -> _Survey:
    """The sites of the traces as ranks of one run, taken together."""
    if len(paths) < 2:
        raise UsageError("--reduce-ranks takes two traces or more", "give those of all ranks")
    with RanksReader(paths) as reader:
        ranks = ranks_of_one_run(reader.traces)
        overview, shared = reader.overview(), set(reader.sites)
        prefixes = tuple(trace.prefix for trace in reader.traces)
        facts = tuple(map(_facts_of, reader.traces))
        given = _given(reader, recipes)
    found = _found(prefixes, [each for each in overview if each.site in shared], given)
    if overview and not found:
        cause = f"no site is in all {len(paths)} traces"
        raise DataError(cause, "record the same layers and tensors on every rank")
    taken = [summary for summary in overview if selection.takes(summary.site)]
    together = RanksFacts(
        ranks=ranks,
        records=sum(summary.records for summary in taken),
        sites_left_out=sum(summary.site not in shared for summary in taken),
    )
    return _Survey(facts, tuple(found), (given,), together)


def _given(reader: TraceReader | RanksReader, recipes: Sequence[Recipe]) -> RecipeSites:
    return recipe_sites(recipes, reader.sites, lambda layer: classes_of(reader, layer))


def _found(
    traces: tuple[Prefix, ...], overview: Iterable[SiteSummary], recipes: RecipeSites
) -> list[_Found]:
    return [_Found(traces, summary, recipes.given[summary.site]) for summary in overview]


def _facts_of(reader: TraceReader) -> TraceFacts:
    return TraceFacts(reader.path, reader.state, len(reader.steps), len(reader.sites))


def _tasks(survey: _Survey, settings: ReplaySettings, selection: Selection) -> list[Task]:
    """A task for each selected site."""
    if not survey.found:
        paths = ", ".join(facts.path for facts in survey.traces)
        raise DataError(f"{paths}: nothing was recorded", "see: hqtool info TRACE")
    selection.check([each.summary.site for each in survey.found])
    return [
        Task(
            each.traces,
            each.summary.site,
            settings,
            seconds=_expected_seconds(each.summary, settings),
            given=each.given,
        )
        for each in survey.found
        if selection.takes(each.summary.site)
    ]


def _expected_seconds(summary: SiteSummary, settings: ReplaySettings) -> float:
    """Seconds a site may take: 3 ns a byte, 1 µs a decision; to score 0.5 ms, 30 µs a quantizer."""
    decisions = summary.records * (len(settings.estimators) + len(settings.recipes))
    lanes = summary.with_values * (len(settings.quantizers) + len(settings.recipes))
    prepared = summary.payload_bytes * 3e-9 + summary.with_values * 5e-4
    return prepared + decisions * 1e-6 + lanes * 3e-5


def _in_order(
    results: Iterator[tuple[int, SiteResult]], on_done: Callable[[int], None]
) -> Iterator[SiteResult]:
    """Results in the order of their tasks, each as soon as all earlier ones have been yielded."""
    waiting: dict[int, SiteResult] = {}
    awaited = 0
    for done, (index, result) in enumerate(results, start=1):
        waiting[index] = result
        on_done(done)
        while awaited in waiting:
            yield waiting.pop(awaited)
            awaited += 1
