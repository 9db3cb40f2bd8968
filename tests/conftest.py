"""Shared by all tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("same_every_time", derandomize=True, deadline=None, database=None)
settings.load_profile("same_every_time")
os.environ.pop("COLUMNS", None)
os.environ.pop("NO_COLOR", None)
sys.path.insert(0, str(Path(__file__).parent))  # oracle.py, command.py and others

from warm_python import WarmPython  # noqa: E402


@pytest.fixture(scope="session")
def warm_python() -> Iterator[WarmPython]:
    """Runs scripts that import torch at a tenth of what a start of Python takes."""
    pytest.importorskip("torch")
    process = WarmPython()
    yield process
    process.close()
