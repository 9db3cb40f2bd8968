"""The page without a browser: inputs, thinning, histograms, what is embedded, and its safety."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import hqtool
from hypothesis import given
from hypothesis import strategies as st
from page_inputs import DIGITS, NASTY, ROOT, study_document, write_study, write_trace

from hqtool import TraceWriter
from hqtool.compare.comparison import Selection, compare
from hqtool.compare.recommending.targets import parse_target
from hqtool.compare.settings import ReplaySettings
from hqtool.estimators.quantizer import parse_quantizer
from hqtool.report.comparison_report import comparison_report
from hqtool.report.page.document import SCRIPTS, asset
from hqtool.report.page.embedded import embedded_sites
from hqtool.report.page.gathering import DEFAULT_QUANTIZERS, Request, gather, points_of
from hqtool.report.page.histogram import distinct_levels, histogram_of
from hqtool.report.page.inputs import Inputs
from hqtool.report.page.labels import NARROW, sides
from hqtool.report.page.rebuilt import comparison_of
from hqtool.report.page.sections.two_runs import two_runs
from hqtool.report.page.side_by_side import SideBySide
from hqtool.report.page.thinning import kept
from hqtool.vocab import Range, Stats, UsedRange

FEW = ("--quantizer", "hindsight@int8", "--quantizer", "local@mxfp4")


class Reader(HTMLParser):
    """What a browser would see: the elements, and the text of each script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_script = tag == "script"
        self.scripts += [""] * self._in_script

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of everything at once: two runs with strange names, a bill, a study."""
    folder = tmp_path_factory.mktemp("page")
    for name in ("one.h5", "two.h5"):
        write_trace(folder / name, NASTY, steps=12)
    bill = folder / "bill.json"
    spec = ROOT / "sample_data" / "table5.toml"
    assert hqtool("traffic", spec, "--sweep", "buffer=64KiB..1MiB", "--json", bill).status == 0
    inputs = (folder / "one.h5", folder / "two.h5", bill, write_study(folder / "study"))
    done = hqtool("report", *inputs, *FEW, "-o", "-")
    assert (done.status, done.err) == (0, "")
    return done.out


def embedded(text: str) -> dict[str, Any]:
    """The data that the page draws."""
    found = re.search(r'<script type="application/json" id="page-data">(.*?)</script>', text)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


# --- safety -------------------------------------------------------------------------------------


def test_nothing_is_loaded_and_only_own_scripts_run(made: str) -> None:
    seen = Reader(made)
    policy = next(a["content"] for t, a in seen.tags if a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    assert "http" not in policy
    assert "'unsafe-inline'" not in policy.partition("style-src")[0]
    loads = [a for _, a in seen.tags if {"src", "srcset", "data", "action"} & a.keys()]
    assert loads == []
    links = {a["href"] for _, a in seen.tags if "href" in a}
    assert all(link is not None and link.startswith("#") for link in links)
    assert len(seen.scripts) == len(SCRIPTS) + 1
    assert seen.scripts[1:] == [asset(name) for name in SCRIPTS]


def test_no_event_handler_and_no_raw_json_is_in_the_markup(made: str) -> None:
    seen = Reader(made)
    assert not [a for _, a in seen.tags if any(name.startswith("on") for name in a)]
    body = re.sub(r"<script.*?</script>", "", made, flags=re.DOTALL)
    assert '{"' not in body
    assert "<script>window" not in body
    assert "&lt;script&gt;window.hacked=1&lt;/script&gt;" in body
    assert "\x1b" not in made


def test_the_charting_library_is_unmodified() -> None:
    noted = dict(re.findall(r"^(\S+) \S+, build/\S+, BSD 3-Clause, sha256 (\w+)$",
                            asset("LICENSES.txt"), re.MULTILINE))  # fmt: skip
    names = [name for name in SCRIPTS if name != "page.js"]
    assert len(noted) == len(names)
    for name in names:
        digest = hashlib.sha256(asset(name).encode()).hexdigest()
        assert digest == noted[re.sub(r"-[0-9.]+min\.js", "", name)]
        assert "</script" not in asset(name)


# --- charts -------------------------------------------------------------------------------------


def specs_in(value: Any) -> Iterator[dict[str, Any]]:
    """All parts of specifications that encode something."""
    if isinstance(value, dict):
        if "encoding" in value:
            yield value["encoding"]
        for part in value.values():
            yield from specs_in(part)
    elif isinstance(value, list):
        for part in value:
            yield from specs_in(part)


def test_every_axis_has_a_title(made: str) -> None:
    charts = embedded(made)["charts"]
    assert len(charts) >= 15
    for name, chart in charts.items():
        found = [e for e in specs_in(chart["spec"]) if "mark" in chart["spec"] or e]
        assert found, name
        for encoding in found:
            for axis in ("x", "y"):
                if isinstance(encoding.get(axis), dict) and "field" in encoding[axis]:
                    assert encoding[axis].get("title"), (name, axis)


def test_every_chart_has_its_place_and_its_data(made: str) -> None:
    page = embedded(made)
    figures = {a["data-chart"] for t, a in Reader(made).tags if t == "figure"}
    assert figures == page["charts"].keys()
    sets = page["data"].keys() | page["sites"][0]["data"].keys()
    for chart in page["charts"].values():
        assert set(re.findall(r'"data": {"name": "([^"]+)"', json.dumps(chart))) <= sets


# --- inputs -------------------------------------------------------------------------------------


def test_a_comparison_read_from_json_is_the_one_that_was_written() -> None:
    quantizers = tuple(map(parse_quantizer, ("hindsight@int8", "local@mxfp4")))
    found = compare([str(DIGITS)], ReplaySettings(quantizers, calibrate=2))
    text = json.dumps(dict(comparison_report(found, "tensor").document))
    again = comparison_of(json.loads(text))
    assert again.summaries == found.summaries
    assert again.settings.quantizers == found.settings.quantizers
    assert [r.task.site for r in again.results] == [r.task.site for r in found.results]
    assert again.traces == found.traces


def test_a_run_of_hqtool_train_shows_the_ranges_it_used(tmp_path: Path) -> None:
    stats = Stats(-2.0, 3.0, 3.0, 0.1, 1.0, 8.0, 0, 0, 0, 0.1)
    with TraceWriter(tmp_path / "run.h5", used_ranges=True) as writer:
        for step, used in enumerate((UsedRange(Range(-2, 3), True, 0.0),
                                     UsedRange(Range(-1, 3), False, 0.25))):  # fmt: skip
            writer.write("layer", "output", step, None, stats=stats, shape=(64,), used=used)
            writer.commit(step)
    done = hqtool("report", tmp_path / "run.h5", *FEW, "-o", "-")
    assert (done.status, done.err) == (0, "")
    assert "There are no values to score" in done.out
    ranges = embedded(done.out)["sites"][0]["data"]["ranges"]["series"]
    at = ranges["names"].index("used in training")
    assert ranges["columns"]["looked"][at] == {"flags": "10"}
    assert ranges["columns"]["outside"][at] == {"flags": "01"}
    lows = ranges["columns"]["lo"][at]
    shown = [lows["unit"] * math.sinh(n * lows["step"]) for n in lows["n"]]
    assert shown == pytest.approx([-2.0, -1.0], rel=1e-3)


def test_a_page_of_the_json_tells_what_that_of_the_trace_does(tmp_path: Path) -> None:
    compared = tmp_path / "compare.json"
    assert hqtool("compare", DIGITS, *FEW, "--json", compared).status == 0
    pages = [hqtool("report", each, *FEW, "-o", "-") for each in (DIGITS, compared)]
    assert [page.status for page in pages] == [0, 0]
    answers = [
        re.search(r'<p class="lead">.*?(?=<p>This page was made)', page.out, re.DOTALL)
        for page in pages
    ]
    assert answers[0] is not None
    assert answers[1] is not None
    assert answers[0][0] == answers[1][0]
    assert embedded(pages[1].out)["sites"] == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no json", "is neither a trace nor JSON"),
        ("[1]", "is not what a report shows"),
        ('{"schema": "hqtool.info/1"}', "is not what a report shows"),
        ('{"schema": "hqtool.compare/1"}', "the comparison cannot be read"),
    ],
)
def test_what_is_no_input_is_told_in_two_lines(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_text(text)
    done = hqtool("report", path, "-o", tmp_path / "out.html")
    assert done.status == 3
    assert told in done.err
    assert len(done.err.splitlines()) <= 2
    assert not (tmp_path / "out.html").exists()


def test_a_folder_without_results_and_two_bills_are_refused(tmp_path: Path) -> None:
    done = hqtool("report", tmp_path, "-o", tmp_path / "out.html")
    assert (done.status, "holds no result.json" in done.err) == (3, True)
    bill = tmp_path / "bill.json"
    bill.write_text('{"schema": "hqtool.traffic/1"}')
    done = hqtool("report", bill, bill, "-o", tmp_path / "out.html")
    assert (done.status, "give one of them" in done.err) == (2, True)
    done = hqtool("report", bill, "-o", "-", "--open")
    assert (done.status, "--open needs a file" in done.err) == (2, True)


def test_a_study_alone_makes_a_page(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    path.write_text(json.dumps(study_document()))
    done = hqtool("report", path, "-o", "-")
    assert done.status == 0
    assert "0.970 ± 0.010" in done.out
    assert "bad, seed 1 diverged: NaN" in done.out


# --- thinning -----------------------------------------------------------------------------------

FIGURES = st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=1, max_size=300)


@given(FIGURES, st.integers(4, 60))
def test_thinning_keeps_order_ends_and_extremes(figures: list[float], points: int) -> None:
    values = np.array(figures)
    at = kept(values, values, points)
    assert (np.diff(at) > 0).all()
    assert {0, values.size - 1} <= set(at.tolist())
    assert at.size <= max(points + 3, 7)
    if not np.isnan(values).all():
        assert np.nanmin(values[at]) == np.nanmin(values)
        assert np.nanmax(values[at]) == np.nanmax(values)
    if values.size <= points:
        assert at.size == values.size


def test_thinning_keeps_the_extremes_of_every_span() -> None:
    """Against the plain loop over spans."""
    values = np.random.default_rng(0).standard_normal(1000)
    at = set(kept(values, values, 20).tolist())
    for start in range(0, 1000, 100):
        span = values[start : start + 100]
        assert {start + int(span.argmin()), start + int(span.argmax())} <= at


def test_a_site_of_three_hundred_takes_few_bytes(tmp_path: Path) -> None:
    """So few that 300 of them, with 1.1 MB of library, scores and tables, stay below 2.7 MB."""
    write_trace(tmp_path / "long.h5", ("layer",), steps=300)
    quantizers = tuple(map(parse_quantizer, DEFAULT_QUANTIZERS))
    targets = (parse_target("cosine>=0.99"),)
    inputs = Inputs((str(tmp_path / "long.h5"),), None, None, ())
    found = gather(inputs, Request("", ReplaySettings(quantizers), Selection(), targets))
    points = points_of(300)
    pictures = [
        p._replace(seen=p.seen.thinned(points), scored=p.scored.thinned(points // 2))
        for p in found.pictures
    ]
    sites = embedded_sites(replace(found, pictures=pictures))
    assert all(len(p.seen.steps["step"]) >= 20 for p in pictures)
    assert max(len(json.dumps(site, separators=(",", ":"))) for site in sites) < 4600


# --- histograms ---------------------------------------------------------------------------------


def test_two_runs_are_set_side_by_side_the_farthest_apart_first(tmp_path: Path) -> None:
    """Ten times as large is 20 dB apart, although SQNR is the same; a sign is no difference."""
    x = np.random.default_rng(3).standard_normal(64).astype("f4")
    runs = {
        "one": {"same": x, "grown": x, "mine": x},
        "two": {"theirs": x, "same": -x, "grown": 10 * x},
    }
    for name, layers in runs.items():
        with TraceWriter(tmp_path / f"{name}.h5") as writer:
            for layer, values in layers.items():
                writer.write(layer, "output", 0, values)
            writer.commit(0)
    paths = tuple(str(tmp_path / f"{name}.h5") for name in runs)
    settings = ReplaySettings((parse_quantizer("current@int8-symmetric"),))
    found = gather(Inputs(paths, None, None, ()), Request("", settings, Selection(), ()))
    both = SideBySide.of(found)
    assert both is not None
    assert [pair.site.layer for pair in both.pairs] == ["grown", "same"]
    assert [pair.apart_db for pair in both.pairs] == [pytest.approx(20), pytest.approx(0)]
    assert [[site.layer for site in sites] for sites in both.alone] == [["mine"], ["theirs"]]
    assert found.pictures[both.first_place].site.layer == "grown"
    text = two_runs(found).html
    assert "Only in " in text
    assert "mine/output." in text


def test_a_histogram_counts_every_value_with_its_weight() -> None:
    found = histogram_of([[(np.array([1.0, -1.0, 0.0]), 1.0)], [(np.array([0.5]), 5.0)]])
    assert found is not None
    assert found.records == 2
    assert found.shares.sum() == pytest.approx(1.0)
    inside = (found.edges[:-1] <= 0.5) & (found.edges[1:] > 0.5)
    assert found.shares[inside].sum() == pytest.approx(5 / 8)
    assert found.shares[[0, -1]] == pytest.approx([1 / 8, 1 / 8])
    assert found.edges[[0, -1]] == pytest.approx([-1.0, 1.0])


def test_nothing_but_zeros_has_no_histogram() -> None:
    assert histogram_of([[(np.zeros(3), 1.0)]]) is None
    assert histogram_of([]) is None


def test_levels_that_can_be_told_apart_are_all_shown() -> None:
    few = np.linspace(-1, 1, 15)
    assert distinct_levels(few, 1e-3, 1.0) == few.tolist()
    many = np.linspace(-1, 1, 65536)
    shown = distinct_levels(many, 1e-3, 1.0)
    assert len(shown) < 250
    assert (shown[0], shown[-1]) == (-1.0, 1.0)
    assert set(shown) <= set(many.tolist())


# --- names beside points ------------------------------------------------------------------------


def test_a_name_stands_where_it_meets_nothing() -> None:
    assert sides([(0.1, 0.5)], ["alone"]) == ["right"]
    assert sides([(0.99, 0.5)], ["at the edge"]) == ["left"]
    assert sides([(0.5, 0.5), (0.5, 0.5)], ["first", "second"]) == ["right", "left"]
    assert sides([(0.6, 0.5)], ["some long name"]) == ["right"]
    assert sides([(0.6, 0.5)], ["some long name"], NARROW) == ["left"]
    crowd = [(0.5 + i / 1000, 0.5) for i in range(6)]
    found = sides(crowd, ["crowded name"] * 6)
    assert found == ["right", "left", "right below", "left below", None, None]
