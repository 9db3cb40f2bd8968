"""Traffic: bytes a layer, what static moves and what dynamic adds; of a bill, or of the replay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hqtool.report.compared.naming import lane_label
from hqtool.report.model import Column, Table
from hqtool.report.page.axes import (
    LONG_LABELS,
    Spec,
    hover,
    named,
    nominal,
    only,
    quantitative,
    view,
)
from hqtool.report.page.markup import Content, element, folded, table
from hqtool.report.page.material import Document, Material
from hqtool.report.page.section import Chart, Columns, Control, Section, columns_of
from hqtool.report.traffic import LAYER_COLUMNS
from hqtool.sizes import binary_bytes

STATIC, ADDED = "static: each tensor moved once", "added by looks: accumulator saved and reloaded"
COLOURS: Spec = {"domain": [STATIC, ADDED], "range": ["#0072B2", "#E69F00"]}


def traffic(material: Material) -> Section:
    """From a bill, and from the comparison where layers' geometry is known."""
    parts: list[Content | Chart] = []
    data: dict[str, Columns] = {}
    if material.bill is not None:
        rows = _bill_rows(material.bill)
        data["bill"] = columns_of(rows, list(rows[0]))
        parts += [_bill_chart(), _in_words(material.bill), _bill_table(material.bill)]
    replayed = _replay_rows(material)
    if replayed:
        data["moved"] = columns_of(replayed, list(replayed[0]))
        parts += [_replay_chart(replayed), _replay_table(replayed)]
    if not parts:
        text = "Neither a bill nor a trace that tells the geometry of its layers was given."
        parts = [element("p", text)]
    return Section("traffic", "Traffic", parts, data)


# --- a bill


def _bill_rows(bill: Document) -> list[dict[str, Any]]:
    return [
        {"place": place, "layer": layer["name"], "op": layer["op"], "what": what, "kib": b / 1024}
        for place, layer in enumerate(bill["layers"])
        for what, b in (
            (STATIC, layer["static_bytes"]),
            (ADDED, layer["dynamic_bytes"] - layer["static_bytes"]),
        )
    ]


def _bars(data: str, transform: Sequence[Spec], told: Sequence[tuple[Any, ...]]) -> Spec:
    """Stacked bars, one for each layer in the order of the data."""
    return view(
        {"step": 17},
        data=named(data),
        transform=list(transform),
        mark={"type": "bar"},
        encoding={
            "y": nominal("layer", "layer"),
            "x": quantitative("kib", "memory traffic (KiB)", stack="zero", scale={"zero": True}),
            "color": nominal("what", "moved", scale=COLOURS, legend=LONG_LABELS),
            "order": {"field": "place"},
            "tooltip": hover(*told),
        },
    )


def _bill_chart() -> Chart:
    told = (("layer", "layer"), ("op", "op"), ("what", "moved"), ("kib", "KiB", ",.1f"))
    caption = "The bill, layer by layer: static quantization, and what a look at every output adds."
    return Chart("bill", caption, _bars("bill", (), told))


def _in_words(bill: Document) -> Content:
    total = bill["total"]
    static, dynamic = (binary_bytes(total[f"{name}_bytes"]) for name in ("static", "dynamic"))
    text = f"In total {static} static, {dynamic} dynamic: {1 + total['overhead']:.2f} times."
    return element("p", text)


def _bill_table(bill: Document) -> Content:
    total = {"name": "total", **bill["total"]}
    found = Table("The bill", LAYER_COLUMNS, tuple(bill["layers"]), total=total)
    return folded("The bill as a table", table(found))


# --- a replay


def _replay_rows(material: Material) -> list[dict[str, Any]]:
    """Two rows for each site and quantizer that have a bill: KiB in a step."""
    if material.comparison is None:
        return []
    return [
        {
            "layer": s.layer,
            "tensor": s.tensor,
            "run": result.task.path or "all ranks",
            "quantizer": lane_label((s.estimator, s.format, s.rounding)),
            "what": what,
            "kib": moved * _records_a_step(s) / 1024,
        }
        for result in material.comparison.results
        for s in result.summaries
        if s.recipe is None and s.static_bytes is not None and s.traffic_bytes is not None
        for what, moved in ((STATIC, s.static_bytes), (ADDED, s.traffic_bytes - s.static_bytes))
    ]


def _records_a_step(s: Any) -> float:
    return s.replayed / s.replayed_steps if s.replayed_steps else 1.0


def _replay_chart(rows: list[dict[str, Any]]) -> Chart:
    quantizers = list(dict.fromkeys(row["quantizer"] for row in rows))
    kinds = list(dict.fromkeys(row["tensor"] for row in rows))
    run = rows[0]["run"]

    def chosen(quantizer: str, kind: str) -> list[Spec]:
        return only({"quantizer": quantizer, "tensor": kind, "run": run})

    told = (("layer", "layer"), ("quantizer", "quantizer"), ("what", "moved"),
            ("kib", "KiB a step", ",.1f"))  # fmt: skip
    spec = _bars("moved", chosen(quantizers[0], kinds[0]), told)
    shown = {
        f"{quantizer}, {kind}": {"transform": chosen(quantizer, kind)}
        for kind in kinds
        for quantizer in quantizers
    }
    caption = f"As replayed on {run}: what each layer moves in a mean step, looks included."
    return Chart("moved", caption, spec, controls=[Control("Quantizer and tensor kind", shown)])


def _replay_table(rows: list[dict[str, Any]]) -> Content:
    """Sums over layers."""
    sums: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in rows:
        at = sums.setdefault((row["run"], row["tensor"], row["quantizer"]), {})
        at[row["what"]] = at.get(row["what"], 0.0) + 1024 * row["kib"]
    runs = {run for run, _, _ in sums}
    shown = tuple(
        {
            "run": f"{run}: {tensor}" if len(runs) > 1 else tensor,
            "quantizer": quantizer,
            "static": at[STATIC],
            "added": at[ADDED],
            "times": (at[STATIC] + at[ADDED]) / at[STATIC],
        }
        for (run, tensor, quantizer), at in sums.items()
    )
    columns = (
        Column("quantizer", "quantizer", number=False),
        Column("static", "static a step", binary_bytes),
        Column("added", "added by looks", binary_bytes),
        Column("times", "dynamic / static", "{:.2f}×".format),
    )
    return table(Table("Traffic a step, over all layers", columns, shown, section="run"))
