"""The study file (schema "hqtool.study/1"): what is trained, under which recipes and seeds."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from hqtool.errors import DataError, HqtoolError
from hqtool.recipes.named import load_recipe
from hqtool.recipes.recipe import Recipe
from hqtool.recipes.recipe_file import KEYS_OF_TABLE, recipe_of_table, to_json
from hqtool.recipes.trainable import require_trainable
from hqtool.spec_file import check_schema, load_spec_file
from hqtool.spec_table import SpecTable, short_repr
from hqtool.study.metric import Metric

SCHEMA = "hqtool.study/1"

KEYS = (
    "schema", "command", "metric", "seeds", "recipes", "baseline", "trace", "timeout",
    "calibrate", "min-coverage", "on-nonfinite",
)  # fmt: skip

#: Stands for the seed in the words of a command.
SEED = "{seed}"

#: The recipe that differences are from, where it is among the recipes and no other is named.
NONE = "none"

#: What quantized runs do at NaN and infinities; the first is the default: weights that are NaN may
#: still give a finite accuracy.
ON_NONFINITE = ("stop", "keep")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StudyRecipe:
    """A recipe of a study, called as the study file has it."""

    recipe: Recipe

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.recipe.name

    @property
    def trains_plain(self) -> bool:
        """Whether it quantizes nothing: the script is run as it is, without hqtool."""
        return not self.recipe.tensors

    @property
    def key(self) -> str:
        """Of its rules: two recipes with the same key train alike, whatever they are called."""
        content = to_json(self.recipe)
        rules = {key: content[key] for key in ("ste", "rule") if key in content}
        return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class Study:
    """What a study file asks for.

    Args:
        path: the file.
        command: a script, or '-m' and a module, and arguments; '{seed}' stands for the seed.
        baseline: name of the recipe that the others are compared with.
        trace: path of a trace to score the recipes on.
        timeout: seconds after which a run is ended; None: never.
        options: of `hqtool train`, the same for all runs.
    """

    path: Path
    command: tuple[str, ...]
    metric: Metric
    seeds: tuple[int, ...]
    recipes: tuple[StudyRecipe, ...]
    baseline: str
    trace: str | None = None
    timeout: float | None = None
    options: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The study file's, in which runs start: its paths are relative to it."""
        return self.path.absolute().parent

    @property
    def script(self) -> Path | None:
        """The script that is run; None where it is a module."""
        return None if self.command[0] == "-m" else self.folder / self.command[0]

    @property
    def takes_seed(self) -> bool:
        """Whether the command is told the seed."""
        return any(SEED in word for word in self.command)


def read_study(path: str | Path) -> Study:
    """The study in a file.

    Raises:
        DataError: the file is missing or unreadable, or anything in it is not as the schema wants
            it, names no script, recipe or trace; names the file and the key.
    """
    return load_spec_file(path, lambda top: _study(top, Path(path)))


def _study(top: SpecTable, path: Path) -> Study:
    check_schema(top, SCHEMA, "a study")
    top.only(KEYS)
    folder = path.absolute().parent
    recipes, pattern = _recipes(top, folder), top.text("metric")
    return Study(
        path=path,
        command=_command(top, folder),
        metric=_checked(top, "metric", lambda: Metric(pattern)),
        seeds=_seeds(top),
        recipes=recipes,
        baseline=_baseline(top, [each.name for each in recipes]),
        trace=_trace(top, folder),
        timeout=top.number("timeout", low=0.001) if "timeout" in top else None,
        options=_options(top),
    )


def _command(top: SpecTable, folder: Path) -> tuple[str, ...]:
    command = top.texts("command", least=1)
    script = command[0]
    if script == "-m" and len(command) > 1:
        return command
    if not (folder / script).is_file():
        cause = f"no script {script} in {folder}"
        remedy = f'write ["SCRIPT.py", …] or ["-m", "MODULE", …]; {_RELATIVE}'
        raise top.wrong("command", cause, remedy)
    return command


_RELATIVE = "paths are relative to the study file's folder"


def _seeds(top: SpecTable) -> tuple[int, ...]:
    seeds = top.sizes("seeds", None, low=0)
    if twice := [seed for seed, count in Counter(seeds).items() if count > 1]:
        raise top.wrong("seeds", f"{twice[0]} is given twice", "give each seed once")
    return seeds


def _recipes(top: SpecTable, folder: Path) -> tuple[StudyRecipe, ...]:
    given = top.get("recipes")
    if not isinstance(given, list) or not given:
        raise top.wrong("recipes", f"{short_repr(given)} is not a list of recipes", _HOW)
    found = tuple(_recipe(top, folder, each, n) for n, each in enumerate(given, start=1))
    names = Counter(each.name for each in found)
    if alike := [name for name, count in names.items() if count > 1]:
        raise top.wrong("recipes", f"two are called '{alike[0]}'", "give each its own name")
    return found


_HOW = 'write names, files or tables: ["none", "mine.toml", {name = "a", output = "current@int4"}]'


def _recipe(top: SpecTable, folder: Path, given: object, number: int) -> StudyRecipe:
    found = _recipe_of(top, folder, given, number)
    _checked(top, "recipes", lambda: require_trainable(found))
    return StudyRecipe(found)


def _recipe_of(top: SpecTable, folder: Path, given: object, number: int) -> Recipe:
    if isinstance(given, str) and given:
        recipe = _checked(top, "recipes", lambda: _loaded(given, folder))
        return replace(recipe, name=given)
    where = f"the file, recipe number {number}"
    table = SpecTable(given, where)
    table.only(KEYS_OF_TABLE)
    name = table.text("name")
    return recipe_of_table(table, name)


def _loaded(text: str, folder: Path) -> Recipe:
    """A recipe by name, or from a file that is named from the study's folder."""
    beside = folder / text
    return load_recipe(beside if beside.is_file() else text)


def _baseline(top: SpecTable, names: list[str]) -> str:
    if "baseline" in top:
        return top.choice("baseline", names)
    return NONE if NONE in names else names[0]


def _trace(top: SpecTable, folder: Path) -> str | None:
    if "trace" not in top:
        return None
    path = folder / top.text("trace")
    if not path.is_file():
        remedy = f"record one with hqtool capture, or leave it out; {_RELATIVE}"
        raise top.wrong("trace", f"there is no {top.text('trace')} in {folder}", remedy)
    return os.path.relpath(path)


def _options(top: SpecTable) -> tuple[str, ...]:
    stop = top.choice("on-nonfinite", ON_NONFINITE) if "on-nonfinite" in top else ON_NONFINITE[0]
    words = ["--on-nonfinite", stop]
    if "calibrate" in top:
        words += ["--calibrate", str(top.integer("calibrate"))]
    if "min-coverage" in top:
        words += ["--min-coverage", f"{top.number('min-coverage', low=0, high=1):g}"]
    return tuple(words)


def _checked(top: SpecTable, key: str, build: Callable[[], T]) -> T:
    """What `build` makes of a key; its errors say which key."""
    try:
        return build()
    except DataError as error:
        raise top.wrong(key, error.cause, error.remedy or "") from error
    except HqtoolError as error:
        raise top.wrong(key, error.cause, error.remedy or "correct it") from error
