"""The settings of a replay."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hqtool.core.formats.format import Format
from hqtool.errors import UsageError
from hqtool.estimators.protocol import Estimator
from hqtool.estimators.quantizer import Quantizer
from hqtool.recipes.recipe import Recipe
from hqtool.registry import Choice

#: What to do with the loss scale that a gradient was recorded with.
LOSS_SCALES = ("divided", "kept")


@dataclass(frozen=True, slots=True)
class ReplaySettings:
    """The settings of a replay, the same for all sites.

    Args:
        quantizers: each once, in the order results show them.
        recipes: whole recipes, each of which adds the quantizer that it gives a site; their names
            differ.
        calibrate: the first so many steps of a site update estimators and are not scored.
        seed: of the noise of 'stochastic-sampled'.
        search_gap: compare every search with an exhaustive scan.
        loss_scale: 'divided' out of gradients, or 'kept' in them, as the hardware sees them.
        worst: how many rows of lowest SQNR to keep of each site.
        buffer_bytes: of accumulator output that the chip holds: looks at no more move nothing.

    Raises:
        UsageError: a value out of bounds or unknown.
    """

    quantizers: tuple[Quantizer, ...]
    calibrate: int = 0
    seed: int = 0
    search_gap: bool = False
    loss_scale: str = "divided"
    worst: int = 0
    recipes: tuple[Recipe, ...] = ()
    buffer_bytes: int = 0

    def __post_init__(self) -> None:
        if twice := [q for q, count in Counter(self.quantizers).items() if count > 1]:
            raise UsageError(f"{twice[0].label} is given twice", "give each quantizer once")
        names = Counter(recipe.name for recipe in self.recipes)
        if alike := [name for name, count in names.items() if count > 1]:
            raise UsageError(f"two recipes are called '{alike[0]}'", "give each its own name")
        if self.loss_scale not in LOSS_SCALES:
            raise UsageError(
                f"a loss scale is not '{self.loss_scale}'", f"but {' or '.join(LOSS_SCALES)}"
            )
        if self.calibrate < 0:
            raise UsageError(f"cannot calibrate on {self.calibrate} steps", "give 0 or more")

    @property
    def estimators(self) -> tuple[Choice[Estimator], ...]:
        """The quantizers' estimators, each once, in order."""
        return tuple({q.estimator.label: q.estimator for q in self.quantizers}.values())

    @property
    def formats(self) -> tuple[Choice[Format], ...]:
        """The quantizers' formats, each once, in order."""
        return tuple({q.format.label: q.format for q in self.quantizers}.values())

    @property
    def roundings(self) -> tuple[str, ...]:
        """The quantizers' roundings, each once, in order."""
        return tuple(dict.fromkeys(q.rounding for q in self.quantizers))
