"""benchmarks/truth.md: its tables come from the kept runs, by hand where that is possible."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from scipy import stats

from benchmarks.truth.claims import interval, verdict
from benchmarks.truth.correlation import RUNS, rows_of
from benchmarks.truth.document import DOCUMENT, document
from benchmarks.truth.runs import Runs
from benchmarks.truth.settings import COMMANDS, calibrated, settings, study_text
from hqtool.study.figures import Estimate
from hqtool.study.study_file import read_study


def row(setting: str, seed: int, accuracy: str, status: str = "finished") -> dict[str, str]:
    return {
        "model": "plain", "setting": setting, "table": "1", "bits": "8", "seed": str(seed),
        "status": status, "accuracy": accuracy, "seconds": "2.5",
    }  # fmt: skip


def test_the_document_is_that_of_the_kept_runs() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document()


def test_a_figure_by_hand() -> None:
    """In-hindsight at 8 bits, everything quantized, of one network: all from the CSV."""
    found = {
        (each["setting"], each["seed"]): float(each["accuracy"])
        for each in rows_of(RUNS)
        if each["model"] == "residual" and each["status"] == "finished"
    }
    mine = [found["w8a8g8-hindsight", s] for name, s in found if name == "none"]
    plain = [found["none", s] for name, s in found if name == "none"]
    gaps = [a - b for a, b in zip(mine, plain, strict=True)]
    width = stats.t.ppf(0.975, len(gaps) - 1) * statistics.stdev(gaps) / len(gaps) ** 0.5
    shown = (
        f"| {statistics.mean(mine):.1f} ± {statistics.stdev(mine):.1f} "
        f"[{statistics.mean(gaps):+.1f} ± {width:.1f}] |"
    )
    text = DOCUMENT.read_text(encoding="utf-8")
    everything = text.partition("### Table 3")[2]
    assert shown in next(line for line in everything.split("\n") if "8 | In-hindsight" in line)


def test_runs_that_diverged_count_as_nothing_reached() -> None:
    runs = Runs.of(
        [row("none", 0, "80"), row("g8", 0, "", "diverged"), row("g8", 1, "70"),
         row("g8", 2, "", "failed")]
    )  # fmt: skip
    assert runs.accuracy["plain", "g8"] == {0: 0.0, 1: 70.0}
    assert runs.diverged == {("plain", "g8"): 1}
    assert runs.seconds == 10
    assert runs.difference("g8", "none", ["plain"]) == (Estimate(-80.0), 1)


def test_pairs_are_of_one_model_and_seed() -> None:
    runs = Runs.of(
        [row(name, seed, str(accuracy))
         for name, reached in (("a", (3, 5)), ("b", (5, 9)), ("c", (1, 1)))
         for seed, accuracy in enumerate(reached)]
    )  # fmt: skip
    found, pairs = runs.difference_of_means(("a", "b"), ("c",), ["plain"])
    assert (found.value, pairs) == (4.5, 2)  # (4 − 1 and 7 − 1)
    assert found.high == pytest.approx(4.5 + 12.7062 * 1.5, rel=1e-5)


@pytest.mark.parametrize(
    ("low", "high", "margin", "said"),
    [
        (0.1, 2.0, 0.0, "held"),
        (-0.9, 0.1, 1.0, "held"),
        (-0.9, 0.1, 0.0, "open"),
        (-3.0, -1.1, 1.0, "did not hold"),
        (-3.0, -0.5, 1.0, "open"),
        (None, None, 0.0, "–"),
    ],
)
def test_a_claim_holds_where_its_whole_interval_says_so(
    low: float | None, high: float | None, margin: float, said: str
) -> None:
    assert verdict(Estimate(0.0, low, high), margin) == said


def test_a_difference_is_written_with_half_its_interval() -> None:
    assert interval(Estimate(-1.25, -2.0, -0.5)) == "-1.2 ± 0.8"
    assert interval(Estimate(0.5)) == "+0.5"


def test_every_model_is_a_study_that_hqtool_reads(tmp_path: Path) -> None:
    for model in COMMANDS:
        for name, chosen in (("all", settings()), ("calibrated", calibrated())):
            path = tmp_path / f"{model}-{name}.toml"
            path.write_text(study_text(model, chosen, [0, 1]), encoding="utf-8")
            assert len(read_study(path).recipes) == len(chosen)
    names = [each.name for each in (*settings(), *calibrated()[1:])]
    assert len(names) == len(set(names)) >= 60
