"""Delayed scaling, as TransformerEngine's recipe has it (`recipe/__init__.py`, FIELD section 1)."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from hqtool.core.questions import Observation
from hqtool.estimators.protocol import Plan, Reading
from hqtool.vocab import AnyRange, Range

#: The largest scale there is: float32 holds no other.
LARGEST_SCALE = float(np.finfo(np.float32).max)

#: Margins that keep a float32 scale within float32.
MARGINS = range(-126, 127)


class DelayedState(NamedTuple):
    """The range in use, and the amax history.

    Args:
        reach: the range in use is (−reach, reach); None before the first amax that gives a scale.
        history: reach of each of the last steps by itself, the latest last; 0 where nothing but
            zeros came, ∞ where a NaN or an infinity did.
    """

    reach: float | None = None
    history: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Delayed:
    """The scale of a step follows from the largest |x| (amax) of earlier steps.

    scale = (max/amax)/2^margin, `max` being the format's largest number: a range ±amax·2^margin.
    amax is the largest of the last `window` steps (algo 'max'), or the last step's ('most_recent');
    a step has one, the largest of its records'. Where it is 0, infinite or NaN, the scale stays as
    it was. A tensor with a NaN or an infinity has such an amax, and with 'max' it stays in sight
    for `window` steps. (TransformerEngine's CUDA reduction drops a NaN where its other one keeps
    it; here it is kept, as an infinity is.) A tensor of zeros puts 0 into the history.
    A scale beyond float32's largest number is that number.

    Before there is an amax the scale is 1 with init 'one', as TransformerEngine starts: step 0 is
    not looked at, and quantized with the format's own levels (Δ = 1 for integers). With init 'look'
    it looks until a step gives a scale, and that step's amax alone sets it.

    Args:
        window: number of steps in the amax history, ≥ 1.
        algo: 'max' or 'most_recent'.
        margin: powers of two by which the range is wider than amax.
        init: 'look' or 'one'.
    """

    window: int
    algo: Literal["max", "most_recent"] = "max"
    margin: int = 0
    init: Literal["look", "one"] = "look"
    asks: ClassVar[frozenset[str]] = frozenset({"extremes", "format", "nonfinite"})

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window={self.window} is less than 1")
        if self.margin not in MARGINS:
            raise ValueError(f"margin={self.margin} lies outside {MARGINS[0]}…{MARGINS[-1]}")

    def start(self) -> DelayedState:
        """No history: TransformerEngine's is of zeros, from which nothing follows either."""
        return DelayedState()

    def plan(self, state: DelayedState) -> Plan:
        """The range in use; without one, scale 1 or a look."""
        if state.reach is not None:
            return Plan(Range(-state.reach, state.reach), reads=True)
        look = self.init == "look"
        return Plan(None, reads=True, looks=look, scale_one=not look)

    def read(self, state: DelayedState, obs: Observation) -> Reading:
        """±reach of a tensor by itself."""
        amax = obs.stats.absmax
        if obs.stats.nnan + obs.stats.ninf:
            amax = math.inf
        reach = self.reach(amax, obs.range_at_scale_one.hi / LARGEST_SCALE)
        return Reading(Range(-reach, reach))

    def reach(self, amax: float, least: float) -> float:
        """The range's end for an amax; NaN, of a tensor without elements, counts as 0.

        Args:
            least: the end for the largest scale there is.
        """
        if not 0 < amax < math.inf:
            return amax if amax == math.inf else 0.0
        return min(max(amax * 2.0**self.margin, least), sys.float_info.max)

    def learn(
        self, state: DelayedState, reading: Reading | None, used: AnyRange | None = None
    ) -> DelayedState:
        """Roll the history by one step, and update the scale from it."""
        if reading is None or reading.range is None:
            return state
        latest = _end(reading.range)
        history = (*state.history, latest)[-self.window :] if self.algo == "max" else ()
        sets_up = state.reach is None and self.init == "look"
        found = max(history) if history and not sets_up else latest
        return DelayedState(found if 0 < found < math.inf else state.reach, history)


def _end(ranges: AnyRange) -> float:
    whole = ranges.widest
    return whole.hi if whole is not None else 0.0
