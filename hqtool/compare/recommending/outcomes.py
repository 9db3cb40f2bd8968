"""What each quantizer comes to at a site: its figures, and the bytes it moves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hqtool.compare.recommending.targets import Measured
from hqtool.core.metrics import METRICS

#: The name of leaving a tensor as it is, and its bits.
NONE, NONE_BITS = "none", 32

#: The figures of a tensor that is left as it is.
_UNTOUCHED: Measured = {
    **dict.fromkeys(("sqnr_db", "sqnr_db_low"), math.inf),
    **dict.fromkeys(("cosine", "norm_ratio", "gain"), 1.0),
    **dict.fromkeys(("mse", "saturation", "underflow", "noise"), 0.0),
    "nonfinite": None,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One quantizer at one site.

    Args:
        quantizer: its label, or 'none'.
        bits: stored for each element.
        bytes: moved in a mean step of the site, looks included; with several traces their mean.
        figures: those of each trace that has the site.
        looked: share of the records that were looked at.
    """

    quantizer: str
    bits: float
    bytes: float
    figures: tuple[Measured, ...]
    looked: float = 0.0

    def figure(self, name: str) -> float | None:
        """Its mean over the traces."""
        return mean_figure(figures[name] for figures in self.figures)

    @property
    def scored(self) -> bool:
        """Whether it has a figure in every trace."""
        return all(any(f is not None for f in _but_nonfinite(each)) for each in self.figures)

    @property
    def quality(self) -> float:
        """SQNR in dB, infinite where there is no error, lowest where it is missing."""
        found = self.figure("sqnr_db")
        return -math.inf if found is None else found


def _but_nonfinite(figures: Measured) -> Iterable[float | None]:
    return (figure for name, figure in figures.items() if name != "nonfinite")


def measured(
    metrics: Mapping[str, float | None], sqnr_db_low: float | None, *, exact: bool
) -> Measured:
    """The figures of a replay's summary: without any error, SQNR is infinite and nothing is lost.

    Args:
        metrics: means by name.
        exact: whether no scored record has an error.
    """
    found = {name: metrics[name] for name in METRICS} | {"sqnr_db_low": sqnr_db_low}
    if exact:
        lossless = {"sqnr_db": math.inf, "sqnr_db_low": math.inf, "underflow": 0.0}
        found |= {name: value for name, value in lossless.items() if found[name] is None}
    return found


def untouched(like: Sequence[Measured]) -> tuple[Measured, ...]:
    """The figures of `none` beside those of a quantizer, in each trace."""
    return tuple({**_UNTOUCHED, "nonfinite": each["nonfinite"]} for each in like)


def mean_figure(values: Iterable[float | None]) -> float | None:
    """The mean of the known ones; those without error count only where all are without."""
    known = [value for value in values if value is not None]
    finite = [value for value in known if math.isfinite(value)]
    if finite:
        return math.fsum(finite) / len(finite)
    return math.inf if known else None
