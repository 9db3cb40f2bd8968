"""`--list-sites` and `--dry-run`, which keep no trace, and what they estimate."""

from __future__ import annotations

import getpass
import os
import signal
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest

pytest.importorskip("torch")

from command import hqtool
from warm_python import WarmPython

from hqtool.capture.cost import StepCost, about
from hqtool.capture.messages import projection
from hqtool.capture.settings import CaptureSettings
from hqtool.trace.schema import COMMIT, ROW
from hqtool.trial.dry_run import Timing
from hqtool.trial.trial_lines import slowdown

SCRIPTS = Path(__file__).parent / "scripts"

#: Ends before its first step does.
INTERRUPTED = """
    import os, sys, torch
    if os.fork() == 0:
        sys.exit(0)
    os.wait()
    model = torch.nn.Linear(3, 2)
    model(torch.ones(5, 3))
    raise {error}
    """


class Tried(NamedTuple):
    """A run that keeps nothing."""

    status: int
    out: str
    err: str
    left: list[str]


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory, warm_python: WarmPython) -> dict[str, Tried]:
    """How each run ended."""
    base = tmp_path_factory.mktemp("tried")
    for error in ("KeyboardInterrupt", "ValueError"):
        source = textwrap.dedent(INTERRUPTED).format(error=error)
        (base / f"{error}.py").write_text(source)
    stubborn = str(SCRIPTS / "stubborn.py")
    commands = {
        "sites": ("--list-sites", "--tensors", "output,grad_weight", "--exclude", "0", stubborn),
        "dry": ("--dry-run", "--every", "6", "--burst", "2", "--budget", "1MiB", stubborn),
        "full": ("--dry-run", "--every", "1", "--expect-steps", "7", "-q", stubborn),
        "none": ("--dry-run", "--layers", "stem*", stubborn),
        "ctrl-c": ("--dry-run", str(base / "KeyboardInterrupt.py")),
        "error": ("--list-sites", str(base / "ValueError.py")),
    }
    return {name: _tried(warm_python, base / name, command) for name, command in commands.items()}


def _tried(warm_python: WarmPython, folder: Path, command: tuple[str, ...]) -> Tried:
    command = ("-m", "hqtool", "capture", *command)
    done = warm_python.run(folder, *command, TMPDIR=str(folder))
    left = [name for name in os.listdir(folder) if name != f"torchinductor_{getpass.getuser()}"]
    return Tried(done.returncode, done.stdout, done.stderr, left)


def test_sites_are_listed(tried: dict[str, Tried]) -> None:
    found = tried["sites"]
    assert found.status == 0, found.err
    assert [line.split() for line in found.out.splitlines()] == [
        ["layer", "tensor", "shape", "elements", "op"],
        ["2", "output", "3×2", "6", "linear"],
        ["2", "grad_weight", "2×8", "16", "linear"],
    ]


def test_a_script_that_goes_on_is_stopped_at_each_step(tried: dict[str, Tried]) -> None:
    """What it prints is no result."""
    steps = tried["sites"].err.split("\n")
    assert [line for line in steps if "stopped" in line] == [f"stopped at {n}" for n in range(5)]
    assert "step" not in tried["sites"].out


@pytest.mark.parametrize("name", ["sites", "dry", "full", "ctrl-c", "error"])
def test_nothing_is_left(name: str, tried: dict[str, Tried]) -> None:
    assert tried[name].left == []


def test_a_dry_run_says_what_a_capture_takes(tried: dict[str, Tried]) -> None:
    """By hand: outputs 3×8 and 3×2 and one gradient 3×8, of 4 bytes each."""
    found = tried["dry"]
    assert found.status == 0, found.err
    sites, sums = found.out.split("\n\n")
    assert [line.split() for line in sites.splitlines()] == [
        ["layer", "tensor", "shape", "values"],
        ["0", "output", "3×8", "96", "B"],
        ["2", "output", "3×2", "24", "B"],
        ["2", "grad_input", "3×8", "96", "B"],
    ]
    figures = dict(line.split("  ", 1) for line in sums.splitlines())
    statistics = 3 * ROW.itemsize + COMMIT.itemsize
    mean = statistics + 216 / 3
    assert figures.pop("slowdown").strip().startswith(("about ", "within the noise of "))
    assert {name: text.strip() for name, text in figures.items()} == {
        "a step with values": f"{statistics + 216} B",
        "a step with statistics only": f"{statistics} B",
        "mean at --every 6 --burst 2": f"{mean:.0f} B",
        "1,000 steps": f"{(1000 * statistics + 334 * 216) / 1024:.1f} KiB",
        "--budget 1.0 MiB": f"values get rarer after about {about(int(2**19 / mean))} steps",
    }


def test_a_dry_run_of_values_at_every_step(tried: dict[str, Tried]) -> None:
    found = tried["full"]
    assert found.status == 0, found.err
    assert "hqtool" not in found.err
    total = 7 * (3 * ROW.itemsize + COMMIT.itemsize + 216)
    assert f"7 steps                      {total / 1024:.1f} KiB" in found.out


def test_ctrl_c_ends_a_dry_run(tried: dict[str, Tried]) -> None:
    """Also where a forked child has ended before."""
    found = tried["ctrl-c"]
    assert (found.status, found.out) == (128 + signal.SIGINT, "")
    assert found.err.endswith("KeyboardInterrupt\n")


def test_an_error_before_any_backward_pass(tried: dict[str, Tried]) -> None:
    found = tried["error"]
    assert (found.status, found.out) == (3, "")
    assert "ValueError" in found.err
    cause = "hqtool: no backward pass reached a layer that is asked for (exit status 1)"
    assert found.err.splitlines()[-2] == cause


def test_a_dry_run_that_records_nothing_fails(tried: dict[str, Tried]) -> None:
    found = tried["none"]
    assert (found.status, found.out) == (3, "")
    cause, remedy = found.err.splitlines()[-2:]
    assert cause == "hqtool: no backward pass reached a layer that is asked for (exit status 0)"
    assert "--layers" in remedy


def test_modes_exclude_each_other() -> None:
    done = hqtool("capture", "--list-sites", "--verify", "script.py")
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("hqtool: --list-sites, --dry-run and --verify exclude each other")


def test_the_cost_of_steps() -> None:
    cost, settings = StepCost(records=2, values=1000), CaptureSettings(every=10, burst=2)
    statistics = 2 * ROW.itemsize + COMMIT.itemsize
    assert cost.mean(settings) == statistics + 200
    assert cost.total(settings, 11) == 11 * statistics + 3 * 1000
    assert cost.steps_to_thinning(CaptureSettings(every=1, budget_bytes=None)) is None
    half = (1000 + statistics) * 50
    assert cost.steps_to_thinning(CaptureSettings(every=1, budget_bytes=2 * half)) == 50


def test_a_projection() -> None:
    cost = StepCost(records=0, values=10 << 10)
    settings = CaptureSettings(every=1, budget_bytes=2000 * ((10 << 10) + COMMIT.itemsize))
    first, second = projection(cost, settings)
    assert first == f"a step takes 10.0 KiB with values, {COMMIT.itemsize} B without"
    assert second == "--budget 19.6 MiB: values get rarer after about 1,000 steps"
    assert projection(cost, CaptureSettings(budget_bytes=None)) == [first]


@pytest.mark.parametrize(
    ("timing", "said"),
    [
        (Timing(0.2, 0.1, 0.1), "about 1.50× (two steps: 0.2 s each, 0.1 s more)"),
        (Timing(0.2, -0.3, 0.0), "within the noise of the two steps that were timed"),
        (Timing(-0.01, 0.2, 0.2), "within the noise of the two steps that were timed"),
    ],
)
def test_a_slowdown_that_noise_hides_is_told_as_that(timing: Timing, said: str) -> None:
    """A step that took no time, or that capture made faster, says nothing of capture."""
    assert slowdown(timing, CaptureSettings()) == said
