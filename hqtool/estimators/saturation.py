"""In hindsight from the share of values clipped: section 4, footnote 1 of the paper."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from hqtool.core.questions import Observation
from hqtool.estimators.protocol import Plan, Reading
from hqtool.vocab import AnyRange, Range


@dataclass(frozen=True, slots=True)
class Saturation:
    """Widens the range in use where it clips too much, and narrows it where it clips too little.

    A step's range clips a share of its values, which hardware counts as it quantizes them; the next
    step's range follows from the count, so nothing is looked at but step 0, whose extremes are the
    first range. Each end moves by itself: beyond half the target it is multiplied by `widen`, else
    by `narrow`; with `one_reach` the range is symmetric, and the whole target its own. An end at 0
    is widened to the extreme that was met.

    Where a record has no values, the share is known to be 0 if the range holds the extremes. Else
    it is interpolated by n^(−end/extreme), n the number of finite elements: what an exponential
    tail has that reaches its extreme once. Where values are kept at every 20th step alone, holding
    the range at the others instead costs 4 dB at 8 bits, for it learns to narrow there, and never
    to widen.

    The rule of FP8-LM (`fp8_lm` among the presets) is one end for both signs, twice as wide as soon
    as a hundred-thousandth is clipped, and half as wide again only after a thousand steps without:
    it all but never clips, and keeps a wide range for long after a peak. A target to be met, with
    steps of like size in both directions, follows a tensor closely and clips its outliers: the
    fewer the bits, the more that pays, and the higher the target to choose. Mean SQNR in dB over
    the sites of `sample_data/digits.h5` (asymmetric; in brackets of the same script recorded with
    values at each of its 264 steps):

    =====================  ===========  ===========  ===========  ===========
    estimator              grad_input, 4 and 8 bits  output, 4 and 8 bits
    =====================  ===========  ===========  ===========  ===========
    saturation             8.3  (9.7)   23.4 (28.0)  14.7 (14.9)  39.0 (38.9)
    the same, target=4e-3  9.6  (11.7)  22.5 (21.3)  17.6 (17.4)  30.0 (32.9)
    fp8-lm                 3.5  (6.0)   16.0 (24.4)  10.0 (10.9)  34.5 (35.4)
    hindsight              9.2  (10.7)  23.0 (26.5)  15.1 (15.7)  38.9 (37.3)
    current, every look    10.8 (10.3)  28.4 (30.9)  15.0 (15.1)  39.6 (39.7)
    =====================  ===========  ===========  ===========  ===========

    Under E4M3, whose relative error hardly depends on the range, fp8-lm's wide one costs nothing:
    31.5 dB on outputs and on input gradients, as of `current`.

    Args:
        target: share of values, 0 … 1, up to which clipping is too little.
        widen: factor ≥ 1 at too much.
        narrow: factor, 0 … 1, at too little.
        one_reach: one end for both signs.
    """

    target: float
    widen: float
    narrow: float
    one_reach: bool = False
    asks: ClassVar[frozenset[str]] = frozenset({"clipped", "extremes", "nonfinite"})

    def __post_init__(self) -> None:
        if not 0 <= self.target < 1:
            raise ValueError(f"target={self.target:g} lies outside 0…1")
        if not 1 <= self.widen < math.inf:
            raise ValueError(f"widen={self.widen:g} is less than 1, or not finite")
        if not 0 < self.narrow <= 1:
            raise ValueError(f"narrow={self.narrow:g} lies outside 0…1")

    def start(self) -> None:
        """No range yet; later the state is the range in use."""

    def plan(self, state: Range | None) -> Plan:
        """The range in use; a look where there is none."""
        return Plan(state, reads=True, looks=state is None)

    def read(self, state: Range | None, obs: Observation) -> Reading | None:
        """The extremes, and the share clipped at each end of the range in use."""
        if not obs.teaches:
            return None
        met = Range(obs.stats.min, obs.stats.max)
        if state is None:
            return Reading(met)
        ends, finite = self._ends(state), _finite_elements(obs)
        limits = zip(self._beyond(state), ends, self._ends(met), strict=True)
        shares = tuple(_share_clipped(obs, *each) for each in limits)
        return Reading(met, figures=shares, weight=finite)

    def learn(
        self, state: Range | None, reading: Reading | None, used: AnyRange | None = None
    ) -> Range | None:
        """Each end moved by what it clipped; the extremes where there was no range."""
        met = None if reading is None or reading.range is None else reading.range.widest
        if reading is None or met is None:
            return state
        if state is None:
            return self._range(self._ends(met))
        ends = zip(self._ends(state), self._ends(met), reading.figures, strict=True)
        return self._range([self._moved(*each) for each in ends])

    def _moved(self, end: float, met: float, share: float) -> float:
        if share <= self.target / (1 if self.one_reach else 2):
            return end * self.narrow
        return min(end * self.widen, sys.float_info.max) or met

    def _ends(self, given: Range) -> list[float]:
        """How far a range reaches at each end that moves by itself."""
        below, above = max(-given.lo, 0.0), max(given.hi, 0.0)
        return [max(below, above)] if self.one_reach else [below, above]

    def _range(self, ends: Sequence[float]) -> Range:
        return Range(0.0 - ends[0], ends[-1])

    def _beyond(self, given: Range) -> list[Range]:
        """For each end the range outside of which values are clipped at it."""
        if self.one_reach:
            return [given]
        return [Range(given.lo, math.inf), Range(-math.inf, given.hi)]


def _finite_elements(obs: Observation) -> int:
    return math.prod(obs.shape) - int(obs.stats.nnan + obs.stats.ninf)


def _share_clipped(obs: Observation, within: Range, end: float, met: float) -> float:
    """The share of a tensor that lies outside a range, interpolated where it is not known.

    Args:
        end, met: how far the range reaches, and how far the tensor.
    """
    share = obs.clipped(within)
    return _finite_elements(obs) ** (-end / met) if share is None else share
