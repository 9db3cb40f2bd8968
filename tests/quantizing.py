"""Quantizers and settings of a replay, from the names of their parts."""

from __future__ import annotations

from typing import Any

from hqtool.compare.settings import ReplaySettings
from hqtool.estimators.presets import DEFAULTS, ESTIMATORS
from hqtool.estimators.protocol import Estimator
from hqtool.estimators.quantizer import Quantizer, product, roundings_of, sweep_formats
from hqtool.registry import Choice


def quantizers(
    *estimators: str | Choice[Estimator], formats: str = "int8", rounding: str = "nearest"
) -> tuple[Quantizer, ...]:
    """Every estimator (by default the paper's four) at every format with every rounding."""
    chosen = [ESTIMATORS.parse(e) if isinstance(e, str) else e for e in estimators or DEFAULTS]
    return tuple(product(chosen, sweep_formats(formats), roundings_of([rounding])))


def settings(
    *estimators: str | Choice[Estimator],
    formats: str = "int8",
    rounding: str = "nearest",
    **how: Any,
) -> ReplaySettings:
    """The settings of a replay of such quantizers."""
    return ReplaySettings(quantizers(*estimators, formats=formats, rounding=rounding), **how)
