"""Where each recorded value lies in its tensor: its channel, its sample of the batch, its row.

A row is all values along the channel axis at one position of the other axes: a token's features,
or the channels of one pixel. A kept sample holds some whole rows, or equal pieces of some; the
layout calls either a fibre.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hqtool.core.samples import first_places_of, places_of
from hqtool.vocab import Record, SampleLayout

Indices = NDArray[np.int64]

#: Where no geometry tells: tensors of so many axes or more are taken for a convolution's.
AXES_OF_CONVOLUTIONS = 4

#: What can share a range within a tensor.
PARTS = ("channel", "sample", "row")


def channel_axis_of(shape: tuple[int, ...], wanted: int | None = None) -> int:
    """The channel axis of a tensor, counted from the first, 0.

    Args:
        wanted: as the layer's geometry has it, counted from the last axis, -1; None where it is
            unknown: then it is axis 1 where there are four axes or more, else the last.
    """
    axes = max(1, len(shape))
    if wanted is None:
        return 1 if axes >= AXES_OF_CONVOLUTIONS else axes - 1
    return max(wanted, -axes) % axes


class Axes(NamedTuple):
    """Which axes of a site's tensors are the channels'.

    Args:
        channel: the channel axis, counted from the last one, -1; None where it is unknown.
        output: of a weight or its gradient, the axis of the output channels; None: it is the same.
    """

    channel: int | None = None
    output: int | None = None


#: Of a layer whose geometry is unknown.
UNKNOWN_AXES = Axes()


def axes_of(op: str | None, tensor: str) -> Axes:
    """The axes of a site.

    Args:
        op: of the layer, as in a layer spec; None where its geometry is unknown.
        tensor: the tensor kind.
    """
    convolution = re.fullmatch(r"conv(_transpose)?([123])d", op or "")
    channel = -1 - int(convolution[2]) if convolution else -1
    transposed = convolution is not None and bool(convolution[1])
    is_weight = tensor in ("weight", "grad_weight") and op != "matmul"
    return Axes(None if op is None else channel, int(transposed) if is_weight else None)


def part_size(shape: tuple[int, ...], per: str, channel_axis: int | None = None) -> int:
    """How many elements a part of a tensor has that can be read by itself.

    That is a sample or a row. A channel lies in every sample, so it takes the whole tensor; so does
    one of fewer than two axes, which may have been lost as several ranks' were joined.

    Args:
        per: 'tensor', or one of `PARTS`.
        channel_axis: as `wanted` of `channel_axis_of`.
    """
    numel = math.prod(shape)
    if per in ("tensor", "channel") or len(shape) < 2:
        return numel
    parts = Arrangement(shape, channel_axis_of(shape, channel_axis)).count(per)
    return -(-numel // max(1, parts))


@dataclass(frozen=True, eq=False)
class Arrangement:
    """How the values kept of a tensor lie in it.

    Args:
        shape: the full tensor's.
        channel_axis: counted from the first axis, 0.
        layout: of a sample; None where the whole tensor was kept.
    """

    shape: tuple[int, ...]
    channel_axis: int
    layout: SampleLayout | None = None

    @property
    def channels(self) -> int:
        """How many channels the tensor has."""
        return self.shape[self.channel_axis] if self.shape else 1

    @property
    def length(self) -> int:
        """How many values of a row are kept together."""
        return self.channels if self.layout is None else self.layout.length

    @property
    def whole_rows(self) -> bool:
        """Rows were kept whole, not cut into pieces."""
        return self.length == self.channels

    @cached_property
    def plane_shape(self) -> tuple[int, int, int]:
        """How many values lie before, along and after the channel axis.

        Of a sample it is (fibres, length, 1).
        """
        if self.layout is not None:
            return self.layout.fibres.size, self.layout.length, 1
        before = math.prod(self.shape[: self.channel_axis])
        return before, self.channels, math.prod(self.shape[self.channel_axis + 1 :])

    def planes(self, values: NDArray[Any]) -> NDArray[Any]:
        """The recorded values, of any shape, as `plane_shape`: the channel axis is axis 1."""
        return values.reshape(self.plane_shape)

    def count(self, per: str) -> int:
        """How many parts the full tensor has.

        Args:
            per: one of `PARTS`.
        """
        numel = math.prod(self.shape)
        if per == "channel":
            return self.channels
        return numel // max(1, self.channels) if per == "row" else self._samples

    def index(self, per: str) -> Indices:
        """Which part each recorded value belongs to: broadcasts to `plane_shape`.

        Args:
            per: one of `PARTS`. Parts are numbered as they lie along the axes: rows in the
                row-major order of the axes other than the channel axis.
        """
        return self._index_of_whole(per) if self.layout is None else self._index_of_sample(per)

    @property
    def _samples(self) -> int:
        return self.shape[0] if self.shape else 1

    def _index_of_whole(self, per: str) -> Indices:
        before, channels, after = self.plane_shape
        if per == "channel" or (per == "sample" and self.channel_axis == 0):
            return np.arange(channels).reshape(1, -1, 1)
        if per == "row":
            return np.arange(before * after).reshape(before, 1, after)
        return np.arange(before).reshape(-1, 1, 1) // max(1, before // max(1, self._samples))

    def _index_of_sample(self, per: str) -> Indices:
        assert self.layout is not None
        if per == "channel" and self.whole_rows and self.channels > 1:
            return np.arange(self.channels).reshape(1, -1, 1)
        stride = math.prod(self.shape[self.channel_axis + 1 :])
        if per == "channel" or (per == "sample" and self.channel_axis == 0):
            return places_of(self.layout).reshape(self.plane_shape) // stride % self.channels
        first = first_places_of(self.layout).reshape(-1, 1, 1)
        if per == "row":
            return first // (stride * self.channels) * stride + first % stride
        return first // (math.prod(self.shape) // self._samples)


def arrangement_of(record: Record, channel_axis: int | None = None) -> Arrangement | None:
    """How a record's values lie in its tensor.

    Args:
        channel_axis: as for `channel_axis_of`. A sample was cut along an axis of its own, which
            counts before this one.

    Returns:
        None where it is unknown: of a sample without layout, or without values.
    """
    if record.values is None or (record.sampled and record.layout is None):
        return None
    axis = channel_axis_of(record.shape, channel_axis)
    if record.layout is None:
        return Arrangement(record.shape, axis)
    return Arrangement(
        record.shape, _axis_of_fibres(record.layout, record.shape, axis), record.layout
    )


def _axis_of_fibres(layout: SampleLayout, shape: tuple[int, ...], likely: int) -> int:
    """The axis along which a sample's fibres run; the likely one where several would do."""
    fitting = [
        axis
        for axis, channels in enumerate(shape)
        if math.prod(shape[axis + 1 :]) == layout.stride and channels % layout.length == 0
    ]
    return likely if likely in fitting or not fitting else fitting[-1]
