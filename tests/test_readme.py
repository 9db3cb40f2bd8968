"""README as a user follows it: every command runs, every output shown is what comes out."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
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


def run(command: str, folder: Path, **environment: str) -> str:
    name, *args = shlex.split(command)
    assert name == "hqtool", f"README runs {name}, which this test does not know"
    done = subprocess.run(
        [sys.executable, "-m", "hqtool", *args],
        cwd=folder, capture_output=True, text=True, check=False,
        env=os.environ | {"COLUMNS": "80"} | environment,
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


# --- add your own -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_package(here, tmp_path_factory):
    """The environment of a command beside README's package, as if installed."""
    place = tmp_path_factory.mktemp("site-packages")
    section = README.partition("## Add your own")[2].partition("\n## ")[0]
    for path, code in re.findall(r"```python\n# (\S+)\n(.*?)```", section, re.DOTALL):
        (place / path).parent.mkdir(exist_ok=True)
        (place / path).write_text(code, encoding="utf-8")
    info = place / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my_package\nVersion: 1.0\n")
    (toml,) = re.findall(r"```toml\n(.*?)```", section, re.DOTALL)
    groups = tomllib.loads(toml)["project"]["entry-points"]
    lines = [
        line
        for group, points in groups.items()
        for line in (f"[{group}]", *(f"{name} = {place}" for name, place in points.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    paths = [str(place), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def test_what_a_package_adds_is_listed(here, with_package):
    listed = json.loads(run("hqtool list --json -", here, **with_package))
    names = {
        kind: [row["name"] for row in rows] for kind, rows in listed.items() if kind != "schema"
    }
    assert "about_mean" in names["estimators"]
    assert {"nf4", "bfp6"} <= {*names["formats"]}
    assert "six_bits" in names["recipes"]


def test_what_a_package_adds_is_compared(here, with_package):
    chosen = "--quantizer current@nf4 --recipe six_bits:k=3"
    command = f"hqtool compare sample_data/digits.h5 {chosen} --json -"
    found = json.loads(run(command, here, **with_package))["summary"]
    lanes = {(row["tensor"], row["estimator"], row["format"], row["recipe"]) for row in found}
    assert lanes == {
        ("output", "current", "nf4", None),
        ("grad_input", "current", "nf4", None),
        ("output", "about_mean:k=3.0", "nf4", "six_bits:k=3"),
        ("grad_input", "local", "bfp6", "six_bits:k=3"),
    }
    assert {row["bits"] for row in found} == {4, 6.5}
    assert all(row["cosine"] > 0.95 for row in found)


def test_dev_commands_named_exist():
    text = (ROOT / "dev").read_text(encoding="utf-8")
    for name in re.findall(r"\./dev (\w+)", README):
        assert f"def {name}(" in text


def test_the_two_commands_stand_first_and_ci_runs_the_second_with_a_browser():
    first = next(text for kind, text in BLOCKS if kind == "sh")
    assert first.split("\n")[:2] == ["./dev demo", "./dev test"]
    ran = re.findall(r"\./dev \w+", (ROOT / ".ci" / "run").read_text(encoding="utf-8"))
    assert ran[:2] == ["./dev browser", "./dev test"]
    listed = README + "".join(f"./dev {name}" for name in re.findall(r"`(\w+)`", README))
    assert all(command in listed for command in ran)
