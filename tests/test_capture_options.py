"""The options of `hqtool capture` that say what is kept, and the runs that keep nothing."""

from __future__ import annotations

import getpass
import importlib
import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest

torch = pytest.importorskip("torch")

from capture_models import captured, read_records, read_run  # noqa: E402
from command import hqtool  # noqa: E402
from warm_python import WarmPython  # noqa: E402

from hqtool.capture.cost import StepCost, about  # noqa: E402
from hqtool.capture.messages import closing_lines, projection, unrecorded_lines  # noqa: E402
from hqtool.capture.recording import Plan  # noqa: E402
from hqtool.capture.settings import CaptureSettings  # noqa: E402
from hqtool.errors import UsageError  # noqa: E402
from hqtool.launch.importing import after_import  # noqa: E402
from hqtool.trace.schema import COMMIT, ROW  # noqa: E402

SCRIPTS = Path(__file__).parent / "scripts"

# --- settings -------------------------------------------------------------------------------------


def kept(settings: CaptureSettings, steps: int) -> list[int]:
    return [step for step in range(steps) if settings.keeps_values(step)]


def test_a_burst_is_of_consecutive_steps() -> None:
    assert kept(CaptureSettings(every=5, burst=2), 12) == [0, 1, 5, 6, 10, 11]
    assert kept(CaptureSettings(every=5, burst=2, steps=(1, 10)), 12) == [1, 5, 6]
    assert kept(CaptureSettings(every=3, burst=3), 5) == [0, 1, 2, 3, 4]
    assert kept(CaptureSettings(every=4), 9) == [0, 4, 8]


def test_a_burst_is_recorded(tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    with captured(tmp_path / "T.h5", every=4, burst=2):
        for _ in range(7):
            layer(torch.ones(1, 2)).sum().backward()
            optimizer.step()
    records = read_records(tmp_path / "T.h5")
    assert {key[2] for key in records} == set(range(7))
    with_values = {key[2] for key, record in records.items() if record.values is not None}
    assert with_values == {0, 1, 4, 5}


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"burst": 0}, "burst is below 1"),
        ({"every": 2, "burst": 3}, "burst 3 is longer than every 2"),
        ({"module_types": ["nn.Linear"]}, "no class name: nn.Linear"),
        ({"module_types": "Linear"}, "module_types is one text"),
        ({"step_on": "never"}, "unknown step_on: never"),
    ],
)
def test_options_out_of_bounds(options: dict[str, object], cause: str) -> None:
    with pytest.raises(UsageError, match=cause):
        CaptureSettings(**options)  # type: ignore[arg-type]


def test_a_plan_reaches_another_process_whole() -> None:
    settings = CaptureSettings(module_types=("Own", "LSTM"), every=7, burst=3, follow_fork=True)
    plan = Plan("a b'\".h5", "/tmp", ("train.py", "--x", "ü"), settings, True)
    assert Plan.from_json(plan.to_json()) == plan


# --- defaults from a file -------------------------------------------------------------------------

EMPTY = "import sys"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a script that does nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.py").write_text(EMPTY)
    return tmp_path


def capture(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """`hqtool capture`, in a process of its own."""
    command = [sys.executable, "-m", "hqtool", "capture", *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("file", "table"),
    [("hqtool.toml", "[capture]"), ("pyproject.toml", "[tool.hqtool.capture]")],
)
def test_a_file_gives_defaults_and_the_command_line_wins(
    file: str, table: str, folder: Path
) -> None:
    options = """
        every = 100
        burst = 3
        layers = ["*.conv*"]
        exclude = "stem"
        tensors = ["output", "weight,grad_weight"]
        module-types = ["Conv2d"]
        budget = "1MiB"
        steps = "0:1000"
        max-elements = 7
        full = true
        step-on = "forward"
        eval = true
        seed = 5
        follow-fork = true
        """
    (folder / file).write_text(table + textwrap.dedent(options))
    done = capture(folder, "--every", "4", "--layers", "head", "script.py")
    assert done.returncode == 0, done.stderr
    first, _, told = done.stderr.partition("\n")
    assert first.startswith(f"hqtool: defaults from {file}: exclude, module-types, tensors, burst")
    assert "every" not in first
    assert "script.h5" in told
    settings = read_run(folder / "script.h5")["settings"]
    assert (
        settings
        == CaptureSettings(
            layers=("head",),
            exclude=("stem",),
            tensors=("output", "weight", "grad_weight"),
            module_types=("Conv2d",),
            every=4,
            burst=3,
            steps=(0, 1000),
            max_elements=7,
            full=True,
            step_on="forward",
            eval=True,
            seed=5,
            budget_bytes=1 << 20,
            follow_fork=True,
        ).to_json()
    )


def test_only_the_first_file_counts_and_quiet_is_quiet(folder: Path) -> None:
    (folder / "hqtool.toml").write_text("[capture]\nquiet = true\nevery = 3")
    (folder / "pyproject.toml").write_text("[tool.hqtool.capture]\nevery = 4\nburst = 2")
    done = capture(folder, "script.py")
    assert (done.returncode, done.stderr) == (0, "")
    settings = read_run(folder / "script.h5")["settings"]
    assert (settings["every"], settings["burst"]) == (3, 1)


def test_files_elsewhere_and_of_others_do_not_count(folder: Path) -> None:
    (folder / "hqtool.toml").write_text("[capture]\nevery = 3")
    inner = folder / "inner"
    inner.mkdir()
    (inner / "pyproject.toml").write_text("[project]\nname = 'x'\n[tool.other]\nevery = 4")
    done = capture(inner, "../script.py")
    assert "defaults" not in done.stderr
    assert read_run(inner / "script.h5")["settings"]["every"] == 10


@pytest.mark.parametrize(
    ("text", "cause", "remedy"),
    [
        ("[capture]\nevry = 3", "no such option: evry", "use: layers, exclude"),
        ("[capture]\nforce = true", "no such option: force", "use: layers, exclude"),
        ("[capture]\nverify = true", "no such option: verify", "use: layers, exclude"),
        ("[capture]\nevery = '3'", "every = '3' is no whole number", "every = 100"),
        ("[capture]\nevery = 3.0", "every = 3.0 is no whole number", "every = 100"),
        ("[capture]\nseed = true", "seed = True is no whole number", "seed = 100"),
        ("[capture]\nfull = 1", "full = 1 is neither true nor false", "full = true"),
        ("[capture]\nlayers = [1]", "layers = [1] is no list of texts", 'layers = ["…"]'),
        ("[capture]\nbudget = 5", "budget = 5 is no text", 'budget = "…"'),
        ("[capture]\nstep-on = 'x'", "step-on = 'x'", "one of auto, optimizer, forward"),
        ("every = 3", "every stands outside", "put it under [capture]"),
        ("capture = 3", "capture stands outside", "put it under [capture]"),
        ("[capture", "hqtool.toml is no TOML", "mend it, or give --no-config"),
        ("[capture]\nx = '\xff'", "hqtool.toml is no TOML", "mend it, or give --no-config"),
    ],
)
def test_a_faulty_file(text: str, cause: str, remedy: str, folder: Path) -> None:
    (folder / "hqtool.toml").write_bytes(text.encode("latin-1"))
    done = hqtool("capture", "script.py")
    assert (done.status, done.out) == (2, "")
    first, second = done.err.splitlines()
    assert first.startswith("hqtool: hqtool.toml")
    assert cause in first
    assert remedy in second
    assert not (folder / "script.h5").exists()


def test_a_faulty_file_can_be_passed_over(folder: Path) -> None:
    (folder / "hqtool.toml").write_text("[capture")
    assert "--no-config" in hqtool("capture", "--help").out
    assert capture(folder, "--no-config", "script.py").returncode == 0
    (folder / "hqtool.toml").unlink()
    (folder / "pyproject.toml").write_text("[tool.hqtool]\nevery = 3")
    assert "put it under [tool.hqtool.capture]" in hqtool("capture", "script.py").err


# --- before a capture -----------------------------------------------------------------------------

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
    assert figures.pop("slowdown").strip().startswith("about ")
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


# --- waiting for torch ----------------------------------------------------------------------------


def test_looking_for_a_module_is_not_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries ask whether there is a torch, and how, long before one is imported."""
    (tmp_path / "late_module.py").write_text("import sys\nif hasattr(sys, 'too_early'): 1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "too_early", True, raising=False)
    acts: list[str] = []
    finders = list(sys.meta_path)
    after_import("late_module", lambda: acts.append("first"))
    after_import("late_module", lambda: acts.append("second"))
    assert importlib.util.find_spec("late_module") is not None
    with pytest.raises(ZeroDivisionError):
        importlib.import_module("late_module")
    assert acts == []
    monkeypatch.delattr(sys, "too_early")
    importlib.import_module("late_module")
    assert sorted(acts) == ["first", "second"]
    assert sys.meta_path == finders
    after_import("late_module", lambda: acts.append("at once"))
    assert acts[2:] == ["at once"]


# --- at the end -----------------------------------------------------------------------------------


def test_layers_that_were_not_recorded_are_listed_by_reason() -> None:
    many = {f"block{n}": "not called as a module" for n in range(30)}
    lines = unrecorded_lines(many | {"lstm": "LSTM is not recorded"})
    first = "not recorded: 30 layers (not called as a module): block0, block1, …"
    assert lines == [first, "not recorded: lstm (LSTM is not recorded)"]
    assert unrecorded_lines({}) == []


def test_a_glob_that_takes_no_layer_is_told(tmp_path: Path) -> None:
    with captured(tmp_path / "t.h5", layers=["stem*"]) as session:
        torch.nn.Linear(2, 2)(torch.ones(1, 2)).sum().backward()
    assert session.outcome is not None
    *_, last = closing_lines("t.h5", session.outcome)
    assert last == "nothing recorded: --layers and --exclude leave out linear"


def test_of_many_reasons_the_commonest_are_told() -> None:
    reasons = {f"{why}{n}": f"reason {why}" for why in range(8) for n in range(8 - why)}
    lines = unrecorded_lines(reasons)
    assert len(lines) == 5
    assert lines[0].startswith("not recorded: 8 layers (reason 0): 00, 01, 02, ")
    assert lines[-1].startswith("not recorded: layers for 4 more reasons")
    assert all(len(f"hqtool: {line}") <= 80 for line in lines)
