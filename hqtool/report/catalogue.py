"""The report of what can be chosen: estimators, formats, metrics and tensor kinds."""

from __future__ import annotations

from typing import Any

from hqtool.core.formats.named import FORMATS
from hqtool.core.metrics import METRICS
from hqtool.estimators.presets import ESTIMATORS
from hqtool.parameters import to_json
from hqtool.registry import Entry
from hqtool.report.model import Column, Report, Table
from hqtool.vocab import TENSOR_KINDS

SCHEMA = "hqtool.list/1"

#: Kinds that are chosen with parameters, and so are shown as they are typed.
REGISTERED = ("estimator", "format")


def catalogue_report() -> Report:
    """Everything that is registered, with what outside packages add."""
    sections = {
        "estimator": [_registered(entry) for entry in ESTIMATORS],
        "format": [_registered(entry) for entry in FORMATS],
        "metric": [
            {"name": m.name, "unit": m.unit, "meaning": m.meaning} for m in METRICS.values()
        ],
        "tensor kind": [{"name": n, "meaning": meaning} for n, meaning in TENSOR_KINDS.items()],
    }
    document = {"schema": SCHEMA} | {f"{k}s".replace(" ", "_"): v for k, v in sections.items()}
    rows = [
        {"kind": kind, "name": row.get("usage", row["name"]), "meaning": row["meaning"]}
        for kind, entries in sections.items()
        for row in entries
    ]
    return Report(document, rows, [_table(kind, entries) for kind, entries in sections.items()])


def _registered(entry: Entry[Any]) -> dict[str, Any]:
    parameters = {
        name: None if p.default is p.empty else to_json(p.default)
        for name, p in entry.parameters.items()
    }
    return {
        "name": entry.name,
        "usage": entry.usage,
        "parameters": parameters,
        "meaning": entry.summary,
    }


def _table(kind: str, entries: list[dict[str, Any]]) -> Table:
    key = "usage" if kind in REGISTERED else "name"
    columns = (Column(key, kind, number=False), Column("meaning", "meaning", number=False))
    return Table(f"{kind}s", columns, tuple(entries))
