"""Layers × quantizers: a heat map for each tensor kind; a click opens the site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hqtool.compare.results import Summary
from hqtool.report.compared.naming import lane_label
from hqtool.report.model import Column, Table, decibels
from hqtool.report.page.axes import (
    FIGURES,
    SCHEME,
    Figure,
    Spec,
    hover,
    named,
    nominal,
    only,
    titled,
    view,
)
from hqtool.report.page.markup import Content, element, folded, table
from hqtool.report.page.material import NOTHING_SCORED, Material
from hqtool.report.page.section import Chart, Columns, Control, Part, Section, columns_of
from hqtool.report.page.site_link import SiteLinks
from hqtool.vocab import TENSOR_KINDS, Site

NAMES = (
    "site", "run", "layer", "tensor", "depth", "rank", "quantizer", "sqnr_db", "sqnr_db_low",
    "cosine", "cosine_loss", "saturation", "underflow", "steps",
)  # fmt: skip


def heat_map(material: Material) -> Section:
    """From the comparison's summaries, recipes left out."""
    comparison = material.comparison
    title = "Layers × quantizers"
    if comparison is None or not comparison.settings.quantizers:
        text = "No trace and no comparison of quantizers was given."
        return Section("layers", title, [element("p", text)])
    if material.nothing_scored:
        return Section("layers", title, [element("p", NOTHING_SCORED)])
    links = SiteLinks.of(material)
    rows = _rows(material, links)
    kinds = [kind for kind in TENSOR_KINDS if any(row["tensor"] == kind for row in rows)]
    runs = list(dict.fromkeys(row["run"] for row in rows))
    parts: list[Part] = [element("p", _how_to_read(material, bool(material.pictures)))]
    parts.append(tuple(_chart(kind, runs) for kind in kinds))
    parts += [
        folded(f"{kind} as a table: mean SQNR in dB", _table(kind, rows, material, links))
        for kind in kinds
    ]
    data: dict[str, Columns] = {"scores": columns_of(rows, NAMES)}
    return Section("layers", title, parts, data)


def _how_to_read(material: Material, linked: bool) -> str:
    click = " A click on a cell shows that site below." if linked else ""
    return (
        "Each cell is one layer under one quantizer, a mean over its scored records. Only of SQNR "
        f"is the worst tenth of the records known.{click}"
    )


def _rows(material: Material, links: SiteLinks) -> list[dict[str, Any]]:
    """A row for each summary that no recipe asked for, in the order of the traces."""
    comparison = material.comparison
    assert comparison is not None
    ranks = _ranks(material)
    return [
        {
            "site": links.place(result.task.path, result.task.site),
            "run": result.task.path or "all ranks",
            "layer": s.layer,
            "tensor": s.tensor,
            "depth": depth,
            "rank": ranks.get(result.task.site, depth),
            **_figures(s),
        }
        for depth, result in enumerate(comparison.results)
        for s in result.summaries
        if s.recipe is None
    ]


def _ranks(material: Material) -> Mapping[Site, int]:
    """Sites by what the quantizer of the sensitivity ranking costs them, the dearest first."""
    found = material.recommendation
    return {} if found is None else {loss.site: place for place, loss in enumerate(found.losses)}


def _figures(s: Summary) -> dict[str, Any]:
    cosine = s.metrics["cosine"]
    return {
        "quantizer": lane_label((s.estimator, s.format, s.rounding)),
        "sqnr_db": s.metrics["sqnr_db"],
        "sqnr_db_low": s.sqnr_db_low,
        "cosine": cosine,
        "cosine_loss": None if cosine is None else max(1 - cosine, 1e-12),
        "saturation": s.metrics["saturation"],
        "underflow": s.metrics["underflow"],
        "steps": s.steps,
    }


def _chart(kind: str, runs: Sequence[str]) -> Chart:
    spec = view(
        {"step": 15},
        data=named("scores"),
        title=titled(kind),
        params=[{"name": "run", "value": runs[0]}],
        transform=[*only({"tensor": kind}), {"filter": "datum.run === run"}],
        mark={"type": "rect", "cursor": "pointer", "stroke": "currentColor", "strokeOpacity": 0.15},
        encoding={
            "x": nominal(
                "quantizer",
                "quantizer",
                axis={"labelAngle": -60, "labelLimit": 150, "labelOverlap": False},
            ),
            "y": nominal(
                "layer", f"layer ({kind})", sort=_order("depth"), axis={"labelOverlap": False}
            ),
            "color": _colour(next(iter(FIGURES.values()))),
            "tooltip": hover(
                ("layer", "layer"),
                ("quantizer", "quantizer"),
                ("sqnr_db", "SQNR, mean (dB)", ".2f"),
                ("sqnr_db_low", "SQNR, worst tenth (dB)", ".2f"),
                ("cosine", "cosine", ".6f"),
                ("saturation", "saturated", ".3~%"),
                ("underflow", "underflow", ".3~%"),
                ("steps", "records scored", ",d"),
            ),
        },
    )
    controls = [
        Control("Figure", {n: {"encoding": {"color": _colour(f)}} for n, f in FIGURES.items()}),
        Control(
            "Layers in the order of",
            {
                "the network": {"encoding": {"y": {"sort": _order("depth")}}},
                "sensitivity": {"encoding": {"y": {"sort": _order("rank")}}},
            },
        ),
    ]
    if len(runs) > 1:
        chosen = {run: {"params": [{"name": "run", "value": run}]} for run in runs}
        controls.append(Control("Trace", chosen))
    caption = f"{kind}: bright is good. Missing cells could not be scored."
    return Chart(f"layers-{kind}", caption, spec, False, controls, "layers")


def _order(field: str) -> Spec:
    return {"field": field, "op": "min", "order": "ascending"}


def _colour(figure: Figure) -> Spec:
    """Bright is good."""
    good_low = {} if figure.worst_low else {"reverse": True}
    kind = "log" if figure.scale == "log" else "linear"
    title = figure.title + (" (log)" if kind == "log" else "")
    return {
        "field": figure.field,
        "type": "quantitative",
        "title": title,
        "scale": {
            "scheme": SCHEME,
            "type": kind,
            **({} if kind == "log" else {"zero": False}),
            **good_low,
        },
        "legend": {
            "gradientLength": {"expr": "min(width, 300)"},
            "format": "~%" if "%" in figure.format else ".3~g",
        },
    }


def _table(kind: str, rows: list[dict[str, Any]], material: Material, links: SiteLinks) -> Content:
    """A row for each layer, a column for each quantizer."""
    of_kind = [row for row in rows if row["tensor"] == kind]
    quantizers = list(dict.fromkeys(row["quantizer"] for row in of_kind))
    layers: dict[tuple[str, str], dict[str, Any]] = {}
    for row in of_kind:
        key = row["run"], row["layer"]
        at = layers.setdefault(key, {k: row[k] for k in ("run", "layer", "site")})
        at[row["quantizer"]] = row["sqnr_db"]
    several = len({run for run, _ in layers}) > 1
    columns = (
        Column("layer", "layer", number=False),
        *(Column(label, label, decibels) for label in quantizers),
    )
    section = "run" if several else None
    found = Table(f"{kind}: mean SQNR (dB)", columns, tuple(layers.values()), section=section)
    return table(found, {"layer": links.cell})
