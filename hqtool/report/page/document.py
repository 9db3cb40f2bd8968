"""The whole page: one file that needs nothing else, and lets nothing in from outside."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from hqtool.display import encodable, harmless
from hqtool.report.page.axes import CONFIG
from hqtool.report.page.embedded import embedded_sites
from hqtool.report.page.markup import Markup, element, joined
from hqtool.report.page.material import Material
from hqtool.report.page.section import Section
from hqtool.report.page.sections.answer import answer
from hqtool.report.page.sections.bits import bits
from hqtool.report.page.sections.heat_map import heat_map
from hqtool.report.page.sections.provenance import licences, provenance
from hqtool.report.page.sections.site import site
from hqtool.report.page.sections.study import study
from hqtool.report.page.sections.tradeoff import tradeoff
from hqtool.report.page.sections.traffic import traffic
from hqtool.report.page.sections.two_runs import two_runs

#: The sections in the order of the page. A new one is one more function.
SECTIONS: tuple[Callable[[Material], Section], ...] = (
    answer,
    tradeoff,
    heat_map,
    site,
    bits,
    traffic,
    study,
    provenance,
    two_runs,
)

#: The charting library, unmodified, in the order in which its parts are loaded, and our script.
SCRIPTS = (
    "vega-6.4.0.min.js",
    "vega-lite-6.5.0.min.js",
    "vega-interpreter-1.2.1.min.js",
    "vega-tooltip-0.35.2.min.js",
    "page.js",
)


def page_of(material: Material) -> str:
    """The page as HTML."""
    sections = [make(material) for make in SECTIONS]
    scripts = list(map(asset, SCRIPTS))
    head = [
        Markup('<meta charset="utf-8">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup('<meta name="color-scheme" content="light dark">'),
        element("title", _title(material)),
        element("style", Markup(asset("page.css"))),
    ]
    body = [
        element("a", "Skip to the answer", href="#answer", class_="skip"),
        element("header", element("h1", _title(material)), _contents(sections)),
        element("main", *(section.html for section in sections)),
        element("footer", licences(asset("LICENSES.txt"))),
        _data_element(material, sections),
        *(element("script", Markup(script)) for script in scripts),
    ]
    whole = joined([element("head", *head), element("body", *body)], "\n")
    return encodable(f"<!DOCTYPE html>\n{element('html', whole, lang='en')}\n")


@cache
def asset(name: str) -> str:
    """The text of a file that the page contains."""
    return (files("hqtool.report.page") / "assets" / name).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str]) -> str:
    """No network at all, and no script but these."""
    digests = [hashlib.sha256(script.encode()).digest() for script in scripts]
    known = " ".join(f"'sha256-{base64.b64encode(each).decode()}'" for each in digests)
    return (
        f"default-src 'none'; script-src {known}; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _title(material: Material) -> str:
    names = [run.path for run in material.runs]
    if not names and material.comparison is not None:
        names = [facts.path for facts in material.comparison.traces]
    names = names or [study["study"]["path"] for study in material.studies]
    return f"hqtool report: {', '.join(names)}" if names else "hqtool report"


def _contents(sections: Sequence[Section]) -> Markup:
    links = [element("a", section.title, href=f"#{section.name}") for section in sections]
    return element("nav", *links, aria_label="Sections")


def _data_element(material: Material, sections: Sequence[Section]) -> Markup:
    """What the script draws, as text that no browser runs."""
    charts = [chart for section in sections for chart in section.charts]
    sites = embedded_sites(material)
    for section in sections:
        for place, more in section.site_data.items():
            sites[place]["data"] |= more
    first = (each.first_site for each in sections if each.first_site is not None)
    data = {
        "config": CONFIG,
        "charts": {chart.name: chart.to_json() for chart in charts},
        "data": {name: columns for section in sections for name, columns in section.data.items()},
        "sites": sites,
        "firstSite": next(first, 0),
    }
    text = json.dumps(_harmless(data), separators=(",", ":"), allow_nan=False)
    inert = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return element("script", Markup(inert), type="application/json", id="page-data")


def _harmless(value: Any) -> Any:
    """A JSON value all of whose texts are safe to show."""
    if isinstance(value, str):
        return harmless(value)
    if isinstance(value, dict):
        return {harmless(str(key)): _harmless(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return _harmless_items(value)
    return value


def _harmless_items(items: Sequence[Any]) -> list[Any]:
    """Numbers, of which there are many, are passed on as they are."""
    return [
        _harmless(each) if isinstance(each, str | dict | list | tuple) else each for each in items
    ]
