"""Notes on the limits of a comparison's figures."""

from __future__ import annotations

from collections.abc import Iterable

from hqtool.compare.comparison import Comparison, RanksFacts
from hqtool.compare.results import Summary
from hqtool.compare.unquantized import NONE
from hqtool.report.compared.naming import lane_label
from hqtool.report.compared.recipes import listed, recipe_notes
from hqtool.report.model import percent
from hqtool.sizes import counted
from hqtool.vocab import FORWARD

#: Networks failed to train whose gradients had a mean gain of 0.8 and less (2-bit DSGC), while
#: those at 0.83 and more trained as replay foretold: `benchmarks/truth.md`.
LEAST_GAIN = 0.8


def notes_on(comparison: Comparison, *, billed: bool = False) -> list[str]:
    """One sentence each.

    Args:
        billed: traffic is shown of every site, be it estimated.
    """
    notes = list(dict.fromkeys(note for note in _possible_notes(comparison) if note))
    return notes if billed else [*notes, *_unbilled_notes(comparison)]


def _possible_notes(comparison: Comparison) -> Iterable[str]:
    all_ = [s for s in comparison.summaries if s.estimator != NONE]
    scored, replayed = (sum(getattr(s, name) for s in all_) for name in ("steps", "replayed"))
    sampled = sum(s.sampled for s in all_)
    if comparison.ranks is not None:
        yield from _rank_notes(comparison, comparison.ranks)
    for facts in comparison.traces:
        if facts.state != "complete":
            yield f"{facts.path} is {facts.state}: read up to its last committed step"
    unscored = sum(s.unscored for s in all_)
    yield _nonfinite_note(all_)
    if all_ and not scored and not unscored:
        yield f"nothing was scored: {_no_values(comparison.settings.calibrate)}"
    elif scored < replayed:
        yield (
            f"{percent(scored / replayed)} of the records have values and are scored; "
            "looks and traffic count all of them"
        )
    if sampled:
        yield (
            f"{percent(sampled / scored)} of the scored records are samples of larger tensors: "
            f"their metrics are estimates, {_exactness(all_)}"
        )
    if unscored:
        yield (
            f"{percent(unscored / (scored + unscored))} of the records with values could not be "
            "scored: they hold nothing finite, nothing finite came before, or the sample kept of "
            "them does not tell what the estimator asks"
        )
    if exact := sum(s.exact_steps for s in all_ if not s.exact):
        yield (
            f"{percent(exact / scored)} of the scored records have no error at all: the means in "
            "dB are over the others"
        )
    yield _all_zero_note(all_)
    for name in dict.fromkeys(s.estimator for s in all_ if s.postponed):
        yield (
            f"{name}: searches that fell on records without values "
            "happened at the next record that has them"
        )
    for recipes in comparison.recipes if comparison.settings.recipes else ():
        yield from recipe_notes(recipes)
    yield from _missed_notes(all_)
    yield _shrunk_note(all_)


def _no_values(calibrate: int) -> str:
    """Why there is nothing to score, and what to do."""
    if calibrate:
        return f"no values were recorded after the {counted(calibrate, 'step')} of --calibrate"
    return "the trace has statistics alone; hqtool capture --every N records values"


def _exactness(summaries: Iterable[Summary]) -> str:
    """Which ranges are exact where samples were kept."""
    if any("per=" in s.estimator and "per=tensor" not in s.estimator for s in summaries):
        return (
            "ranges of whole tensors are exact; those of channels, samples and rows are of the "
            "values kept, unless --per-channel recorded them"
        )
    return "ranges are exact"


def _missed_notes(summaries: Iterable[Summary]) -> Iterable[str]:
    """A note on each estimator that could not learn from some steps, by its worst site."""
    worst: dict[str, Summary] = {}
    for s in summaries:
        if s.missed_steps:
            known = worst.setdefault(s.estimator, s)
            worst[s.estimator] = max(known, s, key=lambda s: s.missed_steps)
    for name, s in worst.items():
        steps = s.learned_steps + s.missed_steps
        remedy = (
            "; capture --per-channel records what it needs at every step"
            if "per=channel" in name and not name.startswith("std")
            else ""
        )
        yield (
            f"{name} learned from {s.learned_steps} of {steps} steps at {s.layer}/{s.tensor}: "
            f"the others have statistics of the whole tensor alone, so in training it would know "
            f"more{remedy}"
        )


def _shrunk_note(summaries: Iterable[Summary]) -> str:
    """A note on quantizers that shrink gradients; '' where there are none.

    An error of random sign averages out over steps; that of a gain below 1 is the same at every
    step, and gains of one layer after the other multiply.
    """
    gains: dict[str, list[float]] = {}
    for s in summaries:
        if s.tensor not in FORWARD and (gain := s.metrics["gain"]) is not None:
            gains.setdefault(lane_label((s.estimator, s.format, s.rounding)), []).append(gain)
    shrunk = [name for name, each in gains.items() if min(each) < LEAST_GAIN]
    if not shrunk:
        return ""
    verb = "shrinks" if len(shrunk) == 1 else "shrink"
    return (
        f"{listed(shrunk)} {verb} gradients (gain below {LEAST_GAIN}), which adds up over layers "
        "and steps as replay does not show: hqtool study trains with it"
    )


def _unbilled_notes(comparison: Comparison) -> Iterable[str]:
    if any(s.replayed and s.static_bytes is None for s in comparison.summaries):
        yield "traffic is missing (–) where the trace has no layer geometry or the kind no bill"


def _nonfinite_note(summaries: Iterable[Summary]) -> str:
    """A note on where NaN and infinities were recorded; '' where there are none."""
    sites = {(s.layer, s.tensor): s for s in summaries if s.nonfinite_records}
    if not sites:
        return ""
    first = min(s.nonfinite_step for s in sites.values() if s.nonfinite_step is not None)
    worst = sorted(sites.values(), key=lambda s: -s.nonfinite_records / s.records)[:3]
    named = ", ".join(
        f"{s.layer}/{s.tensor} {percent(s.nonfinite_records / s.records)}" for s in worst
    )
    return (
        f"NaN or infinities were recorded, first at step {first}, at "
        f"{counted(len(sites), 'site')}; by share of records that hold some: {named}"
    )


def _all_zero_note(summaries: Iterable[Summary]) -> str:
    """A note on sites whose tensors are mostly all zero; '' where there are none."""
    shares = {
        f"{s.layer}/{s.tensor}": s.all_zero / s.replayed
        for s in summaries
        if s.replayed and 2 * s.all_zero >= s.replayed
    }
    if not shares:
        return ""
    worst = max(shares, key=shares.__getitem__)
    return (
        f"tensors that are all zero teach an estimator nothing: they are half the records or more "
        f"at {counted(len(shares), 'site')}, {percent(shares[worst])} at {worst}"
    )


def _rank_notes(comparison: Comparison, facts: RanksFacts) -> Iterable[str]:
    yield f"{facts.ranks} taken together: ranges and metrics are of all, traffic is of one"
    if facts.sites_left_out:
        yield f"sites left out because some rank lacks them: {facts.sites_left_out}"
    if comparison.records_left_out:
        yield (
            f"records left out because some rank lacks them: {comparison.records_left_out} "
            f"of the ranks' {facts.records}"
        )
