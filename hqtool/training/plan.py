"""How the processes of a program are to be quantized."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from hqtool.launch.process_rank import path_of_rank, rank_of_process
from hqtool.recipes.recipe import Recipe
from hqtool.recipes.recipe_file import dumps, parse_recipe
from hqtool.training.settings import TrainSettings


@dataclass(frozen=True, slots=True)
class TrainPlan:
    """How the processes of a program are to be quantized, and where that is recorded.

    Args:
        path: the first process's RUN.h5, as its user named it; None: nothing is written.
        folder: the folder that a relative path starts from.
        command: the program's name, without folders, and its arguments.
        quiet: print no closing lines.
    """

    path: str | None
    folder: str
    command: tuple[str, ...]
    recipe: Recipe
    settings: TrainSettings
    quiet: bool = False

    @property
    def follows(self) -> bool:
        """Whether children are quantized, too."""
        return self.settings.follow_fork

    def to_json(self) -> str:
        """The plan as text, for a process that is to be started."""
        entries: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        recipe = {"recipe": [self.recipe.name, dumps(self.recipe)]}
        return json.dumps(entries | recipe | {"settings": self.settings.to_json()})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The plan that was written as text."""
        entries = json.loads(text)
        name, rules = entries["recipe"]
        entries |= {
            "command": tuple(entries["command"]),
            "recipe": parse_recipe(rules, name),
            "settings": TrainSettings(**entries["settings"]),
        }
        return cls(**entries)


def plan_of(
    target: str,
    argv: Sequence[str],
    recipe: Recipe,
    settings: TrainSettings,
    *,
    module: bool,
    out: str | os.PathLike[str] | None,
    quiet: bool,
) -> TrainPlan:
    """The plan for a script or module and its arguments; each rank writes a file of its own."""
    path = None if out is None else path_of_rank(out, rank_of_process())
    command = (target if module else os.path.basename(target), *argv)
    return TrainPlan(path, os.getcwd(), command, recipe, settings, quiet)
