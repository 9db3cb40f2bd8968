"""What is known of a site under a setting."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

#: FIELD: a gradient below √3 times its quantization noise teaches nothing any more.
CRITERION = 1 / 3


@dataclass(frozen=True, slots=True)
class SiteFigures:
    """One site that a setting quantizes; means over its scored records, None is missing.

    Args:
        noise: error relative to the tensor's power, Σ(x−q)²/Σx²: 10^(−SQNR/10).
        noise_low: the same of the mean SQNR of the worst tenth of records.
        bias: (1−gain)², the part of `noise` along the tensor itself.
        lost: share of records whose norm is below √3 × that of their error.
    """

    layer: str
    tensor: str
    sqnr_db: float | None
    sqnr_db_low: float | None
    cosine: float
    saturation: float
    underflow: float
    noise: float
    noise_low: float
    bias: float
    lost: float


class SiteErrors(NamedTuple):
    """Of one site under one quantizer, means over the kept records.

    Args:
        granular: the error of values that are not clipped, relative to the tensor's power.
        channels: log2(1 + error / variance) of each channel, the mean over channels.
        elements: min(1, (x−q)²/x²) of each nonzero value, their mean: the share of values lost.
    """

    granular: float
    channels: float
    elements: float


def mean(figures: Iterable[float]) -> float:
    """0 of none."""
    known = list(figures)
    return sum(known) / len(known) if known else 0.0
