"""Study: its table as printed, and the offline score against the metric with the correlation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from hqtool.report.model import Column, Table
from hqtool.report.page.axes import Spec, named, quantitative, view
from hqtool.report.page.markup import element, paragraphs, table
from hqtool.report.page.material import Document, Material
from hqtool.report.page.section import Chart, Columns, Part, Section, columns_of
from hqtool.report.page.sections.tradeoff import SIDES, error_bars, labelled, metric_name
from hqtool.report.study_report import decimals, plus_minus
from hqtool.sizes import binary_bytes, counted

#: Offline score → how it is called on an axis.
SCORES = {
    "sqnr_db": "SQNR on the trace (dB)",
    "cosine": "cosine on the trace",
    "noise": "noise on the trace, summed (less is better)",
}


#: Noise below is drawn on a linear axis, for it may be 0; that above on a logarithmic one.
LEAST_NOISE = 1e-3

#: Ticks on that axis.
DECADES = (1e-3, 1e-2, 1e-1, 1, 10, 100)


def study(material: Material) -> Section:
    """From each study's document."""
    if not material.studies:
        text = "No study was given: hqtool study trains with recipes and seeds side by side."
        return Section("study", "Study", [element("p", text)])
    parts: list[Part] = []
    data: dict[str, Columns] = {}
    for place, document in enumerate(material.studies):
        parts += _parts(place, document)
        rows = [_scored(row) for row in document["table"] if row.get("mean") is not None]
        for score in _scores(document):
            chosen = [row for row in rows if row[score] is not None]
            named = labelled(
                chosen,
                [_across(score, row[score]) for row in chosen],
                [row["mean"] for row in chosen],
            )
            data[f"study-{place}-{score}"] = columns_of(named, [*_scored({}), *SIDES])
    return Section("study", "Study", parts, data)


def _across(score: str, value: float) -> float:
    """Where it lies on the axis."""
    return math.log1p(value / LEAST_NOISE) if score == "noise" else value


def _parts(place: int, document: Document) -> Iterator[Part]:
    yield table(_table(document))
    yield paragraphs(*_lost(document))
    yield tuple(_chart(place, score, document) for score in _scores(document))
    yield paragraphs(*_correlations(document))


def _scores(document: Document) -> list[str]:
    return [s for s in SCORES if any(row.get(s) is not None for row in document["table"])]


def _scored(row: Any) -> dict[str, Any]:
    mean, std = row.get("mean"), row.get("std")
    return {
        "choice": row.get("recipe"),
        "mean": mean,
        "low": None if std is None else mean - std,
        "high": None if std is None else mean + std,
        "sqnr_db": row.get("sqnr_db"),
        "cosine": row.get("cosine"),
        "noise": row.get("noise"),
        "runs": row.get("runs"),
    }


def _table(document: Document) -> Table:
    metric, known = metric_name(document), document["study"]
    columns = (
        Column("recipe", "recipe", number=False),
        Column("static", "static", lambda static: "yes" if static else "no", number=False),
        Column("metric", metric),
        Column("change", f"from {known['baseline']}"),
        Column("of", "runs"),
        Column("diverged", "diverged"),
        Column("traffic_bytes", "a step", binary_bytes),
        Column("sqnr_db", "SQNR dB", "{:.2f}".format),
        Column("cosine", "cosine", "{:.6f}".format),
        Column("noise", "noise", "{:.2g}".format),
    )
    rows = tuple(_shown(row) for row in document["table"])
    seeds = counted(len(known["seeds"]), "seed")
    title = (
        f"{metric}: mean ± standard deviation over {seeds}; from {known['baseline']}: mean "
        "difference ± half the 95 % interval"
    )
    return Table(title, columns, rows)


def _shown(row: Any) -> dict[str, Any]:
    runs = row["runs"] + row["diverged"] + row["failed"] + row["timed_out"]
    change, high = row["difference"], row["difference_high"]
    half = None if change is None or high is None else high - change
    places = decimals(row["std"], row["mean"])
    return {
        **row,
        "metric": plus_minus(row["mean"], row["std"], places),
        "change": plus_minus(change, half, places, "+"),
        "of": f"{row['runs']}/{runs}",
    }


def _lost(document: Document) -> Iterator[str]:
    """The runs without a figure."""
    for run in document["runs"]:
        if run["outcome"] != "finished":
            how = run["outcome"].replace("-", " ")
            yield f"{run['recipe']}, seed {run['seed']} {how}: {run['reason']}"


def _chart(place: int, score: str, document: Document) -> Chart:
    metric = metric_name(document)
    told = (
        ("choice", "recipe"),
        (score, SCORES[score], ".6~g"),
        ("mean", metric, ".4~g"),
        ("runs", "runs", "d"),
    )
    scale: Spec = {"padding": 24}
    more: Spec = {}
    if score == "noise":
        scale |= {"type": "symlog", "constant": LEAST_NOISE}
        more = {"axis": {"values": [0, *DECADES], "format": "~g"}}
    x = quantitative(score, SCORES[score], scale=scale, **more)
    layers = error_bars(x, metric, told)
    spec = view(300, data=named(f"study-{place}-{score}"), layer=layers)
    caption = f"Does replay tell? Of each recipe, {SCORES[score]} against {metric} as trained."
    return Chart(f"study-{place}-{score}", caption, spec)


def _correlations(document: Document) -> Iterator[str]:
    for row in document.get("correlation", []):
        name, recipes = SCORES.get(row["score"], row["score"]), counted(row["recipes"], "recipe")
        if row["spearman"] is None:
            yield f"No rank correlation of {name} with the metric, over {recipes}."
        else:
            yield (
                f"Spearman's rank correlation of {name} with the metric over {recipes}: "
                f"{row['spearman']:+.2f} (95 % bootstrap interval {row['low']:+.2f} … "
                f"{row['high']:+.2f})."
            )
