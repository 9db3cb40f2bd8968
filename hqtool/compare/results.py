"""What a replay finds: a row for each scored record, and a summary for each site."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hqtool.core.metrics import METRICS

Measured = dict[str, float | None]


def by_metric(figures: Sequence[float]) -> Measured:
    return {n: None if math.isnan(f) else f for n, f in zip(METRICS, figures, strict=True)}


@dataclass(frozen=True, slots=True)
class StepRow:
    """One record with values under one quantizer; None is missing.

    Args:
        bits: stored for each element, scales included.
        lo, hi: the range that the estimator asked for; of a range for each channel, sample or row,
            the lowest and the highest end. None where nothing was known, and where the format
            takes none.
        min, max: the tensor's own extremes.
        exact: whether quantization made no error.
    """

    layer: str
    tensor: str
    step: int
    micro: int
    call: int
    estimator: str
    format: str
    rounding: str
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
    """One site under one quantizer.

    Args:
        bits: stored for each element, scales included.
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
        replayed_steps: number of steps that `replayed` records belong to.
        recipe: what asks for the quantizer at this site; None: it is asked for by itself. Where a
            recipe leaves the site as it is, estimator, format and rounding are 'none', bits 32.
        nonfinite_records: number of all records with NaN or infinities; `nonfinite_step` is the
            first step that has one, None where none has.
        learned_steps, missed_steps: at how many steps, those of calibration among them, an
            estimator that needs more than statistics read something, and at how many more it would
            have; 0 of one that needs statistics alone.
        elements: mean number of a tensor's elements on one device.
        spilled: of these, the mean number that looks and searches moved, each as often as moved.
        on_chip: as `spilled`, of looks at no more than the buffer holds: moved within it.
    """

    layer: str
    tensor: str
    estimator: str
    format: str
    rounding: str
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
    learned_steps: int = 0
    missed_steps: int = 0
    elements: float = 0.0
    spilled: float = 0.0
    on_chip: float = 0.0
    replayed_steps: int = 0
    recipe: str | None = None
