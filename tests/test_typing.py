"""A user's code passes a type checker."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from hqtool.capture.settings import CaptureOptions, CaptureSettings

ROOT = Path(__file__).parent.parent

USER_CODE = """
import hqtool
from hqtool import TraceReader, TraceWriter
from torch import nn

model: nn.Module
with hqtool.capture(model, "run.h5", every=10, layers=["head"], steps=(5, None)) as session:
    reveal_type(session)
hqtool.capture(model, "run.h5", evry=10)
hqtool.capture(model, "run.h5", every="10")
with TraceWriter("own.h5") as writer:
    writer.write("fc", "output", 0, [1.0, 2.0], micro=0, call=0)
    writer.commit(0)
with TraceReader("own.h5") as reader:
    for site in reader.sites:
        reveal_type(site.layer)
        for record in reader.records(site):
            reveal_type(record.step)
            reveal_type(record.shape)
            reveal_type(record.stats.absmax)
            reveal_type(record.values)
"""

#: torch is left out: reading it takes long.
CONFIG = """
[mypy]
strict = True
[mypy-torch.*]
follow_imports = skip
[mypy-h5py.*]
ignore_missing_imports = True
"""


def test_a_users_code_is_checked(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "user.py").write_text(USER_CODE)
    (tmp_path / "mypy.ini").write_text(CONFIG)
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "user.py"]
    environ = os.environ | {"MYPYPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    *revealed, values = [line.partition('"')[2].rstrip('"') for line in lines if "Revealed" in line]
    assert revealed == [
        "hqtool.capture.session.Session",
        "str",
        "int",
        "tuple[int, ...]",
        "float",
    ], done.stdout
    assert values.startswith("numpy.ndarray")
    assert values.endswith("| None")
    errors = [line for line in lines if line.startswith("user.py") and ": error: " in line]
    assert len(errors) == 2, done.stdout
    assert '"evry"' in errors[0]
    assert '"every"' in errors[1]


def test_every_option_of_capture_is_known_to_type_checkers() -> None:
    assert list(CaptureOptions.__annotations__) == [field.name for field in fields(CaptureSettings)]
