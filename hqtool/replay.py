"""One site through all estimators: records in, one summary an (estimator, bits) out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqtool.core.dense import ROUNDINGS
from hqtool.core.grid import Format, grids_of
from hqtool.core.metrics import METRICS, measure
from hqtool.core.noise import noise_of
from hqtool.core.observation import Observation, Values, values_of
from hqtool.errors import UsageError
from hqtool.estimators.protocol import Estimator, State, decide
from hqtool.estimators.search_gap import SearchGap, search_gap
from hqtool.registry import Choice
from hqtool.traffic.bill import Bill, Bits, as_bytes, site_bill
from hqtool.traffic.layers import Counts
from hqtool.vocab import Decision, Record, Site

Measured = dict[str, float | None]
Figures = NDArray[np.float64]  # (metrics, lanes), NaN is missing


@dataclass(frozen=True, slots=True)
class Settings:
    """What every site is replayed with.

    Args:
        estimators: in the order results show them.
        bits: bit-widths of the grids, 2 to 16.
        scheme: 'asymmetric' or 'symmetric'.
        rounding: a name of `ROUNDINGS`.
        calibrate: the first so many steps of a site update estimators and are not scored.
        seed: of the noise of 'stochastic-sampled'.
        search_gap: hold every search against an exhaustive scan.

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

    def __post_init__(self) -> None:
        if self.rounding not in ROUNDINGS:
            raise UsageError(
                f"unknown rounding '{self.rounding}'", f"known: {', '.join(ROUNDINGS)}"
            )
        if self.calibrate < 0:
            raise UsageError(f"cannot calibrate on {self.calibrate} steps", "give 0 or more")
        for bits in self.bits:
            Format(bits, self.scheme)


@dataclass(frozen=True, slots=True)
class StepRow:
    """One scored record under one estimator at one bit-width; None is missing."""

    layer: str
    tensor: str
    step: int
    micro: int
    call: int
    estimator: str
    bits: int
    lo: float | None
    hi: float | None
    looked: bool
    metrics: Measured

    def flat(self) -> dict[str, Any]:
        """All entries by name, the metrics among them, in the order files show them."""
        own = {name: getattr(self, name) for name in self.__slots__ if name != "metrics"}
        return own | self.metrics


@dataclass(frozen=True, slots=True)
class Summary:
    """One site under one estimator at one bit-width.

    Args:
        steps: records scored; metrics are plain means over them, each over those that have it.
        replayed: records after calibration, scored or not: what looks and bytes are counted over.
        looks: how many of those the estimator looked at.
        evaluations: passes its searches took at them.
        postponed: looks that were due at them but found no values recorded.
        sampled: scored records of which only a sample of the values was kept.
        static_bytes, traffic_bytes: mean a record; None where no bill is defined.
        search_gap: largest distance of a search's cosine from the best there is; None where
            none was scanned.
        multimodal: share of the scanned searches whose cosine has more than one maximum.
    """

    layer: str
    tensor: str
    estimator: str
    bits: int
    steps: int
    metrics: Measured
    replayed: int
    looks: int
    evaluations: int
    postponed: int
    sampled: int
    static_bytes: float | None
    traffic_bytes: float | None
    search_gap: float | None = None
    multimodal: float | None = None


def replay(
    site: Site,
    records: Iterable[Record],
    settings: Settings,
    counts: Counts | None = None,
    on_row: Callable[[StepRow], None] | None = None,
) -> list[Summary]:
    """Run every estimator at every bit-width over one site.

    Args:
        records: in the order (step, micro, call). Each is prepared once and then forgotten.
        counts: elements of the layer's tensors, for the bill; None where unknown.
        on_row: called with each scored record of each lane as soon as it is known.

    Returns:
        One summary a lane, an estimator at a bit-width; estimators outermost.
    """
    lanes = _Lanes(settings)
    tally = _Tally(lanes.count)
    for record, past in _with_calibration(records, settings.calibrate):
        values = values_of(record)
        decisions = lanes.decide(record, values)
        if not past:
            continue
        tally.decided(decisions, record, _bills(site, record, lanes, counts))
        if settings.search_gap:
            tally.searched(lanes.gaps(record, values, decisions))
        if values is not None:
            figures = _score(values, decisions, lanes, site, record)
            tally.scored(figures, record)
            if on_row is not None:
                for row in _rows(site, record, lanes, decisions, figures):
                    on_row(row)
    return _summaries(site, lanes, tally)


def _with_calibration(records: Iterable[Record], calibrate: int) -> Iterator[tuple[Record, bool]]:
    """Each record, and whether its step lies past the first `calibrate` ones."""
    steps: set[int] = set()
    for record in records:
        steps.add(record.step)
        yield record, len(steps) > calibrate


class _Lanes:
    """Every estimator at every bit-width on its way down a site's records.

    An estimator whose ranges do not depend on the format has one state for all bit-widths.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.formats = tuple(Format(bits, settings.scheme) for bits in settings.bits)
        self.of_lane = [(c, f) for c in settings.estimators for f in self.formats]
        self.count = len(self.of_lane)
        self._states = [State()] * self.count

    def decide(self, record: Record, values: Values | None) -> list[Decision]:
        """Each lane's decision at the next record."""
        decisions: list[Decision] = []
        for choice in self.settings.estimators:
            separate = getattr(choice.value, "by_format", True)
            for format_ in self.formats if separate else self.formats[:1]:
                seen = Observation(record.stats, format_, values, self.formats)
                lane = len(decisions)
                decision, self._states[lane] = decide(choice.value, self._states[lane], seen)
                decisions += [decision] if separate else [decision] * len(self.formats)
        return decisions

    def gaps(
        self, record: Record, values: Values | None, decisions: Sequence[Decision]
    ) -> list[SearchGap | None]:
        """How far each lane's search at this record ended from the best; None: no search."""
        return [
            search_gap(Observation(record.stats, format_, values), decision.range)
            if decision.evaluations and decision.range is not None
            else None
            for (_, format_), decision in zip(self.of_lane, decisions, strict=True)
        ]


def _bills(
    site: Site, record: Record, lanes: _Lanes, counts: Counts | None
) -> tuple[Bill, ...] | None:
    """The bill of this record at each bit-width; None where none is defined."""
    if counts is None:
        return None
    widths = (Bits(w=f.bits, a=f.bits, g=f.bits) for f in lanes.formats)
    bills = (site_bill(site.tensor, counts, bits, record.numel) for bits in widths)
    return tuple(bill for bill in bills if bill is not None) or None


def _score(
    values: Values, decisions: Sequence[Decision], lanes: _Lanes, site: Site, record: Record
) -> Figures:
    """Each lane's metrics, all grids in one question; all missing where there is no range."""
    ready = [i for i, decision in enumerate(decisions) if decision.range is not None]
    ranges = [decision.range for decision in decisions if decision.range is not None]
    grids = grids_of(ranges, [lanes.of_lane[i][1] for i in ready])
    if lanes.settings.rounding == "stochastic-sampled":
        noise = noise_of(lanes.settings.seed, site, record)
        found = measure(values.sampled_moments(grids, noise))
    else:
        found = measure(values.moments(grids, lanes.settings.rounding))
    figures = np.full((len(METRICS), lanes.count), np.nan)
    figures[:, ready] = list(found.values())
    return figures


class _Tally:
    """Running sums over a site's records past calibration, one entry a lane."""

    def __init__(self, lanes: int) -> None:
        self.steps = self.sampled = self.replayed = 0
        self.looks, self.evaluations, self.postponed = np.zeros((3, lanes), np.int64)
        self.sums, self.counts = np.zeros((2, len(METRICS), lanes))
        self.static_bits, self.traffic_bits = np.zeros((2, lanes), np.int64)
        self.billed = False
        self.gaps: list[list[SearchGap]] = [[] for _ in range(lanes)]

    def searched(self, gaps: Sequence[SearchGap | None]) -> None:
        """Keep what the exhaustive scans found."""
        for kept, gap in zip(self.gaps, gaps, strict=True):
            if gap is not None:
                kept.append(gap)

    def decided(
        self, decisions: Sequence[Decision], record: Record, bills: tuple[Bill, ...] | None
    ) -> None:
        """Count what each lane did, and bill it."""
        looked = np.array([d.looked for d in decisions])
        evaluations = np.array([d.evaluations for d in decisions])
        self.replayed += 1
        self.looks += looked
        self.evaluations += evaluations
        if record.values is None:
            self.postponed += [d.postponed for d in decisions]
        self.billed = bills is not None
        if bills is not None:
            static, reload = np.array([(b.static_bits, b.reload_bits) for b in bills]).T
            repeats = looked.size // len(bills)
            self.static_bits += np.tile(static, repeats)
            passes = 2 * looked + evaluations
            self.traffic_bits += np.tile(static, repeats) + passes * np.tile(reload, repeats)

    def scored(self, figures: Figures, record: Record) -> None:
        """Add a record's figures to the sums, each metric where it is known."""
        self.steps += 1
        self.sampled += record.sampled
        known = ~np.isnan(figures)
        self.sums += np.where(known, figures, 0.0)
        self.counts += known

    def means(self, lane: int) -> Measured:
        """Plain means over the records that have each metric."""
        sums, counts = self.sums[:, lane].tolist(), self.counts[:, lane].tolist()
        pairs = zip(METRICS, sums, counts, strict=True)
        return {name: total / count if count else None for name, total, count in pairs}

    def mean_bytes(self, bits: np.int64) -> float | None:
        """Bits over all replayed records as bytes a record."""
        return as_bytes(int(bits) / self.replayed) if self.billed and self.replayed else None


def _rows(
    site: Site,
    record: Record,
    lanes: _Lanes,
    decisions: Sequence[Decision],
    figures: Figures,
) -> Iterator[StepRow]:
    columns = zip(lanes.of_lane, decisions, figures.T.tolist(), strict=True)
    for (choice, format_), decision, measured in columns:
        lo, hi = decision.range or (None, None)
        yield StepRow(
            layer=site.layer,
            tensor=site.tensor,
            step=record.step,
            micro=record.micro,
            call=record.call,
            estimator=choice.label,
            bits=format_.bits,
            lo=lo,
            hi=hi,
            looked=decision.looked,
            metrics={n: None if m != m else m for n, m in zip(METRICS, measured, strict=True)},
        )


def _share(facts: Sequence[bool]) -> float | None:
    return sum(facts) / len(facts) if facts else None


def _summaries(site: Site, lanes: _Lanes, tally: _Tally) -> list[Summary]:
    return [
        Summary(
            layer=site.layer,
            tensor=site.tensor,
            estimator=choice.label,
            bits=format_.bits,
            steps=tally.steps,
            metrics=tally.means(lane),
            replayed=tally.replayed,
            looks=int(tally.looks[lane]),
            evaluations=int(tally.evaluations[lane]),
            postponed=int(tally.postponed[lane]),
            sampled=tally.sampled,
            static_bytes=tally.mean_bytes(tally.static_bits[lane]),
            traffic_bytes=tally.mean_bytes(tally.traffic_bits[lane]),
            search_gap=max((g.gap for g in tally.gaps[lane]), default=None),
            multimodal=_share([g.multimodal for g in tally.gaps[lane]]),
        )
        for lane, (choice, format_) in enumerate(lanes.of_lane)
    ]
