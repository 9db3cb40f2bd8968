"""Two runs: the same site of both side by side, the largest differences first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hqtool.report.model import Column, Table, decibels
from hqtool.report.page.axes import (
    Spec,
    dashes,
    hover,
    named,
    nominal,
    quantitative,
    shapes,
    told_apart,
    view,
)
from hqtool.report.page.markup import Content, element, folded, table
from hqtool.report.page.material import Material
from hqtool.report.page.section import Chart, Part, Section, columns_of
from hqtool.report.page.sections.site import axis_choice, symlog_axis
from hqtool.report.page.side_by_side import Pair, SideBySide
from hqtool.report.page.site_link import SiteLinks
from hqtool.sizes import counted
from hqtool.vocab import Site

#: So many sites are drawn.
MOST_DRAWN = 20

#: So many sites that only one run has are named.
MOST_NAMED = 10


def two_runs(material: Material) -> Section:
    """From the comparison of the first two traces."""
    title, found = "Two runs", SideBySide.of(material)
    if found is None:
        text = "One run was given; with a second trace the same sites stand here side by side."
        return Section("runs", title, [element("p", text)])
    alone = _alone(found)
    if not found.pairs:
        text = "The two runs have no site in common."
        return Section("runs", title, [element("p", text), *alone])
    rows = [_row(pair) for pair in found.pairs]
    scored = [row for row in rows if row["difference"] is not None][:MOST_DRAWN]
    parts: list[Part] = [element("p", _introduction(found)), *alone]
    if any(row["site"] is not None for row in rows):
        parts += [element("p", class_="site-shown", aria_live="polite"), _pair_of_charts(found)]
    if scored:
        parts.append(_chart(len(scored), found.paths))
    shared = table(_table(rows, found.paths), {"layer": SiteLinks.cell})
    parts.append(folded("All shared sites as a table", shared))
    drawn = [{**row, "at": place} for place, row in enumerate(scored)]
    data = {"runs": columns_of(_long(drawn, found.paths), _NAMES)}
    return Section("runs", title, parts, data, _of_sites(found), found.first_place)


_NAMES = ("site", "name", "at", "run", "sqnr_db", "difference")


def _introduction(found: SideBySide) -> str:
    first, second = found.paths
    under = "" if found.quantizer is None else f" SQNR is that under {found.quantizer}."
    return (
        f"First {first}, then {second}, site by site: those farthest apart come first, by the "
        "difference of their mean SQNR or by 20·log10 of the ratio of their largest magnitudes, "
        f"whichever is larger.{under}"
    )


def _alone(found: SideBySide) -> list[Content]:
    """Which sites only one of the runs has."""
    return [
        element("p", f"Only in {path}: {_names(sites)}.")
        for path, sites in zip(found.paths, found.alone, strict=True)
        if sites
    ]


def _names(sites: Sequence[Site]) -> str:
    named_ = ", ".join(map(str, sites[:MOST_NAMED]))
    more = len(sites) - MOST_NAMED
    return f"{named_} and {counted(more, 'more site')}" if more > 0 else named_


def _row(pair: Pair) -> dict[str, Any]:
    first, second = pair.sqnr_db
    return {
        "layer": pair.site.layer,
        "tensor": pair.site.tensor,
        "name": str(pair.site),
        "site": pair.places[1] if pair.places[0] is None else pair.places[0],
        "first": first,
        "second": second,
        "difference": pair.difference_db,
        "ratio": pair.ratio,
    }


def _long(rows: list[dict[str, Any]], paths: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {**row, "run": path, "sqnr_db": row[key]}
        for row in rows
        for key, path in zip(("first", "second"), paths, strict=True)
    ]


# --- the site that is shown, in both runs


def _of_sites(found: SideBySide) -> dict[int, dict[str, Any]]:
    """Both runs' data of the site under the name of either."""
    data: dict[int, dict[str, Any]] = {}
    for pair in found.pairs:
        runs = {
            place: path
            for place, path in zip(pair.places, found.paths, strict=True)
            if place is not None
        }
        there = [{"site": place, "run": path} for place, path in runs.items()]
        for place in runs:
            data[place] = {
                "range of both": {"together": there, "set": "steps"},
                "values of both": {"together": there, "set": "histogram"},
            }
    return data


def _pair_of_charts(found: SideBySide) -> tuple[Chart, Chart]:
    return _range_chart(found.paths), _values_chart(found.paths)


def _range_chart(paths: Sequence[str]) -> Chart:
    x, y = quantitative("step", "step"), quantitative("min", "value")
    told = hover(
        ("run", "trace"), ("step", "step", ",d"), ("min", "min", ".4~g"), ("max", "max", ".4~g")
    )
    band: Spec = {
        "mark": {"type": "area", "opacity": 0.2},
        "encoding": {
            "x": x, "y": {**y, "stack": None}, "y2": {"field": "max"}, "color": _color(paths),
            "tooltip": told,
        },
    }  # fmt: skip
    ends: list[Spec] = [
        {
            "mark": {"type": "line", "strokeWidth": 1.2},
            "encoding": {
                "x": x, "y": {**y, "field": end}, "color": _color(paths),
                "strokeDash": nominal("run", "trace", scale=dashes(paths)),
            },
        }
        for end in ("min", "max")
    ]  # fmt: skip
    layers = [band, *ends]
    spec = view(260, data=named("range of both"), layer=layers)
    caption = "From the tensor's minimum to its maximum in both runs, on one scale."
    return Chart("runs-range", caption, spec, True, [axis_choice(layers)])


def _values_chart(paths: Sequence[str]) -> Chart:
    line = {"type": "line", "interpolate": "step-after", "strokeWidth": 1.5}
    encoding = {
        "x": symlog_axis("from"),
        "y": quantitative("share", "share of the values", axis={"format": "~%"},
                          scale={"zero": True}),
        "color": _color(paths),
        "strokeDash": nominal("run", "trace", scale=dashes(paths)),
        "tooltip": hover(("run", "trace"), ("from", "from", ".4~g"), ("share", "share", ".3~%")),
    }  # fmt: skip
    spec = view(260, data=named("values of both"), mark=line, encoding=encoding)
    caption = "Recorded values in both runs; where a run keeps none there is no line."
    return Chart("runs-values", caption, spec, True)


def _color(paths: Sequence[str]) -> Spec:
    return nominal("run", "trace", scale=told_apart(paths))


# --- all sites


def _chart(shown: int, paths: Sequence[str]) -> Chart:
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
            "color": _color(paths),
            "shape": nominal("run", "trace", scale=shapes(paths)),
            "tooltip": hover(
                ("name", "site"),
                ("run", "trace"),
                ("sqnr_db", "SQNR (dB)", ".2f"),
                ("difference", "second − first (dB)", "+.2f"),
            ),
        },
    }
    spec = view({"step": 20}, data=named("runs"), layer=[line, points])
    caption = f"The {shown} scored sites that are farthest apart; a click shows one above."
    return Chart("runs", caption, spec)


def _table(rows: list[dict[str, Any]], paths: Sequence[str]) -> Table:
    columns = (
        Column("layer", "layer", number=False),
        Column("tensor", "tensor", number=False),
        Column("first", f"{paths[0]}: SQNR dB", decibels),
        Column("second", f"{paths[1]}: SQNR dB", decibels),
        Column("difference", "difference dB", "{:+.2f}".format),
        Column("ratio", "largest magnitude, ratio", "{:.3g}×".format),
    )
    return Table("Shared sites, those farthest apart first", columns, tuple(rows))
