"""What is good enough: conditions on a site's figures, read from text."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from hqtool.core.metrics import METRICS
from hqtool.errors import UsageError
from hqtool.nearest import known_names

#: A site's figures by name: its means, and `sqnr_db_low`. None is missing; where there is no error
#: at all, SQNR is infinite.
Measured = Mapping[str, float | None]

#: The figures that conditions may be about.
FIGURES = (*METRICS, "sqnr_db_low")

#: Of which of them more is better, and of which less. Of the others 1 is best.
HIGHER_IS_BETTER = ("sqnr_db", "sqnr_db_low", "cosine")
LOWER_IS_BETTER = ("mse", "saturation", "underflow", "nonfinite", "noise")

#: The least and the largest value that a figure can have, where there is one.
_BOUNDS = {
    "cosine": (-1.0, 1.0),
    **dict.fromkeys(("saturation", "underflow", "nonfinite"), (0.0, 1.0)),
    **dict.fromkeys(("mse", "norm_ratio", "noise"), (0.0, math.inf)),
}

_TARGET = re.compile(r"\s*(\w+)\s*(>=|<=|≥|≤)\s*(\S.*?)\s*")
_WITHIN = re.compile(r"\s*(?:(\w+)\s*[=:]\s*)?(\S.*?)\s*")
_HOW_TO_WRITE = "write it in quotes, for > names a file in a shell: 'cosine>=0.999'"


class Condition(Protocol):
    """Something that a site's figures meet or miss."""

    @property
    def label(self) -> str:
        """As results name it."""

    @property
    def metric(self) -> str:
        """The figure it is about, one of `FIGURES`."""

    def met(self, figures: Measured, reference: Measured) -> bool:
        """Whether figures meet it; those that are missing never do.

        Args:
            reference: the figures of what it compares with, if it does.
        """


@dataclass(frozen=True, slots=True)
class Target:
    """A figure is no less (`at_least`), or else no more, than a bound."""

    metric: str
    at_least: bool
    bound: float

    @property
    def label(self) -> str:
        """'cosine>=0.999'."""
        return f"{self.metric}{'>=' if self.at_least else '<='}{self.bound:.12g}"

    def met(self, figures: Measured, reference: Measured) -> bool:
        """Whether the figure keeps to the bound."""
        found = figures[self.metric]
        if found is None:
            return False
        return found >= self.bound if self.at_least else found <= self.bound


@dataclass(frozen=True, slots=True)
class Within:
    """A figure is no worse than that of another quantizer by more than `by`.

    Args:
        of: the other's label; None: `current` at the same format and with the same rounding, or
            the very same quantizer where the format needs no range.
    """

    metric: str
    by: float
    of: str | None = None

    @property
    def label(self) -> str:
        """'sqnr_db within 1 of current'."""
        return f"{self.metric} within {self.by:.12g} of {self.of or 'current'}"

    def met(self, figures: Measured, reference: Measured) -> bool:
        """Whether the figure is near enough to the reference, or better."""
        found, theirs = figures[self.metric], reference[self.metric]
        if found is None or theirs is None:
            return False
        if self.metric in HIGHER_IS_BETTER:
            return found >= theirs - self.by
        return found <= theirs + self.by


def parse_target(text: str) -> Target:
    """'METRIC>=VALUE' or 'METRIC<=VALUE'; the value may end in % or, of an SQNR, in dB.

    Raises:
        UsageError: it is no such text, or a target that nothing can meet.
    """
    found = _TARGET.fullmatch(text)
    if found is None:
        raise UsageError(f"target '{text}' is not METRIC>=VALUE or METRIC<=VALUE", _HOW_TO_WRITE)
    metric, sign, value = found.groups()
    target = Target(_known(metric, FIGURES), sign in (">=", "≥"), _number(value, metric, text))
    least, most = _BOUNDS.get(metric, (-math.inf, math.inf))
    if target.bound > most if target.at_least else target.bound < least:
        limit = f"never above {most:.12g}" if target.at_least else f"never below {least:.12g}"
        raise UsageError(f"nothing can meet '{text}'", f"{metric} is {limit}")
    return target


def parse_within(text: str) -> Within:
    """'1dB', or 'METRIC=VALUE' of another figure of which more or less is better.

    It may end in ' of QUANTIZER', such as '1dB of current@int8'.

    Raises:
        UsageError: it is no such text.
    """
    amount, _, of = text.partition(" of ")
    found = _WITHIN.fullmatch(amount)
    if found is None:
        raise UsageError("--within is empty", "write --within 1dB")
    metric = _known(found[1] or "sqnr_db", HIGHER_IS_BETTER + LOWER_IS_BETTER)
    by = _number(found[2], metric, text)
    if by < 0:
        raise UsageError(f"'{text}' is less than 0", "write how much may be lost, such as 1dB")
    return Within(metric, by, of.strip() or None)


def _known(metric: str, names: tuple[str, ...]) -> str:
    if metric not in names:
        raise UsageError(f"unknown metric '{metric}'", known_names(metric, names))
    return metric


def _number(value: str, metric: str, text: str) -> float:
    """A number, in per cent or dB where it says so."""
    unit = re.search(r"\s*(%|dB)$", value, re.IGNORECASE)
    number = value[: unit.start()] if unit else value
    factor = 0.01 if unit and unit[1] == "%" else 1.0
    if unit and (unit[1] != "%") != metric.startswith("sqnr_db"):
        raise UsageError(f"'{text}': {metric} is not in {unit[1]}", "leave the unit out")
    try:
        found = float(number) * factor
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise UsageError(f"'{text}': '{value}' is not a number", "write such as 0.999 or 1e-3")
    return found
