"""A site's records as columns, for computations over all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hqtool.core.arrangement import UNKNOWN_AXES, Axes
from hqtool.vocab import Record, Site, Stats

#: The entry of a run's provenance that says of sites with what state their estimators began.
BEGAN = "began_with"


class Began(NamedTuple):
    """What a quantized run began a site with: calibrated, or gone on from a checkpoint.

    Args:
        quantizer: its label.
        state: of its estimator, as `hqtool.estimators.plain_states` writes it.
    """

    quantizer: str
    state: Any


def began_of(run: Mapping[str, Any], site: Site) -> Began | None:
    """What a run's provenance says of a site; None where it began anew."""
    found = run.get(BEGAN, {}).get(str(site))
    return None if found is None else Began(**found)


@dataclass(frozen=True, slots=True, eq=False)
class SiteHistory:
    """All records of a site in the order (step, micro, call); values are read one at a time.

    Args:
        steps: (records,) the step of each.
        stats: `Stats` whose entries are columns.
        numels: (records, devices) number of elements on each device that holds a part.
        has_values: (records,) whether values were kept.
        has_channel_extremes: (records,) whether the extremes of each channel were.
        of_quantized_run: it is told what quantized each record in training.
        record: reads the record with an index, its values, and the extremes of its channels.
        shape: the tensor's full shape at the record with an index.
        axes: which axes of the tensors are the channels'.
        began: what a quantized run began with; None where it began anew.
    """

    steps: NDArray[np.int64]
    stats: Any
    numels: NDArray[np.int64]
    has_values: NDArray[np.bool_]
    has_channel_extremes: NDArray[np.bool_]
    record: Callable[[int], Record]
    shape: Callable[[int], tuple[int, ...]]
    of_quantized_run: bool = False
    axes: Axes = UNKNOWN_AXES
    began: Began | None = None

    def __len__(self) -> int:
        return self.steps.size

    @property
    def starts(self) -> NDArray[np.intp]:
        """Index of each step's first record."""
        later = np.flatnonzero(self.steps[1:] != self.steps[:-1]) + 1
        return np.append(0, later)[: len(self)]

    def stats_at(self, index: int) -> Stats:
        """The statistics of one record."""
        return Stats(*(column[index].item() for column in self.stats))


def history_of(
    records: Sequence[Record], read: Callable[[int], Record] | None = None
) -> SiteHistory:
    """The history of records in order.

    Args:
        records: with or without their values.
        read: reads a record with its values; None where `records` have them.
    """
    columns: list[Any] = list(zip(*(record.stats for record in records), strict=True))
    return SiteHistory(
        steps=np.array([record.step for record in records], np.int64),
        stats=Stats._make(map(np.array, columns or [()] * len(Stats._fields))),
        numels=np.array([record.device_numels for record in records], np.int64),
        has_values=np.array([record.values is not None for record in records], bool),
        has_channel_extremes=np.array([r.channel_extremes is not None for r in records], bool),
        record=read or records.__getitem__,
        shape=lambda index: records[index].shape,
        of_quantized_run=any(record.used is not None for record in records),
    )
