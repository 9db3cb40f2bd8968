"""Where RUN.h5 comes from: what it notes about the run."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from hqtool.recipes.recipe import Recipe
from hqtool.recipes.recipe_file import dumps
from hqtool.training.settings import TrainSettings


def provenance(command: Sequence[str], recipe: Recipe, settings: TrainSettings) -> dict[str, Any]:
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
        "recipe": recipe.name,
        "rules": dumps(replace(recipe, description="", source="")),
    }
