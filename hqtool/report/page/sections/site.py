"""A site: its range over steps, where estimators looked or were left behind, its values, errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hqtool.report.model import Column, Table, percent
from hqtool.report.page.axes import (
    STROKES,
    Spec,
    dashes,
    hover,
    named,
    nominal,
    quantitative,
    told_apart,
    view,
)
from hqtool.report.page.markup import Content, element, folded, table
from hqtool.report.page.material import Material
from hqtool.report.page.picture import IN_TRAINING, READ_RECORDS, SitePicture
from hqtool.report.page.section import Chart, Control, Part, Section
from hqtool.report.page.site_link import SiteLinks

SYMLOG: Spec = {"type": "symlog", "constant": {"$": "unit"}}
TICKS: Spec = {"values": {"$": "ticks"}, "format": ".3~g"}


def site(material: Material) -> Section:
    """From the pictures of all sites."""
    if not material.pictures:
        text = "No trace was given, so there are no records to draw."
        return Section("site", "A site", [element("p", text)])
    estimators = _estimators(material)
    quantizers = [each.label for each in material.drawn]
    parts: list[Part] = [
        element("p", _thinned(), class_="note"),
        element("div", id="site-picker", class_="controls"),
        element("p", class_="site-shown", aria_live="polite"),
        _range_chart(estimators),
    ]
    if estimators:
        parts.append(_marks_chart(estimators))
    parts.append((_values_chart(), _errors_chart(quantizers)))
    return Section("site", "A site", [*parts, _sites_table(material)])


def _thinned() -> str:
    return (
        "Of long runs only some records are drawn: the steps are cut into spans of equal length, "
        "and of each the record with the lowest minimum and the one with the highest maximum are "
        "kept (over errors: the worst and the best), so that no extreme is lost. Drawn values are "
        "rounded to 0.1 %. An estimator that always asks for the tensor's own range, such as "
        "current, coincides with the band and is not drawn. Of a run of hqtool train, “used in "
        "training” is the range that quantized the tensor there; its marks tell where it was "
        "looked at, and where values were clipped."
    )


def _estimators(material: Material) -> list[str]:
    """Those that are drawn at any site."""
    names = (
        name.removeprefix("lo ")
        for picture in material.pictures
        for name in picture.seen.steps
        if name.startswith("lo ")
    )
    found = list(dict.fromkeys(names))
    return sorted(found, key=lambda name: name != IN_TRAINING)


def _range_chart(estimators: list[str]) -> Chart:
    x = quantitative("step", "step")
    y = quantitative("min", "value")
    band = {
        "data": named("steps"),
        "mark": {"type": "area", "opacity": 0.25, "color": "#8C8C8C"},
        "encoding": {
            "x": x,
            "y": y,
            "y2": {"field": "max"},
            "tooltip": hover(
                ("step", "step", ",d"), ("min", "min", ".4~g"), ("max", "max", ".4~g")
            ),
        },
    }
    lines = [
        {
            "data": named("ranges"),
            "mark": {"type": "line", "strokeWidth": 1.5},
            "encoding": {
                "x": x,
                "y": {**y, "field": end},
                "color": nominal("estimator", "range asked for by", scale=told_apart(estimators)),
                "strokeDash": nominal("estimator", "range asked for by", scale=dashes(estimators)),
                "tooltip": hover(
                    ("estimator", "estimator"),
                    ("step", "step", ",d"),
                    ("lo", "from", ".4~g"),
                    ("hi", "to", ".4~g"),
                ),
            },
        }
        for end in ("lo", "hi")
    ]
    layers = [band, *(lines if estimators else [])]
    spec = view(300, layer=layers)
    caption = "Band: from the tensor's minimum to its maximum. Lines: what each estimator asks for."
    if IN_TRAINING in estimators:
        caption += " The first of them is what quantized the tensor in training."
    return Chart("site-range", caption, spec, True, [axis_choice(layers)])


def axis_choice(layers: Sequence[Spec]) -> Control:
    """On what axis the values of a site are drawn."""
    options = {"a linear axis": {}, "a symmetric log axis": {"layer": [_symlog(x) for x in layers]}}
    return Control("Values on", options)


def symlog_axis(field: str) -> Spec:
    """A site's values on a symmetric log axis."""
    title = "value (symmetric log axis)"
    return {**quantitative(field, title), "axis": TICKS, "scale": SYMLOG}


def _symlog(layer: Spec) -> Spec:
    """A layer with its values on a symmetric log axis."""
    encoding = layer["encoding"]
    return {
        **layer,
        "encoding": {**encoding, "y": {**encoding["y"], "scale": SYMLOG, "axis": TICKS}},
    }


def _marks_chart(estimators: list[str]) -> Chart:
    told = ["values outside", "looked"]
    spec = view(
        {"step": 26},
        data=named("ranges"),
        transform=[
            {"fold": ["outside", "looked"], "as": ["what", "happened"]},
            {"filter": "datum.happened == 1"},
            {"calculate": "datum.what == 'outside' ? 'values outside' : 'looked'", "as": "what"},
        ],
        mark={"type": "tick", "thickness": 1.5, "bandSize": 20},
        encoding={
            "x": quantitative("step", "step"),
            "y": {**nominal("estimator", "estimator"), "scale": {"domain": estimators}},
            "yOffset": {"field": "what", "type": "nominal", "scale": {"domain": told}},
            "color": {
                "field": "what",
                "type": "nominal",
                "title": "what happened",
                "scale": {"domain": told, "range": ["#D55E00", "#0072B2"]},
                "legend": {"symbolType": "square"},
            },
            "tooltip": hover(("estimator", "estimator"), ("what", "what"), ("step", "step", ",d")),
        },
    )
    caption = (
        "When each estimator looked at the tensor before it was quantized, and when values lay "
        "outside the range it asked for, at the records drawn."
    )
    return Chart("site-marks", caption, spec, True)


def _values_chart() -> Chart:
    axis = symlog_axis("from")
    bars = {
        "data": named("histogram"),
        "mark": {"type": "rect", "color": "#56B4E9"},
        "encoding": {
            "x": axis,
            "x2": {"field": "to"},
            "y": quantitative(
                "share", "share of the values", axis={"format": "~%"}, scale={"zero": True}
            ),
            "y2": {"datum": 0},
            "tooltip": hover(
                ("from", "from", ".4~g"), ("to", "to", ".4~g"), ("share", "share", ".3~%")
            ),
        },
    }
    levels = {
        "data": named("levels"),
        "mark": {"type": "rule", "color": "#D55E00", "y": "height", "y2": {"expr": "height - 14"}},
        "encoding": {
            "x": {**axis, "field": "level"},
            "tooltip": hover(("level", "level", ".4~g")),
        },
    }
    spec = view(240, layer=[bars, levels], title={"text": {"$": "levels"}, "fontSize": 12,
                "fontWeight": "normal", "color": "#D55E00", "anchor": "start"})  # fmt: skip
    caption = (
        f"Recorded values of up to {READ_RECORDS} records, spread over the run. Marks below: the "
        "levels of the recommended quantizer at the last scored record (of a block format, in the "
        "block with the largest magnitude); levels too near to be told apart are one mark."
    )
    return Chart("site-values", caption, spec, True)


def _errors_chart(quantizers: list[str]) -> Chart:
    x, y = quantitative("step", "step"), quantitative("sqnr_db", "SQNR (dB)")
    color = nominal("quantizer", "quantizer", scale=told_apart(quantizers), legend=STROKES)
    dashed = nominal("quantizer", "quantizer", scale=dashes(quantizers), legend=STROKES)
    told = (("quantizer", "quantizer"), ("step", "step", ",d"), ("sqnr_db", "SQNR (dB)", ".2f"))
    line = {
        "mark": {"type": "line", "strokeWidth": 1.5},
        "encoding": {"x": x, "y": y, "color": color, "strokeDash": dashed},
    }
    points = {
        "mark": {"type": "point", "filled": True, "size": 34, "opacity": 1},
        "encoding": {"x": x, "y": y, "color": color, "tooltip": hover(*told)},
    }
    spec = view(
        260,
        data=named("errors"),
        layer=[line, points],
    )
    caption = (
        "Error over steps, at the records that keep values; higher is better. The first "
        f"{len(quantizers)} quantizers are drawn."
    )
    return Chart("site-errors", caption, spec, True)


def _sites_table(material: Material) -> Content:
    links = SiteLinks.of(material)
    names = list(dict.fromkeys(name for each in material.pictures for name in each.seen.outside))
    several = len(material.runs) > 1
    rows = tuple(_site_row(i, each, material) for i, each in enumerate(material.pictures))
    columns = (
        Column("layer", "layer", number=False),
        Column("tensor", "tensor", number=False),
        Column("records", "records", "{:,}".format),
        Column("min", "lowest", "{:.3g}".format),
        Column("max", "highest", "{:.3g}".format),
        *(Column(f"outside {name}", f"outside {name}", percent) for name in names),
    )
    title = "All sites: extremes over all records; share of records with values outside each range"
    found = Table(title, columns, rows, section="run" if several else None)
    return folded("All sites as a table", table(found, {"layer": links.cell}))


def _site_row(place: int, picture: SitePicture, material: Material) -> dict[str, Any]:
    lowest, highest = picture.seen.range or (None, None)
    outside = {f"outside {name}": share for name, share in picture.seen.outside.items()}
    return {
        "site": place,
        "run": material.runs[picture.run].path if len(material.runs) > 1 else None,
        "layer": picture.site.layer,
        "tensor": picture.site.tensor,
        "records": picture.seen.records,
        "min": lowest,
        "max": highest,
        **outside,
    }
