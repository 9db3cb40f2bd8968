"""Bits and formats: quality over what a format stores of each element, for each tensor kind."""

from __future__ import annotations

from typing import Any

from hqtool.core.formats.block import BlockFormat
from hqtool.core.formats.uniform import UniformFormat
from hqtool.report.compared.naming import Names, lane_label, lane_of
from hqtool.report.compared.rows import by_kind
from hqtool.report.model import EXACT, Column, Table, TableRow, decibels, percent
from hqtool.report.page.axes import (
    FIGURES,
    STROKES,
    SYMBOLS,
    Spec,
    dashes,
    hover,
    named,
    nominal,
    quantitative,
    shapes,
    titled,
    told_apart,
    view,
)
from hqtool.report.page.markup import element, table
from hqtool.report.page.material import NOTHING_SCORED, Material
from hqtool.report.page.section import Chart, Control, Section, columns_of
from hqtool.vocab import TENSOR_KINDS

SHOWN = ("SQNR, mean", "SQNR, worst tenth", "cosine")
FAMILIES = ("whole numbers", "floating point", "blocks")

COLUMNS = (
    Column("quantizer", "quantizer", number=False),
    Column("bits", "bits", "{:g}".format),
    Column("sqnr_db", "SQNR dB", decibels, max),
    Column("sqnr_db_low", "low dB", decibels),
    Column("cosine", "cosine", "{:.6f}".format, max),
    Column("saturation", "saturated", percent),
    Column("looked", "looked", percent),
)


def bits(material: Material) -> Section:
    """From the comparison's rows for each tensor kind."""
    title = "Bits and formats"
    comparison = material.comparison
    if comparison is None or not comparison.settings.quantizers:
        text = "No quantizers were compared by themselves."
        return Section("bits", title, [element("p", text)])
    if material.nothing_scored:
        return Section("bits", title, [element("p", NOTHING_SCORED)])
    names = Names(comparison.settings)
    summaries = [s for s in comparison.summaries if s.recipe is None]
    rows = [_row(row, material) for row in by_kind(summaries, names)]
    kinds = [kind for kind in TENSOR_KINDS if any(row["tensor"] == kind for row in rows)]
    estimators = list(dict.fromkeys(row["estimator"] for row in rows))
    charts = tuple(_chart(kind, estimators) for kind in kinds)
    tables = [
        table(Table(f"{kind}: means over layers", COLUMNS, tuple(of(rows, kind)))) for kind in kinds
    ]
    return Section("bits", title, [charts, *tables], {"kinds": columns_of(rows, _NAMES)})


_NAMES = ("tensor", "quantizer", "estimator", "format", "family", "bits", "sqnr_db",
          "sqnr_db_low", "cosine", "cosine_loss", "looked")  # fmt: skip


def of(rows: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The rows of one tensor kind."""
    return [row for row in rows if row["tensor"] == kind]


def _row(row: TableRow, material: Material) -> dict[str, Any]:
    assert material.comparison is not None
    formats: dict[str, Any] = {f.label: f.value for f in material.comparison.settings.formats}
    cosine = row["cosine"]
    return {
        **row,
        "quantizer": lane_label(lane_of(row)),
        "family": _family(formats[row["format"]]),
        "cosine_loss": None if cosine is None else max(1 - cosine, 1e-12),
    }


def _family(format_: Any) -> str:
    if isinstance(format_, BlockFormat):
        return FAMILIES[2]
    return FAMILIES[0] if isinstance(format_, UniformFormat) else FAMILIES[1]


def _chart(kind: str, estimators: list[str]) -> Chart:
    first = SHOWN[0]
    spec = view(320, data=named("kinds"), title=titled(kind),
        params=[{"name": "kind", "value": kind}],
        transform=_rows_of(first),
                layer=_layers(first, estimators))  # fmt: skip
    options = {
        label: {"transform": _rows_of(label), "layer": _layers(label, estimators)}
        for label in SHOWN
    }
    caption = (
        f"{kind}: means over its layers; scale bits are counted. A line joins the bit-widths of "
        "one estimator and kind of format."
    )
    return Chart(f"bits-{kind}", caption, spec, controls=[Control("Figure", options)], group="bits")


def _rows_of(label: str) -> list[Spec]:
    field = FIGURES[label].field
    known = f"isValid(datum['{field}']) && datum['{field}'] !== '{EXACT}'"
    return [{"filter": "datum.tensor === kind"}, {"filter": known}]


def _layers(label: str, estimators: list[str]) -> list[Spec]:
    figure = FIGURES[label]
    reverse = {} if figure.worst_low else {"reverse": True}
    title = figure.title + (" (log)" if figure.scale == "log" else "")
    x = quantitative(
        "bits", "bits stored for each element", axis={"tickMinStep": 1}, scale={"padding": 12}
    )
    y = quantitative(figure.field, title, scale={"type": figure.scale, "padding": 8, **reverse})
    color = nominal("estimator", "estimator", scale=told_apart(estimators), legend=STROKES)
    line = {
        "mark": {"type": "line", "strokeWidth": 1.5},
        "encoding": {
            "x": x,
            "y": y,
            "color": color,
            "detail": {"field": "family", "type": "nominal"},
            "strokeDash": nominal(
                "estimator", "estimator", scale=dashes(estimators), legend=STROKES
            ),
        },
    }
    points = {
        "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1},
        "encoding": {
            "x": x,
            "y": y,
            "color": color,
            "shape": nominal("family", "format", scale=shapes(FAMILIES), legend=SYMBOLS),
            "tooltip": hover(
                ("quantizer", "quantizer"),
                ("bits", "bits", "~g"),
                ("sqnr_db", "SQNR, mean (dB)", ".2f"),
                ("sqnr_db_low", "SQNR, worst tenth (dB)", ".2f"),
                ("cosine", "cosine", ".6f"),
                ("looked", "looked at", "~%"),
            ),
        },
    }
    return [line, points]
