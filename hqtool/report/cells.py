"""The texts of a table's cells, and which of them are marked as the best of their column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hqtool.display import harmless
from hqtool.report.model import EXACT, MISSING, Column, Table, TableRow

#: Group of rows that compete → key of a column → the texts of its best entry.
Marks = dict[tuple[Any, ...], dict[str, set[str]]]


def marks_of(table: Table) -> Marks:
    """Which entries of a table are marked as the best of their column."""
    groups: dict[tuple[Any, ...], list[TableRow]] = {}
    for row in table.rows:
        groups.setdefault(group_of(row, table), []).append(row)
    return {
        group: {column.key: _best_texts(column, rivals) for column in table.columns}
        for group, rivals in groups.items()
    }


def group_of(row: TableRow, table: Table) -> tuple[Any, ...]:
    """The group of rows that a row competes in."""
    return tuple(row.get(key) for key in table.group)


def _best_texts(column: Column, rivals: Iterable[TableRow]) -> set[str]:
    """The text of the best entry; nothing where all texts are equal: a mark would say nothing."""
    if column.best is None:
        return set()
    entries = [e for r in rivals if _is_number(e := r.get(column.key)) or e == EXACT]
    if len({text_of(column, {column.key: e}) for e in entries}) < 2:
        return set()
    best = EXACT if EXACT in entries else column.best(entries)
    return {text_of(column, {column.key: best})}


def _is_number(entry: Any) -> bool:
    return isinstance(entry, int | float)


def text_of(column: Column, row: Mapping[str, Any]) -> str:
    """A cell's text; what is missing shows as such."""
    entry = row.get(column.key)
    return MISSING if entry is None else harmless(column.show(entry))
