"""Quality against traffic and energy: every choice of a comparison, and which nothing beats."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hqtool.compare.comparison import Comparison
from hqtool.compare.pareto import Point, on_front
from hqtool.compare.recipe_totals import RecipeTotal, lane_totals, recipe_totals
from hqtool.compare.recommending.totals import goodness
from hqtool.compare.results import Summary
from hqtool.report.model import EXACT, Column, Report, Table, TableRow, decibels
from hqtool.sizes import counted
from hqtool.traffic.pricing.energy import EnergyTable
from hqtool.vocab import TENSOR_KINDS

#: What may stand for quality.
QUALITIES = ("cosine", "sqnr_db", "sqnr_db_low", "noise")

COLUMNS = (
    Column("choice", "choice", number=False),
    Column("sqnr_db", "SQNR dB", decibels, max),
    Column("cosine", "cosine", lambda c: f"{c:.6f}", max),
    Column("noise", "noise", "{:.2g}".format, min),
    Column("traffic_bytes", "KiB a step", lambda amount: f"{amount / 1024:,.1f}", min),
    Column("joules", "µJ a step", lambda joules: f"{1e6 * joules:,.1f}", min),
    Column("front", "front"),
)


@dataclass(frozen=True, slots=True)
class FrontSettings:
    """What the front is about.

    Args:
        quality: one of `QUALITIES`.
        buffer_bytes: of the chip, in which looks move what they hold.
    """

    quality: str
    energy: EnergyTable
    buffer_bytes: int


def with_front(report: Report, comparison: Comparison, settings: FrontSettings) -> Report:
    """The report of a comparison with its front in place of its tables, rows and sentences."""
    of_traces = [
        _front_rows(summaries, settings, trace)
        for trace, summaries in _by_trace(comparison).items()
    ]
    rows = [row for each in of_traces for row in each]
    named = [f"{rows[0]['trace']}: " if len(of_traces) > 1 else "" for rows in of_traces]
    pairs = list(zip(named, of_traces, strict=True))
    entry = {"quality": settings.quality, "energy": settings.energy.name, "rows": rows}
    return replace(
        report,
        document={**report.document, "pareto": entry},
        rows=rows,
        tables=[table for name, each in pairs for table in _tables(name, each, settings)],
        closing="\n".join(name + _sentence(each, settings) for name, each in pairs),
        notes=[*report.notes, *_notes(rows)],
    )


def _by_trace(comparison: Comparison) -> dict[str | None, list[Summary]]:
    """The summaries of each trace; of ranks taken together under None."""
    found: dict[str | None, list[Summary]] = {}
    for result in comparison.results:
        found.setdefault(result.task.path, []).extend(result.summaries)
    return found


def _front_rows(
    summaries: Sequence[Summary], settings: FrontSettings, trace: str | None
) -> list[dict[str, Any]]:
    """A row for each quantizer and each recipe: at each tensor kind, and (`tensor` None) at all."""
    totals = [*lane_totals(summaries), *recipe_totals(summaries)]
    kinds: list[str | None] = [k for k in TENSOR_KINDS if any(t.tensor == k for t in totals)]
    rows = []
    for kind in kinds if len(kinds) == 1 else [*kinds, None]:
        alike = [_row(total, settings, trace) for total in totals if total.tensor == kind]
        front = on_front([_point(row, settings) for row in alike])
        rows += [row | {"on_front": on} for row, on in zip(alike, front, strict=True)]
    return rows


def _row(total: RecipeTotal, settings: FrontSettings, trace: str | None) -> dict[str, Any]:
    return {
        "trace": trace,
        "tensor": total.tensor,
        "choice": total.recipe,
        "sites": total.sites,
        "unquantized": total.unquantized,
        **{name: getattr(total, name) for name in QUALITIES},
        "exact": total.exact,
        "looks": total.looks,
        "static_bytes": total.static_bytes,
        "traffic_bytes": total.traffic_bytes,
        "joules": _joules(total, settings),
    }


def _joules(total: RecipeTotal, settings: FrontSettings) -> float | None:
    if total.traffic_bytes is None:
        return None
    moved, on_chip = 8 * total.traffic_bytes, 8 * total.on_chip_bytes
    return settings.energy.joules(moved, on_chip, settings.buffer_bytes)


def _point(row: TableRow, settings: FrontSettings) -> Point:
    """A row's place; a row without a bill is on no front."""
    quality, moved = row[settings.quality], row["traffic_bytes"]
    if quality is None and row["exact"]:
        quality = math.inf
    if quality is None or moved is None:
        return Point(-math.inf, (math.inf, math.inf))
    return Point(goodness(quality, settings.quality), (moved, row["joules"]))


def _tables(name: str, rows: Iterable[TableRow], settings: FrontSettings) -> list[Table]:
    """A table for each tensor kind, and one of all; on the front marked 'yes'."""
    by_kind: dict[str | None, list[TableRow]] = {}
    for row in rows:
        by_kind.setdefault(row["tensor"], []).append(_shown(row))
    return [_table(name, kind, alike, settings) for kind, alike in by_kind.items()]


def _table(name: str, kind: str | None, rows: Sequence[TableRow], settings: FrontSettings) -> Table:
    what = "all tensor kinds" if kind is None else kind
    sites = counted(rows[0]["sites"], "site")
    title = f"{what} ({sites}): {settings.quality} against bytes and energy"
    columns = (c for c in COLUMNS if c.key != "noise" or settings.quality == "noise")
    return Table(f"{name}{title} ({settings.energy.name})", tuple(columns), tuple(rows))


def _shown(row: TableRow) -> TableRow:
    exact = {"sqnr_db": EXACT} if row["exact"] and row["sqnr_db"] is None else {}
    return {**row, **exact, "front": "yes" if row["on_front"] else "no"}


def _sentence(rows: Sequence[TableRow], settings: FrontSettings) -> str:
    """What nothing beats, the cheapest first."""
    whole = rows[-1]["tensor"] if rows else None
    best = [row for row in rows if row["tensor"] == whole and row["on_front"]]
    if not best:
        return "Nothing has both a figure of quality and a bill, so there is no front."
    names = [row["choice"] for row in sorted(best, key=lambda row: row["traffic_bytes"])]
    return (
        f"On the front, the cheapest first: {', '.join(names)}. Whatever else is compared moves as "
        f"much or more, for no better {settings.quality} than one of these."
    )


def _notes(rows: Iterable[TableRow]) -> list[str]:
    """What limits the front."""
    left = {row["choice"] for row in rows if row["unquantized"]}
    if not left:
        return []
    return [
        "quality is the mean over the sites that a choice quantizes; some are left as they are by "
        + ", ".join(sorted(left))
    ]
