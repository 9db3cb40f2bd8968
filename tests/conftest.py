"""Shared by all tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.pop("COLUMNS", None)
os.environ.pop("NO_COLOR", None)
sys.path.insert(0, str(Path(__file__).parent))  # oracle.py and the capture models
