"""Replaying one site through all estimators: a summary for each (estimator, bits)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqtool.compare.lanes import Lane, SteppedLanes, lanes_of
from hqtool.compare.scoring import (
    MSE,
    NONFINITE,
    SQNR_DB,
    UNDERFLOW,
    Decided,
    Figures,
    batches,
    score,
)
from hqtool.core.formats.uniform import UniformFormat
from hqtool.core.metrics import METRICS
from hqtool.core.moments.dense import ROUNDINGS
from hqtool.core.observation import PreparedValues, values_of
from hqtool.errors import UsageError
from hqtool.estimators.protocol import Estimator
from hqtool.registry import Choice
from hqtool.trace.history import SiteHistory
from hqtool.traffic.bill import Bits, as_bytes, site_bill
from hqtool.traffic.layers import Counts
from hqtool.vocab import Decision, Record, Site

Measured = dict[str, float | None]

#: What to do with the loss scale that a gradient was recorded with.
LOSS_SCALES = ("divided", "kept")


@dataclass(frozen=True, slots=True)
class ReplaySettings:
    """The settings of a replay, the same for all sites.

    Args:
        estimators: in the order results show them.
        bits: bit-widths of the grids, 2 to 16.
        scheme: 'asymmetric' or 'symmetric'.
        rounding: a name of `ROUNDINGS`.
        calibrate: the first so many steps of a site update estimators and are not scored.
        seed: of the noise of 'stochastic-sampled'.
        search_gap: compare every search with an exhaustive scan.
        loss_scale: 'divided' out of gradients, or 'kept' in them, as the hardware sees them.
        worst: how many rows of lowest SQNR to keep of each site.

    Raises:
        UsageError: a value out of bounds or unknown.
    """

    estimators: tuple[Choice[Estimator], ...]
    bits: tuple[int, ...] = (8,)
    scheme: str = "asymmetric"
    rounding: str = "nearest"
    calibrate: int = 0
    seed: int = 0
    search_gap: bool = False
    loss_scale: str = "divided"
    worst: int = 0

    def __post_init__(self) -> None:
        if self.rounding not in ROUNDINGS:
            raise UsageError(
                f"unknown rounding '{self.rounding}'", f"known: {', '.join(ROUNDINGS)}"
            )
        if self.loss_scale not in LOSS_SCALES:
            raise UsageError(
                f"a loss scale is not '{self.loss_scale}'", f"but {' or '.join(LOSS_SCALES)}"
            )
        if self.calibrate < 0:
            raise UsageError(f"cannot calibrate on {self.calibrate} steps", "give 0 or more")
        for bits in self.bits:
            UniformFormat(bits, self.scheme)


@dataclass(frozen=True, slots=True)
class StepRow:
    """One record with values under one estimator at one bit-width; None is missing.

    Args:
        lo, hi: the range that the estimator asked for; of a range for each channel, sample or row,
            the lowest and the highest end.
        min, max: the tensor's own extremes.
        exact: whether quantization made no error.
    """

    layer: str
    tensor: str
    step: int
    micro: int
    call: int
    estimator: str
    bits: float
    lo: float | None
    hi: float | None
    looked: bool
    metrics: Measured
    min: float | None = None
    max: float | None = None
    exact: bool = False

    def flat(self) -> dict[str, Any]:
        """All entries by name, including the metrics, in the order of files."""
        own = {name: getattr(self, name) for name in self.__slots__ if name != "metrics"}
        return own | self.metrics

    @classmethod
    def entries(cls) -> list[str]:
        """The names of the entries of `flat`, in its order."""
        return [*(name for name in cls.__slots__ if name != "metrics"), *METRICS]


@dataclass(frozen=True, slots=True)
class Summary:
    """One site under one estimator at one bit-width.

    Args:
        steps: number of records scored, that is with at least one figure. Metrics are plain means
            over the records that have them.
        records: number of all records of the site, with those of calibration.
        replayed: number of records after calibration, scored or not, over which looks and bytes
            are counted.
        looks: how many of these the estimator looked at.
        evaluations: how many passes its searches took at them.
        postponed: how many looks were due at them but lacked values to read.
        sampled: how many scored records keep only a sample of their values.
        static_bytes, traffic_bytes: mean for a record, and a rank where it joins several; None
            where no bill is defined.
        search_gap: largest distance of a search's cosine from that of an exhaustive scan; None
            where none was scanned.
        multimodal: share of the scanned searches whose cosine has more than one maximum.
        all_zero: number of replayed records whose finite values are all 0, from which estimators
            learn nothing.
        sqnr_db_low: mean of the lowest tenth (at least one) of the records' SQNR, in dB.
        exact: whether no scored record has an error.
        exact_steps: number of scored records, not all zero, without error: their SQNR is not in
            the means.
        unscored: number of records with values for which no figure could be computed: they have no
            finite values, or no record before them had any.
        nonfinite_records: number of all records with NaN or infinities; `nonfinite_step` is the
            first step that has one, None where none has.
    """

    layer: str
    tensor: str
    estimator: str
    bits: float
    steps: int
    metrics: Measured
    records: int
    replayed: int
    looks: int
    evaluations: int
    postponed: int
    sampled: int
    static_bytes: float | None
    traffic_bytes: float | None
    search_gap: float | None = None
    multimodal: float | None = None
    all_zero: int = 0
    sqnr_db_low: float | None = None
    exact: bool = False
    exact_steps: int = 0
    unscored: int = 0
    nonfinite_records: int = 0
    nonfinite_step: int | None = None


def replay(
    site: Site,
    history: SiteHistory,
    settings: ReplaySettings,
    counts: Counts | None = None,
    on_row: Callable[[StepRow], None] | None = None,
) -> list[Summary]:
    """Run every estimator at every bit-width over one site.

    The decisions of estimators that need statistics alone are computed in advance; the others are
    run step by step. Only records with values, and those that an estimator must see, are visited.

    Args:
        history: the site's records; each is read and prepared once, and then dropped.
        counts: elements of the layer's tensors, for the bill; None where unknown.
        on_row: called with each scored record of each lane, in order, soon after it is known.

    Returns:
        One summary for each lane, that is estimator and bit-width; estimators outermost.
    """
    formats = [UniformFormat(bits, settings.scheme) for bits in settings.bits]
    starts = history.starts.tolist()
    past = [*starts, len(history)][min(settings.calibrate, len(starts))]
    groups = [lanes_of(choice, formats, history, past) for choice in settings.estimators]
    lanes = [lane for group in groups for lane in group.lanes]
    sums = _ReplaySums(history, past, len(lanes))
    stepped = [group for group in groups if isinstance(group, SteppedLanes)]
    decided = (
        Decided(record, values, [decision for group in groups for decision in group.at(index)])
        for index, record, values in _decided(history, past, stepped, settings.search_gap)
    )
    at = [lane.format for lane in lanes]
    for batch in batches(decided):
        figures = score(batch, at, settings.rounding, settings.seed, site)
        sums.scored(figures, [each.record for each in batch])
        if on_row is not None:
            for row in _rows(site, batch, lanes, figures):
                on_row(row)
    return _summaries(site, lanes, sums, counts)


def _decided(
    history: SiteHistory, past: int, stepped: Sequence[SteppedLanes], search_gap: bool
) -> Iterator[tuple[int, Record, PreparedValues]]:
    """Each record to score, at the moment when all lanes have decided on it."""
    has_values = history.has_values.tolist()
    starts = [*history.starts.tolist(), len(history)]
    to_score = np.flatnonzero(history.has_values[past:]) + past
    found = np.searchsorted(starts, to_score, "right") - 1
    steps_to_score = iter(dict.fromkeys(found.tolist()))
    for step in _steps_to_visit(len(starts) - 1, steps_to_score, stepped):
        shown_to = [lanes for lanes in stepped if lanes.begin()]
        for index in range(starts[step], starts[step + 1]):
            scored = has_values[index] and index >= past
            if not (shown_to or scored):
                continue
            record = history.record(index) if has_values[index] else None
            values = None if record is None else values_of(record)
            for lanes in shown_to:
                _show(lanes, history, index, values, index >= past, search_gap)
            if scored and record is not None and values is not None:
                yield index, record, values
        for lanes in stepped:
            lanes.end()


def _steps_to_visit(
    steps: int, to_score: Iterator[int], stepped: Sequence[SteppedLanes]
) -> Iterator[int]:
    """The steps that hold records to score, or to be read; lanes pass over those in between."""
    next_scored = next(to_score, steps)
    while (step := min([steps, next_scored, *(lanes.next_step() for lanes in stepped)])) < steps:
        for lanes in stepped:
            lanes.pass_over(step)
        yield step
        if step == next_scored:
            next_scored = next(to_score, steps)
    for lanes in stepped:
        lanes.pass_over(steps)


def _show(
    lanes: SteppedLanes,
    history: SiteHistory,
    index: int,
    values: PreparedValues | None,
    counted: bool,
    search_gap: bool,
) -> None:
    """Let lanes decide on a record, and count what they did."""
    decisions = lanes.show(index, values)
    if not counted:
        return
    numels = history.numels[index].tolist()
    for lane, decision in zip(lanes.lanes, decisions, strict=True):
        lane.ledger.count(decision, numels)
        if search_gap and decision.evaluations:
            lane.compare_with_scan(decision, lanes.observation(index, values, lane.format))


class _ReplaySums:
    """Counts of a site's records after calibration (`records`: of all), and sums of their metrics.

    Args:
        past: index of the first record after calibration.
        lanes: how many lanes there are: sums of metrics have an entry for each.
    """

    def __init__(self, history: SiteHistory, past: int, lanes: int) -> None:
        sizes, times = np.unique(history.numels[past:], return_counts=True)
        #: Number of elements → number of tensors on one device that have so many.
        self.tensors = Counter(dict(zip(sizes.tolist(), times.tolist(), strict=True)))
        self.records, self.replayed = len(history), len(history) - past
        self.all_zero = int(np.count_nonzero(history.stats.absmax[past:] == 0))
        steps_with_nonfinite = history.steps[history.stats.nnan + history.stats.ninf > 0]
        self.nonfinite_records, self.nonfinite_step = (
            len(steps_with_nonfinite),
            min(steps_with_nonfinite.tolist(), default=None),
        )
        self.steps, self.sampled, self.unscored, self.exact = np.zeros((4, lanes), np.int64)
        self._sums, self._counts = np.zeros((2, len(METRICS), lanes))
        self._sqnr_db: list[NDArray[np.float64]] = []

    def scored(self, figures: Figures, records: Sequence[Record]) -> None:
        """Add records' figures to the sums, one after the other, each metric where it is known."""
        known = ~np.isnan(figures)
        scored = np.delete(known, NONFINITE, axis=0).any(axis=0)
        sampled = np.array([[record.sampled] for record in records])
        self.steps += scored.sum(axis=0)
        self.unscored += (~scored).sum(axis=0)
        self.sampled += (scored & sampled).sum(axis=0)
        self.exact += ((figures[MSE] == 0) & known[UNDERFLOW]).sum(axis=0)
        self._sqnr_db += [*figures[SQNR_DB]]
        for one in np.moveaxis(np.where(known, figures, 0.0), 1, 0):
            self._sums += one
        self._counts += known.sum(axis=1)

    def means(self) -> list[Measured]:
        """For each lane the plain mean of each metric over the records that have it."""
        with np.errstate(invalid="ignore"):
            means = (self._sums / self._counts).T.tolist()
        return [_by_metric(figures) for figures in means]

    def lows(self) -> list[float | None]:
        """For each lane the mean SQNR of the worst tenth of the records that have one, in dB."""
        return list(map(_low, np.transpose(self._sqnr_db))) or [None] * self.steps.size


def _low(figures: NDArray[np.float64]) -> float | None:
    known = np.sort(figures[~np.isnan(figures)])
    return float(known[: max(1, known.size // 10)].mean()) if known.size else None


def _by_metric(figures: Sequence[float]) -> Measured:
    return {n: None if math.isnan(f) else f for n, f in zip(METRICS, figures, strict=True)}


def _rows(
    site: Site, batch: Sequence[Decided], lanes: Sequence[Lane], figures: Figures
) -> Iterator[StepRow]:
    for (record, _, decisions), measured in zip(batch, np.moveaxis(figures, 1, 0), strict=True):
        yield from _rows_of_record(site, record, lanes, decisions, measured)


def _rows_of_record(
    site: Site,
    record: Record,
    lanes: Sequence[Lane],
    decisions: Sequence[Decision],
    figures: NDArray[np.float64],
) -> Iterator[StepRow]:
    for lane, decision, measured in zip(lanes, decisions, figures.T.tolist(), strict=True):
        lo, hi = (decision.range and decision.range.widest) or (None, None)
        least, most = record.stats.range or (None, None)
        yield StepRow(
            layer=site.layer,
            tensor=site.tensor,
            step=record.step,
            micro=record.micro,
            call=record.call,
            estimator=lane.choice.label,
            bits=lane.format.bits,
            lo=lo,
            hi=hi,
            looked=decision.looked,
            metrics=_by_metric(measured),
            min=least,
            max=most,
            exact=measured[MSE] == 0,
        )


def _summaries(
    site: Site, lanes: Sequence[Lane], sums: _ReplaySums, counts: Counts | None
) -> list[Summary]:
    return [
        Summary(
            layer=site.layer,
            tensor=site.tensor,
            estimator=lane.choice.label,
            bits=lane.format.bits,
            steps=int(sums.steps[i]),
            metrics=means,
            records=sums.records,
            replayed=sums.replayed,
            looks=lane.ledger.looks,
            evaluations=lane.ledger.evaluations,
            postponed=lane.ledger.postponed,
            sampled=int(sums.sampled[i]),
            all_zero=sums.all_zero,
            **_mean_bytes(site, lane, sums, counts),
            search_gap=max((gap.gap for gap in lane.gaps), default=None),
            multimodal=_share([gap.multimodal for gap in lane.gaps]),
            sqnr_db_low=low,
            exact=means["mse"] == 0,
            exact_steps=int(sums.exact[i]),
            unscored=int(sums.unscored[i]),
            nonfinite_records=sums.nonfinite_records,
            nonfinite_step=sums.nonfinite_step,
        )
        for i, (lane, means, low) in enumerate(zip(lanes, sums.means(), sums.lows(), strict=True))
    ]


def _mean_bytes(
    site: Site, lane: Lane, sums: _ReplaySums, counts: Counts | None
) -> dict[str, float | None]:
    """Mean bytes for a tensor, if static and as replayed; None where no bill is defined.

    A record joined over ranks counts as one tensor for each rank: each device moves its own.
    """
    tensors = sums.tensors.total()
    width = int(lane.format.bits)
    bits = Bits(w=width, a=width, g=width)
    bills = [
        (site_bill(site.tensor, counts, bits, numel), times)
        for numel, times in sums.tensors.items()
        if counts is not None
    ]
    if not bills or any(bill is None for bill, _ in bills):
        return {"static_bytes": None, "traffic_bytes": None}
    static = sum(bill.static_bits * times for bill, times in bills if bill is not None)
    moved = static + lane.ledger.moved() * bits.acc
    return {"static_bytes": as_bytes(static / tensors), "traffic_bytes": as_bytes(moved / tensors)}


def _share(facts: Sequence[bool]) -> float | None:
    return sum(facts) / len(facts) if facts else None
