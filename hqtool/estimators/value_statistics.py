"""Statistics that take the tensor's values, not only what every record has of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from hqtool.core.questions import Observation
from hqtool.estimators.protocol import Reading
from hqtool.vocab import Range


@dataclass(frozen=True, slots=True)
class Percentile:
    """From the (100−q)-th to the q-th percentile: the outermost values are clipped.

    Args:
        q: above 50, at most 100, which is the tensor's own range.
    """

    q: float
    asks: ClassVar[frozenset[str]] = frozenset({"quantiles"})

    def __post_init__(self) -> None:
        if not 50 < self.q <= 100:
            raise ValueError(f"q={self.q:g} lies outside 50…100")

    def __call__(self, obs: Observation) -> Reading | None:
        share = self.q / 100
        found = obs.quantiles((1 - share, share))
        return None if found is None else Reading(Range(found[0] + 0.0, found[1] + 0.0))


@dataclass(frozen=True, slots=True)
class Sawb:
    """±(c1·rms − c2·mean|x|), the clip of least error for bell-shaped values: SAWB (Choi et al.).

    LUQ's code has c1 = 12.1 and c2 = 12.2 for four bits. Where the difference is not positive, as
    of values that are all of one magnitude, the range is ±max|x|.
    """

    c1: float
    c2: float
    asks: ClassVar[frozenset[str]] = frozenset({"extremes", "spread", "magnitude"})

    def __post_init__(self) -> None:
        if not (0 < self.c1 < math.inf and 0 <= self.c2 < math.inf):
            raise ValueError(f"c1={self.c1:g}, c2={self.c2:g} are no coefficients")

    def __call__(self, obs: Observation) -> Reading | None:
        magnitude, largest = obs.magnitude(), obs.stats.absmax
        if magnitude is None:
            return None
        clip = self.c1 * math.hypot(obs.stats.mean, obs.stats.std) - self.c2 * magnitude
        reach = clip if 0 < clip < math.inf else largest
        return Reading(Range(-reach, reach))
