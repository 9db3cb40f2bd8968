"""The call `hqtool.train(model, recipe, path, …)`."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Unpack

from hqtool.launch.requirements import require_torch

if TYPE_CHECKING:
    from torch import nn

    from hqtool.recipes.recipe import Recipe
    from hqtool.training.session import Session
    from hqtool.training.settings import TrainOptions


def train(
    model: nn.Module,
    recipe: str | os.PathLike[str] | Recipe,
    path: str | os.PathLike[str] | None = None,
    **options: Unpack[TrainOptions],
) -> AbstractContextManager[Session]:
    """Quantize the training of `model` inside a `with` block.

    Args:
        model: the root module; layers are named from it.
        recipe: a recipe's name or file, or a recipe.
        path: the trace to create, RUN.h5; None: nothing is written.
        options: the fields of `hqtool.training.settings.TrainSettings`, such as `seed=1`.

    Returns:
        a context manager, which gives the session; its `outcome` is there once it is left.

    Raises:
        HqtoolError: PyTorch is missing.
        UsageError: an option or the recipe is unknown; on entry: the file exists.
        DataError: the recipe's file is not a recipe.
    """
    require_torch()
    from hqtool.recipes.named import load_recipe
    from hqtool.recipes.recipe import Recipe
    from hqtool.training.session import open_session
    from hqtool.training.settings import settings_of

    found = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    return open_session(model, found, path, settings_of(options))
