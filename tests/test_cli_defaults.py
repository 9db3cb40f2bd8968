"""Defaults of `hqtool capture` and `hqtool train` from hqtool.toml and pyproject.toml."""

from __future__ import annotations

import subprocess
import textwrap
from pathlib import Path

import click
import pytest

pytest.importorskip("torch")

from capture_models import read_run
from command import finish, hqtool, start

from hqtool.capture.settings import CaptureSettings
from hqtool.cli.defaults import COMMANDS_WITH_DEFAULTS
from hqtool.cli.main import COMMANDS, cli
from hqtool.recipes.named import load_recipe
from hqtool.study.metric import Metric
from hqtool.study.run import Run, command_of
from hqtool.study.study_file import Study, StudyRecipe
from hqtool.training.settings import TrainSettings

EMPTY = "import sys"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a script that does nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.py").write_text(EMPTY)
    return tmp_path


def capture(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """`hqtool capture`, in a process of its own."""
    return finish(start(folder, "-m", "hqtool", "capture", *args))


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
        ("[capture]\nevery = '3'", "every = '3' is not a whole number", "every = 100"),
        ("[capture]\nevery = 3.0", "every = 3.0 is not a whole number", "every = 100"),
        ("[capture]\nseed = true", "seed = True is not a whole number", "seed = 100"),
        ("[capture]\nfull = 1", "full = 1 is neither true nor false", "full = true"),
        ("[capture]\nlayers = [1]", "layers = [1] is not a list of texts", 'layers = ["…"]'),
        ("[capture]\nbudget = 5", "budget = 5 is not a text", 'budget = "…"'),
        ("[capture]\nstep-on = 'x'", "step-on = 'x'", "one of auto, optimizer, forward"),
        ("[captur]\nevery = 3", "no such table: [captur]", "did you mean 'capture'?"),
        ("[compare]\nbits = '4'", "no such table: [compare]", "known: capture, train"),
        ("[capture]\nlayer = ['x']", "no such option: layer", "did you mean 'layers'?"),
        ("[capture]\nstep-on = 'optimiser'", "step-on = 'optimiser'", "mean 'optimizer'?"),
        ("every = 3", "every is outside the tables of the commands", "put it under [capture]"),
        ("capture = 3", "capture is outside the tables of the commands", "put it under [capture]"),
        ("[capture", "hqtool.toml is not TOML", "correct it, or give --no-config"),
        ("[capture]\nx = '\xff'", "hqtool.toml is not TOML", "correct it, or give --no-config"),
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


def test_train_takes_defaults_unless_a_study_runs_it(folder: Path) -> None:
    options = "recipe = 'paper-w8a8g8'\nseed = 3\nmin-coverage = 0\nrank-timeout = 2.5\n"
    with (folder / "hqtool.toml").open("w") as file:
        file.write(f"[train]\n{options}calibrate = 9\n[capture]\nevery = 3")
    train = ("-m", "hqtool", "train", "-o", "run.h5", "--follow-fork")
    done = finish(start(folder, *train, "--seed", "4", "script.py"))
    assert done.returncode == 3  # it was to be calibrated, and the script makes no step
    (folder / "hqtool.toml").write_text(f"[train]\n{options}")
    done = finish(start(folder, *train, "--seed", "4", "script.py"))
    assert done.returncode == 0, done.stderr
    used = "hqtool: defaults from hqtool.toml: recipe, min-coverage, rank-timeout\n"
    assert done.stderr.startswith(used)
    run = read_run(folder / "run.h5")
    assert run["recipe"] == "paper-w8a8g8"
    settings = TrainSettings(seed=4, rank_timeout_seconds=2.5, follow_fork=True)
    assert run["settings"] == settings.to_json()
    missing = hqtool("train", "--no-config", "script.py")
    assert (missing.status, "--recipe" in missing.err) == (2, True)
    recipe = StudyRecipe(load_recipe("paper-w8a8g8"))
    place = folder / "study.toml"
    study = Study(place, ("script.py",), Metric("a: (.*)"), (0,), (recipe,), recipe.name)
    words = command_of(study, Run(recipe, 0, folder), folder / "mine.toml")
    assert words[words.index("train") + 1] == "--no-config"


@pytest.mark.parametrize(
    ("text", "cause", "remedy"),
    [
        ("min-coverage = '1'", "min-coverage = '1' is not a number", "min-coverage = 0.5"),
        ("verify = true", "no such option: verify", "use: recipe, seed"),
        ("calibrate = 2.0", "calibrate = 2.0 is not a whole number", "calibrate = 100"),
    ],
)
def test_a_faulty_table_of_train(text: str, cause: str, remedy: str, folder: Path) -> None:
    (folder / "hqtool.toml").write_text(f"[train]\n{text}")
    done = hqtool("train", "--recipe", "none", "script.py")
    assert (done.status, done.out) == (2, "")
    first, second = done.err.splitlines()
    assert cause in first
    assert remedy in second


@pytest.mark.parametrize("name", COMMANDS)
def test_the_tables_are_those_of_commands_that_take_defaults(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert any(param.name == "config" for param in command.params) == (
        name in COMMANDS_WITH_DEFAULTS
    )
