"""What the replay moves: bytes of each layer in a step under each quantizer, looks included."""

from __future__ import annotations

from typing import Any

from hqtool.compare.results import Summary
from hqtool.report.compared.naming import lane_label
from hqtool.report.model import Column, Table
from hqtool.report.page.markup import Content, table
from hqtool.report.page.material import Material
from hqtool.report.page.section import Chart, Columns, Control, Part, columns_of
from hqtool.report.page.stacked import LOOKS, STATIC, bars, shows
from hqtool.sizes import binary_bytes


def moved_parts(material: Material) -> tuple[list[Part], dict[str, Columns]]:
    """The chart and table of the comparison's traffic, and their data."""
    rows = _rows(material)
    if not rows:
        return [], {}
    return [_chart(rows), _table(rows)], {"moved": columns_of(rows, list(rows[0]))}


def _rows(material: Material) -> list[dict[str, Any]]:
    """Two rows for each site and quantizer that have a bill: KiB in a step, static and added."""
    if material.comparison is None:
        return []
    several = len(material.comparison.traces) > 1 and material.comparison.ranks is None
    return [
        {
            "of": _name(s, f"{result.task.path}: " if several else ""),
            "layer": s.layer,
            "what": what,
            "place": place,
            "kib": moved * _records_a_step(s) / 1024,
        }
        for result in material.comparison.results
        for s in result.summaries
        if s.recipe is None and s.static_bytes is not None and s.traffic_bytes is not None
        for place, (what, moved) in enumerate(
            ((STATIC, s.static_bytes), (LOOKS, s.traffic_bytes - s.static_bytes))
        )
    ]


def _name(s: Summary, run: str) -> str:
    return f"{run}{s.tensor}, {lane_label((s.estimator, s.format, s.rounding))}"


def _records_a_step(s: Summary) -> float:
    return s.replayed / s.replayed_steps if s.replayed_steps else 1.0


def _chart(rows: list[dict[str, Any]]) -> Chart:
    names = list(dict.fromkeys(row["of"] for row in rows))
    told = (("layer", "layer"), ("of", "of"), ("what", "moved"), ("kib", "KiB a step", ",.1f"))
    caption = "As replayed: what each layer moves in a mean step, looks included."
    control = Control("Tensor kind and quantizer", {name: shows(name) for name in names})
    return Chart("moved", caption, bars("moved", names[0], told, " a step"), controls=[control])


def _table(rows: list[dict[str, Any]]) -> Content:
    """Sums over layers."""
    sums: dict[str, dict[str, float]] = {}
    for row in rows:
        at = sums.setdefault(row["of"], {STATIC: 0.0, LOOKS: 0.0})
        at[row["what"]] += 1024 * row["kib"]
    shown = tuple(
        {
            "kind": name.rpartition(", ")[0],
            "quantizer": name.rpartition(", ")[2],
            "static": at[STATIC],
            "added": at[LOOKS],
            "times": (at[STATIC] + at[LOOKS]) / at[STATIC] if at[STATIC] else None,
        }
        for name, at in sums.items()
    )
    columns = (
        Column("quantizer", "quantizer", number=False),
        Column("static", "static a step", binary_bytes),
        Column("added", "added by looks", binary_bytes),
        Column("times", "dynamic / static", "{:.2f}×".format),
    )
    return table(Table("Traffic a step, over all layers", columns, shown, section="kind"))
