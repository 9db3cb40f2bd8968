"""Where a Chromium is, in which the page is tested; used by ./dev, too, so it imports nothing."""

from __future__ import annotations

import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str | None:
    """The path of an installed one, or what HQTOOL_CHROMIUM names; None where there is none."""
    named = os.environ.get("HQTOOL_CHROMIUM")
    found = (shutil.which(name) for name in ([named] if named else NAMES))
    return next((path for path in found if path), None)
