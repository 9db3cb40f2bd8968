"""The report of a comparison: which quantizer costs how much, for which tensor."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from hqtool.compare.comparison import Comparison, RanksFacts
from hqtool.compare.recipe_totals import RecipeTotal, recipe_totals
from hqtool.compare.results import Summary
from hqtool.report.compared.naming import QUANTIZER, Lane, Names, lane_of, scheme_of
from hqtool.report.compared.notes import notes_on
from hqtool.report.compared.recipes import (
    recipe_sentence,
    recipe_tables,
    site_rows,
    site_tables,
    total_in_json,
)
from hqtool.report.compared.rows import best_of, by_kind, by_site, in_json, ordered
from hqtool.report.compared.sentence import sentence
from hqtool.report.info_ranks import ranks_entry
from hqtool.report.model import (
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
    Column("sqnr_db", "SQNR dB", decibels, max),
    Column("sqnr_db_low", "low dB", decibels),
    Column("cosine", "cosine", lambda c: f"{c:.6f}", max),
    Column("saturation", "saturated", percent, min),
    Column("looked", "looked", percent, min),
)

#: Traffic relative to never looking, where all store as many bits; else as such.
TRAFFIC = Column("traffic", "traffic", times, min)
TRAFFIC_KIB = Column("traffic_bytes", "KiB", lambda amount: f"{amount / 1024:.1f}", min)

SEARCH_COLUMNS = (
    Column("evaluations", "passes", lambda n: f"{n:.1f}"),
    Column("search_gap", "largest gap", lambda gap: f"{gap:.1e}", min),
    Column("multimodal", "several maxima", percent),
)

WORST_COLUMNS = (
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
            (or site), format and rounding.
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
        best = [in_json(row) for part in parts for row in part.shown]
        document["best"] = {"by": best_by, "rows": best}
    extra = _traces_side_by_side(comparison, parts) if len(parts) > 1 else []
    if extra:
        document["side_by_side"] = [in_json(row) for table in extra for row in table.rows]
    if comparison.settings.recipes:
        document["recipes"] = [
            total_in_json(total) | {"trace": _path(part.comparison)}
            for part in parts
            for total in part.recipes
        ]
    if comparison.settings.worst:
        worst = _worst(comparison)
        document["worst"] = worst
        extra = [*extra, _worst_table(comparison, worst)]
    return Report(
        document=document,
        rows=summary,
        tables=[*(table for part in parts for table in part.tables), *extra],
        closing="\n".join(part.closing for part in parts if part.closing),
        notes=notes_on(comparison),
        steps=steps,
    )


class _TracePart(NamedTuple):
    """The part of a report that concerns one trace, or ranks taken together.

    Args:
        overall: a row for each (tensor kind, quantizer).
        shown: the rows of its tables.
        recipes: the figures of each recipe at each tensor kind, and in total.
    """

    comparison: Comparison
    overall: list[TableRow]
    shown: list[TableRow]
    recipes: list[RecipeTotal]
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
            recipes=(recipes,),
        )
        for facts, recipes in zip(comparison.traces, comparison.recipes, strict=True)
    ]


def _trace_part(
    part: Comparison, by: str, best_by: str | None, sort: str | None, top: int | None
) -> _TracePart:
    names = Names(part.settings)
    overall = by_kind(_by_themselves(part), names)
    shown = overall if by == "tensor" else by_site(_by_themselves(part))
    if best_by is not None:
        overall, shown = (best_of(rows, names, best_by) for rows in (overall, shown))
    if sort is not None or top is not None:
        shown = ordered(shown, sort or "sqnr_db", top)
    if part.ranks is None:
        shown = [{**row, "trace": _path(part)} for row in shown]
    totals = recipe_totals(part.summaries)
    closing = [
        sentence(overall, names) if overall else "",
        recipe_sentence(totals, part.summaries),
    ]
    at_sites = site_rows(part.summaries) if by == "layer" else []
    if sort is not None or top is not None:
        at_sites = ordered(at_sites, sort or "sqnr_db", top)
    tables = [
        *_tables(part, shown, by),
        *site_tables(at_sites),
        *recipe_tables(totals, part.summaries),
    ]
    return _TracePart(part, overall, shown, totals, tables, "\n".join(filter(None, closing)))


def _path(part: Comparison) -> str | None:
    """The trace of a part; None of ranks taken together."""
    return part.traces[0].path if part.ranks is None else None


def _by_themselves(part: Comparison) -> list[Summary]:
    """The summaries of quantizers that were asked for as such, not by recipes."""
    return [s for s in part.summaries if s.recipe is None]


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
    """A table for each tensor kind: every quantizer on every trace, over the sites all share."""
    names = Names(comparison.settings)
    sites = [{(s.layer, s.tensor) for s in part.comparison.summaries} for part in parts]
    shared = set.intersection(*sites)
    rows = [
        {**row, "trace": part.comparison.traces[0].path}
        for part in parts
        for row in by_kind(_of_sites(part.comparison, shared), names)
    ]
    listed = {_lane_of_kind(row) for part in parts for row in part.overall}
    groups: dict[tuple[str, Lane], list[TableRow]] = {}
    for row in rows:
        groups.setdefault(_lane_of_kind(row), []).append(row)
    tables = []
    for kind in dict.fromkeys(kind for kind, _ in groups):
        chosen = [
            {**row, "lane": names.title(lane), "sqnr_db_difference": _gain(row, alike[0])}
            for (tensor, lane), alike in groups.items()
            if tensor == kind and (tensor, lane) in listed
            for row in alike
        ]
        layers = counted(sum(tensor == kind for _, tensor in shared), "layer")
        title = f"{kind}, side by side ({layers} that all traces have)"
        tables.append(Table(title, SIDE_COLUMNS, tuple(chosen), ("lane",), section="lane"))
    return tables


def _of_sites(part: Comparison, sites: Container[tuple[str, str]]) -> list[Summary]:
    return [s for s in _by_themselves(part) if (s.layer, s.tensor) in sites]


def _lane_of_kind(row: TableRow) -> tuple[str, Lane]:
    return row["tensor"], lane_of(row)


def _gain(row: TableRow, first: TableRow) -> float | None:
    """By how many dB a trace's SQNR exceeds the first one's; None where either has no figure."""
    mine, theirs = row["sqnr_db"], first["sqnr_db"]
    return mine - theirs if isinstance(mine, float) and isinstance(theirs, float) else None


def summary_row(s: Summary) -> dict[str, Any]:
    """One row of the contract's `summary`: what came later stands last."""
    metrics = dict(s.metrics)
    noise = metrics.pop("noise")
    return {
        "layer": s.layer,
        "tensor": s.tensor,
        "estimator": s.estimator,
        "format": s.format,
        "rounding": s.rounding,
        "bits": s.bits,
        "steps": s.steps,
        **metrics,
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
        "missed_steps": s.missed_steps,
        "nonfinite_records": s.nonfinite_records,
        "nonfinite_step": s.nonfinite_step,
        "replayed_steps": s.replayed_steps,
        "recipe": s.recipe,
        "records": s.records,
        "learned_steps": s.learned_steps,
        "elements": s.elements,
        "spilled": s.spilled,
        "noise": noise,
    }


def _settings(comparison: Comparison) -> dict[str, Any]:
    settings, selection = comparison.settings, comparison.selection
    return {
        "quantizers": [quantizer.label for quantizer in settings.quantizers],
        "estimators": [choice.to_json() for choice in settings.estimators],
        "formats": [choice.to_json() for choice in settings.formats],
        "bits": list(dict.fromkeys(choice.value.bits for choice in settings.formats)),
        "scheme": scheme_of(settings),
        "rounding": settings.roundings[0] if len(settings.roundings) == 1 else None,
        "recipes": [recipe.name for recipe in settings.recipes],
        "calibrate": settings.calibrate,
        "seed": settings.seed,
        "loss_scale": settings.loss_scale,
        "buffer_bytes": settings.buffer_bytes,
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
    names = Names(comparison.settings)
    named = (QUANTIZER,) if comparison.settings.recipes else names.columns
    columns = (*named, *WORST_COLUMNS)
    title = f"the {counted(len(rows), 'record')} of lowest SQNR, the lowest first"
    return Table(title, columns, tuple(map(names.shown, shown)), section="site")


def _ends(lo: float | None, hi: float | None) -> str:
    return MISSING if lo is None or hi is None else f"{lo:.3g}…{hi:.3g}"


def _tables(comparison: Comparison, rows: Sequence[TableRow], by: str) -> list[Table]:
    """A table for each tensor kind, in the usual order; `by` 'layer': a section for each layer."""
    names = Names(comparison.settings)
    shown = list(map(names.shown, rows))
    kinds = [k for k in TENSOR_KINDS if any(row["tensor"] == k for row in rows)]
    tables = [
        Table(
            _title(kind, comparison, names),
            (*names.columns, *SCORE_COLUMNS, _traffic_column(comparison)),
            tuple(row for row in shown if row["tensor"] == kind),
            group=names.group,
            section="layer" if by == "layer" else None,
        )
        for kind in kinds
    ]
    searches = tuple(row for row in shown if row["search_gap"] is not None)
    return [*tables, _search_table(searches, names)] if searches else tables


def _traffic_column(comparison: Comparison) -> Column:
    widths = {quantizer.bits for quantizer in comparison.settings.quantizers}
    return TRAFFIC if len(widths) == 1 else TRAFFIC_KIB


def _search_table(rows: tuple[TableRow, ...], names: Names) -> Table:
    title = "searches: passes each, cosine lost against an exhaustive scan"
    columns = (Column("tensor", "tensor", number=False), *names.columns, *SEARCH_COLUMNS)
    return Table(title, columns, rows, group=("tensor", *names.group), section="layer")


def _title(kind: str, comparison: Comparison, names: Names) -> str:
    sites = {s.layer for s in comparison.summaries if s.tensor == kind}
    layers = counted(len(sites), "layer")
    return f"{kind} ({'; '.join([layers, *filter(None, [names.alike])])})"
