"""What a trace holds of each site, from its rows alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hqtool.trace.schema import ELEMENT_NAMES, ELEMENTS
from hqtool.vocab import Site


@dataclass(frozen=True, slots=True)
class SiteSummary:
    """What a trace holds of one site.

    Args:
        records: their number; `with_values` of them keep values, `sampled` of those a sample.
        shapes: of the full tensors, in order of appearance in the trace.
        first_step, last_step: the lowest and the highest.
        dtypes: names of the element types of the values kept.
        payload_bytes: size of the values kept.
    """

    site: Site
    records: int
    with_values: int
    sampled: int
    shapes: tuple[tuple[int, ...], ...]
    first_step: int
    last_step: int
    dtypes: tuple[str, ...]
    payload_bytes: int


class Tally(NamedTuple):
    """Rows of one block alike in site, shape, element type and sampling (numbers as in a row)."""

    site: int
    shape: int
    element: int
    sampled: int
    records: int
    size: int
    first_step: int
    last_step: int


_ALIKE = list(Tally._fields[:4])


def tallies_of(rows: NDArray[Any]) -> list[Tally]:
    """The rows of a block (1-D, of dtype ROW, at least one) tallied."""
    columns = [rows[name] for name in _ALIKE]
    keys = np.ravel_multi_index(columns, [int(column.max()) + 1 for column in columns])
    order = np.argsort(keys, kind="stable")
    rows, starts = rows[order], np.flatnonzero(np.diff(keys[order], prepend=-1))
    numbers = [
        np.diff(starts, append=rows.size),
        np.add.reduceat(rows["size"], starts),
        np.minimum.reduceat(rows["step"], starts),
        np.maximum.reduceat(rows["step"], starts),
    ]
    alike = rows[_ALIKE][starts].tolist()
    return [Tally(*a, *b) for a, b in zip(alike, np.stack(numbers, 1).tolist(), strict=True)]


def summary_of(
    site: Site, tallies: Iterable[Tally], shapes: Mapping[int, tuple[int, ...]]
) -> SiteSummary:
    """The summary of a site's tallies (at least one); `shapes` by number."""
    tallies = list(tallies)
    kept = [tally for tally in tallies if tally.element]
    elements = [ELEMENT_NAMES[number] for number in sorted({tally.element for tally in kept})]
    return SiteSummary(
        site=site,
        records=sum(tally.records for tally in tallies),
        with_values=sum(tally.records for tally in kept),
        sampled=sum(tally.records for tally in kept if tally.sampled),
        shapes=tuple(shapes[number] for number in sorted({tally.shape for tally in tallies})),
        first_step=min(tally.first_step for tally in tallies),
        last_step=max(tally.last_step for tally in tallies),
        dtypes=tuple(elements),
        payload_bytes=sum(_nbytes(tally) for tally in kept),
    )


def _nbytes(tally: Tally) -> int:
    return tally.size * ELEMENTS[ELEMENT_NAMES[tally.element]].itemsize
