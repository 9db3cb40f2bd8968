"""The report of several traces: which ranks wrote them, and what they hold together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from hqtool.errors import DataError
from hqtool.report.info import (
    SITE_COLUMNS,
    STATE_SENTENCES,
    Condition,
    condition_of,
    facts_table,
    flat,
    sampling_notes,
    site_row,
    sites_table,
    step_facts,
    step_words,
)
from hqtool.report.info_used import three_digits
from hqtool.report.model import Column, Report, Table
from hqtool.sizes import binary_bytes, counted
from hqtool.trace.overview import SiteSummary
from hqtool.trace.ranks import Ranks, RanksReader, names_of, rank_of, ranks_of_one_run
from hqtool.trace.reader import TraceReader

SCHEMA = "hqtool.info.ranks/1"

TRACE_COLUMNS = (
    Column("path", "trace", number=False),
    Column("rank", "rank"),
    Column("state", "state", number=False),
    Column("steps", "steps"),
    Column("file_bytes", "size", binary_bytes),
)


_COLUMN_OF = {column.key: column for column in SITE_COLUMNS}

#: The columns for one trace, with the range in place of the type.
JOINT_SITE_COLUMNS = (
    *(_COLUMN_OF[key] for key in ("layer", "records", "kept", "shape")),
    Column("min", "min", three_digits),
    Column("max", "max", three_digits),
    _COLUMN_OF["payload_bytes"],
)


def ranks_report(reader: RanksReader) -> Report:
    """Everything `hqtool info` says of several open traces."""
    ranks, problem = _ranks_or_problem(reader.traces)
    conditions = [condition_of(trace) for trace in reader.traces]
    traces = list(map(_trace_row, reader.traces, conditions))
    state = "damaged" if any(c.state == "damaged" for c in conditions) else reader.state
    rows = [_site_row(summary, reader.traces) for summary in reader.overview()]
    size = sum(row["file_bytes"] for row in traces)
    document = {
        "schema": SCHEMA,
        "traces": traces,
        "ranks": ranks_entry(ranks) | {"problem": problem},
        "state": state,
        "file_bytes": size,
        "steps": step_facts(reader.steps),
        "layers": {row["layer"]: reader.geometry(row["layer"]) for row in rows},
        "sites": rows,
    }
    facts = {
        "traces": f"not ranks of one run: {problem}" if ranks is None else _which(ranks),
        "state": STATE_SENTENCES[state],
        "steps": f"{step_words(reader.steps)} in common",
        **_facts_noted(reader.traces),
    }
    tables = [
        _traces_table(reader.traces, conditions, size),
        facts_table("", facts),
        sites_table(rows, JOINT_SITE_COLUMNS),
    ]
    found = [note for condition in conditions for note in condition.notes]
    return Report(document, rows, tables, notes=[*found, *_notes(rows, len(traces))])


def ranks_entry(ranks: Ranks | None) -> dict[str, Any]:
    """Ranks for a document; null where there are none."""
    return {
        "world_size": None if ranks is None else ranks.world_size,
        "given": None if ranks is None else list(ranks.given),
        "missing": None if ranks is None else list(ranks.missing),
    }


def _ranks_or_problem(traces: Sequence[TraceReader]) -> tuple[Ranks | None, str | None]:
    """The traces' ranks, or why they are not ranks of one run."""
    try:
        return ranks_of_one_run(traces), None
    except DataError as error:
        return None, error.cause


def _which(ranks: Ranks) -> str:
    return f"{ranks}; {ranks.gap}" if ranks.gap else str(ranks)


# Traces


def _trace_row(trace: TraceReader, condition: Condition) -> dict[str, Any]:
    return {
        "path": trace.path,
        "rank": _rank_number(trace),
        "format": trace.format,
        **condition.entries,
        "file_bytes": os.path.getsize(trace.path),
        "steps": step_facts(trace.steps),
        "run": trace.run,
    }


def _rank_number(trace: TraceReader) -> int | None:
    rank = rank_of(trace)
    return None if rank is None else rank.rank


def _traces_table(
    traces: Sequence[TraceReader], conditions: Sequence[Condition], size: int
) -> Table:
    title = f"{counted(len(traces), 'trace')} together ({traces[0].format}, {binary_bytes(size)})"
    rows = tuple(
        _trace_row(trace, condition) | {"steps": step_words(trace.steps)}
        for trace, condition in zip(traces, conditions, strict=True)
    )
    return Table(title, TRACE_COLUMNS, rows)


# The run


def _facts_noted(traces: Sequence[TraceReader]) -> dict[str, str]:
    """What the recorders noted."""
    keys = dict.fromkeys(key for trace in traces for key in trace.run)
    return {str(key): _noted(key, traces) for key in keys if key not in ("rank", "world_size")}


def _noted(key: str, traces: Sequence[TraceReader]) -> str:
    """What the traces note under one key: once where all agree, else with the ranks that say so."""
    who: dict[str, list[TraceReader]] = {}
    for trace in traces:
        if key in trace.run:
            who.setdefault(flat(trace.run[key]), []).append(trace)
    if [len(group) for group in who.values()] == [len(traces)]:
        return next(iter(who))
    return "; ".join(f"{words} ({_names(group)})" for words, group in who.items())


def _names(traces: Sequence[TraceReader]) -> str:
    ranks = [rank for trace in traces if (rank := _rank_number(trace)) is not None]
    return names_of(ranks) if len(ranks) == len(traces) else ", ".join(t.path for t in traces)


# Sites


def _site_row(summary: SiteSummary, traces: Sequence[TraceReader]) -> dict[str, Any]:
    lo, hi = summary.range or (None, None)
    held = sum(summary.site in trace.sites for trace in traces)
    return site_row(summary) | {"min": lo, "max": hi, "traces": held}


def _notes(rows: Sequence[dict[str, Any]], traces: int) -> list[str]:
    partial = [f"{row['layer']}/{row['tensor']}" for row in rows if row["traces"] < traces]
    more = f" and {len(partial) - 6} more" if len(partial) > 6 else ""
    lacking = [f"not in every trace: {', '.join(partial[:6])}{more}"] if partial else []
    added = "records, values and sizes are those of all traces added up; min and max are over all"
    return [f"{added}, loss scales divided out", *lacking, *sampling_notes(list(rows))]
