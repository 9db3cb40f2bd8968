"""Reports as text for people: as wide as the terminal, in colour where the terminal has colours.

A table whose columns do not fit side by side is printed row by row: no figure is ever cut.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby, zip_longest
from typing import Any, NamedTuple, TextIO

from rich import box
from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table as RichTable
from rich.text import Text

from hqtool.display import harmless
from hqtool.report.breaking import broken, longest_piece
from hqtool.report.cells import Marks, group_of, marks_of, text_of
from hqtool.report.console import Screen
from hqtool.report.model import Column, Report, Table, TableRow

BEST = " *"

#: Spaces between two columns, and before each row below a heading.
GAP = 2

#: Cells from which on a word, such as a checksum, is no name that must stay whole.
LONGEST_WORD = 40


def render(report: Report, out: TextIO) -> None:
    """Write tables, closing sentences and notes; honours NO_COLOR and COLUMNS."""
    console = Screen(out)
    if console.is_terminal:
        _print(report, console)
        return
    with console.capture() as text:
        _print(report, console)
    out.write(re.sub(" +\n", "\n", text.get()))


def _print(report: Report, console: Console) -> None:
    for table in report.tables:
        _print_table(table, console)
        console.print()
    for line in report.closing.splitlines():
        console.print(Text(harmless(line)))
    for note in report.notes:
        console.print(Text(f"note: {harmless(note)}", style="dim"))


def _print_table(table: Table, console: Console) -> None:
    if table.title:
        console.print(Text(harmless(table.title), style="bold"))
    body, width = _body(table), console.width
    widths = _widths(body, console)
    pieces = _row_by_row(body, width) if widths is None else _side_by_side(body, widths)
    console.width = max(width, _total(widths or []))
    for piece in pieces:
        console.print(piece)
    console.width = width


class _Body(NamedTuple):
    """A table's cells.

    Args:
        sections: the heading of each, or None, and its rows.
    """

    columns: Sequence[Column]
    sections: Sequence[tuple[str | None, Sequence[Sequence[Text]]]]
    total: Sequence[Text]

    def rows(self) -> Iterator[Sequence[Text]]:
        """Every row, the total included."""
        yield from chain.from_iterable(rows for _, rows in self.sections)
        if self.total:
            yield self.total


def _body(table: Table) -> _Body:
    marks = marks_of(table)
    sections = [
        (
            None if heading is None else harmless(str(heading)),
            [_cells(row, table, marks) for row in rows],
        )
        for heading, rows in groupby(table.rows, lambda row: row.get(table.section or ""))
    ]
    total = table.total
    shown = [] if total is None else [Text(text_of(column, total)) for column in table.columns]
    return _Body(table.columns, sections, shown)


def _cells(row: TableRow, table: Table, marks: Marks) -> list[Text]:
    """A row's cells; below a heading it is indented."""
    best = marks[group_of(row, table)]
    cells = [_cell(column, row, best) for column in table.columns]
    if row.get(table.section or "") is not None:
        cells[0] = Text(" " * GAP).append_text(cells[0])
    return cells


# Side by side


def _side_by_side(body: _Body, widths: Sequence[int]) -> Iterator[RenderableType]:
    yield _header(body.columns, widths)
    yield _Lines(body, widths)


def _header(columns: Sequence[Column], widths: Sequence[int]) -> RichTable:
    drawn = RichTable(
        box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False
    )
    for column, width in zip(columns, widths, strict=True):
        side: Any = "right" if column.number else "left"
        drawn.add_column(column.header, width=width, justify=side, overflow="fold")
    return drawn


class _Lines(NamedTuple):
    """Every row of a body, side by side: drawn straight, for there may be thousands."""

    body: _Body
    widths: Sequence[int]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for heading, rows in self.body.sections:
            if heading is not None:
                yield from console.render(Text(heading, style="bold"), options)
            for row in rows:
                yield from self._row(console, row)
        if self.body.total:
            yield Segment.line()
            yield from self._row(console, self.body.total)

    def _row(self, console: Console, row: Sequence[Text]) -> Iterator[Segment]:
        cells = list(map(_fitted, row, self.widths))
        for line in zip_longest(*map(_lines_of, cells, self.widths), fillvalue=""):
            for place, text in enumerate(line):
                right = self.body.columns[place].number
                text = text.rstrip() if right else text
                padding = " " * (self.widths[place] - cell_len(text))
                style = console.get_style(cells[place].style) if cells[place].style else None
                yield Segment(" " * GAP * (place > 0) + padding * right)
                yield Segment(text, style)
                yield Segment(padding * (not right))
            yield Segment.line()


def _lines_of(cell: Text, width: int) -> list[str]:
    """The lines of a fitted cell; a word that is longer than a line is cut."""
    lines = cell.plain.split("\n")
    return [part for line in lines for part in chop_cells(line, max(1, width)) or [""]]


def _fitted(cell: Text, width: int) -> Text:
    """The cell, broken between words where it is wider than its column."""
    if cell_len(cell.plain) <= width:
        return cell
    text = cell.plain.lstrip(" ")
    indent = " " * (len(cell.plain) - len(text))
    lines = [indent + line for line in broken(text, width - len(indent))]
    return Text("\n".join(lines), style=cell.style)


# Widths


def _widths(body: _Body, console: Console) -> list[int] | None:
    """The width of each column; None where even the narrowest do not fit side by side.

    A file or pipe has no width of its own, unless COLUMNS gives it one: there they always fit.
    """
    columns = list(zip(*body.rows(), strict=True)) or [()] * len(body.columns)
    cells = [[Text(c.header), *column] for c, column in zip(body.columns, columns, strict=True)]
    natural = [max(cell_len(cell.plain) for cell in column) for column in cells]
    least = list(map(_least, body.columns, cells))
    bound = console.is_terminal or "COLUMNS" in os.environ
    room = console.width if bound else max(console.width, _total(least))
    widths = _narrowed(natural, least, room)
    return None if widths is None else list(map(_needed, cells, widths))


def _total(widths: Sequence[int]) -> int:
    """The width of a table, gaps included."""
    return sum(widths) + GAP * (len(widths) - 1)


def _least(column: Column, cells: Iterable[Text]) -> int:
    """How narrow a column may become: figures are never broken, texts only between words."""
    if column.number:
        return max(cell_len(cell.plain) for cell in cells)
    return min(LONGEST_WORD, max(longest_piece(cell.plain) for cell in cells))


def _narrowed(natural: Sequence[int], least: Sequence[int], room: int) -> list[int] | None:
    """The widest columns made narrower, until all fit."""
    if _total(least) > room:
        return None
    widths = list(natural)
    for _ in range(_total(widths) - room):
        width, place = max((w, i) for i, w in enumerate(widths) if w > least[i])
        widths[place] = width - 1
    return widths


def _needed(cells: Iterable[Text], width: int) -> int:
    """The width that a column really needs when its cells are broken at this one."""
    lines = (line for cell in cells for line in _fitted(cell, width).plain.split("\n"))
    return min(width, max(map(cell_len, lines)))


# Row by row


def _row_by_row(body: _Body, width: int) -> Iterator[RenderableType]:
    """The table where columns do not fit side by side: a line for each figure of each row."""
    for heading, rows in body.sections:
        if heading is not None:
            yield Text(heading, style="bold")
        for row in rows:
            yield from _block(body.columns, row, width)
    if body.total:
        yield from _block(body.columns, body.total, width)


def _block(columns: Sequence[Column], row: Sequence[Text], width: int) -> Iterator[Text]:
    yield _fitted(row[0], width)
    wide = max(cell_len(column.header) for column in columns)
    for column, cell in zip(columns[1:], row[1:], strict=True):
        name = column.header + " " * (wide - cell_len(column.header) + GAP)
        yield Text(2 * GAP * " " + name).append(cell.plain.rstrip(), cell.style)


# Cells


def _cell(column: Column, row: TableRow, best: Mapping[str, set[str]]) -> Text:
    text = text_of(column, row)
    if column.best is None:
        return Text(text)
    if text in best[column.key]:
        return Text(text + BEST, style="bold green")
    return Text(text + " " * len(BEST))
