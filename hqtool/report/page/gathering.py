"""From inputs to the material of a page: the replay that it needs, and the sites' pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from hqtool.compare.comparison import Comparison, Selection, compare
from hqtool.compare.execute import Executor, serial
from hqtool.compare.recommending.recommendation import (
    DEFAULT_SENSITIVITY,
    Question,
    Recommendation,
    answer,
)
from hqtool.compare.recommending.targets import Condition
from hqtool.compare.settings import ReplaySettings
from hqtool.estimators.quantizer import Quantizer, parse_quantizer
from hqtool.report.info import run_facts
from hqtool.report.page.inputs import Inputs
from hqtool.report.page.material import Material, Run
from hqtool.report.page.picture import Scored, Seen, SitePicture, picture_of, scored_of, seen_of
from hqtool.report.page.rebuilt import comparison_of
from hqtool.trace.reader import TraceReader
from hqtool.vocab import TENSOR_KINDS, Site

#: What is replayed where nothing is said: the paper's estimators at 8 bits, in-hindsight and
#: current at fewer, and the formats that recipes of today are made of.
DEFAULT_QUANTIZERS = (
    "hindsight@int8",
    "current@int8",
    "running@int8",
    "delayed@e4m3",
    "hindsight@nvfp4",
    "local@mxfp8",
    "hindsight@int6",
    "current@int6",
    "hindsight@int4",
    "current@int4",
    "current@nvfp4",
    "local@mxfp6-e2m3",
    "local@mxfp4",
)

#: The errors of so many quantizers, the first ones, are drawn over steps.
MOST_DRAWN = 6

#: About so many records are drawn of all sites together, and at least and at most of each.
ALL_POINTS, FEWEST_POINTS, MOST_POINTS = 8_000, 24, 400


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for.

    Args:
        command: as it was typed.
        settings: of the replay; without effect on a comparison that is given.
        conditions: what is good enough.
        chosen_here: the quantizers are this command's own default.
    """

    command: str
    settings: ReplaySettings
    selection: Selection
    conditions: tuple[Condition, ...]
    reduce_ranks: bool = False
    chosen_here: bool = False


OnSite = Callable[[int, int], None]
OnWarning = Callable[[str], None]


def gather(
    inputs: Inputs,
    request: Request,
    executor: Executor = serial,
    on_site: OnSite = lambda done, of: None,
    on_warning: OnWarning = lambda line: None,
) -> Material:
    """Everything that the page shows.

    Raises:
        DataError: a trace is broken, or a comparison cannot be read.
        UsageError: as `compare`.
    """
    given = None if inputs.compared is None else comparison_of(inputs.compared)
    settings = request.settings if given is None else given.settings
    drawn = (settings.quantizers or request.settings.quantizers)[:MOST_DRAWN]
    comparison, looks = given, list[_Look]()
    if inputs.traces:
        asked = settings if given is None else replace(request.settings, quantizers=drawn)
        replayed, looks = _replayed(
            inputs.traces, request, asked, drawn, executor, on_site, on_warning
        )
        comparison = given or replayed
    recommended = _recommended(comparison, request.conditions)
    return Material(
        command=request.command,
        runs=[_run(path) for path in inputs.traces],
        comparison=comparison,
        recommendation=recommended,
        drawn=drawn,
        pictures=_pictures(looks, drawn[0], recommended),
        bill=inputs.bill,
        studies=inputs.studies,
        chosen_here=request.chosen_here and given is None,
    )


def _run(path: str) -> Run:
    with TraceReader(path, recent=1) as reader:
        return Run(path, reader.run, run_facts(reader, reader.state))


class _Look(NamedTuple):
    """What was seen of a site in the replay, and how its quantizers scored."""

    run: int
    seen: Seen
    scored: Scored


def _replayed(
    paths: Sequence[str],
    request: Request,
    settings: ReplaySettings,
    drawn: Sequence[Quantizer],
    executor: Executor,
    on_site: OnSite,
    on_warning: OnWarning,
) -> tuple[Comparison, list[_Look]]:
    """The comparison of the traces, and what was seen of each of its sites."""
    scored: list[Scored] = []

    def keep(spool: str) -> None:
        with open(spool, encoding="utf-8") as lines:
            scored.append(scored_of(lines, drawn, MOST_POINTS))

    found = compare(
        paths,
        settings,
        request.selection,
        executor,
        on_site,
        keep,
        reduce_ranks=request.reduce_ranks,
        on_warning=on_warning,
        beside=partial(
            seen_of, estimated=_one_for_each_estimator(settings.quantizers), points=MOST_POINTS
        ),
    )
    runs = list(dict.fromkeys(result.task.traces for result in found.results))
    looks = [
        _Look(runs.index(result.task.traces), result.beside, its)
        for result, its in zip(found.results, scored, strict=True)
    ]
    bare = tuple(replace(result, beside=None) for result in found.results)
    return replace(found, results=bare), looks


def points_of(sites: int) -> int:
    """About how many records to draw of each site."""
    return max(FEWEST_POINTS, min(MOST_POINTS, ALL_POINTS // max(sites, 1)))


def _pictures(
    looks: Sequence[_Look], usual: Quantizer, recommended: Recommendation | None
) -> list[SitePicture]:
    """The picture of every site, by run and tensor kind.

    Args:
        usual: whose levels are drawn where nothing is recommended.
    """
    chosen = {} if recommended is None else _chosen(recommended)
    kinds, points = list(TENSOR_KINDS), points_of(len(looks))
    found = [
        picture_of(look.run, look.seen, look.scored, chosen.get(look.seen.site) or usual, points)
        for look in looks
    ]
    return sorted(found, key=lambda each: (each.run, kinds.index(each.site.tensor)))


def _chosen(recommended: Recommendation) -> dict[Site, Quantizer | None]:
    known = {each.label: each for each in recommended.question.quantizers}
    return {each.site: known.get(each.chosen.quantizer) for each in recommended.sites}


def _one_for_each_estimator(quantizers: Iterable[Quantizer]) -> list[Quantizer]:
    """The first quantizer of each estimator that gives a range."""
    found: dict[str, Quantizer] = {}
    for each in quantizers:
        if each.format.value.needs_range:
            found.setdefault(each.estimator.label, each)
    return list(found.values())[:MOST_DRAWN]


def _recommended(
    comparison: Comparison | None, conditions: tuple[Condition, ...]
) -> Recommendation | None:
    """The cheapest of what was compared that is good enough; None where only recipes were."""
    if comparison is None or not comparison.settings.quantizers:
        return None
    known = {each.label: each for each in comparison.settings.quantizers}
    usual = known.get(parse_quantizer(DEFAULT_SENSITIVITY).label)
    lowest = min(known.values(), key=lambda each: each.bits)
    question = Question(tuple(known.values()), conditions, usual or lowest)
    return answer(_without_recipes(comparison), question)


def _without_recipes(comparison: Comparison) -> Comparison:
    results = [
        replace(result, summaries=[s for s in result.summaries if s.recipe is None])
        for result in comparison.results
    ]
    return replace(comparison, results=tuple(results))
