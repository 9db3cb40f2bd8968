"""Sums over a site's records, and the means that summaries show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqtool.compare.results import Measured, by_metric
from hqtool.compare.scoring import MSE, NONFINITE, SQNR_DB, UNDERFLOW, Figures
from hqtool.core.metrics import METRICS
from hqtool.trace.history import SiteHistory
from hqtool.traffic.bill import Bits, as_bytes, site_bill
from hqtool.traffic.layers import Counts
from hqtool.vocab import Record, Site


class ReplaySums:
    """Sums of the metrics of a site's records, and counts of its records.

    Args:
        past: index of the first record after calibration.
        lanes: how many lanes there are: sums of metrics have an entry for each.
    """

    def __init__(self, history: SiteHistory, past: int, lanes: int) -> None:
        sizes, times = np.unique(history.numels[past:], return_counts=True)
        #: Number of elements → number of tensors on one device that have so many.
        self.tensors = Counter(dict(zip(sizes.tolist(), times.tolist(), strict=True)))
        self.of_site = _of_site(history, past)
        self.steps, self.sampled, self.unscored, self.exact = np.zeros((4, lanes), np.int64)
        self._sums, self._counts = np.zeros((2, len(METRICS), lanes))
        self._sqnr_db: list[NDArray[np.float64]] = []

    def scored(self, figures: Figures, records: Sequence[Record]) -> None:
        """Add records' figures to the sums, one after the other, each metric where it is known."""
        known = ~np.isnan(figures)
        scored = np.delete(known, NONFINITE, axis=0).any(axis=0)
        sampled = np.array([record.sampled for record in records], bool)[:, np.newaxis]
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
        return [by_metric(figures) for figures in means]

    def lows(self) -> list[float | None]:
        """For each lane the mean SQNR of the worst tenth of the records that have one, in dB."""
        return list(map(_low, np.transpose(self._sqnr_db))) or [None] * self.steps.size


def _low(figures: NDArray[np.float64]) -> float | None:
    known = np.sort(figures[~np.isnan(figures)])
    return float(known[: max(1, known.size // 10)].mean()) if known.size else None


def _of_site(history: SiteHistory, past: int) -> dict[str, Any]:
    """The entries of `Summary` that do not depend on a quantizer."""
    counted = history.steps[past:]
    nonfinite = history.steps[history.stats.nnan + history.stats.ninf > 0]
    return {
        "records": len(history),
        "replayed": len(counted),
        "replayed_steps": len(np.unique(counted)),
        "all_zero": int(np.count_nonzero(history.stats.absmax[past:] == 0)),
        "nonfinite_records": len(nonfinite),
        "nonfinite_step": min(nonfinite.tolist(), default=None),
    }


def mean_bytes(
    site: Site,
    stored: float,
    passes: int,
    sums: ReplaySums,
    counts: Counts | None,
    on_chip: int = 0,
) -> dict[str, Any]:
    """What a tensor moves in the mean: the entries of `Summary` that are about traffic.

    A record joined over ranks counts as one tensor for each rank: each device moves its own.

    Args:
        stored: bits of an element, an exact fraction such as 8.25.
        passes: elements of accumulator output that looks moved to memory and back.
        on_chip: those that they moved within the buffer.
    """
    tensors = sums.tensors.total()
    elements = sum(numel * times for numel, times in sums.tensors.items())
    moved = {"elements": elements, "spilled": passes, "on_chip": on_chip}
    sizes = {name: amount / max(1, tensors) for name, amount in moved.items()}
    share = Fraction(stored)
    bits = Bits(w=share.numerator, a=share.numerator, g=share.numerator)
    bills = [
        (site_bill(site.tensor, counts, bits, numel), times)
        for numel, times in sums.tensors.items()
        if counts is not None
    ]
    if not bills or any(bill is None for bill, _ in bills):
        return {"static_bytes": None, "traffic_bytes": None, **sizes}
    parts = sum(bill.static_bits * times for bill, times in bills if bill is not None)
    static = Fraction(parts, share.denominator)
    dynamic = static + passes * bits.acc
    return {
        "static_bytes": as_bytes(float(static / tensors)),
        "traffic_bytes": as_bytes(float(dynamic / tensors)),
        **sizes,
    }
