"""One full-precision run of each model, recorded, and what it foretells of every setting."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.truth.offline.candidates import scores
from benchmarks.truth.offline.replay import replayed
from benchmarks.truth.settings import BASELINE, COMMANDS, HERE, Setting, settings
from hqtool.recipes.named import load_recipe
from hqtool.recipes.recipe import Recipe
from hqtool.recipes.recipe_file import recipe_of_table
from hqtool.spec_table import SpecTable
from hqtool.vocab import TENSOR_KINDS

COLUMNS = ("model", "setting", "candidate", "value")

#: Values of all tensors are kept at every so many steps, and statistics at all of them.
EVERY = 20

SEED = 0


def recorded(model: str, folder: Path) -> Path:
    """The trace of a model's full-precision run, whole tensors of all six kinds."""
    trace = folder / f"{model}.h5"
    if not trace.exists():
        script, *arguments = COMMANDS[model]
        options = ["--full", "--every", str(EVERY), "--tensors", ",".join(TENSOR_KINDS)]
        words = ["capture", "-q", "-o", str(trace), *options, "--", str(HERE / script)]
        seeded = [*words, *arguments, "--seed", str(SEED)]
        subprocess.run([sys.executable, "-m", "hqtool", *seeded], check=True)
    return trace


def recipes(chosen: Sequence[Setting]) -> dict[str, Recipe]:
    """Setting → its recipe, under the setting's name."""
    return {each.name: replace(_recipe(each), name=each.name) for each in chosen}


def _recipe(setting: Setting) -> Recipe:
    if isinstance(setting.recipe, str):
        return load_recipe(setting.recipe)
    table = {"name": setting.name, **setting.recipe}
    return recipe_of_table(SpecTable(table, setting.name), setting.name)


def score_rows(folder: Path, models: Sequence[str]) -> Iterator[tuple[object, ...]]:
    """A row for each model, setting and candidate, by COLUMNS."""
    asked = recipes([each for each in settings() if each.name != BASELINE])
    for model in models:
        print(f"scoring {model} …", file=sys.stderr)
        for setting, found in replayed(str(recorded(model, folder)), asked).items():
            yield from _rows(model, setting, scores(found))


def _rows(model: str, setting: str, values: Mapping[str, float]) -> Iterator[tuple[object, ...]]:
    for candidate, value in values.items():
        yield model, setting, candidate, f"{value:.9g}"
