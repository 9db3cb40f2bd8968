"""Shared by all tests. The first line of each test file says what it tests.

These modules hold no tests:

- oracle.py: formats and metrics in plain Python floats, one value at a time.
- deciding.py: one estimator over one site's tensors.
- quantizing.py: quantizers and settings of a replay, from the names of their parts.
- command.py: `hqtool` in this process, and Python programs in processes of their own.
- warm_python.py: Python programs that import torch, in a tenth of the time a new Python takes.
- capture_models.py: models, training functions, `captured` for a capture in this process.
- scripts/: training scripts that know nothing of hqtool.

Use the cheapest that can show a behaviour: `captured` for what is recorded of a model,
`warm_python` for what a script does or sees, `command.start` for how Python starts and ends.
A test waits for a condition, never for a time, and passes while other tests run.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("same_every_time", derandomize=True, deadline=None, database=None)
settings.load_profile("same_every_time")
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background jobs
os.environ.pop("COLUMNS", None)
os.environ.pop("NO_COLOR", None)
sys.path.insert(0, str(Path(__file__).parent))  # oracle.py, command.py and others

from warm_python import WarmPython  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def what_is_there_stays() -> None:
    """Neither the collector nor a search for models goes through what earlier modules loaded."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def warm_python() -> Iterator[WarmPython]:
    """Runs scripts that import torch in a tenth of the time that a new Python takes."""
    pytest.importorskip("torch")
    process = WarmPython()
    yield process
    process.close()
