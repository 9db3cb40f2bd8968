"""What a page is made of: sections of HTML and charts, and the data that the charts draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hqtool.report.page.markup import Content, Markup, element, joined

#: Columns of equal length by name. One of texts that recur may be a `Coded`.
Columns = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Control:
    """A choice above a chart.

    Args:
        label: what is chosen.
        options: what each is called → the changes that it makes to the chart's specification, keys
            within keys.
    """

    label: str
    options: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart.

    Args:
        name: unique on the page, fit for an attribute.
        caption: what it shows, and how to read it.
        spec: Vega-Lite, with data sets of the site that is shown, or of the page, by name; every
            axis has a title. {"$": KEY} stands for a fact of the site that is shown.
        of_site: it is drawn anew when another site is shown. A click on a mark of any other chart
            that has the entry `site` shows that site.
        controls: choices that change it.
        group: charts of a group, one after the other, share the controls of the first one.
    """

    name: str
    caption: str
    spec: Mapping[str, Any]
    of_site: bool = False
    controls: Sequence[Control] = ()
    group: str | None = None

    @property
    def html(self) -> Markup:
        """Where it will be drawn; without JavaScript its caption alone."""
        return element(
            "figure",
            element("div", class_="controls"),
            element("div", class_="drawing"),
            element("figcaption", self.caption),
            data_chart=self.name,
        )

    def to_json(self) -> dict[str, Any]:
        """As the page's script reads it."""
        return {
            "spec": self.spec,
            "ofSite": self.of_site,
            "group": self.group or self.name,
            "controls": [{"label": c.label, "options": c.options} for c in self.controls],
        }


#: HTML, a chart, or charts side by side.
Part = Content | Chart | tuple[Chart, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the page.

    Args:
        name: unique on the page, fit for a link.
        parts: HTML and charts in order; the essentials are HTML. Several charts in a tuple stand
            side by side where there is room.
        data: the data sets of its charts by name.
        site_data: further data sets of sites, by the place of each, for charts of the site shown.
        first_site: the place of the site to show first; None: it does not matter.
    """

    name: str
    title: str
    parts: Sequence[Part]
    data: Mapping[str, Columns] = field(default_factory=dict)
    site_data: Mapping[int, Mapping[str, Columns]] = field(default_factory=dict)
    first_site: int | None = None

    @property
    def charts(self) -> list[Chart]:
        """Its charts in order."""
        return [chart for part in self.parts for chart in _charts_of(part)]

    @property
    def html(self) -> Markup:
        """The section with its heading."""
        parts = [_html_of(part) for part in self.parts]
        heading = element("h2", self.title, id=self.name, tabindex="-1")
        return element("section", heading, joined(parts, "\n"), aria_labelledby=self.name)


def _charts_of(part: Part) -> tuple[Chart, ...]:
    if isinstance(part, Chart):
        return (part,)
    return part if isinstance(part, tuple) else ()


def _html_of(part: Part) -> Content:
    if isinstance(part, Chart):
        return part.html
    if isinstance(part, tuple):
        return element("div", *(chart.html for chart in part), class_="pair")
    return part


def coded(texts: Sequence[Any]) -> dict[str, Any]:
    """A column whose texts recur, each kept once."""
    found = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    return {"of": list(found), "at": [found[text] for text in texts]}


def columns_of(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Columns of rows; numbers to five digits."""
    return {name: _column([row.get(name) for row in rows]) for name in names}


def _column(values: list[Any]) -> Any:
    if any(isinstance(value, str) for value in values):
        return coded(values)
    return [rounded(value) for value in values]


def rounded(value: Any, digits: int = 5) -> Any:
    """A number to so many digits, whole where it is; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, float):
        return value
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short
