"""The report of a comparison: which estimator costs how much, for which tensor."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from typing import Any, NamedTuple

from hqtool.compare.comparison import Comparison, RanksFacts
from hqtool.compare.replay import Summary
from hqtool.core.metrics import METRICS
from hqtool.report.info_ranks import ranks_entry
from hqtool.report.model import (
    EXACT,
    MISSING,
    Column,
    Report,
    Table,
    TableRow,
    decibels,
    percent,
    times,
)
from hqtool.sizes import counted
from hqtool.vocab import TENSOR_KINDS

SCHEMA = "hqtool.compare/1"

SCORE_COLUMNS = (
    Column("estimator", "estimator", number=False),
    Column("bits", "bits"),
    Column("sqnr_db", "SQNR dB", decibels, max),
    Column("sqnr_db_low", "low dB", decibels),
    Column("cosine", "cosine", lambda c: f"{c:.6f}", max),
    Column("saturation", "saturated", percent, min),
    Column("looked", "looked", percent, min),
    Column("traffic", "traffic", times, min),
)


SEARCH_COLUMNS = (
    Column("tensor", "tensor", number=False),
    SCORE_COLUMNS[0],
    SCORE_COLUMNS[1],
    Column("evaluations", "passes", lambda n: f"{n:.1f}"),
    Column("search_gap", "largest gap", lambda gap: f"{gap:.1e}", min),
    Column("multimodal", "several maxima", percent),
)

#: The figures that rows can be ranked by → whether a higher one is better.
RANKINGS = {
    "cosine": True,
    "sqnr_db": True,
    "mse": False,
    "sqnr_db_low": True,
    "saturation": False,
    "underflow": False,
    "nonfinite": False,
    "looked": False,
    "traffic": False,
}

WORST_COLUMNS = (
    Column("estimator", "estimator", number=False),
    Column("bits", "bits"),
    Column("step", "step"),
    Column("asked", "range asked for"),
    Column("true", "true range"),
    Column("sqnr_db", "SQNR dB", decibels),
    Column("saturation", "saturated", percent),
)


def comparison_report(
    comparison: Comparison,
    by: str,
    best_by: str | None = None,
    steps: str | None = None,
    *,
    sort: str | None = None,
    top: int | None = None,
) -> Report:
    """Tables per tensor kind (`by` 'tensor') or of every site ('layer'), and all figures.

    Args:
        best_by: a key of `RANKINGS`: show only each method's best parameters, per tensor kind
            (or site) and bit-width.
        steps: a file of JSON lines with the scored records, for the JSON document.
        sort: a key of `RANKINGS`: show the worst rows first; layers by their worst row.
        top: show only the first so many layers of each tensor kind.
    """
    summary = [
        summary_row(s) | {"trace": result.task.path}
        for result in comparison.results
        for s in result.summaries
    ]
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "trace": [asdict(facts) for facts in comparison.traces],
        "settings": _settings(comparison),
        "summary": summary,
    }
    if comparison.ranks is not None:
        document["ranks"] = _ranks(comparison, comparison.ranks)
    if steps is None:
        document["steps"] = []
    of_traces = _by_trace(comparison)
    parts = _with_names([_trace_part(each, by, best_by, sort, top) for each in of_traces])
    if best_by is not None:
        best = [_in_json(row) for part in parts for row in part.shown]
        document["best"] = {"by": best_by, "rows": best}
    extra = _traces_side_by_side(comparison, parts) if len(parts) > 1 else []
    if extra:
        document["side_by_side"] = [_in_json(row) for table in extra for row in table.rows]
    if comparison.settings.worst:
        worst = _worst(comparison)
        document["worst"] = worst
        extra = [*extra, _worst_table(comparison, worst)]
    return Report(
        document=document,
        rows=summary,
        tables=[*(table for part in parts for table in part.tables), *extra],
        closing="\n".join(part.closing for part in parts if part.closing),
        notes=_notes(comparison),
        steps=steps,
    )


class _TracePart(NamedTuple):
    """The part of a report that concerns one trace, or ranks taken together.

    Args:
        overall: a row for each (tensor kind, estimator, bits).
        shown: the rows of its tables.
    """

    comparison: Comparison
    overall: list[TableRow]
    shown: list[TableRow]
    tables: list[Table]
    closing: str


def _by_trace(comparison: Comparison) -> list[Comparison]:
    """A comparison for each trace; ranks taken together stay one."""
    if comparison.ranks is not None or len(comparison.traces) == 1:
        return [comparison]
    return [
        replace(
            comparison,
            traces=(facts,),
            results=tuple(r for r in comparison.results if r.task.path == facts.path),
        )
        for facts in comparison.traces
    ]


def _trace_part(
    part: Comparison, by: str, best_by: str | None, sort: str | None, top: int | None
) -> _TracePart:
    overall = _by_kind(part.summaries)
    shown = overall if by == "tensor" else _by_site(part)
    if best_by is not None:
        overall, shown = (_best(rows, part, best_by) for rows in (overall, shown))
    if sort is not None or top is not None:
        shown = _ordered(shown, sort or "sqnr_db", top)
    if part.ranks is None:
        shown = [{**row, "trace": part.traces[0].path} for row in shown]
    closing = _closing(overall, _methods(part)) if overall else ""
    return _TracePart(part, overall, shown, _tables(part, shown, by), closing)


def _with_names(parts: Sequence[_TracePart]) -> list[_TracePart]:
    """The parts; of several, the tables and the sentence begin with the trace's name."""
    if len(parts) == 1:
        return list(parts)
    return [_with_name(part, f"{part.comparison.traces[0].path}: ") for part in parts]


def _with_name(part: _TracePart, name: str) -> _TracePart:
    tables = [replace(table, title=name + table.title) for table in part.tables]
    return part._replace(tables=tables, closing=part.closing and name + part.closing)


SIDE_COLUMNS = (
    Column("trace", "trace", number=False),
    Column("sqnr_db", "SQNR dB", decibels, max),
    Column("sqnr_db_difference", "to first", lambda db: f"{db:+.2f}"),
    *(column for column in SCORE_COLUMNS if column.key in ("sqnr_db_low", "cosine", "saturation")),
)


def _traces_side_by_side(comparison: Comparison, parts: Sequence[_TracePart]) -> list[Table]:
    """A table for each tensor kind: every estimator on every trace, over the sites all share."""
    sites = [{(s.layer, s.tensor) for s in part.comparison.summaries} for part in parts]
    shared = set.intersection(*sites)
    rows = [
        {**row, "trace": part.comparison.traces[0].path}
        for part in parts
        for row in _by_kind([s for s in part.comparison.summaries if (s.layer, s.tensor) in shared])
    ]
    listed = {_lane(row) for part in parts for row in part.overall}
    lanes = {_lane(row): [r for r in rows if _lane(r) == _lane(row)] for row in rows}
    tables = []
    for kind in dict.fromkeys(lane[0] for lane in lanes):
        chosen = [
            {
                **row,
                "lane": _lane_name(lane, comparison),
                "sqnr_db_difference": _gain(row, alike[0]),
            }
            for lane, alike in lanes.items()
            if lane[0] == kind and lane in listed
            for row in alike
        ]
        layers = counted(sum(tensor == kind for _, tensor in shared), "layer")
        title = f"{kind}, side by side ({layers} that all traces have)"
        tables.append(Table(title, SIDE_COLUMNS, tuple(chosen), ("lane",), section="lane"))
    return tables


def _lane(row: TableRow) -> tuple[str, str, int]:
    return row["tensor"], row["estimator"], row["bits"]


def _lane_name(lane: tuple[str, str, int], comparison: Comparison) -> str:
    return lane[1] if len(comparison.settings.bits) == 1 else f"{lane[1]}, {lane[2]} bits"


def _gain(row: TableRow, first: TableRow) -> float | None:
    """By how many dB a trace's SQNR exceeds the first one's; None where either has no figure."""
    mine, theirs = row["sqnr_db"], first["sqnr_db"]
    return mine - theirs if isinstance(mine, float) and isinstance(theirs, float) else None


def summary_row(s: Summary) -> dict[str, Any]:
    """One row of the contract's `summary`."""
    return {
        "layer": s.layer,
        "tensor": s.tensor,
        "estimator": s.estimator,
        "bits": s.bits,
        "steps": s.steps,
        **s.metrics,
        "looks": s.looks,
        "evaluations": s.evaluations,
        "static_bytes": s.static_bytes,
        "traffic_bytes": s.traffic_bytes,
        "replayed": s.replayed,
        "postponed": s.postponed,
        "sampled": s.sampled,
        "search_gap": s.search_gap,
        "multimodal": s.multimodal,
        "all_zero": s.all_zero,
        "sqnr_db_low": s.sqnr_db_low,
        "exact": s.exact,
        "exact_steps": s.exact_steps,
        "unscored": s.unscored,
        "nonfinite_records": s.nonfinite_records,
        "nonfinite_step": s.nonfinite_step,
    }


def _settings(comparison: Comparison) -> dict[str, Any]:
    settings, selection = comparison.settings, comparison.selection
    return {
        "estimators": [choice.to_json() for choice in settings.estimators],
        "bits": list(settings.bits),
        "scheme": settings.scheme,
        "rounding": settings.rounding,
        "calibrate": settings.calibrate,
        "seed": settings.seed,
        "loss_scale": settings.loss_scale,
        "reduce_ranks": comparison.ranks is not None,
        "layers": list(selection.layers),
        "tensors": list(selection.tensors),
    }


def _ranks(comparison: Comparison, facts: RanksFacts) -> dict[str, Any]:
    return {
        **ranks_entry(facts.ranks),
        "records": facts.records,
        "records_left_out": comparison.records_left_out,
        "sites_left_out": facts.sites_left_out,
    }


def _by_kind(summaries: Sequence[Summary]) -> list[TableRow]:
    """A row for each (tensor kind, estimator, bits): means over sites, kinds in the usual order."""
    groups: dict[tuple[str, str, float], list[Summary]] = {}
    for s in summaries:
        groups.setdefault((s.tensor, s.estimator, s.bits), []).append(s)
    order = list(TENSOR_KINDS)
    keys = sorted(groups, key=lambda key: (order.index(key[0]), key[2]))
    return [{**_row_of(groups[key]), "layer": None} for key in keys]


def _by_site(comparison: Comparison) -> list[TableRow]:
    """A row for each (site, estimator, bits)."""
    return [_row_of([s]) for s in comparison.summaries]


def _row_of(group: Sequence[Summary]) -> TableRow:
    """The table row of one site, or of several together."""
    first = group[0]
    billed = [(s.traffic_bytes, s.static_bytes) for s in group if s.static_bytes]
    replayed, looks, evaluations = (
        sum(getattr(s, name) for s in group) for name in ("replayed", "looks", "evaluations")
    )
    metrics = {name: _mean(s.metrics[name] for s in group) for name in METRICS}
    return {
        "layer": first.layer,
        "tensor": first.tensor,
        "estimator": first.estimator,
        "bits": first.bits,
        **metrics,
        "sqnr_db": _or_exact(metrics["sqnr_db"], metrics["mse"]),
        "sqnr_db_low": _or_exact(_mean(s.sqnr_db_low for s in group), metrics["mse"]),
        "exact": metrics["mse"] == 0,
        "looked": looks / replayed if replayed else None,
        "evaluations": evaluations / looks if looks else None,
        "search_gap": max((s.search_gap for s in group if s.search_gap is not None), default=None),
        "multimodal": _mean(s.multimodal for s in group),
        "traffic": sum(t or 0 for t, _ in billed) / sum(s for _, s in billed) if billed else None,
    }


def _mean(figures: Iterable[float | None]) -> float | None:
    known = [f for f in figures if f is not None]
    return sum(known) / len(known) if known else None


def _or_exact(db: float | None, mse: float | None) -> float | str | None:
    return EXACT if db is None and mse == 0 else db


def _in_json(row: TableRow) -> TableRow:
    """A table's row for programs, where "exact" has a key of its own."""
    return {key: None if entry == EXACT else entry for key, entry in row.items()}


def _columns(comparison: Comparison) -> tuple[Column, ...]:
    """The columns; a single bit-width is in the title instead."""
    single = len(comparison.settings.bits) == 1
    return tuple(column for column in SCORE_COLUMNS if not (single and column.key == "bits"))


def _best(rows: Sequence[TableRow], comparison: Comparison, by: str) -> list[TableRow]:
    """Of the rows that differ only in a method's parameters, the one that ranks first."""
    method = _methods(comparison)
    best: dict[tuple[Any, ...], TableRow] = {}
    for row in rows:
        key = (row["tensor"], row.get("layer"), row["bits"], method[row["estimator"]])
        if key not in best or _rank(row, by) > _rank(best[key], by):
            best[key] = row
    return list(best.values())


def _ordered(rows: Sequence[TableRow], by: str, top: int | None) -> list[TableRow]:
    """The rows, the worst first and those without a figure last; a layer's rows stay together."""

    def badness(row: TableRow) -> tuple[bool, float]:
        rank = _rank(row, by)
        return rank == -math.inf, rank

    layers: dict[tuple[str, str | None], list[TableRow]] = {}
    for row in sorted(rows, key=badness):
        layers.setdefault((row["tensor"], row["layer"]), []).append(row)
    met: Counter[str] = Counter()
    kept = []
    for (tensor, _), group in layers.items():
        met[tensor] += 1
        kept += group if top is None or met[tensor] <= top else []
    return kept


def _worst(comparison: Comparison) -> list[TableRow]:
    """The rows of lowest SQNR of all sites, the lowest first."""
    rows: list[TableRow] = [
        row.flat() | {"trace": result.task.path}
        for result in comparison.results
        for row in result.worst
    ]
    return sorted(rows, key=lambda row: row["sqnr_db"])[: comparison.settings.worst]


def _worst_table(comparison: Comparison, rows: Sequence[TableRow]) -> Table:
    several = len(comparison.traces) > 1 and comparison.ranks is None
    shown = tuple(
        {
            **row,
            "asked": _ends(row["lo"], row["hi"]),
            "true": _ends(row["min"], row["max"]),
            "site": f"{row['trace']}: " * several + f"{row['layer']}/{row['tensor']}",
        }
        for row in rows
    )
    single = len(comparison.settings.bits) == 1
    columns = tuple(c for c in WORST_COLUMNS if not (single and c.key == "bits"))
    title = f"the {counted(len(rows), 'record')} of lowest SQNR, the lowest first"
    return Table(title, columns, shown, section="site")


def _ends(lo: float | None, hi: float | None) -> str:
    return MISSING if lo is None or hi is None else f"{lo:.3g}…{hi:.3g}"


def _methods(comparison: Comparison) -> dict[str, str]:
    """Each estimator's label → its name without parameters."""
    return {choice.label: choice.name for choice in comparison.settings.estimators}


def _rank(row: TableRow, by: str) -> float:
    """Higher is better; a missing figure comes last, but 'exact' first."""
    figure = row[by]
    if not isinstance(figure, float):
        return math.inf if figure == EXACT else -math.inf
    return figure if RANKINGS[by] else -figure


def _tables(comparison: Comparison, rows: Sequence[TableRow], by: str) -> list[Table]:
    """A table for each tensor kind, in the usual order; `by` 'layer': a section for each layer."""
    kinds = [k for k in TENSOR_KINDS if any(row["tensor"] == k for row in rows)]
    tables = [
        Table(
            _title(kind, comparison),
            _columns(comparison),
            tuple(row for row in rows if row["tensor"] == kind),
            group=("layer", "bits"),
            section="layer" if by == "layer" else None,
        )
        for kind in kinds
    ]
    searches = tuple(row for row in rows if row["search_gap"] is not None)
    return [*tables, _search_table(searches)] if searches else tables


def _search_table(rows: tuple[TableRow, ...]) -> Table:
    title = "searches: passes each, cosine lost against an exhaustive scan"
    return Table(title, SEARCH_COLUMNS, rows, group=("tensor", "layer", "bits"), section="layer")


def _title(kind: str, comparison: Comparison) -> str:
    of_kind = [s for s in comparison.summaries if s.tensor == kind]
    settings = comparison.settings
    sites = len(of_kind) // (len(settings.estimators) * len(settings.bits))
    bits = f"{settings.bits[0]} bits, " if len(settings.bits) == 1 else ""
    layers = counted(sites, "layer")
    return f"{kind} ({layers}; {bits}{settings.scheme}, {settings.rounding} rounding)"


def _closing(overall: Sequence[TableRow], methods: Mapping[str, str]) -> str:
    """A sentence that compares estimators that seldom look with the first one that looks often."""
    bits = overall[0]["bits"]
    rows = _named_alike([row for row in overall if row["bits"] == bits], methods)
    names = list(dict.fromkeys(row["estimator"] for row in rows))
    seldom = [
        n for n in names if all((r["looked"] or 0) <= 0.5 for r in rows if r["estimator"] == n)
    ]
    often = [n for n in names if n not in seldom]
    if not seldom or not often:
        return ""
    base = {row["tensor"]: row for row in rows if row["estimator"] == often[0]}
    clauses = [_clause(n, [r for r in rows if r["estimator"] == n], base) for n in seldom[:2]]
    return f"Against {often[0]} at {bits} bits: {'; '.join(clauses)}."


def _named_alike(rows: Sequence[TableRow], methods: Mapping[str, str]) -> list[TableRow]:
    """The rows, with the method's name for estimators whose best parameters differ between kinds.

    Args:
        methods: label of an estimator → its method.
    """
    kinds = {row["tensor"] for row in rows}
    met = {(row["estimator"], row["tensor"]) for row in rows}

    def name(label: str) -> str:
        return label if all((label, kind) in met for kind in kinds) else methods[label]

    return [{**row, "estimator": name(row["estimator"])} for row in rows]


def _clause(name: str, rows: Sequence[TableRow], base: dict[str, TableRow]) -> str:
    changes = [change for row in rows if (change := _change(row, base[row["tensor"]]))]
    known = [
        f"{verb} {' and '.join(amount for _, amount in alike)}"
        for verb, alike in groupby(changes, key=lambda change: change[0])
    ]
    return f"{name} {', '.join(known) or 'has no SQNR to compare'} and {_saving(rows, base)}"


def _saving(rows: Sequence[TableRow], base: dict[str, TableRow]) -> str:
    mine, theirs = (_mean(r["traffic"] for r in group) for group in (rows, base.values()))
    if mine is None or not theirs:
        looked = _mean(row["looked"] for row in rows) or 0
        return f"looks at {percent(looked)} of the tensors"
    more = round(100 * (mine / theirs - 1))
    if more == 0:
        return "moves as much memory traffic"
    return f"moves {abs(more)} % {'more' if more > 0 else 'less'} memory traffic"


def _change(row: TableRow, base: TableRow) -> tuple[str, str] | None:
    """Verb and amount; None where either has no SQNR."""
    if not isinstance(row["sqnr_db"], float) or not isinstance(base["sqnr_db"], float):
        return None
    gain = row["sqnr_db"] - base["sqnr_db"]
    return "gains" if gain >= 0 else "loses", f"{abs(gain):.2f} dB on {row['tensor']}"


def _notes(comparison: Comparison) -> list[str]:
    return [note for note in _possible_notes(comparison) if note]


def _possible_notes(comparison: Comparison) -> Iterable[str]:
    all_ = comparison.summaries
    scored, replayed = (sum(getattr(s, name) for s in all_) for name in ("steps", "replayed"))
    sampled = sum(s.sampled for s in all_)
    if comparison.ranks is not None:
        yield from _rank_notes(comparison, comparison.ranks)
    for facts in comparison.traces:
        if facts.state != "complete":
            yield f"{facts.path} is {facts.state}: read up to its last committed step"
    unscored = sum(s.unscored for s in all_)
    yield _nonfinite_note(all_)
    if not scored and not unscored:
        yield "nothing was scored: no values were recorded past calibration"
    elif scored < replayed:
        yield (
            f"{percent(scored / replayed)} of the records have values and are scored; "
            "looks and traffic count all of them"
        )
    if sampled:
        yield (
            f"{percent(sampled / scored)} of the scored records are samples of larger tensors: "
            "their metrics are estimates, ranges are exact"
        )
    if unscored:
        yield (
            f"{percent(unscored / (scored + unscored))} of the records with values could not be "
            "scored: they hold nothing finite, or nothing finite came before"
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
    if any(s.static_bytes is None for s in all_):
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
        f"NaN or infinities were recorded, first at step {first}, at {_sites(len(sites))}; by "
        f"share of records that hold some: {named}"
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
        f"at {_sites(len(shares))}, {percent(shares[worst])} at {worst}"
    )


def _sites(count: int) -> str:
    return f"{count} site{'s' if count != 1 else ''}"


def _rank_notes(comparison: Comparison, facts: RanksFacts) -> Iterable[str]:
    yield f"{facts.ranks} taken together: ranges and metrics are of all, traffic is of one"
    if facts.sites_left_out:
        yield f"sites left out because some rank lacks them: {facts.sites_left_out}"
    if comparison.records_left_out:
        yield (
            f"records left out because some rank lacks them: {comparison.records_left_out} "
            f"of the ranks' {facts.records}"
        )
