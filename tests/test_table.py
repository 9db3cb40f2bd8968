"""Tables for people: whatever the width, no figure is lost and no name is broken within a word."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from command import hqtool

from hqtool.report.breaking import broken, longest_piece
from hqtool.report.console import Screen
from hqtool.report.model import Column, Report, Table, decibels, percent
from hqtool.report.table import render

SAMPLES = Path(__file__).parent.parent / "sample_data"

COLUMNS = (
    Column("estimator", "estimator", number=False),
    Column("db", "SQNR dB", lambda db: f"{db:.2f}", max),
    Column("share", "saturated", percent, min),
    Column("bytes", "traffic", lambda n: f"{n} KiB"),
)
ROWS = (
    {"layer": "encoder.layers.0.self_attention", "estimator": "current", "db": 39.6},
    {"layer": "encoder.layers.0.self_attention", "estimator": "hindsight:momentum=0.95"},
    {"layer": "head", "estimator": "dsgc:interval=100,tol=0.001,coarse=0", "db": -101.25},
)
FIGURES = [("39.60", "0 %", "1234"), ("–", "0.12 %", "1235"), ("-101.25", "50 %", "1236")]
FULL = tuple(
    row | {"share": share, "bytes": 1234 + i}
    for i, (row, share) in enumerate(zip(ROWS, (0.0, 0.0012, 0.5), strict=True))
)
TABLE = Table("a title", COLUMNS, FULL, section="layer", total={"estimator": "total", "bytes": 9})


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(
    table: Table, monkeypatch: pytest.MonkeyPatch, width: int | None, out: Any = None
) -> list[str]:
    out = out or io.StringIO()
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    if width is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", str(width))
    render(Report({}, [], [table]), out)
    return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()


@pytest.mark.parametrize("width", [1, 7, 15, 25, 30, 45, 50, 55, 60, 65, 66, 80, 120])
@pytest.mark.parametrize("out", [io.StringIO, Terminal])
def test_every_figure_is_there_at_every_width(
    width: int, out: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = drawn(TABLE, monkeypatch, width, out())
    assert all(len(line.rstrip()) <= width for line in lines)
    text = "".join("".join(lines).split())
    for figure in (figure for figures in FIGURES for figure in figures):
        whole = any(figure in line for line in lines)
        assert whole or (width < 25 and figure.replace(" ", "") in text)
    pieces = ("current", "hindsight:", "momentum=", "0.95", "tol=0.001", "encoder.", "head")
    assert all(any(piece in line for line in lines) or width < 15 for piece in pieces)


def test_side_by_side_where_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(TABLE, monkeypatch, 80) == [
        "a title",
        "estimator                                 SQNR dB  saturated   traffic",
        "──────────────────────────────────────────────────────────────────────",
        "encoder.layers.0.self_attention",
        "  current                                 39.60 *      0 % *  1234 KiB",
        "  hindsight:momentum=0.95                       –     0.12 %  1235 KiB",
        "head",
        "  dsgc:interval=100,tol=0.001,coarse=0    -101.25       50 %  1236 KiB",
        "",
        "total                                           –          –     9 KiB",
        "",
    ]


def test_names_give_way_first_and_break_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(TABLE, monkeypatch, 55)[4:9] == [
        "  current               39.60 *      0 % *  1234 KiB",
        "  hindsight:                  –     0.12 %  1235 KiB",
        "  momentum=0.95",
        "head",
        "  dsgc:interval=100,    -101.25       50 %  1236 KiB",
    ]


def test_row_by_row_where_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(TABLE, monkeypatch, 40)[:6] == [
        "a title",
        "encoder.layers.0.self_attention",
        "  current",
        "    SQNR dB    39.60 *",
        "    saturated  0 % *",
        "    traffic    1234 KiB",
    ]


def test_a_pipe_has_no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = Table("", tuple(Column(f"c{i}", f"column{i}") for i in range(20)), ({"c0": "x"},))
    header, rule, row, end = drawn(wide, monkeypatch, None)
    assert len(header.split()) == len(row.split()) == 20
    assert (len(rule), end) == (len(header), "")
    assert drawn(wide, monkeypatch, 80)[0].strip() == "x"


def test_a_checksum_is_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = (Column("a", "fact", number=False), Column("b", "value", number=False))
    table = Table("", columns, ({"a": "sum", "b": "f" * 90}, {"a": "state", "b": "complete"}))
    assert drawn(table, monkeypatch, 60)[2:6] == [
        f"sum    {'f' * 53}",
        f"       {'f' * 37}",
        "state  complete",
        "",
    ]


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("hindsight:momentum=0.9", 22, ["hindsight:momentum=0.9"]),
        ("hindsight:momentum=0.9", 16, ["hindsight:", "momentum=0.9"]),
        ("hindsight:momentum=0.9", 11, ["hindsight:", "momentum=", "0.9"]),
        ("layer2.0.downsample.0", 20, ["layer2.0.downsample.", "0"]),
        ("dsgc:interval=20,tol=1e-3", 20, ["dsgc:interval=20,", "tol=1e-3"]),
        ("folder/run 1.h5: conv_in", 12, ["folder/run", "1.h5:", "conv_in"]),
        ("moving average of min-max", 16, ["moving average", "of min-max"]),
        ("unbreakable", 4, ["unbreakable"]),
        ("", 4, [""]),
    ],
)
def test_where_a_text_is_broken(text: str, width: int, lines: list[str]) -> None:
    assert broken(text, width) == lines
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_the_longest_piece_always_fits() -> None:
    for text in ("hindsight:momentum=0.95", "layer2.0.downsample.0", "one two", "a_b_cde", ""):
        width = longest_piece(text)
        assert all(len(line) <= width for line in broken(text, width))
    assert longest_piece("hindsight:momentum=0.95") == len("hindsight:")


@pytest.mark.parametrize("width", [38, 66, 80])
@pytest.mark.parametrize(
    "args",
    [
        ["info", SAMPLES / "digits.h5"],
        ["list"],
        ["traffic", SAMPLES / "resnet18.toml"],
        ["compare", SAMPLES / "digits.h5", "--by", "layer", "--layers", "*.conv1", "--bits", "3,4",
         "--estimator", "hindsight:momentum=0.5", "--estimator", "current"],
    ],
    ids=lambda args: args[0],
)  # fmt: skip
def test_commands_in_pipes(args: list[Any], width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    done = hqtool(*args)
    assert done.status == 0
    lines = done.out.splitlines()
    assert all(line == line.rstrip() and len(line) <= width for line in lines)
    monkeypatch.setenv("COLUMNS", "200")
    figures = re.findall(r"\d+\.\d+", hqtool(*args).out)
    assert sorted(re.findall(r"\d+\.\d+", done.out)) == sorted(figures)


def test_exact_is_best_of_all_and_each_group_has_its_own_best() -> None:
    columns = (Column("name", "name", number=False), Column("db", "dB", decibels, max))
    rows = [
        {"name": "a", "layer": "one", "db": 99.0},
        {"name": "b", "layer": "one", "db": "exact"},
        {"name": "a", "layer": "two", "db": 1.0},
        {"name": "b", "layer": "two", "db": 2.0},
    ]
    out = io.StringIO()
    render(Report({}, [], [Table("", columns, tuple(rows), group=("layer",))]), out)
    assert [line.split()[1:] for line in out.getvalue().splitlines()[2:6]] == [
        ["99.00"], ["exact", "*"], ["1.00"], ["2.00", "*"],
    ]  # fmt: skip


def test_colons_in_names_make_no_emoji() -> None:
    out = io.StringIO()
    Screen(out).print("block:smile:conv")
    assert out.getvalue() == "block:smile:conv\n"
