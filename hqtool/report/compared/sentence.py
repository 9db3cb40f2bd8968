"""The sentence that sums a comparison up: what is lost, and what traffic is saved."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from hqtool.report.compared.naming import Names, lane_of
from hqtool.report.compared.rows import mean
from hqtool.report.model import TableRow, percent

#: How many quantizers a sentence tells of: where each format is compared with itself, and else.
MOST_APART, MOST = 2, 4


def sentence(overall: Sequence[TableRow], names: Names) -> str:
    """What quantizers gain or lose, and what traffic they save.

    Where each format is compared with itself, it is of the first format: those that seldom look
    against the first one that looks often. Else all are compared with the first one.
    """
    if not names.formats_apart:
        rows = _named_alike(overall, names)
        called = list(dict.fromkeys(row["name"] for row in rows))
        return _against(called[0], called[1 : 1 + MOST], rows, "")
    first = lane_of(overall[0])
    rows = _named_alike([row for row in overall if lane_of(row)[1:] == first[1:]], names)
    called = list(dict.fromkeys(row["name"] for row in rows))
    seldom = [n for n in called if all((r["looked"] or 0) <= 0.5 for r in rows if r["name"] == n)]
    often = next((n for n in called if n not in seldom), None)
    told = seldom[:MOST_APART] if often else []
    return _against(often or "", told, rows, f" at {names.setting(first)}")


def _against(base: str, others: Sequence[str], rows: Sequence[TableRow], at: str) -> str:
    theirs = {row["tensor"]: row for row in rows if row["name"] == base}
    clauses = [_clause(n, [r for r in rows if r["name"] == n], theirs) for n in others]
    return f"Against {base}{at}: {'; '.join(clauses)}." if clauses else ""


def _named_alike(rows: Sequence[TableRow], names: Names) -> list[TableRow]:
    """The rows with the name of each; the method's where best parameters differ between kinds."""
    kinds = {row["tensor"] for row in rows}
    met = {(lane_of(row), row["tensor"]) for row in rows}

    def name(row: TableRow) -> str:
        lane = lane_of(row)
        everywhere = all((lane, kind) in met for kind in kinds)
        return names.name(lane if everywhere else names.method(lane))

    return [{**row, "name": name(row)} for row in rows]


def _clause(name: str, rows: Sequence[TableRow], base: dict[str, TableRow]) -> str:
    changes = [change for row in rows if (change := _change(row, base[row["tensor"]]))]
    known = [
        f"{verb} {' and '.join(amount for _, amount in alike)}"
        for verb, alike in groupby(changes, key=lambda change: change[0])
    ]
    return f"{name} {', '.join(known) or 'has no SQNR to compare'} and {_saving(rows, base)}"


def _saving(rows: Sequence[TableRow], base: dict[str, TableRow]) -> str:
    same_bits = all(row["bits"] == base[row["tensor"]]["bits"] for row in rows)
    key = "traffic" if same_bits else "traffic_bytes"
    mine, theirs = (mean(r[key] for r in group) for group in (rows, base.values()))
    if mine is None or not theirs:
        looked = mean(row["looked"] for row in rows) or 0
        return f"looks at {percent(looked)} of the tensors"
    return traffic_compared(mine, theirs)


def traffic_compared(mine: float, theirs: float) -> str:
    """How much more or less memory traffic one moves than the other, in any unit, as a clause."""
    more = round(100 * (mine / theirs - 1))
    if more == 0:
        return "moves as much memory traffic"
    return f"moves {abs(more)} % {'more' if more > 0 else 'less'} memory traffic"


def _change(row: TableRow, base: TableRow) -> tuple[str, str] | None:
    """Verb and amount; None where either has no SQNR."""
    if not isinstance(row["sqnr_db"], float) or not isinstance(base["sqnr_db"], float):
        return None
    verb, amount = gained(row["sqnr_db"] - base["sqnr_db"])
    return verb, f"{amount} on {row['tensor']}".strip()


def gained(gain_db: float) -> tuple[str, str]:
    """Verb and amount of a difference in SQNR; what does not show in two decimals is none."""
    if abs(gain_db) < 0.005:
        return "has the same SQNR", ""
    return "gains" if gain_db > 0 else "loses", f"{abs(gain_db):.2f} dB"
