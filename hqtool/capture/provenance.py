"""Where a trace comes from: what it notes about the run."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from hqtool.capture.settings import CaptureSettings


def provenance(command: Sequence[str], settings: CaptureSettings) -> dict[str, Any]:
    """What is known before torch is loaded, JSON-safe; it names neither host nor user.

    Args:
        command: the script's name, without folders, and its arguments.
    """
    return {
        "command": list(command),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in ("hqtool", "numpy", "torch")},
        "settings": settings.to_json(),
    }
