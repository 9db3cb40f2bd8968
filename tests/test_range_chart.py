"""`info --layers`: a site's lowest and highest values over steps, drawn in characters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command import hqtool

from hqtool import TraceReader, TraceWriter
from hqtool.report.range_chart import range_chart


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A layer whose range is ±9, then ±1; one that is all NaN; one with a strange name."""
    path = tmp_path / "run.h5"
    with TraceWriter(path) as writer:
        for step in range(40):
            end = 9.0 if step < 20 else 1.0
            writer.write("first", "output", step, np.array([-end, end]))
            writer.write("lost", "output", step, np.array([np.nan]))
            writer.write("a\x1b[31m", "output", step, np.array([0.0, 1.0]))
            writer.commit(step)
    return path


def test_the_band_is_drawn_where_the_values_are(trace: Path) -> None:
    """±9 fills all nine lines, ±1 the middle one; 20 columns hold 2 steps each."""
    with TraceReader(trace) as reader:
        site = next(site for site in reader.sites if site.layer == "first")
        lines = range_chart(site, reader.history(site), 32).splitlines()
    assert lines[0] == "first/output: from the lowest to the highest value, 40 records"
    assert lines[1] == f"{'9':>10} ┤" + "█" * 10
    assert lines[5] == f"{'0':>10} ┤" + "█" * 20
    assert lines[9] == f"{'-9':>10} ┤" + "█" * 10
    assert [line.count("█") for line in lines[1:10]] == [10] * 4 + [20] + [10] * 4
    assert lines[11].split() == ["step", "0", "39"]


def test_charts_are_printed_and_names_are_harmless(trace: Path) -> None:
    done = hqtool("info", trace, "--layers", "*")
    assert (done.status, done.err) == (0, "")
    assert "lost/output: no finite values in 40 records" in done.out
    assert "a\\x1b[31m/output: from" in done.out
    assert "\x1b" not in done.out
    assert max(map(len, done.out.splitlines())) <= 80


def test_what_does_not_go_together_is_refused(trace: Path) -> None:
    done = hqtool("info", trace, "--layers", "frist")
    assert (done.status, "no layer matches" in done.err) == (2, True)
    done = hqtool("info", trace, "--layers", "first", "--json", "-")
    assert (done.status, "it writes no files" in done.err) == (2, True)
