"""Reports as text for people: 80 columns and wider, colour only where the terminal has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from hqtool.report.model import MISSING, Column, Report, Row, Table

BEST = " *"


def render(report: Report, out: TextIO) -> None:
    """Write tables, closing sentences and notes; honours NO_COLOR and COLUMNS."""
    console = _Console(file=out, highlight=False)
    for table in report.tables:
        console.print(_rich(table))
        console.print()
    if report.closing:
        console.print(Text(report.closing))
    for note in report.notes:
        console.print(Text(f"note: {note}", style="dim"))


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the command, which knows that a reader who has enough is no error."""
        raise BrokenPipeError


def _rich(table: Table) -> RichTable:
    drawn = RichTable(
        title=Text(table.title, style="bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
        pad_edge=False,
        show_edge=False,
        show_footer=table.total is not None,
    )
    for column in table.columns:
        _add_column(drawn, column, table.total)
    for heading, rows in groupby(table.rows, lambda row: row.get(table.section or "")):
        if heading is not None:
            drawn.add_row(Text(str(heading), style="bold"))
        for row in rows:
            drawn.add_row(*(_cell(column, row, table) for column in table.columns))
    return drawn


def _add_column(drawn: RichTable, column: Column, total: Row | None) -> None:
    drawn.add_column(
        column.header,
        footer=_shown(column, total) if total else "",
        justify="right" if column.number else "left",
        no_wrap=column.number,
        min_width=0 if column.number else 10,
        overflow="fold",
    )


def _cell(column: Column, row: Row, table: Table) -> Text:
    text = _shown(column, row)
    if column.best is None:
        return Text(text)
    rivals = [r for r in table.rows if all(r.get(k) == row.get(k) for k in table.group)]
    if text in _best_texts(column, rivals):
        return Text(text + BEST, style="bold green")
    return Text(text + " " * len(BEST))


def _best_texts(column: Column, rivals: Iterable[Row]) -> set[str]:
    """The text of the best entry; none where all look the same, so that a mark says something."""
    entries = [r[column.key] for r in rivals if _is_number(r.get(column.key))]
    if column.best is None or len({_shown(column, {column.key: e}) for e in entries}) < 2:
        return set()
    return {_shown(column, {column.key: column.best(entries)})}


def _is_number(entry: Any) -> bool:
    return isinstance(entry, int | float)


def _shown(column: Column, row: Mapping[str, Any]) -> str:
    entry = row.get(column.key)
    return MISSING if entry is None else column.show(entry)
