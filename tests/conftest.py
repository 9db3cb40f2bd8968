"""Shared by all tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.pop("COLUMNS", None)
os.environ.pop("NO_COLOR", None)
sys.path.insert(0, str(Path(__file__).parent))  # oracle.py, warm_python.py and the capture models

from warm_python import WarmPython


@pytest.fixture(scope="session")
def warm_python() -> Iterator[WarmPython]:
    """Runs scripts that import torch at a tenth of what a start of Python takes."""
    pytest.importorskip("torch")
    process = WarmPython()
    yield process
    process.close()
