"""Reports for programs: JSON and CSV. A missing figure is null or an empty cell, never 0."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from typing import Any, TextIO

from hqtool.display import harmless
from hqtool.report.model import Report


def render_json(report: Report, out: TextIO) -> None:
    """The report's document, one JSON value and a newline; steps stream from their file."""
    entries = (f" {json.dumps(key)}: {_entry(v)}" for key, v in report.document.items())
    text = "{\n" + ",\n".join(entries) + "\n}"
    if report.steps is None:
        out.write(text + "\n")
        return
    out.write(text.removesuffix("\n}") + ',\n "steps": [')
    with open(report.steps, encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            out.write(f"{',' if number else ''}\n  {line.rstrip()}")
    out.write("\n ]\n}\n")


def _entry(value: Any) -> str:
    """A value of the document; of a list each item on a line, which is read and written fast."""
    if not isinstance(value, list) or not value:
        return json.dumps(value, indent=1, allow_nan=False).replace("\n", "\n ")
    items = (json.dumps(item, allow_nan=False) for item in value)
    return "[\n  " + ",\n  ".join(items) + "\n ]"


def render_csv(report: Report, out: TextIO) -> None:
    """The report's flat rows under one header line."""
    rows = list(report.rows)
    writer = csv.DictWriter(out, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(shown_cells, rows))


def shown_cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of CSV whose texts are safe to show in a terminal."""
    return {key: harmless(v) if isinstance(v, str) else v for key, v in row.items()}
