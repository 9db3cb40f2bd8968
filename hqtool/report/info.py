"""The report of a trace: what was recorded, how, and how it ended."""

from __future__ import annotations

import os
from typing import Any

from hqtool.report.model import Column, Report, Table
from hqtool.sizes import binary_bytes
from hqtool.trace.overview import SiteSummary
from hqtool.trace.reader import TraceReader
from hqtool.vocab import TENSOR_KINDS

SCHEMA = "hqtool.info/1"

COLUMNS = (
    Column("layer", "layer", number=False),
    Column("records", "records"),
    Column("kept", "values"),
    Column("shape", "shape", number=False),
    Column("dtype", "dtype", number=False),
    Column("payload_bytes", "size", binary_bytes),
)

STATES = {
    "complete": "complete",
    "open": "open: still being written, or its writer was killed; readable to its last commit",
    "truncated": "truncated: the recording ended early; readable to its last commit",
}


def info_report(reader: TraceReader) -> Report:
    """Everything `hqtool info` says of an open trace."""
    rows = [_row(summary) for summary in reader.overview()]
    size = os.path.getsize(reader.path)
    document = {
        "schema": SCHEMA,
        "path": reader.path,
        "format": reader.format,
        "state": reader.state,
        "file_bytes": size,
        "steps": {"count": len(reader.steps), **_ends(reader.steps)},
        "run": reader.run,
        "layers": {row["layer"]: reader.geometry(row["layer"]) for row in rows},
        "sites": rows,
    }
    tables = [Table(_title(reader, size), _facts(), tuple(_run_rows(reader))), _sites(rows)]
    return Report(document, rows, tables, notes=_notes(rows))


def _row(s: SiteSummary) -> dict[str, Any]:
    return {
        "layer": s.site.layer,
        "tensor": s.site.tensor,
        "records": s.records,
        "with_values": s.with_values,
        "sampled": s.sampled,
        "shapes": [list(shape) for shape in s.shapes],
        "first_step": s.first_step,
        "last_step": s.last_step,
        "dtypes": list(s.dtypes),
        "payload_bytes": s.payload_bytes,
    }


def _ends(steps: list[int]) -> dict[str, int | None]:
    return {"first": steps[0], "last": steps[-1]} if steps else {"first": None, "last": None}


def _title(reader: TraceReader, size: int) -> str:
    return f"{reader.path} ({reader.format}, {binary_bytes(size)})"


def _facts() -> tuple[Column, ...]:
    return (Column("fact", "run", number=False), Column("value", "", number=False))


def _run_rows(reader: TraceReader) -> list[dict[str, str]]:
    """State, steps, and the recorder's own words, one a row."""
    first, last = _ends(reader.steps).values()
    steps = f"{len(reader.steps)} ({first} to {last})" if reader.steps else "none"
    facts = {"state": STATES[reader.state], "steps": steps, **reader.run}
    return [{"fact": str(name), "value": _flat(value)} for name, value in facts.items()]


def _flat(value: Any) -> str:
    """A JSON value as one line of words; what is unset or empty goes unsaid."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(v)}" for key, v in value.items() if v or v == 0)
    if isinstance(value, list):
        return " ".join(map(_flat, value))
    return str(value)


def _sites(rows: list[dict[str, Any]]) -> Table:
    shown = [
        row | {"shape": _shapes(row), "dtype": ", ".join(row["dtypes"]), "kept": _kept(row)}
        for row in rows
    ]
    shown.sort(key=lambda row: list(TENSOR_KINDS).index(row["tensor"]))
    count = f"{len(rows)} site{'s' if len(rows) != 1 else ''}"
    return Table(count, COLUMNS, tuple(shown), section="tensor")


def _shapes(row: dict[str, Any]) -> str:
    texts = ["×".join(map(str, shape)) or "scalar" for shape in row["shapes"]]
    more = f" and {len(texts) - 2} more" if len(texts) > 2 else ""
    return ", ".join(texts[:2]) + more


def _kept(row: dict[str, Any]) -> str:
    """Records that keep values, and whether those are samples."""
    return f"{row['with_values']}{' sampled' if row['sampled'] else ''}"


def _notes(rows: list[dict[str, Any]]) -> list[str]:
    if not any(row["sampled"] for row in rows):
        return []
    return ["sampled: a random sample of the tensor's values; statistics are exact all the same"]
