"""What a site looks like: its records over steps, its values, and how well they were kept."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hqtool.core.formats.block import BlockFormat
from hqtool.core.observation import values_of
from hqtool.estimators.quantizer import Quantizer
from hqtool.estimators.whole_history import decide_all
from hqtool.report.compared.naming import lane_label
from hqtool.report.page.histogram import Histogram, distinct_levels, histogram_of
from hqtool.report.page.thinning import kept
from hqtool.trace.history import SiteHistory
from hqtool.vocab import Range, Site

#: Of a site's records with values so many are read for its histogram, spread evenly.
READ_RECORDS = 12


#: What the range that quantized a tensor in training is called beside estimators' ranges.
IN_TRAINING = "used in training"


class UsedRange(NamedTuple):
    """What an estimator asked for at a site's records.

    Args:
        ends: (2, records); NaN where unknown.
        looked: (records,)
        own: it is the tensor's own range at every record.
    """

    label: str
    ends: NDArray[np.float64]
    looked: NDArray[np.bool_]
    own: bool

    def outside(self, stats: Any) -> NDArray[np.bool_]:
        """At which records a value lies outside."""
        lo, hi = self.ends
        found: NDArray[np.bool_] = (stats.min < lo) | (stats.max > hi)
        return found


class Scored(NamedTuple):
    """The scored records of one site under the quantizers that are drawn, in order of steps.

    Args:
        steps: (records,)
        sqnr_db: a row for each quantizer; NaN where missing.
        last: label of each quantizer → (lo, hi, amax) of the last record it was scored at; of all
            quantizers.
    """

    steps: NDArray[np.int64]
    sqnr_db: NDArray[np.float64]
    last: Mapping[str, tuple[float | None, float | None, float]]

    def thinned(self, points: int) -> Scored:
        """With fewer records: those at which a quantizer is at its worst or best."""
        at = kept(np.fmin.reduce(self.sqnr_db), np.fmax.reduce(self.sqnr_db), points)
        return self._replace(steps=self.steps[at], sqnr_db=self.sqnr_db[:, at])


def scored_of(lines: Iterable[str], drawn: Sequence[Quantizer], points: int) -> Scored:
    """The records that compare writes aside, one row of JSON a line; thinned.

    Args:
        drawn: the quantizers to take.
        points: about how many records to keep: those at which one is at its worst or best.
    """
    places = {quantizer.key: place for place, quantizer in enumerate(drawn)}
    found: dict[tuple[int, int, int], list[float]] = {}
    last: dict[str, tuple[float | None, float | None, float]] = {}
    for row in map(json.loads, lines):
        key = row["estimator"], row["format"], row["rounding"]
        largest = max(abs(row["min"] or 0.0), abs(row["max"] or 0.0))
        last[lane_label(key)] = row["lo"], row["hi"], largest
        if key in places:
            at = found.setdefault((row["step"], row["micro"], row["call"]), [math.nan] * len(drawn))
            at[places[key]] = math.nan if row["sqnr_db"] is None else row["sqnr_db"]
    steps = np.array([step for step, *_ in found], np.int64)
    figures = np.array([*found.values()]).reshape(-1, len(drawn)).T
    return Scored(steps, figures, last).thinned(points)


class Seen(NamedTuple):
    """What a worker sees of one site's history.

    Args:
        steps: columns of the records kept: step, min, max, and of each estimator its range, looks,
            and whether values lay outside.
        range: the lowest and the highest value of all records; None where none is finite.
        records: their number.
        outside: label of each estimator → share of the records with values outside its range.
    """

    site: Site
    steps: Mapping[str, NDArray[Any]]
    histogram: Histogram | None
    range: tuple[float, float] | None
    records: int
    outside: Mapping[str, float]

    def thinned(self, points: int) -> Seen:
        """With fewer records."""
        at = kept(self.steps["min"], self.steps["max"], points)
        return self._replace(steps={name: column[at] for name, column in self.steps.items()})


def seen_of(
    site: Site, history: SiteHistory, *, estimated: Sequence[Quantizer], points: int
) -> Seen:
    """What is drawn of a site's history.

    Args:
        estimated: a quantizer for each estimator whose range is drawn.
        points: about how many records to keep.
    """
    ranges = [used for each in estimated if (used := _used(each, history)) is not None]
    return Seen(
        site,
        _steps(history, [used for used in ranges if not used.own], points),
        histogram_of(_values(history)),
        _range(history),
        len(history),
        {used.label: float(used.outside(history.stats).mean()) for used in ranges},
    )


class SitePicture(NamedTuple):
    """What the page shows of one site of one run.

    Args:
        run: number of the trace.
        levels: of the quantizer `levels_of`, ascending.
    """

    run: int
    seen: Seen
    scored: Scored
    levels: Sequence[float]
    levels_of: str

    @property
    def site(self) -> Site:
        """The site."""
        return self.seen.site


def picture_of(run: int, seen: Seen, scored: Scored, shown: Quantizer, points: int) -> SitePicture:
    """The picture of a site.

    Args:
        shown: whose levels are drawn over the values.
        points: about how many records to keep of those over steps.
    """
    levels = _levels(shown, scored.last.get(shown.label), seen.histogram)
    thinned = scored.thinned(points // 2)
    return SitePicture(run, seen.thinned(points), thinned, levels, shown.label)


def _used(quantizer: Quantizer, history: SiteHistory) -> UsedRange | None:
    """None where its estimator needs more than statistics."""
    stats, format_ = history.stats, quantizer.format.value
    made = decide_all(quantizer.estimator.value, stats, history.starts, format_)  # type: ignore[arg-type]
    if made is None or np.isnan(made.ends).all():
        return None
    known = ~np.isnan(made.ends[0])
    own = (made.ends[0] == stats.min) & (made.ends[1] == stats.max)
    return UsedRange(quantizer.estimator.label, made.ends, made.looked, bool(own[known].all()))


def _range(history: SiteHistory) -> tuple[float, float] | None:
    if np.isnan(history.stats.min).all():
        return None
    return float(np.nanmin(history.stats.min)), float(np.nanmax(history.stats.max))


def _steps(history: SiteHistory, ranges: Sequence[UsedRange], points: int) -> dict[str, Any]:
    """Columns of the records kept: step, min, max, and of each estimator its range and looks."""
    stats = history.stats
    at = kept(stats.min, stats.max, points)
    columns: dict[str, Any] = {
        "step": history.steps[at],
        "min": stats.min[at],
        "max": stats.max[at],
    }
    for used in ranges:
        outside = used.outside(stats)
        columns |= {
            f"lo {used.label}": used.ends[0][at],
            f"hi {used.label}": used.ends[1][at],
            f"looked {used.label}": used.looked[at],
            f"outside {used.label}": outside[at],
        }
    return columns if not history.of_quantized_run else columns | _in_training(history, at)


def _in_training(history: SiteHistory, at: NDArray[np.intp]) -> dict[str, Any]:
    """The range that quantized each of these records, its looks, and whether values were clipped.

    Empty where none was quantized.
    """
    used = [history.record(int(index)).used for index in at]
    if not any(used):
        return {}
    ends = [(math.nan, math.nan) if u is None or u.range is None else u.range for u in used]
    return {
        f"lo {IN_TRAINING}": np.array([lo for lo, _ in ends]),
        f"hi {IN_TRAINING}": np.array([hi for _, hi in ends]),
        f"looked {IN_TRAINING}": np.array([u is not None and u.looked for u in used]),
        f"outside {IN_TRAINING}": np.array([u is not None and u.clipped > 0 for u in used]),
    }


def _values(history: SiteHistory) -> Iterable[Any]:
    """The values of some records, spread evenly over those that keep them."""
    having = np.flatnonzero(history.has_values)
    taken = np.unique(np.linspace(0, having.size - 1, READ_RECORDS).astype(int))
    for index in having[taken] if having.size else ():
        values = values_of(history.record(int(index)), *history.axes)
        if values is not None:
            yield values.parts


def _levels(
    quantizer: Quantizer,
    last: tuple[float | None, float | None, float] | None,
    histogram: Histogram | None,
) -> list[float]:
    """The levels of a quantizer at the last record it was scored at.

    Of a block format they are those of the block with the largest magnitude.
    """
    if last is None or histogram is None:
        return []
    lo, hi, largest = last
    format_: Any = quantizer.format.value
    wanted = Range(lo or 0.0, hi or 0.0)
    if isinstance(format_, BlockFormat):
        scale = format_.levels(np.array([largest]), wanted).scale[0]
        one = format_.element.levels(np.array([-1.0]), np.array([1.0]))
        levels = one.extended()[1:-1] * scale
    elif hasattr(format_, "levels") and lo is not None:
        made = format_.levels(np.array([wanted.lo]), np.array([wanted.hi]))
        levels = made.extended()[1:-1] * made.scale[0]
    else:
        return []
    return distinct_levels(levels, histogram.unit, float(histogram.edges[-1]))
