"""HTML whose text is always escaped: nothing from outside becomes markup or controls a terminal."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from hqtool.display import harmless
from hqtool.report.cells import group_of, marks_of, text_of
from hqtool.report.model import Column, Table, TableRow


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


#: What an element may hold: text, which is escaped, or HTML.
Content = str | Markup


def escaped(content: Content) -> Markup:
    """Text as HTML; HTML as it is."""
    if isinstance(content, Markup):
        return content
    return Markup(html.escape(harmless(content)))


def element(name: str, *content: Content, **attributes: str | bool | None) -> Markup:
    """<name attributes>content</name>.

    Args:
        attributes: an underscore stands for '-', one at the end for none; True is an attribute
            without a value, and None or False leaves it out.
    """
    return Markup(f"<{name}{''.join(_attributes(attributes))}>{joined(content)}</{name}>")


def _attributes(attributes: dict[str, str | bool | None]) -> Iterator[str]:
    for name, value in attributes.items():
        key = name.rstrip("_").replace("_", "-")
        if value is True:
            yield f" {key}"
        elif isinstance(value, str):
            yield f' {key}="{escaped(str(value))}"'


def joined(parts: Iterable[Content], between: str = "") -> Markup:
    """Parts of content as one."""
    return Markup(between.join(map(escaped, parts)))


def paragraphs(*texts: Content) -> Markup:
    """One for each text that is not empty."""
    return joined([element("p", text) for text in texts if text], "\n")


def listed(items: Iterable[Content], **attributes: str) -> Markup:
    """An unordered list; nothing without items."""
    lines = [element("li", item) for item in items]
    return element("ul", *lines, **attributes) if lines else Markup()


def command(line: str) -> Markup:
    """A command to type."""
    return element("pre", element("code", line), tabindex="0", aria_label="command")


def folded(summary: Content, *content: Content) -> Markup:
    """What is shown on demand, and in print."""
    return element("details", element("summary", summary), *content)


#: Key of a column, row → the cell's content in place of its text.
Cells = dict[str, Callable[[TableRow], Content]]


def table(found: Table, cells: Cells | None = None) -> Markup:
    """A table as HTML; entries that are the best of their column are set off, and named so.

    Args:
        cells: of these columns the content is made from the row.
    """
    marks = marks_of(found)
    head = element("tr", *(_heading(column) for column in found.columns))
    body = [
        joined([*_section(heading, found), *(_row(row, found, marks, cells or {}) for row in rows)])
        for heading, rows in groupby(found.rows, lambda row: row.get(found.section or ""))
    ]
    total = [] if found.total is None else [_total(found, found.total)]
    whole = element(
        "table",
        element("caption", found.title),
        element("thead", head),
        element("tbody", *body),
        *total,
    )
    return element("div", whole, class_="wide", role="region", tabindex="0", aria_label=found.title)


def facts(title: str, entries: Mapping[str, str]) -> Markup:
    """A table with a row for each fact."""
    rows = [
        element("tr", element("th", name, scope="row"), element("td", text))
        for name, text in entries.items()
    ]
    whole = element("table", element("caption", title), element("tbody", *rows))
    return element("div", whole, class_="wide", role="region", tabindex="0", aria_label=title)


def _heading(column: Column) -> Markup:
    return element("th", column.header, scope="col", class_="number" if column.number else None)


def _section(heading: Any, found: Table) -> list[Markup]:
    if heading is None:
        return []
    cell = element("th", str(heading), colspan=str(len(found.columns)), scope="rowgroup")
    return [element("tr", cell)]


def _row(row: TableRow, found: Table, marks: Any, cells: Cells) -> Markup:
    best = marks[group_of(row, found)]
    return element("tr", *(_cell(column, row, best[column.key], cells) for column in found.columns))


def _cell(column: Column, row: TableRow, best: set[str], cells: Cells) -> Markup:
    text = text_of(column, row)
    if column.key in cells:
        return element("td", cells[column.key](row))
    kind = "number" if column.number else None
    if text in best:
        return element("td", element("b", text, title="best"), class_=kind)
    return element("td", text, class_=kind)


def _total(found: Table, total: TableRow) -> Markup:
    row = [
        element("td", text_of(column, total), class_="number" if column.number else None)
        for column in found.columns
    ]
    return element("tfoot", element("tr", *row))
