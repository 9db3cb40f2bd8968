"""The rows of a comparison's tables, ranked, sorted and chosen."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from hqtool.compare.results import Summary
from hqtool.core.metrics import METRICS
from hqtool.report.compared.naming import Lane, Names, lane_of
from hqtool.report.model import EXACT, TableRow
from hqtool.vocab import TENSOR_KINDS

#: The figures that rows can be ranked by → whether a higher one is better.
RANKINGS = {
    "cosine": True,
    "sqnr_db": True,
    "mse": False,
    "sqnr_db_low": True,
    "saturation": False,
    "underflow": False,
    "nonfinite": False,
    "noise": False,
    "looked": False,
    "traffic": False,
    "traffic_bytes": False,
}


def by_kind(summaries: Sequence[Summary], names: Names) -> list[TableRow]:
    """A row for each (tensor kind, quantizer): means over sites, kinds in the usual order."""
    groups: dict[tuple[str, Lane], list[Summary]] = {}
    for s in summaries:
        groups.setdefault((s.tensor, (s.estimator, s.format, s.rounding)), []).append(s)
    lanes = names.in_order(list(dict.fromkeys(lane for _, lane in groups)))
    keys = [(kind, lane) for kind in TENSOR_KINDS for lane in lanes if (kind, lane) in groups]
    return [{**_row_of(groups[key]), "layer": None} for key in keys]


def by_site(summaries: Sequence[Summary]) -> list[TableRow]:
    """A row for each (site, quantizer)."""
    return [_row_of([s]) for s in summaries]


def _row_of(group: Sequence[Summary]) -> TableRow:
    """The table row of one site, or of several together."""
    first = group[0]
    billed = [(s.traffic_bytes, s.static_bytes) for s in group if s.static_bytes]
    replayed, looks, evaluations = (
        sum(getattr(s, name) for s in group) for name in ("replayed", "looks", "evaluations")
    )
    metrics = {name: mean(s.metrics[name] for s in group) for name in METRICS}
    return {
        "layer": first.layer,
        "tensor": first.tensor,
        "estimator": first.estimator,
        "format": first.format,
        "rounding": first.rounding,
        "bits": first.bits,
        **metrics,
        "sqnr_db": _or_exact(metrics["sqnr_db"], metrics["mse"]),
        "sqnr_db_low": _or_exact(mean(s.sqnr_db_low for s in group), metrics["mse"]),
        "exact": metrics["mse"] == 0,
        "looked": looks / replayed if replayed else None,
        "evaluations": evaluations / looks if looks else None,
        "search_gap": max((s.search_gap for s in group if s.search_gap is not None), default=None),
        "multimodal": mean(s.multimodal for s in group),
        "traffic": sum(t or 0 for t, _ in billed) / sum(s for _, s in billed) if billed else None,
        "traffic_bytes": mean(t for t, _ in billed),
    }


def mean(figures: Iterable[float | None]) -> float | None:
    """The plain mean of the figures there are; None without any."""
    known = [f for f in figures if f is not None]
    return sum(known) / len(known) if known else None


def _or_exact(db: float | None, mse: float | None) -> float | str | None:
    return EXACT if db is None and mse == 0 else db


def in_json(row: TableRow) -> TableRow:
    """A table's row for programs, where "exact" has a key of its own."""
    return {key: None if entry == EXACT else entry for key, entry in row.items()}


def best_of(rows: Sequence[TableRow], names: Names, by: str) -> list[TableRow]:
    """Of the rows that differ only in parameters, the one that ranks first."""
    best: dict[tuple[Any, ...], TableRow] = {}
    for row in rows:
        key = (row["tensor"], row.get("layer"), names.method(lane_of(row)))
        if key not in best or _rank(row, by) > _rank(best[key], by):
            best[key] = row
    return list(best.values())


def ordered(rows: Sequence[TableRow], by: str, top: int | None) -> list[TableRow]:
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


def _rank(row: TableRow, by: str) -> float:
    """Higher is better; a missing figure comes last, but 'exact' first."""
    figure = row[by]
    if not isinstance(figure, float):
        return math.inf if figure == EXACT else -math.inf
    return figure if RANKINGS[by] else -figure
