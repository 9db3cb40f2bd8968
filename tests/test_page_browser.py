"""The page in a real browser, offline: it draws, shows sites, stays inert, and fits every width."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from chromium import chromium
from command import hqtool
from page_inputs import DIGITS, NASTY, ROOT, write_study, write_trace


def missing(what: str) -> None:
    """Skip, or fail where a browser is required."""
    if os.environ.get("HQTOOL_NEEDS_BROWSER"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for all tests."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not installed; it is among hqtool[dev]")
    path = chromium()
    if path is None:
        missing("no Chromium was found; ./dev browser installs it")
    with sync_playwright() as tools:
        started = tools.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


class Shown(NamedTuple):
    """A page that is open, and what went wrong on it."""

    page: Any
    faults: list[str]


class Pages:
    """Opens pages offline and notes errors, and whatever they would fetch."""

    def __init__(self, browser: Any) -> None:
        self._browser = browser

    def open(self, path: Path, **how: Any) -> Shown:
        size = {"width": 1280, "height": 800}
        context = self._browser.new_context(offline=True, viewport=size, **how)
        page, faults = context.new_page(), []
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(f"{message.type}: {message.text}"))
        page.on(
            "request",
            lambda request: request.url == path.as_uri() or faults.append(request.url),
        )
        page.goto(path.as_uri())
        return Shown(page, faults)


@pytest.fixture(scope="module")
def pages(browser: Any) -> Pages:
    return Pages(browser)


@pytest.fixture(scope="module")
def digits_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample trace with a study and a bill."""
    folder = tmp_path_factory.mktemp("page")
    bill, out = folder / "traffic.json", folder / "report.html"
    spec = ROOT / "sample_data" / "resnet18.toml"
    sweep = ("--quantizer", "current@int8", "--sweep", "buffer=64KiB..1MiB")
    assert hqtool("traffic", spec, *sweep, "--json", bill).status == 0
    done = hqtool("report", DIGITS, bill, write_study(folder / "study"), "-o", out)
    assert done.status == 0, done.err
    return out


@pytest.fixture(scope="module")
def nasty_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs whose layers have names that would act."""
    folder = tmp_path_factory.mktemp("nasty")
    write_trace(folder / "one.h5", NASTY)
    write_trace(folder / "two<b>.h5", NASTY, factor=3.0)
    out = folder / "report.html"
    few = ("--quantizer", "hindsight@int8", "--quantizer", "current@int4")
    done = hqtool("report", folder / "one.h5", folder / "two<b>.h5", *few, "-o", out)
    assert done.status == 0, done.err
    return out


@pytest.fixture(scope="module")
def digits(pages: Pages, digits_page: Path) -> Shown:
    """The page of the sample trace, all of it drawn; its tests share it."""
    return drawn(pages.open(digits_page))


@pytest.fixture(scope="module")
def nasty(pages: Pages, nasty_page: Path) -> Shown:
    """The page of two runs, all of it drawn; its tests share it."""
    return drawn(pages.open(nasty_page))


def drawn(shown: Shown) -> Shown:
    """The page once every chart is drawn, as printing does it, and says that it is ready."""
    shown.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    settled(shown.page)
    return shown


def settled(page: Any) -> None:
    """Wait until no chart has anything left to do."""
    page.wait_for_function("!document.querySelector('figure[data-chart]:not([data-ready])')")


def test_every_section_is_drawn_with_data(digits: Shown) -> None:
    page, faults = digits
    figures = page.locator("figure[data-chart]").all()
    assert len(figures) >= 15
    for figure in figures:
        marks = figure.locator("svg :is(.mark-rect, .mark-symbol, .mark-line, .mark-rule) > *")
        assert marks.count() > 3, figure.get_attribute("data-chart")
    assert page.locator("main h2").all_inner_texts() == [
        "The answer", "Accuracy × traffic", "Layers × quantizers", "A site", "Bits and formats",
        "Traffic", "Study", "Provenance", "Two runs",
    ]  # fmt: skip
    assert page.locator("details:not([open])").count() == 0  # printed, too
    assert faults == []


def test_a_click_on_the_heat_map_opens_the_site(digits: Shown) -> None:
    page, faults = digits
    assert page.locator("section:has(#site) .site-shown").inner_text().startswith("output: ")
    page.locator('figure[data-chart="layers-grad_input"] svg .mark-rect path').nth(20).click()
    page.wait_for_function("document.activeElement.id === 'site'")
    assert page.locator("section:has(#site) .site-shown").inner_text().startswith("grad_input: ")
    shown = page.locator("#site-picker select").input_value()
    assert page.evaluate(f"PAGE.sites[{shown}].group") == "grad_input"
    assert faults == []


def test_the_keyboard_reaches_sites_and_choices(digits: Shown) -> None:
    page, faults = digits
    page.locator('a[data-site="3"]').first.press("Enter")
    assert page.locator("#site-picker select").input_value() == "3"
    page.locator("#site-picker button").last.press("Enter")
    assert page.locator("#site-picker select").input_value() == "4"
    chart = page.locator('figure[data-chart="layers-output"]')
    before = chart.locator("svg").inner_html()
    chart.locator("select").first.press("ArrowDown")
    assert chart.locator("svg").inner_html() != before
    assert faults == []


def test_every_kind_of_choice_can_be_drawn(digits: Shown) -> None:
    page, faults = digits
    for select in page.locator("figure select").all():
        for option in select.locator("option").all_inner_texts()[1:5]:
            select.select_option(option)
    assert faults == []


@pytest.mark.parametrize("width", [360, 1280, 3840])
def test_it_fits_every_width(digits: Shown, width: int) -> None:
    page, faults = digits
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    widest = "Math.max(...[...document.querySelectorAll('figure svg')].map(e => e.clientWidth))"
    page.wait_for_function(f"{widest} <= {width} && {widest} > {width} / 3")
    names = page.locator('figure[data-chart="tradeoff"] .mark-text.role-mark text').all()
    boxes = [name.bounding_box() for name in names]
    assert len(boxes) > 5
    for one, other in itertools.combinations(boxes, 2):
        across = one["x"] < other["x"] + other["width"] and other["x"] < one["x"] + one["width"]
        assert not across or abs(one["y"] - other["y"]) >= 0.7 * one["height"]
    assert faults == []


def test_names_of_layers_and_files_are_inert(nasty: Shown) -> None:
    page, faults = nasty
    for place in range(len(NASTY)):
        page.evaluate(f"showSite({place})")
    page.locator('figure[data-chart="layers-output"] svg .mark-rect path').first.hover()
    told = page.locator("#vg-tooltip-element").inner_text()
    assert NASTY[0] in told
    assert "SQNR, mean (dB)" in told
    assert page.evaluate("window.hacked") is None
    assert page.locator("main img, main script").count() == 0
    text = page.locator("main").inner_text()
    assert NASTY[0] in text
    assert "\\x1b[31m\\u202e" in text
    assert "\x1b" not in page.content()
    assert faults == []


def test_two_runs_stand_side_by_side(nasty: Shown) -> None:
    page, faults = nasty
    points = page.locator('figure[data-chart="runs"] svg .mark-symbol path')
    assert points.count() >= 2 * len(NASTY)
    page.locator("section:has(#runs) a[data-site]").last.press("Enter")
    page.wait_for_function("document.activeElement.id === 'runs'")
    shown = "[...new Set(dataOf('%s of both', PAGE.sites[shownSite]).values.map(r => r.run))]"
    for what in ("range", "values"):
        runs = [Path(name).name for name in page.evaluate(shown % what)]
        assert runs == ["one.h5", "two<b>.h5"]
        assert page.locator(f'figure[data-chart="runs-{what}"] svg .mark-line path').count() >= 2
    groups = page.locator("#site-picker optgroup").evaluate_all("all => all.map(g => g.label)")
    assert len(groups) == 4
    assert faults == []


def test_without_script_the_answer_and_tables_are_read(pages: Pages, digits_page: Path) -> None:
    page, _ = pages.open(digits_page, java_script_enabled=False)
    text = page.locator("main").inner_text()
    assert "The cheapest of 13 quantizers with cosine ≥ 0.99" in text
    assert page.locator("table").count() > 8


def test_what_is_drawn_is_what_compare_gives(digits: Shown) -> None:
    rows = digits.page.evaluate("rows(PAGE.data.scores)")
    done = hqtool("compare", DIGITS, "--quantizer", "current@int8", "--json", "-")
    shown = {
        (row["layer"], row["tensor"]): row["sqnr_db"]
        for row in rows
        if row["quantizer"] == "current@int8"
    }
    given = {(r["layer"], r["tensor"]): r["sqnr_db"] for r in json.loads(done.out)["summary"]}
    assert shown == {site: pytest.approx(db, rel=1e-4) for site, db in given.items()}
