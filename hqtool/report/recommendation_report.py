"""The report of a recommendation: what was chosen, why the rest fell out, and what it comes to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from hqtool.compare.recommending.choosing import SiteChoice, Verdict
from hqtool.compare.recommending.outcomes import NONE, Outcome, mean_figure
from hqtool.compare.recommending.recommendation import Recommendation
from hqtool.compare.recommending.sensitivity import Loss
from hqtool.compare.recommending.targets import FIGURES, Measured, Target, Within
from hqtool.compare.recommending.totals import Total
from hqtool.report.compared.notes import notes_on
from hqtool.report.compared.rows import in_json
from hqtool.report.model import EXACT, Column, Report, Table, TableRow, decibels, percent
from hqtool.sizes import binary_bytes, counted
from hqtool.vocab import TENSOR_KINDS

SCHEMA = "hqtool.recommend/1"

#: How many dB the worst tenth of records may be below the target of the mean without being told.
BAD_START_DB = 3

_NAMES = {"sqnr_db": "SQNR dB", "sqnr_db_low": "low dB", "saturation": "saturated"}


def _six_digits(value: float) -> str:
    return f"{value:.6f}"


_SHOWN: dict[str, Callable[[Any], str]] = {
    **dict.fromkeys(("sqnr_db", "sqnr_db_low"), decibels),
    **dict.fromkeys(("saturation", "underflow", "nonfinite"), percent),
    **dict.fromkeys(("cosine", "norm_ratio", "gain"), _six_digits),
    **dict.fromkeys(("mse", "noise"), "{:.3g}".format),
}


def _figure_column(name: str) -> Column:
    return Column(name, _NAMES.get(name, name), _SHOWN[name])


QUANTIZER = Column("quantizer", "quantizer", number=False)
BITS = Column("bits", "bits", lambda bits: f"{bits:g}")
BYTES = Column("bytes", "KiB a step", lambda amount: f"{amount / 1024:,.1f}")

COUNT_COLUMNS = (
    QUANTIZER,
    BITS,
    Column("chosen", "chosen"),
    Column("dearer", "dearer"),
    Column("missed", "missed"),
)


def recommendation_report(found: Recommendation, by: str = "tensor") -> Report:
    """Tables per tensor kind, the totals and the sites ranked, and all figures.

    Args:
        by: 'layer' also shows what each site gets.
    """
    chosen = [_chosen_row(choice, found) for choice in found.sites]
    candidates = _candidate_rows(found)
    totals = [_total_row(total, len(found.sites)) for total in found.totals]
    ranked = [_loss_row(loss, found) for loss in found.losses]
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "trace": [asdict(facts) for facts in found.comparison.traces],
        "settings": _settings(found),
        "chosen": [in_json(row) for row in chosen],
        "candidates": [in_json(row) for row in candidates],
        "totals": [in_json(row) for row in totals],
        "pareto": [in_json(row) for row in _front(totals)],
        "sensitivity": [in_json(row) for row in ranked],
    }
    return Report(
        document=document,
        rows=[_flat(row) for row in chosen or ranked],
        tables=[
            *_kind_tables(found, candidates),
            *(_layer_tables(chosen) if by == "layer" else []),
            *_total_tables(found, totals),
            *_loss_tables(found, ranked),
        ],
        closing=" ".join(_sentences(found)),
        notes=[*_notes(found), *notes_on(found.comparison, billed=True)],
    )


def _settings(found: Recommendation) -> dict[str, Any]:
    """Those of the replay, and the question."""
    question, comparison = found.question, found.comparison
    settings, selection = comparison.settings, comparison.selection
    return {
        "quantizers": [quantizer.label for quantizer in settings.quantizers],
        "calibrate": settings.calibrate,
        "seed": settings.seed,
        "loss_scale": settings.loss_scale,
        "reduce_ranks": comparison.ranks is not None,
        "layers": list(selection.layers),
        "tensors": list(selection.tensors),
        "candidates": list(question.labels) if question.conditions else [],
        "targets": [c.label for c in question.conditions],
        "judged_by": question.judged_by,
        "sensitivity": question.ranked_at.label if question.ranked_at else None,
    }


# --- rows ---------------------------------------------------------------------------------------


def _shown(figures: Measured) -> dict[str, float | str | None]:
    """Figures for a row: an infinite SQNR is 'exact'."""
    return {name: EXACT if f == math.inf else f for name, f in figures.items()}


def _flat(row: TableRow) -> dict[str, Any]:
    """A row for CSV, without what has rows of its own."""
    return {key: v for key, v in in_json(row).items() if not isinstance(v, dict)}


def _figures(outcome: Outcome) -> dict[str, Any]:
    figures = {name: outcome.figure(name) for name in FIGURES}
    return _shown(figures) | {"exact": figures["sqnr_db"] == math.inf}


def _chosen_row(choice: SiteChoice, found: Recommendation) -> dict[str, Any]:
    outcome = choice.chosen
    return {
        "layer": choice.site.layer,
        "tensor": choice.site.tensor,
        **_parts(outcome.quantizer, found),
        "bits": outcome.bits,
        "met": choice.met,
        "why": _why(choice, found),
        **_figures(outcome),
        "looked": outcome.looked,
        "bytes": outcome.bytes,
        "unquantized_bytes": choice.unquantized.outcome.bytes,
        "rejected": {
            v.outcome.quantizer: _reason(v, choice)
            for v in choice.verdicts
            if v.outcome is not outcome
        },
    }


def _parts(label: str, found: Recommendation) -> dict[str, str | None]:
    """A quantizer by its label and by its parts; `none` has no parts."""
    quantizer = next((q for q in found.question.quantizers if q.label == label), None)
    return {
        "quantizer": label,
        "estimator": quantizer.estimator.label if quantizer else None,
        "format": quantizer.format.label if quantizer else None,
        "rounding": quantizer.rounding if quantizer else None,
    }


def _why(choice: SiteChoice, found: Recommendation) -> str:
    if not choice.scored:
        return "nothing was scored"
    good = sum(not verdict.missed for verdict in choice.verdicts)
    if not good:
        return f"no candidate has {_wanted(found)}"
    return "the only one that is good enough" if good == 1 else f"the cheapest of {good}"


def _reason(verdict: Verdict, choice: SiteChoice) -> str:
    """Why a candidate was not chosen."""
    if not verdict.outcome.scored:
        return "not scored"
    if verdict.missed:
        return f"misses {' and '.join(verdict.missed)}"
    if verdict.outcome.bytes == choice.chosen.bytes:
        worse = verdict.outcome.quality < choice.chosen.quality
        return (
            f"moves as much{', at a lower SQNR' if worse else ' and is as good, but comes later'}"
        )
    return f"moves {_against(verdict.outcome.bytes, choice.chosen.bytes, 'the choice')}"


def _candidate_rows(found: Recommendation) -> list[dict[str, Any]]:
    """For each tensor kind a row for each candidate, and for `none` where it had to be taken."""
    rows = []
    for kind in TENSOR_KINDS:
        choices = [choice for choice in found.sites if choice.site.tensor == kind]
        columns = zip(*(choice.verdicts for choice in choices), strict=True)
        rows += [_candidate_row(kind, choices, verdicts) for verdicts in columns]
        left = [choice for choice in choices if not choice.met]
        if left and NONE not in found.question.labels:
            none = [choice.unquantized for choice in choices]
            rows.append(_candidate_row(kind, choices, none) | {"dearer": None, "missed": None})
    return rows


def _candidate_row(
    kind: str, choices: Sequence[SiteChoice], verdicts: Sequence[Verdict]
) -> dict[str, Any]:
    fates = [choice.fate(verdict) for choice, verdict in zip(choices, verdicts, strict=True)]
    outcomes = [verdict.outcome for verdict in verdicts]
    missed = [label for verdict in verdicts for label in verdict.missed]
    figures = {name: mean_figure(each.figure(name) for each in outcomes) for name in FIGURES}
    return {
        "tensor": kind,
        "quantizer": outcomes[0].quantizer,
        "bits": outcomes[0].bits,
        **{fate: fates.count(fate) for fate in ("chosen", "dearer", "missed")},
        "misses": {label: missed.count(label) for label in dict.fromkeys(missed)},
        "unscored": sum(not outcome.scored for outcome in outcomes),
        **_shown(figures),
        "bytes": math.fsum(outcome.bytes for outcome in outcomes),
    }


def _total_row(total: Total, sites: int) -> dict[str, Any]:
    worst = {f"worst_{name}": figure for name, figure in _shown(total.worst).items()}
    return {
        "choice": total.choice,
        "bytes": total.bytes,
        **_shown(total.mean),
        **worst,
        "exact": total.mean["sqnr_db"] == math.inf,
        "network_noise": total.noise,
        "met": total.met,
        "sites": sites,
        "on_front": total.on_front,
    }


def _front(totals: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The totals on the Pareto front, the cheapest first."""
    return sorted((row for row in totals if row["on_front"]), key=lambda row: row["bytes"])


def _loss_row(loss: Loss, found: Recommendation) -> dict[str, Any]:
    chosen = {choice.site: choice.chosen.quantizer for choice in found.sites}
    return {
        "layer": loss.site.layer,
        "tensor": loss.site.tensor,
        "quantizer": loss.outcome.quantizer,
        **_figures(loss.outcome),
        "error": loss.error,
        "share": loss.share,
        "up_to_here": loss.up_to_here,
        "chosen": chosen.get(loss.site),
    }


# --- tables -------------------------------------------------------------------------------------


def _kind_tables(found: Recommendation, rows: Sequence[TableRow]) -> Iterator[Table]:
    """What was chosen how often, and why the rest fell out."""
    for kind in dict.fromkeys(row["tensor"] for row in rows):
        sites = counted(sum(choice.site.tensor == kind for choice in found.sites), "layer")
        of_kind = tuple(
            {**row, "each": ", ".join(f"{label} {n}" for label, n in row["misses"].items()) or None}
            for row in rows
            if row["tensor"] == kind
        )
        title = f"{kind} ({sites}): the cheapest with {_wanted(found)}"
        yield Table(title, (*COUNT_COLUMNS, *_further_columns(found), BYTES), of_kind)


def _further_columns(found: Recommendation) -> list[Column]:
    """Figures; where there are several conditions, which of them were missed how often."""
    if len(found.question.conditions) > 1:
        return [Column("each", "of these", number=False)]
    by = found.question.judged_by
    return [_figure_column("sqnr_db"), _figure_column("cosine" if by == "sqnr_db" else by)]


def _layer_tables(rows: Sequence[TableRow]) -> Iterator[Table]:
    columns = (
        Column("layer", "layer", number=False),
        QUANTIZER,
        _figure_column("sqnr_db"),
        _figure_column("cosine"),
        BYTES,
    )
    for kind in dict.fromkeys(row["tensor"] for row in rows):
        of_kind = tuple(row for row in rows if row["tensor"] == kind)
        yield Table(f"{kind}: what each layer gets", columns, of_kind)


def _total_tables(found: Recommendation, rows: Sequence[TableRow]) -> Iterator[Table]:
    if not rows:
        return
    by = found.question.judged_by
    columns = (
        Column("choice", "choice", number=False),
        BYTES,
        *_mean_and_worst("sqnr_db"),
        *_mean_and_worst("cosine" if by == "sqnr_db" else by),
        Column("good", "met"),
        Column("front", "front"),
    )
    shown = tuple(
        {
            **row,
            "good": f"{row['met']}/{row['sites']}",
            "front": "yes" if row["on_front"] else "no",
        }
        for row in rows
    )
    sites = counted(len(found.sites), "site")
    yield Table(f"{sites}: each its own quantizer (mixed), or one for all", columns, shown)


def _mean_and_worst(name: str) -> tuple[Column, Column]:
    return _figure_column(name), Column(f"worst_{name}", "worst", _SHOWN[name])


LOSS_COLUMNS = (
    Column("layer", "layer", number=False),
    Column("tensor", "tensor", number=False),
    _figure_column("sqnr_db"),
    _figure_column("cosine"),
    Column("share", "error", percent),
)


def _loss_tables(found: Recommendation, rows: Sequence[TableRow]) -> Iterator[Table]:
    if found.question.ranked_at is not None:
        label = found.question.ranked_at.label
        title = f"what {label} costs each site: its share of all sites' relative error"
        chosen = (Column("chosen", "chosen", number=False),) if found.sites else ()
        yield Table(title, (*LOSS_COLUMNS, *chosen), tuple(rows))


# --- sentences ----------------------------------------------------------------------------------


def _wanted(found: Recommendation) -> str:
    return " and ".join(condition.label for condition in found.question.conditions)


def _against(one: float, other: float, name: str) -> str:
    """How an amount compares with another one: '81 % less than NAME'."""
    if one == other:
        return f"as much as {name}"
    if not other:
        return f"more than {name}"
    more = 100 * (one / other - 1)
    size = f"{abs(more):.0f}" if abs(more) >= 0.95 else f"{abs(more):.1g}"
    return f"{size} % {'more' if more > 0 else 'less'} than {name}"


def _sentences(found: Recommendation) -> Iterator[str]:
    if found.sites:
        yield _outcome_in_words(found)
    if found.losses:
        yield _concentration(found)


def _outcome_in_words(found: Recommendation) -> str:
    if not any(choice.scored for choice in found.sites):
        return "Nothing was scored, so nothing can be recommended."
    if len(found.unmet) == len(found.sites):
        return "No candidate is good enough at any site: all stay unquantized, at 32 bits."
    if not found.unmet:
        return _gain(found)
    sites = counted(len(found.unmet), "site")
    left = f"At {sites} no candidate is good enough: left unquantized, at 32 bits."
    return f"{_gain(found)} {left}"


def _gain(found: Recommendation) -> str:
    """What the mixed choice moves, against the cheapest uniform one that is good enough."""
    mixed, *uniform = found.totals
    none = next(total for total in uniform if total.choice == NONE)
    able = [t for t in uniform if t.met == len(found.sites) and t.choice != NONE]
    start = f"With each site its own, {binary_bytes(mixed.bytes)} a step are moved"
    against = _against(mixed.bytes, none.bytes, "unquantized")
    if not able:
        return f"{start}, {against}; no single candidate is good enough at all sites."
    best = min(able, key=lambda total: total.bytes)
    if best.bytes <= mixed.bytes:
        return f"{start}, {against}, and as much as with {best.choice} everywhere."
    beside = _against(mixed.bytes, best.bytes, f"with {best.choice} everywhere")
    return f"{start}, {against} and {beside}, the cheapest that is good enough at all sites."


def _concentration(found: Recommendation) -> str:
    """How few sites make up half of the error."""
    at = found.question.ranked_at
    label = at.label if at is not None else ""
    count = next(
        (n for n, loss in enumerate(found.losses, start=1) if (loss.up_to_here or 0) >= 0.5), None
    )
    if count is None:
        return f"At {label} no site has an error that could be ranked."
    share = percent(found.losses[count - 1].up_to_here or 0)
    verb = "makes" if count == 1 else "make"
    return (
        f"{count} of {counted(len(found.losses), 'site')} {verb} {share} of the error at {label}."
    )


def _notes(found: Recommendation) -> Iterator[str]:
    unscored = sum(not choice.scored for choice in found.sites)
    if 0 < unscored < len(found.sites):
        yield (
            f"at {counted(unscored, 'site')} nothing was scored: the trace has no values of them "
            "that could be"
        )
    if found.estimated:
        yield (
            f"{found.estimated} of the sites have no bill, for want of layer geometry or by their "
            "kind: there bytes are those of the tensor alone"
        )
    exact = sum(choice.chosen.quality == math.inf for choice in found.sites)
    if 0 < exact < len(found.sites):
        yield f"means in dB leave out sites without error: {exact} in the mixed choice"
    yield from _low_notes(found)
    dearer = sum(c.chosen.bytes > c.unquantized.outcome.bytes for c in found.sites)
    if dearer:
        yield (
            f"at {counted(dearer, 'site')} the choice moves more bytes than no quantization would: "
            "--quantizer none makes that a candidate"
        )
    if _compares_each_at_its_format(found):
        yield (
            "--within compares each candidate with current at its own format, and those that "
            "scale their own blocks with nothing: 'of current@int8' compares formats, too"
        )


def _low_notes(found: Recommendation) -> Iterator[str]:
    """A mean of dB hides a bad start."""
    for condition in found.question.conditions:
        if isinstance(condition, Target) and condition.metric == "sqnr_db" and condition.at_least:
            lows = [c.chosen.figure("sqnr_db_low") for c in found.sites if c.met]
            bad = sum(low is not None and low < condition.bound - BAD_START_DB for low in lows)
            if bad:
                yield (
                    f"at {counted(bad, 'site')} the worst tenth of the records is more than "
                    f"{BAD_START_DB} dB below {condition.bound:g} dB: a target for sqnr_db_low "
                    "judges by it"
                )


def _compares_each_at_its_format(found: Recommendation) -> bool:
    """Whether candidates of several formats are judged by nothing that formats differ in."""
    formats = {q.format.label for q in found.question.candidates if q is not None}
    conditions = found.question.conditions
    by_format = [isinstance(c, Within) and c.of is None for c in conditions]
    return len(formats) > 1 and bool(by_format) and all(by_format)
