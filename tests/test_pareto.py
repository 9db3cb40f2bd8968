"""The Pareto front, and `compare --pareto`, `--buffer`: quality against bytes and energy."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from command import hqtool
from hypothesis import given
from hypothesis import strategies as st

from hqtool.compare.comparison import Selection, compare
from hqtool.compare.pareto import Point, on_front
from hqtool.compare.settings import ReplaySettings
from hqtool.estimators.quantizer import parse_quantizer

DIGITS = str(Path(__file__).parent.parent / "sample_data" / "digits.h5")
QUANTIZERS = tuple(
    map(
        parse_quantizer,
        ["current@int8", "dsgc@int8", "hindsight@int8", "current:per=sample@int8", "local@mxfp8"],
    )
)

figures = st.integers(0, 3)
points = st.lists(st.builds(lambda q, a, b: Point(q, (a, b)), figures, figures, figures))


@given(points)
def test_the_front_is_what_nothing_beats(given_points):
    def beaten(mine):
        worse = [
            other.quality >= mine.quality
            and other.costs[0] <= mine.costs[0]
            and other.costs[1] <= mine.costs[1]
            and (other.quality, other.costs) != (mine.quality, mine.costs)
            for other in given_points
        ]
        return any(worse)

    assert on_front(given_points) == [not beaten(point) for point in given_points]


def moved(buffer_bytes: int) -> list[tuple[float, float, float]]:
    """Static and moved bytes, and bytes moved on chip, of each quantizer over all sites."""
    settings = ReplaySettings(QUANTIZERS, buffer_bytes=buffer_bytes)
    found = compare([DIGITS], settings, Selection(("layer1.0.*", "head"))).summaries
    sums = []
    for quantizer in QUANTIZERS:
        own = [s for s in found if (s.estimator, s.format, s.rounding) == quantizer.key]
        sums.append(
            (
                sum(s.static_bytes for s in own),
                sum(s.traffic_bytes for s in own),
                sum(4 * s.on_chip for s in own),
            )
        )
    return sums


def test_a_buffer_saves_looks_and_nothing_else():
    """Buffer 0 spills all, an endless one nothing; in between bytes fall, and move on chip."""
    none, *between, endless = (moved(size) for size in (0, 1 << 10, 1 << 16, 1 << 17, 1 << 40))
    for lane, (static, spilled, on_chip) in enumerate(none):
        assert on_chip == 0
        assert endless[lane][:2] == (static, static)
        falling = [spilled, *(each[lane][1] for each in between), static]
        assert falling == sorted(falling, reverse=True)
        for each in (*between, endless):
            assert each[lane][1] + each[lane][2] == pytest.approx(spilled)
    samples = QUANTIZERS.index(parse_quantizer("current:per=sample@int8"))
    assert none[samples][1] > between[0][samples][1]  # a sample is far smaller than a tensor


ASKED = ("--quantizer", "hindsight@int8,nvfp4", "--quantizer", "current@int8", "--recipe", "mxfp8")


def test_pareto_as_csv_and_json():
    done = hqtool("compare", DIGITS, "--pareto", *ASKED, "--buffer", "16KiB", "--csv", "-")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert {row["tensor"] for row in rows} == {"output", "grad_input", ""}
    in_total = [row for row in rows if not row["tensor"]]
    assert [row["choice"] for row in in_total] == [
        "hindsight@int8", "hindsight@nvfp4", "current@int8", "mxfp8",
    ]  # fmt: skip
    document = json.loads(hqtool("compare", DIGITS, "--pareto", *ASKED, "--json", "-").out)
    assert document["settings"]["buffer_bytes"] == 0
    assert document["pareto"]["quality"] == "cosine"
    for row in document["pareto"]["rows"]:
        bits = 8 * row["traffic_bytes"]
        assert row["joules"] == pytest.approx(bits * 20.3125e-12)
        beaten = any(
            other["cosine"] >= row["cosine"]
            and other["traffic_bytes"] <= row["traffic_bytes"]
            and other != row
            for other in document["pareto"]["rows"]
            if other["tensor"] == row["tensor"]
        )
        assert row["on_front"] == (not beaten)


def test_less_noise_is_better():
    ranked = ("--pareto", "--rank-by", "noise", *ASKED)
    document = json.loads(hqtool("compare", DIGITS, *ranked, "--json", "-").out)
    for row in document["pareto"]["rows"]:
        beaten = any(
            other["noise"] <= row["noise"]
            and other["traffic_bytes"] <= row["traffic_bytes"]
            and other != row
            for other in document["pareto"]["rows"]
            if other["tensor"] == row["tensor"]
        )
        assert row["on_front"] == (not beaten)
    table = hqtool("compare", DIGITS, *ranked).out
    assert "noise against bytes and energy" in table
    assert max(map(len, table.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--pareto", "--rank-by", "traffic"], "cannot take traffic for quality"),
        (["--energy", "horowitz-2014"], "--energy is for --pareto"),
        (["--pareto", "--energy", "horowitz"], "unknown energy table 'horowitz'"),
        (["--buffer", "64KB"], "'64KB' is not a size"),
    ],
)
def test_wrong_words(words, told):
    done = hqtool("compare", DIGITS, *words)
    assert done.status == 2
    assert told in done.err


def test_the_table_says_what_is_on_the_front():
    done = hqtool("compare", DIGITS, "--pareto", *ASKED)
    assert "all tensor kinds (21 sites): cosine against bytes and energy" in done.out
    assert "On the front, the cheapest first: hindsight@nvfp4, " in done.out
    assert all(len(line) <= 80 for line in done.out.splitlines())
