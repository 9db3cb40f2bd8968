"""`hqtool train --verify`: plain training and recipe `none`, then the recipe twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from command import finish, hqtool, start

from hqtool.trace.reader import TraceReader
from hqtool.trial.finished_run import FinishedRun
from hqtool.trial.verify import verdict_on_two

SCRIPTS = Path(__file__).parent / "scripts"

RECIPE = ("--recipe", "paper-w8a8g8")


def test_training_is_the_same_and_so_are_two_quantized_runs(tmp_path: Path) -> None:
    """Parameters 48 + 8 + 24 + 3 values. The second of four steps overflows: it is skipped."""
    command = ("train", *RECIPE, "--verify", "--calibrate", "2", "-o", "run.h5")
    done = finish(start(tmp_path, "-m", "hqtool", *command, str(SCRIPTS / "grad_scaler.py")))
    assert done.returncode == 0, done.stderr
    unchanged, printed, time, twice = done.stdout.splitlines()
    assert unchanged == "recipe none: bit-identical (4 tensors, 83 values, after 3 steps)"
    assert printed == "printed: the same"
    assert time.startswith("time: ")
    same = "bit-identical (4 tensors, 83 values, after 3 steps)"
    assert twice == f"recipe paper-w8a8g8, twice: {same}"
    told = [line for line in done.stderr.splitlines() if "running" in line]
    assert [line.rpartition(".py ")[2] for line in told] == [
        "without hqtool",
        "by recipe none",
        "by recipe paper-w8a8g8",
        "by recipe paper-w8a8g8, once more",
    ]
    with TraceReader(tmp_path / "run.h5") as trace:
        assert trace.run["calibrated"] is True


def run(sha: str, status: int = 0, updates: int = 2, **report: Any) -> FinishedRun:
    """A run that ended with a tensor of this checksum."""
    report |= {"updates": updates, "tensors": [["weight", 6, sha]], "unreadable": []}
    return FinishedRun("by recipe mine", status, 1.0, b"", b"", [], report)


CUT = FinishedRun("by recipe mine, once more", -9, 1.0, b"", b"", [], {})


@pytest.mark.parametrize(
    ("second", "line", "status"),
    [
        (run("a"), "bit-identical (1 tensor, 6 values, after 2 steps)", 0),
        (run("b"), "1 of 1 tensor differ, the first is weight", 1),
        (run("a", updates=3), "3 steps instead of 2", 1),
        (run("a", status=1), "exit status 1 instead of 0", 1),
        (CUT, "cannot be compared: the run by recipe mine, once more was cut short "
         "(exit status -9)", 3),
    ],
)  # fmt: skip
def test_two_quantized_runs_are_compared(second: FinishedRun, line: str, status: int) -> None:
    verdict = verdict_on_two(run("a"), second, "mine")
    assert verdict.lines == [f"recipe mine, twice: {line}"]
    assert verdict.status == status


def test_nothing_runs_that_could_not_be_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "idle.py").write_text("open('ran', 'a').write('x')")
    (tmp_path / "run.h5").write_text("mine")
    for options, status, cause in (
        (("-o", "run.h5"), 2, "exists"),
        (("-o", "none/run.h5"), 2, "folder does not exist"),
        (("--list-sites",), 2, "exclude each other"),
    ):
        done = hqtool("train", *RECIPE, "--verify", *options, "idle.py")
        assert (done.status, done.out) == (status, "")
        assert cause in done.err
    assert not (tmp_path / "ran").exists()
    done = finish(start(tmp_path, "-m", "hqtool", "train", *RECIPE, "--verify", "idle.py"))
    assert done.returncode == 3
    why = "no optimizer made a step in the script's own process"
    assert done.stdout == f"recipe none: cannot be compared: {why}\n"
    assert (tmp_path / "ran").read_text() == "xx"
