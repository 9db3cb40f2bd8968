"""What a report is: tables for people, a document and flat rows for programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TableRow = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Args:
        key: the row's entry that it shows; a row without it shows as missing.
        header: its heading, unit included.
        show: entry → text; never called on a missing entry.
        best: picks the best of several entries (max, min); None where none is better.
        number: whether it holds figures, which are set flush right and never broken over lines.
    """

    key: str
    header: str
    show: Callable[[Any], str] = str
    best: Callable[[Sequence[Any]], Any] | None = None
    number: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under columns.

    Args:
        group: an entry is the best among the rows that have the same entries under these keys.
        section: key of the entry that is the heading of the successive rows that share it.
        total: a row of sums, set apart at the end.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    group: tuple[str, ...] = ()
    section: str | None = None
    total: TableRow | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that one command reports.

    Args:
        document: JSON-safe, with its schema.
        rows: flat rows for CSV, all with the same keys.
        tables: for people.
        closing: plain sentences after the tables.
        notes: sentences on the limits of the figures; one line each.
        steps: a file of JSON lines that become the list "steps" at the end of the document.
    """

    document: Mapping[str, Any]
    rows: Sequence[TableRow]
    tables: Sequence[Table]
    closing: str = ""
    notes: Sequence[str] = field(default_factory=tuple)
    steps: str | None = None


MISSING = "–"

#: Shown for the SQNR where there is no error at all: better than every number.
EXACT = "exact"


def percent(share: float) -> str:
    """A share in per cent; a share above 0 never shows as 0."""
    if 0 < share < 1e-4:
        return "<0.01 %"
    return f"{100 * share:.2f} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


def decibels(value: float | str) -> str:
    """dB with two decimals; a text such as 'exact' as it is."""
    return value if isinstance(value, str) else f"{value:.2f}"


def times(ratio: float) -> str:
    """A ratio: 3.91×."""
    return f"{ratio:.2f}×"
