"""README as a user follows it: every command runs, every output shown is what comes out."""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)

#: Not run here: they make the environment that the tests run in.
BY_HAND = ("./dev ", "pip install ")


def commands(language: str) -> list[tuple[str, str]]:
    """(command, output shown) of all blocks in a language."""
    found = []
    for kind, text in BLOCKS:
        if kind == language == "console":
            command, _, output = text.removeprefix("$ ").partition("\n")
            found.append((command, output))
        elif kind == language:
            found += [(line.partition("  #")[0], "") for line in text.splitlines()]
    return found


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with the sample data beside it, as after `git clone`."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "sample_data", folder / "sample_data")
    return folder


def run(command: str, folder: Path) -> str:
    name, *args = shlex.split(command)
    assert name == "hqtool", f"README runs {name}, which this test does not know"
    done = subprocess.run(
        [sys.executable, "-m", "hqtool", *args],
        cwd=folder, capture_output=True, text=True, check=False,
        env=os.environ | {"COLUMNS": "80"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def words(text: str) -> list[str | float]:
    """Words and figures; figures may differ in their last digit from machine to machine."""
    return [number(word) for word in text.replace("×", " × ").replace(";", " ; ").split()]


def number(word: str) -> str | float:
    """A finite number as such; 'NaN' is a word like any other."""
    try:
        return float(word) if math.isfinite(float(word)) else word
    except ValueError:
        return word


def alike(one: str | float, other: str | float) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return one == pytest.approx(other, rel=0.01, abs=0.02)
    return one == other


@pytest.mark.parametrize(("command", "output"), commands("console"))
def test_shown_output_is_what_comes_out(here, command, output):
    assert output.strip(), f"README shows no output of {command}"
    found, shown = words(run(command, here)), words(output)
    assert len(found) == len(shown)
    for one, other in zip(found, shown, strict=True):
        assert alike(one, other)


def test_commands_and_python_run_in_order(here):
    """One folder, one Python: later blocks build on earlier ones."""
    pytest.importorskip("torch")
    names: dict[str, object] = {}
    old = Path.cwd()
    os.chdir(here)
    try:
        for kind, text in BLOCKS:
            if kind == "python":
                exec(text, names)
            elif kind == "sh":
                for line in text.splitlines():
                    if not line.startswith(BY_HAND):
                        run(line, here)
    finally:
        os.chdir(old)
    assert {"run.h5", "loop.h5", "mine.h5", "own.h5"} <= {p.name for p in here.iterdir()}


def test_dev_commands_named_exist():
    text = (ROOT / "dev").read_text(encoding="utf-8")
    for name in re.findall(r"\./dev (\w+)", README):
        assert f"def {name}(" in text


def test_the_two_commands_stand_first_and_ci_runs_the_second():
    first = next(text for kind, text in BLOCKS if kind == "sh")
    assert first.split("\n")[:2] == ["./dev demo", "./dev test"]
    ran = re.findall(r"\./dev \w+", (ROOT / ".ci" / "run").read_text(encoding="utf-8"))
    assert ran[0] == "./dev test"
    listed = README + "".join(f"./dev {name}" for name in re.findall(r"`(\w+)`", README))
    assert all(command in listed for command in ran)
