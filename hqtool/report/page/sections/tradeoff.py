"""Accuracy × traffic: each quantizer a point, the Pareto front; a study's recipes beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hqtool.compare.pareto import Point, on_front
from hqtool.compare.recommending.recommendation import Recommendation
from hqtool.compare.recommending.totals import goodness
from hqtool.report.page.axes import (
    FIGURES,
    LONG_LABELS,
    Figure,
    Spec,
    hover,
    named,
    quantitative,
    view,
)
from hqtool.report.page.labels import NARROW, NARROW_WIDTH, PLACES, on_unit_square, sides
from hqtool.report.page.markup import Content, element
from hqtool.report.page.material import NOTHING_SCORED, Document, Material
from hqtool.report.page.section import Chart, Columns, Control, Section, columns_of

#: The figures that totals have, on the axis of quality.
SHOWN: Mapping[str, Figure] = {
    "noise, summed": Figure("noise", "noise, summed over sites (log)", False, ".2~g", "log"),
    **{label: FIGURES[label] for label in ("SQNR, mean", "cosine")},
}

#: Where a point's name stands in a wide chart and in a narrow one; nowhere where there is no room.
SIDES, NOWHERE = ("side", "narrow_side"), "nowhere"

COLOURS = {
    "domain": ["on the Pareto front", "another choice is as cheap and better"],
    "range": ["#D55E00", "#8C8C8C"],
}


def tradeoff(material: Material) -> Section:
    """From the recommendation's totals, and from each study's table."""
    found = material.recommendation
    charts: list[Chart] = []
    data: dict[str, Columns] = {}
    notes: list[Content] = []
    if found is not None and (choices := list(_rows(found))):
        choices.sort(key=lambda row: row["front_noise"] != COLOURS["domain"][0])
        rows, across = choices, _log_kib(choices)
        for figure in SHOWN.values():
            heights = [_height(row, figure) for row in choices]
            rows = labelled(rows, across, heights, f"_{figure.field}")
        data["tradeoff"] = columns_of(rows, list(rows[0]))
        charts.append(_chart())
        notes.append(_left_out(found))
    for place, study in enumerate(material.studies):
        if recipes := _study_rows(study):
            rows = labelled(recipes, _log_kib(recipes), [row["mean"] for row in recipes])
            data[f"study-tradeoff-{place}"] = columns_of(rows, list(rows[0]))
            charts.append(_study_chart(place, study))
    if not charts:
        notes = [
            element(
                "p",
                NOTHING_SCORED
                if material.nothing_scored
                else "Neither a replay of quantizers nor a study was given.",
            )
        ]
    return Section("tradeoff", "Accuracy × traffic", [tuple(charts), *notes], data)


def labelled(
    rows: list[dict[str, Any]], across: Sequence[float], upwards: Sequence[float], by: str = ""
) -> list[dict[str, Any]]:
    """The rows with the side on which `choice` stands: `side`, and `narrow_side` if narrow.

    Args:
        rows: the most important first.
        across, upwards: where each lies on either axis.
        by: added to the names of both entries.
    """
    names = [row["choice"] for row in rows]
    points = on_unit_square(across, upwards)
    found = zip(rows, sides(points, names), sides(points, names, NARROW), strict=True)
    return [
        {**row, f"side{by}": side or NOWHERE, f"narrow_side{by}": narrow or NOWHERE}
        for row, side, narrow in found
    ]


def _height(row: Mapping[str, Any], figure: Figure) -> float:
    """On the axis of a figure; anywhere without it, for it is not drawn."""
    value = row[figure.field] or 0.0
    height = math.log(value) if figure.scale == "log" and value > 0 else value
    return height if figure.worst_low else -height


def _log_kib(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    return [math.log(row["kib"]) for row in rows]


def _rows(found: Recommendation) -> Iterator[dict[str, Any]]:
    """A row for each choice that has an error; on the front or not, by each figure."""
    totals = [total for total in found.totals if _finite(total.mean["sqnr_db"])]
    fronts = {
        "noise": on_front([Point(goodness(t.noise, "noise"), (t.bytes,)) for t in totals]),
        **{
            name: on_front([Point(goodness(t.mean[name], name), (t.bytes,)) for t in totals])
            for name in ("sqnr_db", "cosine")
        },
    }
    for place, total in enumerate(totals):
        cosine = total.mean["cosine"]
        yield {
            "choice": "each site its own" if total.choice == "mixed" else total.choice,
            "kib": total.bytes / 1024,
            "noise": total.noise,
            "sqnr_db": total.mean["sqnr_db"],
            "worst_db": _or_none(total.worst["sqnr_db"]),
            "cosine": cosine,
            "cosine_loss": None if cosine is None or cosine >= 1 else 1 - cosine,
            "met": f"{total.met} of {len(found.sites)}",
            "front_noise": _word(fronts["noise"][place]),
            "front_sqnr_db": _word(fronts["sqnr_db"][place]),
            "front_cosine_loss": _word(fronts["cosine"][place]),
        }


def _word(front: bool) -> str:
    return COLOURS["domain"][0] if front else COLOURS["domain"][1]


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _or_none(value: float | None) -> float | None:
    return value if _finite(value) else None


def _left_out(found: Recommendation) -> Content:
    exact = [total for total in found.totals if not _finite(total.mean["sqnr_db"])]
    told = [f"{total.choice} moves {total.bytes / 1024:,.1f} KiB a step" for total in exact]
    return element("p", f"Without a place on the axis: {', '.join(told)}." if told else "")


SYMBOLS = ["circle", "square"]

BYTES = quantitative(
    "kib", "memory traffic (KiB a step, log)", scale={"type": "log", "padding": 24}
)


def _chart() -> Chart:
    spec = view(380, data=named("tradeoff"), layer=_layers(next(iter(SHOWN))))
    changes = {label: {"layer": _layers(label)} for label in SHOWN}
    caption = (
        "One quantizer for all sites, or each site its own: quality against the memory traffic of "
        "all sites in a step, looks included. Up and left is better; the line joins the choices "
        "that no other beats in both."
    )
    return Chart("tradeoff", caption, spec, controls=[Control("Quality", changes)])


def _layers(label: str) -> list[Spec]:
    figure = SHOWN[label]
    reverse = {} if figure.worst_low else {"reverse": True}
    y = quantitative(
        figure.field, figure.title, scale={"type": figure.scale, "padding": 14, **reverse}
    )
    known = [{"filter": {"field": figure.field, "valid": True}}]
    front = f"front_{figure.field}"
    fronted = {"field": front, "type": "nominal", "title": None, "legend": LONG_LABELS}
    told = hover(
        ("choice", "quantizer"),
        ("kib", "KiB a step", ",.1f"),
        ("noise", "noise", ".2~g"),
        ("sqnr_db", "SQNR (dB)", ".2f"),
        ("worst_db", "worst site's SQNR (dB)", ".2f"),
        ("cosine", "cosine", ".6f"),
        ("met", "sites good enough"),
    )
    line = {
        "transform": [*known, {"filter": {"field": front, "equal": COLOURS["domain"][0]}}],
        "mark": {"type": "line", "interpolate": "step-after", "color": "#D55E00", "opacity": 0.6},
        "encoding": {"x": BYTES, "y": y, "order": {"field": "kib"}},
    }
    points = {
        "transform": known,
        "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
        "encoding": {
            "x": BYTES,
            "y": y,
            "color": {**fronted, "scale": COLOURS},
            "shape": {**fronted, "scale": {"domain": COLOURS["domain"], "range": SYMBOLS}},
            "tooltip": told,
        },
    }  # fmt: skip
    return [line, points, *names_beside(BYTES, y, known, f"_{figure.field}")]


def names_beside(x: Spec, y: Spec, transform: Sequence[Spec] = (), by: str = "") -> list[Spec]:
    """The labels of points, on the side that has room for them, as `labelled` found it."""
    here = f"(width < {NARROW_WIDTH} ? datum.narrow_side{by} : datum.side{by})"
    return [
        {
            "transform": [*transform, {"filter": f"{here} === '{side}'"}],
            "mark": {
                "type": "text",
                "align": "left" if right else "right",
                "dx": 7 if right else -7,
                "dy": -8 if above else 9,
                "limit": 160,
            },
            "encoding": {"x": x, "y": y, "text": {"field": "choice"}},
        }
        for side, (right, above) in PLACES.items()
    ]


# --- a study's recipes


def _study_rows(study: Document) -> list[dict[str, Any]]:
    return [
        {
            "choice": row["recipe"],
            "kib": row["traffic_bytes"] / 1024,
            "mean": row["mean"],
            "low": None if row["std"] is None else row["mean"] - row["std"],
            "high": None if row["std"] is None else row["mean"] + row["std"],
            "runs": row["runs"],
        }
        for row in study["table"]
        if row.get("traffic_bytes") and row.get("mean") is not None
    ]


def metric_name(study: Mapping[str, Any]) -> str:
    """What a study measures, as its pattern has it before the number."""
    pattern = str(study.get("study", {}).get("metric", "metric"))
    return pattern.partition("(")[0].strip(" :=\\s*") or "metric"


def error_bars(x: Spec, metric: str, told: Sequence[tuple[Any, ...]]) -> list[Spec]:
    """Points with a bar of one standard deviation to either side, and their names."""
    y = quantitative("mean", f"{metric} (mean ± standard deviation)", scale={"padding": 10})
    return [
        {
            "mark": {"type": "rule", "color": "currentColor"},
            "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1, "color": "#0072B2"},
            "encoding": {"x": x, "y": y, "tooltip": hover(*told)},
        },
        *names_beside(x, y),
    ]


def _study_chart(place: int, study: Document) -> Chart:
    metric = metric_name(study)
    told = (
        ("choice", "recipe"),
        ("kib", "KiB a step", ",.1f"),
        ("mean", metric, ".4~g"),
        ("low", "− one standard deviation", ".4~g"),
        ("high", "+ one standard deviation", ".4~g"),
        ("runs", "runs", "d"),
    )
    layers = error_bars(BYTES, metric, told)
    spec = view(380, data=named(f"study-tradeoff-{place}"), layer=layers)
    caption = f"As trained: {metric} of each recipe of the study against its memory traffic."
    return Chart(f"study-tradeoff-{place}", caption, spec)
