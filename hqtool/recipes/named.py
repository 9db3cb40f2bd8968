"""The recipes by name: data files of this package, and those that outside packages add."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from hqtool.errors import DataError, UsageError
from hqtool.recipes.recipe import Recipe
from hqtool.recipes.recipe_file import parse_recipe, read_recipe
from hqtool.registry import Registry

#: A recipe's text, or the file that it stands in.
Source = str | Traversable | Path

#: Factories of recipes' sources. An outside package adds one in the group "hqtool.recipes".
RECIPES: Registry[Source] = Registry("recipe", group="hqtool.recipes")


def _register_data_files() -> None:
    for place in sorted(files("hqtool.recipes").joinpath("data").iterdir(), key=str):
        if place.name.endswith(".toml"):
            RECIPES.register(_factory_of(place))


def _factory_of(place: Traversable) -> Callable[[], Source]:
    def factory() -> Source:
        return place

    factory.__name__ = place.name.removesuffix(".toml")
    return factory


_register_data_files()


def load_recipe(text: str | os.PathLike[str]) -> Recipe:
    """The named recipe of this name, else the recipe in this file.

    Raises:
        UsageError: there is neither.
        DataError: the file is not a recipe; names it, the rule and the key.
    """
    text = os.fspath(text)
    try:
        RECIPES.entry(text.partition(":")[0].strip())
    except UsageError as error:
        if os.path.exists(text) or _is_path(text):
            return read_recipe(text)
        raise UsageError(error.cause, f"{error.remedy}; or give a recipe's file") from error
    return parse_recipe(recipe_text(text), text)


def recipe_text(name: str) -> str:
    """What a named recipe's file says.

    Args:
        name: as `load_recipe` takes it; an outside package's may have parameters: 'mine:bits=4'.

    Raises:
        UsageError: no such name or parameter.
        DataError: an outside package's recipe cannot be read.
    """
    source = RECIPES.parse(name).value
    if isinstance(source, str):
        return source
    try:
        return source.read_text(encoding="utf-8")
    except (AttributeError, OSError, ValueError) as error:
        cause = f"recipe '{name}' cannot be read: {error}"
        raise DataError(cause, "repair or remove the package that adds it") from error


def _is_path(text: str) -> bool:
    """Whether a text can only be meant as a file's name."""
    return os.path.basename(text) != text or text.lower().endswith((".toml", ".json"))
