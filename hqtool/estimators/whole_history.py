"""Estimators that need statistics alone, over a site's whole history in array operations.

The decisions are to the last bit those that `decide` and `advance` give record by record. Each
formula is listed for one exact type, so that a new type, or one derived from a listed type, is run
record by record until its formula is written here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hqtool.core.formats.format import ElementFormat
from hqtool.core.recorded import range_at_scale_one
from hqtool.estimators.chunks import ChunkMeans
from hqtool.estimators.composed import Composed, Fixed, Local
from hqtool.estimators.delayed import LARGEST_SCALE, Delayed
from hqtool.estimators.entry_statistics import PerEntry
from hqtool.estimators.powers_of_two import FixedPoint, PowerOfTwoDeviations, Shift
from hqtool.estimators.protocol import Estimator
from hqtool.estimators.schedule import ComposedState, EveryInterval, EveryStep, PreviousStep
from hqtool.estimators.search_statistics import BestClip
from hqtool.estimators.smoothing import Ema, ExponentEma, Latest, Widest, WindowMax
from hqtool.estimators.statistics import AmaxOrOne, Deviations, MaxAbs, MinMax, OfStatsAndFormat
from hqtool.estimators.value_statistics import Percentile, Sawb
from hqtool.vocab import Range

Ends = NDArray[np.float64]  # (2, n): lo and hi
Indices = NDArray[np.intp]
Flags = NDArray[np.bool_]


class AllDecisions(NamedTuple):
    """An estimator's decisions at all records of a site.

    Args:
        ends: (2, records) the range that quantizes each; NaN where nothing is known.
        looked: whether it read the record first.
    """

    ends: Ends
    looked: Flags


def decide_all(
    estimator: Estimator, stats: Any, starts: Indices, format_: ElementFormat
) -> AllDecisions | None:
    """What an estimator decides at each record; None where it must be run record by record.

    One that does not ask for the format decides alike at every format.

    Args:
        stats: `Stats` of all records in order; its entries are columns.
        starts: index of the first record of each step.
    """
    if type(estimator) is Fixed or type(estimator) is Local:
        fixed = estimator.range if isinstance(estimator, Fixed) else (np.nan, np.nan)
        ends = np.repeat(np.array(fixed)[:, None], stats.min.size, axis=1)
        return AllDecisions(ends, np.zeros(stats.min.size, np.bool_))
    if type(estimator) is Delayed:
        return _delayed(estimator, stats, starts, range_at_scale_one(format_))
    if type(estimator) is not Composed:
        return None
    statistic, smoothing, schedule = estimator.statistic, estimator.smoothing, estimator.schedule
    listed = type(smoothing) in SMOOTHINGS and type(schedule) in SCHEDULES
    if not listed or type(statistic) not in STATISTICS:
        return None
    with np.errstate(all="ignore"):
        own = np.stack(_ends(statistic, stats, format_)) + 0.0
        return _all_decisions(own, smoothing, SCHEDULES[type(schedule)], stats, starts)


class Quiet(NamedTuple):
    """The steps ahead in which an estimator learns nothing, whatever their statistics are.

    Args:
        due: number of the first of them at which it reads, in vain.
        end: number of the first step after them.
        looks: whether it must look at the steps from `due` on.
        always: it looks at each of them, and never makes up for what it could not read.
        per: the granularity of its looks.
    """

    due: int
    end: int
    looks: bool
    always: bool = False
    per: str = "tensor"


def quiet_steps(estimator: Estimator, state: Any, step: int, with_values: Indices) -> Quiet:
    """How many steps of a site go by before an estimator may read a record.

    Args:
        state: before the step.
        step: number of the coming step of the site.
        with_values: numbers of the steps that have records with values, or with whatever else it
            can read, ascending.
    """
    if type(estimator) is not Composed or type(estimator.schedule) not in DUE:
        return Quiet(step, step, looks=False)
    due = end = max(step, DUE[type(estimator.schedule)](state))
    if type(estimator.statistic) in NEED_VALUES:
        later = with_values[np.searchsorted(with_values, due) :]
        end = int(later[0]) if later.size else sys.maxsize
    plan = estimator.plan(state._replace(steps=due))
    return Quiet(due, end, plan.looks, plan.always, plan.per)


def reads_stats(estimator: Estimator, stats: Any) -> Flags:
    """Which records an estimator that needs values can read without them.

    Args:
        stats: `Stats` of all records in order; its entries are columns.
    """
    told = READ_STATS.get(type(getattr(estimator, "statistic", None)))
    return np.zeros(stats.min.size, np.bool_) if told is None else told(stats)


def passed_over(estimator: Estimator, state: Any, step: int) -> Any:
    """The state before a step, after quiet steps (at least one) in which nothing was learned."""
    return state._replace(steps=step) if type(estimator) is Composed else state


def _ends(statistic: Any, stats: Any, format_: ElementFormat) -> tuple[Any, Any]:
    """The statistic's (lo, hi) of every record."""
    if isinstance(statistic, OfStatsAndFormat):
        return statistic.ends(stats, format_)
    found: tuple[Any, Any] = statistic.ends(stats)
    return found


def _all_decisions(
    own: Ends,
    smoothing: Any,
    must_look: Callable[[Flags], Flags],
    stats: Any,
    starts: Indices,
) -> AllDecisions:
    """The range known before each step; at a look, combined with the record's own reading."""
    over, with_own = SMOOTHINGS[type(smoothing)]
    teaches: Flags = stats.absmax > 0
    taught = np.logical_or.reduceat(teaches, starts)
    readings = _joined_ends(own, teaches, starts)[:, taught]
    before: Indices = np.cumsum(taught) - taught  # steps that taught before each step
    after = over(smoothing, readings)
    known = before > 0
    standing = np.full((2, starts.size), np.nan)
    standing[:, known] = after[:, before[known] - 1]

    step = np.repeat(np.arange(starts.size), np.diff(starts, append=teaches.size))
    ends, looked = standing[:, step], must_look(known)[step]
    ends[:, looked & ~known[step] & (stats.absmax == 0)] = 0.0
    looks = looked & teaches
    ends[:, looks] = with_own(smoothing, readings, after, before[step[looks]], own[:, looks])
    return AllDecisions(ends, looked)


def _joined_ends(own: Ends, teaches: Flags, starts: Indices) -> Ends:
    """Each step's lowest and highest end, over the records that teach."""
    lo = np.minimum.reduceat(np.where(teaches, own[0], np.inf), starts)
    hi = np.maximum.reduceat(np.where(teaches, own[1], -np.inf), starts)
    return np.stack([lo, hi])


# --- smoothings: the range after each of many readings; at a look, after the look's own reading


def _latest(smoothing: Latest, readings: Ends) -> Ends:
    return readings


def _latest_with_own(
    smoothing: Latest, readings: Ends, after: Ends, before: Indices, own: Ends
) -> Ends:
    return own


def _ema(smoothing: Ema, readings: Ends) -> Ends:
    return np.frombuffer(_averaged(smoothing.momentum, readings.tobytes())).reshape(readings.shape)


@lru_cache(maxsize=4)
def _averaged(momentum: float, readings: bytes) -> bytes:
    """One reading after the other in plain floats: a closed form would round differently.

    Several estimators, such as `running` and `hindsight`, smooth the same readings alike.
    """
    kept, fresh = momentum, 1 - momentum
    rows = [
        list(accumulate(row, lambda old, new: fresh * new + kept * old))
        for row in np.frombuffer(readings).reshape(2, -1).tolist()
    ]
    return np.array(rows, np.float64).tobytes()


def _ema_with_own(smoothing: Ema, readings: Ends, after: Ends, before: Indices, own: Ends) -> Ends:
    later = before > 0
    found = own.copy()
    old, new = after[:, before[later] - 1], own[:, later]
    found[:, later] = (1 - smoothing.momentum) * new + smoothing.momentum * old
    return found


def _window(smoothing: WindowMax, readings: Ends) -> Ends:
    return _widest_of_last(smoothing.window, readings)


def _window_with_own(
    smoothing: WindowMax, readings: Ends, after: Ends, before: Indices, own: Ends
) -> Ends:
    later = before > 0
    found = own.copy()
    if smoothing.window > 1:
        old = _widest_of_last(smoothing.window - 1, readings)[:, before[later] - 1]
        found[:, later] = _widest(old, own[:, later])
    return found


def _widest_of_last(window: int, readings: Ends) -> Ends:
    """The widest of each reading and those before it, `window` in all; strides double each time."""
    found, reach = readings, 1
    while reach < min(window, readings.shape[1]):
        stride = min(reach, window - reach)
        wider = found.copy()
        wider[:, stride:] = _widest(found[:, stride:], found[:, :-stride])
        found, reach = wider, reach + stride
    return found


def _all_so_far(smoothing: Widest, readings: Ends) -> Ends:
    return np.stack([np.minimum.accumulate(readings[0]), np.maximum.accumulate(readings[1])])


def _all_so_far_with_own(
    smoothing: Widest, readings: Ends, after: Ends, before: Indices, own: Ends
) -> Ends:
    later = before > 0
    found = own.copy()
    found[:, later] = _widest(after[:, before[later] - 1], own[:, later])
    return found


def _exponents(smoothing: ExponentEma, readings: Ends) -> Ends:
    mantissas, exponents = np.frexp(readings[1])
    return _around_zero(mantissas, _mean_exponents(smoothing, exponents))


def _exponents_with_own(
    smoothing: ExponentEma, readings: Ends, after: Ends, before: Indices, own: Ends
) -> Ends:
    later = before > 0
    found = own.copy()
    old = _mean_exponents(smoothing, np.frexp(readings[1])[1])[before[later] - 1]
    mantissas, new = np.frexp(own[1, later])
    mean = (1 - smoothing.momentum) * new + smoothing.momentum * old
    found[:, later] = _around_zero(mantissas, mean)
    return found


def _mean_exponents(smoothing: ExponentEma, exponents: Indices) -> NDArray[np.float64]:
    kept, fresh = smoothing.momentum, 1 - smoothing.momentum
    found = accumulate(exponents.tolist(), lambda old, new: fresh * new + kept * old)
    return np.array(list(found), np.float64)


def _around_zero(mantissas: NDArray[np.float64], exponents: NDArray[np.float64]) -> Ends:
    reach = np.ldexp(mantissas, np.floor(exponents + 0.5).astype(np.intp))
    return np.stack([-reach, reach])


def _widest(one: Ends, other: Ends) -> Ends:
    return np.stack([np.minimum(one[0], other[0]), np.maximum(one[1], other[1])])


# --- delayed scaling, which has a history of its own


def _delayed(estimator: Delayed, stats: Any, starts: Indices, scale_one: Range) -> AllDecisions:
    """The end that the steps before each step give; at a look, the record's own."""
    own = _reaches(estimator, stats, scale_one.hi / LARGEST_SCALE)
    by_step = np.maximum.reduceat(own, starts)
    after = _last_sound(_seen(estimator, by_step))
    before = np.append(np.nan, after[:-1])
    step = np.repeat(np.arange(starts.size), np.diff(starts, append=own.size))
    reach = before[step]
    ends = np.stack([-reach, reach])
    unknown = np.isnan(reach)
    if estimator.init == "one":
        ends[:, unknown] = np.array(scale_one)[:, None]
        return AllDecisions(ends, np.zeros(own.size, np.bool_))
    sound = unknown & (own > 0) & (own < np.inf)
    ends[:, sound] = np.stack([-own, own])[:, sound]
    ends[:, unknown & (stats.absmax == 0) & ~sound] = 0.0
    return AllDecisions(ends, unknown)


def _reaches(estimator: Delayed, stats: Any, least: float) -> NDArray[np.float64]:
    """`Delayed.reach` of each record."""
    amax = np.where(stats.nnan + stats.ninf > 0, np.inf, np.nan_to_num(stats.absmax, nan=0.0))
    with np.errstate(over="ignore"):
        wide = np.minimum(np.maximum(amax * 2.0**estimator.margin, least), sys.float_info.max)
    reaches: NDArray[np.float64] = np.where((amax > 0) & (amax < np.inf), wide, amax)
    return reaches


def _seen(estimator: Delayed, by_step: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the scale after each step follows from, before it is asked whether that is sound."""
    seen = by_step.copy()
    if estimator.algo == "max":
        seen = _widest_of_last(estimator.window, np.stack([-by_step, by_step]))[1].copy()
    if estimator.init == "look":
        first = np.flatnonzero((by_step > 0) & (by_step < np.inf))[:1]
        seen[: first[0] if first.size else None] = 0.0
        seen[first] = by_step[first]
    return seen


def _last_sound(seen: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each step the latest one that gives a scale; NaN before the first."""
    sound = (seen > 0) & (seen < np.inf)
    latest = np.maximum.accumulate(np.where(sound, np.arange(seen.size), -1))
    return np.where(latest >= 0, seen[latest], np.nan)


#: The statistics that take columns.
STATISTICS: set[type] = {
    MinMax, MaxAbs, Deviations, PowerOfTwoDeviations, AmaxOrOne, Shift, FixedPoint
}  # fmt: skip

#: Smoothing → (the range after each reading, the range at a look).
SMOOTHINGS: dict[type, tuple[Callable[..., Ends], Callable[..., Ends]]] = {
    Latest: (_latest, _latest_with_own),
    Ema: (_ema, _ema_with_own),
    WindowMax: (_window, _window_with_own),
    Widest: (_all_so_far, _all_so_far_with_own),
    ExponentEma: (_exponents, _exponents_with_own),
}

#: Schedules that read every step → whether to look at a step, from whether anything is known.
SCHEDULES: dict[type, Callable[[Flags], Flags]] = {
    EveryStep: np.ones_like,
    PreviousStep: np.logical_not,
}

#: The statistics that read no record without values, or the extremes of its channels (but see
#: `READ_STATS`).
NEED_VALUES: set[type] = {BestClip, ChunkMeans, Percentile, PerEntry, Sawb}

#: Of these, the ones that read some records all the same → which, from `Stats` as columns.
READ_STATS: dict[type, Callable[[Any], Flags]] = {
    Sawb: lambda stats: (stats.min >= 0) | (stats.max <= 0),
}

#: Schedules → the step from which on they read; until something is read they stay of one mind.
DUE: dict[type, Callable[[ComposedState], int]] = {
    EveryStep: lambda state: 0,
    PreviousStep: lambda state: 0,
    EveryInterval: lambda state: state.due,
}
