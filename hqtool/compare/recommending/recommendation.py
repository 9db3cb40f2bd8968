"""Recommending: replay all candidates at once, then choose for each site."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hqtool.compare.comparison import Comparison, Selection, compare
from hqtool.compare.execute import Executor, SiteResult, serial
from hqtool.compare.recommending.choosing import SiteChoice, choose
from hqtool.compare.recommending.outcomes import NONE, NONE_BITS, Outcome, measured, untouched
from hqtool.compare.recommending.sensitivity import Loss, sensitivity
from hqtool.compare.recommending.targets import Condition, Within
from hqtool.compare.recommending.totals import Total, totals
from hqtool.compare.results import Summary
from hqtool.compare.settings import ReplaySettings
from hqtool.errors import UsageError
from hqtool.estimators.quantizer import Quantizer, parse_quantizer, sweep_quantizers
from hqtool.traffic.bill import DEFAULT_BITS
from hqtool.vocab import Site

#: The candidates where none are given.
DEFAULT_CANDIDATES = (
    "hindsight@int4",
    "local@mxfp4",
    "hindsight@nvfp4",
    "current@nvfp4",
    "hindsight@int6",
    "local@mxfp6-e2m3",
    "hindsight@int8",
    "delayed@e4m3",
    "local@mxfp8",
    "current@int8",
)

#: The quantizer that sites are ranked at where none is given.
DEFAULT_SENSITIVITY = "hindsight@int4"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of the traces.

    Args:
        candidates: quantizers to choose from; None is leaving the tensor as it is.
        conditions: all of which must hold; empty: nothing is chosen.
        ranked_at: the quantizer at which sites are ranked by what it costs; None: they are not.

    Raises:
        UsageError: there is nothing to answer, or nothing to choose from.
    """

    candidates: tuple[Quantizer | None, ...]
    conditions: tuple[Condition, ...]
    ranked_at: Quantizer | None = None

    def __post_init__(self) -> None:
        if not self.conditions and self.ranked_at is None:
            remedy = "give --target METRIC>=VALUE, such as 'cosine>=0.999', or --within 1dB"
            raise UsageError("nothing says what is good enough", remedy)
        if self.conditions and not any(self.candidates):
            raise UsageError("there is no quantizer to choose from", "name one beside none")

    @property
    def quantizers(self) -> tuple[Quantizer, ...]:
        """All that must be replayed, each once: candidates, what they are compared with, ranked."""
        asked = [*self._choosable, *self.references().values()]
        asked += [self.ranked_at] if self.ranked_at else []
        return tuple({quantizer.label: quantizer for quantizer in asked}.values())

    @property
    def labels(self) -> tuple[str, ...]:
        """The candidates' labels."""
        return tuple(each.label if each else NONE for each in self.candidates)

    @property
    def judged_by(self) -> str:
        """The figure that stands for quality: that of the first condition."""
        return self.conditions[0].metric if self.conditions else "sqnr_db"

    @property
    def _choosable(self) -> list[Quantizer]:
        return [each for each in self.candidates if each] if self.conditions else []

    def references(self) -> dict[tuple[str, str], Quantizer]:
        """(label of a condition, label of a candidate) → what it is compared with."""
        return {
            (condition.label, candidate.label): _reference(condition, candidate)
            for condition in self.conditions
            if isinstance(condition, Within)
            for candidate in self._choosable
        }


def _reference(condition: Within, candidate: Quantizer) -> Quantizer:
    """What a condition compares a candidate with."""
    if condition.of is not None:
        return parse_quantizer(condition.of)
    if not candidate.format.value.needs_range:
        return candidate
    rounding = "" if candidate.rounding == "nearest" else f"/{candidate.rounding}"
    return parse_quantizer(f"current@{candidate.format.label}{rounding}")


def candidates_of(texts: Sequence[str]) -> tuple[Quantizer | None, ...]:
    """The candidates that specs spell out, each once, in order; 'none' is one, too.

    Raises:
        UsageError: a text is no quantizer.
    """
    found: dict[str, Quantizer | None] = {}
    for text in texts:
        if text.strip() == NONE:
            found[NONE] = None
        else:
            found |= {each.label: each for each in sweep_quantizers(text)}
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What is recommended, and why.

    Args:
        sites: one choice for each site; empty where nothing was to be chosen.
        totals: the mixed choice first, then the uniform ones.
        losses: the sites ranked at `question.ranked_at`; empty where that was not asked.
        estimated: how many sites' bytes are those of the tensor alone, for want of a bill.
    """

    comparison: Comparison
    question: Question
    sites: tuple[SiteChoice, ...]
    totals: tuple[Total, ...]
    losses: tuple[Loss, ...]
    estimated: int = 0

    @property
    def unmet(self) -> list[SiteChoice]:
        """The sites at which no candidate is good enough."""
        return [site for site in self.sites if not site.met]


def recommend(
    paths: Sequence[str],
    question: Question,
    settings: ReplaySettings,
    selection: Selection | None = None,
    executor: Executor = serial,
    on_site: Callable[[int, int], None] = lambda done, of: None,
    *,
    reduce_ranks: bool = False,
    on_warning: Callable[[str], None] = lambda line: None,
) -> Recommendation:
    """Replay the question's quantizers over the selected sites, and answer it.

    Args:
        settings: with `question.quantizers`; all others as in `compare`.
        selection: None takes all sites.

    Raises:
        DataError, UsageError: as `compare`.
    """
    comparison = compare(
        paths,
        settings,
        selection or Selection(),
        executor,
        on_site,
        reduce_ranks=reduce_ranks,
        on_warning=on_warning,
    )
    return answer(comparison, question)


def answer(comparison: Comparison, question: Question) -> Recommendation:
    """What the replay of a question's quantizers recommends.

    A site that several traces have is one: a quantizer must be good enough in each of them.
    """
    parts: dict[Site, list[SiteResult]] = {}
    for result in comparison.results:
        parts.setdefault(result.task.site, []).append(result)
    of_site = {site: _outcomes(results, question) for site, results in parts.items()}
    chosen = (
        [_choice(site, outcomes, question) for site, outcomes in of_site.items()]
        if question.conditions
        else []
    )
    at = question.ranked_at
    losses = sensitivity([(site, out[at.label]) for site, out in of_site.items()]) if at else []
    return Recommendation(
        comparison,
        question,
        tuple(chosen),
        tuple(totals(chosen, question.judged_by)) if chosen else (),
        tuple(losses),
        sum(any(map(_has_no_bill, results)) for results in parts.values()),
    )


def _has_no_bill(result: SiteResult) -> bool:
    return any(s.replayed and s.traffic_bytes is None for s in result.summaries)


def _choice(site: Site, outcomes: Mapping[str, Outcome], question: Question) -> SiteChoice:
    references = {key: outcomes[q.label] for key, q in question.references().items()}
    candidates = [outcomes[label] for label in question.labels]
    return choose(site, candidates, outcomes[NONE], question.conditions, references)


def _outcomes(results: Sequence[SiteResult], question: Question) -> dict[str, Outcome]:
    """Label → outcome at one site, from its replay in each trace; and that of `none`."""
    lanes = list(zip(*(result.summaries for result in results), strict=True))
    per_step = [_records_a_step(summary) / len(results) for summary in lanes[0]]
    found = {
        quantizer.label: _outcome(quantizer.label, lane, per_step)
        for quantizer, lane in zip(question.quantizers, lanes, strict=True)
    }
    like = next(iter(found.values()))
    unquantized = [unquantized_bytes(summary) for summary in lanes[0]]
    bytes_ = math.fsum(map(operator.mul, unquantized, per_step))
    return found | {NONE: Outcome(NONE, NONE_BITS, bytes_, untouched(like.figures))}


def _records_a_step(s: Summary) -> float:
    """Mean number of records in a step that has some."""
    return s.replayed / s.replayed_steps if s.replayed_steps else 1.0


def _outcome(label: str, lane: Sequence[Summary], per_step: Sequence[float]) -> Outcome:
    replayed = sum(summary.replayed for summary in lane)
    return Outcome(
        quantizer=label,
        bits=lane[0].bits,
        bytes=math.fsum(moved_bytes(s) * times for s, times in zip(lane, per_step, strict=True)),
        figures=tuple(measured(s.metrics, s.sqnr_db_low, exact=s.exact) for s in lane),
        looked=sum(summary.looks for summary in lane) / replayed if replayed else 0.0,
    )


def moved_bytes(s: Summary) -> float:
    """Mean bytes that a record moves: its bill as replayed, looks included.

    Where no bill is defined, those of the tensor alone: each element once, and at a look its
    accumulator's output twice, and once more for each pass of a search.
    """
    if s.traffic_bytes is not None:
        return s.traffic_bytes
    return (s.elements * s.bits + s.spilled * DEFAULT_BITS.acc) / 8


def unquantized_bytes(s: Summary) -> float:
    """As `moved_bytes`, of a tensor that is left as it is: static, with 32 bits an element."""
    if s.static_bytes is not None:
        return s.static_bytes * NONE_BITS / s.bits
    return s.elements * NONE_BITS / 8
