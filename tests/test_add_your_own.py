"""What README's "Add a …" sections show, as a package of one file that somebody installs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SECTIONS = re.split(r"^## ", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)


def shown(title: str, language: str) -> str:
    """All blocks in a language of a section of README."""
    (section,) = (each for each in SECTIONS if each.startswith(f"{title}\n"))
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert blocks, f"README's section '{title}' has no {language}"
    return "\n".join(blocks)


def install(folder: Path, title: str) -> None:
    """The section's module, and what an installer makes of its entry points."""
    (folder / "my_package.py").write_text(shown(title, "python"))
    points = shown(title, "toml").replace('"', "").replace("project.entry-points.", "")
    info = folder / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)


def hqtool(folder: Path, *args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "hqtool", *args],
        cwd=folder, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": f"{folder}:{ROOT}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def trace(tmp_path: Path) -> str:
    import numpy as np

    from hqtool import TraceWriter

    path = str(tmp_path / "t.h5")
    rng = np.random.default_rng(3)
    with TraceWriter(path) as writer:
        for step in range(4):
            writer.write("fc", "output", step, rng.laplace(size=200) * (1 + step))
            writer.commit(step)
    return path


def test_an_estimator_with_a_new_statistic(tmp_path: Path, trace: str) -> None:
    install(tmp_path, "Add an estimator")
    assert "about_mean:k=4,window=8" in hqtool(tmp_path, "list")
    spec = "about_mean:k=3,window=1"
    out = hqtool(tmp_path, "compare", trace, "--estimator", spec, "--per-step", "--json", "-")
    found = json.loads(out)
    assert [(row["estimator"], row["looks"]) for row in found["summary"]] == [(spec, 1)]
    assert [row["looked"] for row in found["steps"]] == [True, False, False, False]
    assert found["steps"][0]["hi"] == found["steps"][1]["hi"] < found["steps"][2]["hi"]
