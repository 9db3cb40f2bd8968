"""What a quantized training run is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Integral
from typing import Any, TypedDict

from hqtool.errors import UsageError
from hqtool.nearest import known_names

#: What is done about NaN and infinities in a tensor that is quantized.
ON_NONFINITE = {
    "keep": "they stay as they are, and are told at the end",
    "stop": "training stops there; gradients may overflow under a loss scale above 1, which the "
    "scaler then lowers",
}

#: What is done about the factor that gradients carry under loss scaling.
LOSS_SCALES = {
    "divided": "ranges are those of the gradients without it",
    "kept": "ranges are those of the gradients with it",
}


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How to train, beside the recipe.

    Args:
        seed: of stochastic rounding; training's own random numbers are never touched.
        on_nonfinite: a key of ON_NONFINITE.
        loss_scale: a key of LOSS_SCALES.
        step_on: what ends a step, as for capture: "optimizer", "forward" or "auto".
        min_coverage: the least share of multiplications to be quantized, 0 … 1.
        rank_timeout_seconds: where several ranks train, how long their ranges wait to be joined
            with those of a rank that does not answer; 0: they are not joined.
        force: replace an existing RUN.h5.
        follow_fork: quantize what child processes train, too, each with a RUN.h5 of its own; only
            `hqtool train` can.

    Raises:
        UsageError: a value out of bounds.
    """

    seed: int = 0
    on_nonfinite: str = "keep"
    loss_scale: str = "divided"
    step_on: str = "auto"
    min_coverage: float = 0.0
    rank_timeout_seconds: float = 30.0
    force: bool = False
    follow_fork: bool = False

    def __post_init__(self) -> None:
        for name, known in (("on_nonfinite", ON_NONFINITE), ("loss_scale", LOSS_SCALES)):
            value = getattr(self, name)
            if value not in known:
                raise UsageError(f"unknown {name}: {value}", known_names(value, known))
        if not 0 <= self.min_coverage <= 1:
            cause = f"min_coverage={self.min_coverage:g} lies outside 0…1"
            raise UsageError(cause, "give a share, such as 0.95")
        if not 0 <= self.rank_timeout_seconds < float("inf"):
            cause = f"rank_timeout_seconds={self.rank_timeout_seconds:g} is no time to wait"
            raise UsageError(cause, "give seconds, such as 30; 0: ranges are not joined")

    def to_json(self) -> dict[str, Any]:
        """All options by name, JSON-safe."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class TrainOptions(TypedDict, total=False):
    """The fields of TrainSettings as keyword options, for type checkers."""

    seed: int
    on_nonfinite: str
    loss_scale: str
    step_on: str
    min_coverage: float
    rank_timeout_seconds: float
    force: bool
    follow_fork: bool


def settings_of(options: Mapping[str, Any]) -> TrainSettings:
    """TrainSettings from keyword options.

    Raises:
        UsageError: an option is unknown or out of bounds.
    """
    known = [field.name for field in fields(TrainSettings)]
    for name in options:
        if name not in known:
            raise UsageError(f"unknown option of training: {name}", known_names(name, known))
    if not isinstance(options.get("seed", 0), Integral):
        raise UsageError(f"seed={options['seed']!r} is no whole number", "give one, such as 0")
    return TrainSettings(**options)
