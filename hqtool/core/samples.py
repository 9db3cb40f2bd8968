"""Samples of large tensors: where their values lie in the tensor, and how they are weighted.

A sample holds the extremes of its tensor exactly, and of the rest some fibres drawn at random. So
each extreme counts once, and each other value stands for an equal share of the rest.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqtool.vocab import Moments, SampleLayout

Places = NDArray[np.int64]


def first_places_of(layout: SampleLayout) -> Places:
    """Index of each fibre's first value in the row-major order of its tensor, 1-D."""
    outer, offset = np.divmod(layout.fibres, layout.stride)
    return outer * (layout.stride * layout.length) + offset


def places_of(layout: SampleLayout) -> Places:
    """Index of each sampled value in the row-major order of its tensor, 1-D."""
    first = first_places_of(layout)
    return (first[:, None] + layout.stride * np.arange(layout.length)).reshape(-1)


def is_extreme(layout: SampleLayout) -> NDArray[np.bool_]:
    """Which of the sampled values are among the extremes as well, 1-D."""
    found = np.zeros(layout.fibres.size * layout.length, bool)
    if found.size:
        outer, inside = np.divmod(layout.extreme_places, layout.stride * layout.length)
        channel, offset = np.divmod(inside, layout.stride)
        fibre = outer * layout.stride + offset
        at = np.minimum(np.searchsorted(layout.fibres, fibre), layout.fibres.size - 1)
        kept = layout.fibres[at] == fibre
        found[at[kept] * layout.length + channel[kept]] = True
    return found


def by_place(values: NDArray[Any], layout: SampleLayout) -> tuple[NDArray[Any], SampleLayout]:
    """The same sample, its values taken for single ones in the order of their places."""
    places = places_of(layout)
    order = np.argsort(places)
    return values[order], replace(layout, fibres=places[order], length=1, stride=1)


def weighted(exact: Moments, rest: Moments, weight: float) -> Moments:
    """Moments of a tensor: of its known values, and of others that count `weight` times each."""
    return Moments(
        count=exact.count + weight * rest.count,
        nonzero=exact.nonzero + weight * rest.nonzero,
        xx=exact.xx + weight * rest.xx,
        qq=exact.qq + weight * rest.qq,
        xq=exact.xq + weight * rest.xq,
        err=exact.err + weight * rest.err,
        saturated=exact.saturated + weight * rest.saturated,
        underflowed=exact.underflowed + weight * rest.underflowed,
    )
