"""Parts of Vega-Lite specifications that charts have in common: no axis without a title."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Spec = dict[str, Any]

#: Colours that colour-blind readers tell apart, and that stand out on white and on near-black
#: (Okabe and Ito, "Color Universal Design", 2008, without black and yellow).
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C8C8C")

#: What tells lines and points apart without their colour.
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 4], [10, 4], [1, 3])
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "stroke")

#: Of a legend of lines that have points on them.
STROKES: Spec = {
    "symbolType": "stroke",
    "symbolSize": 300,
    "columns": {"expr": "max(1, floor(width / 250))"},
}

#: Of a legend of shapes whatever their colour.
SYMBOLS: Spec = {"symbolFillColor": "currentColor", "symbolStrokeWidth": 0, "columns": 1}

#: Of a legend with long labels: as many columns as there is room for.
LONG_LABELS: Spec = {"columns": {"expr": "max(1, floor(width / 330))"}}

#: A scheme of even steps in lightness, the same for colour-blind readers.
SCHEME = "cividis"

#: What all charts look like: the text takes the page's colour, light or dark.
CONFIG: Spec = {
    "background": None,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        **dict.fromkeys(("labelColor", "titleColor", "tickColor", "domainColor"), "currentColor"),
        "gridColor": "currentColor",
        "gridOpacity": 0.12,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelLimit": 170,
        "labelOverlap": "greedy",
        "titlePadding": 6,
    },
    "legend": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "orient": "bottom",
        "direction": "horizontal",
        "columns": {"expr": "max(1, floor(width / 170))"},
        "symbolStrokeWidth": 2,
        "labelLimit": 0,
    },
    "text": {"color": "currentColor", "fontSize": 12},
    "range": {"category": list(PALETTE)},
}


class Figure(NamedTuple):
    """A figure of quality as charts show it.

    Args:
        field: the entry of rows that has it.
        title: with its unit.
        worst_low: lower is worse.
        format: d3's, of numbers in tooltips.
    """

    field: str
    title: str
    worst_low: bool
    format: str
    scale: str = "linear"


#: Label → figure, in the order of choices. 1 − cosine is drawn, for cosines crowd at 1.
FIGURES = {
    "SQNR, mean": Figure("sqnr_db", "SQNR, mean (dB)", True, ".2f"),
    "SQNR, worst tenth": Figure("sqnr_db_low", "SQNR, worst tenth of records (dB)", True, ".2f"),
    "cosine": Figure("cosine_loss", "1 − cosine, mean", False, ".3~g", "log"),
    "saturation": Figure("saturation", "saturated share, mean", False, ".3~%"),
    "underflow": Figure("underflow", "underflow share, mean", False, ".3~%"),
}


def quantitative(field: str, title: str, **more: Any) -> Spec:
    """A channel of numbers whose scale need not hold 0."""
    scale = {"nice": False, **more.pop("scale", {})}
    if scale.get("type", "linear") == "linear":
        scale = {"zero": False, **scale}
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, **more}


def nominal(field: str, title: str, **more: Any) -> Spec:
    """A channel of names, in the order of the data."""
    return {"field": field, "type": "nominal", "title": title, "sort": None, **more}


def hover(*entries: tuple[str, str] | tuple[str, str, str]) -> list[Spec]:
    """What is told of a mark: (field, title) of texts, (field, title, format) of numbers."""
    return [
        {"field": e[0], "title": e[1], "type": "nominal"}
        if len(e) == 2
        else {"field": e[0], "title": e[1], "type": "quantitative", "format": e[2]}
        for e in entries
    ]


def view(height: int | Spec, **more: Any) -> Spec:
    """A chart as wide as its place."""
    return {"width": "container", "height": height, **more}


def titled(text: str) -> Spec:
    """A title over a chart."""
    return {"text": text, "anchor": "start", "fontSize": 13, "color": "currentColor"}


def named(data: str) -> Spec:
    """The data set of this name."""
    return {"name": data}


def only(entries: Mapping[str, str | int]) -> list[Spec]:
    """Transforms that keep the rows with these entries."""
    return [{"filter": {"field": key, "equal": value}} for key, value in entries.items()]


def told_apart(names: Sequence[str]) -> Spec:
    """A scale of colours for a few names."""
    return {"domain": list(names), "range": [PALETTE[i % len(PALETTE)] for i in range(len(names))]}


def dashes(names: Sequence[str]) -> Spec:
    """A scale of dashes for a few names."""
    return {"domain": list(names), "range": [DASHES[i % len(DASHES)] for i in range(len(names))]}


def shapes(names: Sequence[str]) -> Spec:
    """A scale of shapes for a few names."""
    return {"domain": list(names), "range": [SHAPES[i % len(SHAPES)] for i in range(len(names))]}
