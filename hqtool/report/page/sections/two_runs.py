"""Two runs: the same sites side by side, the largest differences first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hqtool.compare.results import Summary
from hqtool.report.compared.naming import lane_label
from hqtool.report.model import Column, Table, decibels
from hqtool.report.page.axes import Spec, hover, named, nominal, quantitative, told_apart, view
from hqtool.report.page.embedded import sites_of_run
from hqtool.report.page.markup import Content, element, folded, table
from hqtool.report.page.material import Material
from hqtool.report.page.section import Chart, Section, columns_of
from hqtool.report.page.site_link import SiteLinks
from hqtool.vocab import Site

#: So many sites are drawn.
MOST_DRAWN = 20


def two_runs(material: Material) -> Section:
    """From the comparison of the first two traces."""
    title = "Two runs"
    comparison = material.comparison
    paths = [] if comparison is None else [facts.path for facts in comparison.traces][:2]
    if comparison is None or len(paths) < 2 or comparison.ranks is not None:
        text = "One run was given; with a second trace the same sites stand here side by side."
        return Section("runs", title, [element("p", text)])
    rows = _rows(material, paths)
    if not rows:
        return Section("runs", title, [element("p", "The two runs have no scored site in common.")])
    quantizer = rows[0]["quantizer"]
    parts: list[Content | Chart] = [
        element("p", f"First {paths[0]}, then {paths[1]}; every site under {quantizer}."),
        _chart(rows, paths),
        folded(
            "All shared sites as a table", table(_table(rows, paths), {"layer": SiteLinks.cell})
        ),
    ]
    drawn = [{**row, "at": place} for place, row in enumerate(rows[:MOST_DRAWN])]
    return Section("runs", title, parts, {"runs": columns_of(_long(drawn, paths), _NAMES)})


_NAMES = ("site", "name", "at", "run", "sqnr_db", "difference")


def _rows(material: Material, paths: list[str]) -> list[dict[str, Any]]:
    """A row for each shared site, by the difference in SQNR under the first quantizer."""
    first, second = (_summaries(material, path) for path in paths)
    seen = [sites_of_run(material.pictures, run) for run in range(2)]
    links = SiteLinks.of(material)
    rows = []
    for site, one in first.items():
        other = second.get(site)
        if other is not None:
            row = _row(site, one, other, [each.get(site) for each in seen])
            rows.append(row | {"site": links.place(paths[1], site)})
    known = [row for row in rows if row["difference"] is not None]
    return sorted(known, key=lambda row: -abs(row["difference"]))


def _summaries(material: Material, path: str) -> Mapping[Site, Summary]:
    """Of each site the summary of the first quantizer."""
    assert material.comparison is not None
    return {
        result.task.site: next(s for s in result.summaries if s.recipe is None)
        for result in material.comparison.results
        if result.task.path == path and any(s.recipe is None for s in result.summaries)
    }


def _row(site: Site, one: Summary, other: Summary, seen: list[Any]) -> dict[str, Any]:
    mine, theirs = one.metrics["sqnr_db"], other.metrics["sqnr_db"]
    sizes = [_largest(picture) for picture in seen]
    ratio = sizes[1] / sizes[0] if sizes[0] and sizes[1] else None
    return {
        "layer": site.layer,
        "tensor": site.tensor,
        "name": str(site),
        "quantizer": lane_label((one.estimator, one.format, one.rounding)),
        "first": mine,
        "second": theirs,
        "difference": None if mine is None or theirs is None else theirs - mine,
        "ratio": ratio,
    }


def _largest(picture: Any) -> float | None:
    """The largest magnitude of all records of a site."""
    if picture is None or picture.seen.range is None:
        return None
    found: float = max(map(abs, picture.seen.range))
    return found if math.isfinite(found) else None


def _long(rows: list[dict[str, Any]], paths: list[str]) -> list[dict[str, Any]]:
    return [
        {**row, "run": path, "sqnr_db": row[key]}
        for row in rows
        for key, path in zip(("first", "second"), paths, strict=True)
    ]


def _chart(rows: list[dict[str, Any]], paths: list[str]) -> Chart:
    y = nominal("name", "site (layer/tensor)", sort={"field": "at", "op": "min"})
    x = quantitative("sqnr_db", "SQNR, mean (dB)")
    line: Spec = {
        "mark": {"type": "line", "color": "currentColor", "opacity": 0.5},
        "encoding": {"x": x, "y": y, "detail": {"field": "name"}},
    }
    points: Spec = {
        "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1, "cursor": "pointer"},
        "encoding": {
            "x": x,
            "y": y,
            "color": nominal("run", "trace", scale=told_apart(paths)),
            "shape": nominal(
                "run", "trace", scale={"domain": paths, "range": ["circle", "square"]}
            ),
            "tooltip": hover(
                ("name", "site"),
                ("run", "trace"),
                ("sqnr_db", "SQNR (dB)", ".2f"),
                ("difference", "second − first (dB)", "+.2f"),
            ),
        },
    }
    spec = view({"step": 20}, data=named("runs"), layer=[line, points])
    shown = min(MOST_DRAWN, len(rows))
    caption = f"The {shown} sites that differ most in mean SQNR, the largest difference first."
    return Chart("runs", caption, spec)


def _table(rows: list[dict[str, Any]], paths: list[str]) -> Table:
    columns = (
        Column("layer", "layer", number=False),
        Column("tensor", "tensor", number=False),
        Column("first", f"{paths[0]}: SQNR dB", decibels),
        Column("second", f"{paths[1]}: SQNR dB", decibels),
        Column("difference", "difference dB", "{:+.2f}".format),
        Column("ratio", "largest magnitude, ratio", "{:.3g}×".format),
    )
    return Table("Shared sites, the largest difference first", columns, tuple(rows))
