"""Which recipes training can use."""

from __future__ import annotations

from hqtool.core.formats.block import BlockFormat
from hqtool.errors import UsageError
from hqtool.recipes.recipe import Recipe


def require_trainable(recipe: Recipe) -> None:
    """Raises: UsageError: the recipe has a format that training cannot use."""
    for rule in recipe.rules:
        for quantizer in rule.quantizers.values():
            if quantizer is None:
                continue
            format_ = quantizer.format.value
            if not (isinstance(format_, BlockFormat) or hasattr(format_, "levels")):
                cause = (
                    f"recipe {recipe.name}: {quantizer.format.label} has no levels to train with"
                )
                raise UsageError(cause, "choose another format; compare can score this one")
