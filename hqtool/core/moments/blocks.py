"""Moments under block formats: one pass over a tensor's blocks for each format and range."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product, repeat
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hqtool.core.arrangement import Arrangement
from hqtool.core.formats.block import BlockFormat
from hqtool.core.formats.format import Array
from hqtool.core.moments.grouped import (
    PIECE,
    moments_of,
    pieces_of,
    sums_of_piece,
)
from hqtool.vocab import Moments, Range

#: Where rows were cut, pieces below this share of a block tell too little about blocks.
SHORTEST_PIECE = 0.5


class _Piece(NamedTuple):
    """Some blocks of one shape.

    Args:
        values: (values in a row of a block, such rows); all blocks' first rows, then all second
            ones, and so on.
        rows: in each block.
    """

    values: NDArray[Any]
    rows: int


class Blocks:
    """A tensor's values in blocks of one shape, in pieces that stay in cache.

    Of a sample the blocks are those of the rows kept: a piece of a row is blocked from its own
    beginning, and what is left over at its end counts for nothing. Where a block spans several
    rows, these are neighbours among the rows kept.

    Args:
        values: recorded values, of any shape and float type.
        finite: which of them are finite; None where all are. The others count as absent.
        arrangement: of the values.
        rows, size: shape of a block: rows, and values along the channel axis.
    """

    def __init__(
        self,
        values: NDArray[Any],
        finite: NDArray[np.bool_] | None,
        arrangement: Arrangement,
        rows: int,
        size: int,
    ) -> None:
        self._arrangement, self._rows, self._size = arrangement, rows, size
        kept = values if finite is None else np.where(finite, values, np.zeros_like(values))
        cut = list(self._cut(kept))
        #: Arrays in which each column is a row of a block, 0 where not finite.
        self._pieces = [piece.values for piece in cut]
        #: The largest magnitude of each column's block, all pieces' one after the other.
        self._amax = np.concatenate([np.zeros(0), *(_amax(*piece) for piece in cut)])
        masks = cut if finite is None else self._cut(finite)
        #: How many finite values the blocks hold.
        self.count = sum(
            each.values.size if finite is None else int(np.count_nonzero(each.values))
            for each in masks
        )

    def moments(
        self,
        format_: BlockFormat,
        wanted: Range,
        rounding: str = "nearest",
        noise: Array | None = None,
        exponent: int = 0,
    ) -> Moments:
        """Moments of the finite values, with one entry.

        Args:
            format_: with blocks of this shape.
            wanted: the range of the whole tensor, where the format needs one.
            rounding: a name of `OUTCOMES`.
            noise: uniform [0, 1), one for each value, where rounding is 'stochastic-sampled'.
            exponent: e, where the values were divided by 2^e.
        """
        levels = format_.levels(self._amax, wanted, exponent)
        drawn = repeat(None) if noise is None else (each.values for each in self._cut(noise))
        sums, end = np.zeros(7), 0
        for x, u in zip(self._pieces, drawn, strict=False):
            some, end = slice(end, end + x.shape[1]), end + x.shape[1]
            own = levels if len(self._pieces) == 1 else replace(levels, scale=levels.scale[some])
            sums += sums_of_piece(x, own, rounding, u)
        return moments_of(self.count, sums)

    def _cut(self, values: NDArray[Any]) -> Iterator[_Piece]:
        planes = self._arrangement.planes(values)
        columns = _runs(planes.shape[1], self._size, self._arrangement.whole_rows)
        rows = _runs(planes.shape[0], self._rows, True)
        for (first, last, height), (start, end, width) in product(rows, columns):
            yield from _pieces_of_blocks(planes[first:last, start:end], height, width)


def _runs(length: int, size: int, with_rest: bool) -> list[tuple[int, int, int]]:
    """(start, end, size) of the full blocks along an axis, and of the rest as a short block."""
    if length and length < size:
        usable = with_rest or length >= SHORTEST_PIECE * size
        return [(0, length, length)] if usable else []
    full = length // size * size
    runs = [(0, full, size), (full, length, length - full)]
    return [run for run in runs[: 1 + with_rest] if run[1] > run[0]]


def _pieces_of_blocks(planes: NDArray[Any], height: int, width: int) -> Iterator[_Piece]:
    """The pieces of planes (rows, channels, after) that consist of full blocks."""
    before, channels, after = planes.shape
    cut = planes.reshape(before // height, height, channels // width, width, after)
    blocks = cut.transpose(3, 1, 0, 2, 4)
    for part in pieces_of(blocks.shape[2:], max(1, PIECE // (height * width))):
        yield _Piece(np.ascontiguousarray(blocks[:, :, *part]).reshape(width, -1), height)


def _amax(x: NDArray[Any], rows: int) -> Array:
    """The largest magnitude of each column's block."""
    found: Array = np.abs(x).max(axis=0).astype(np.float64)
    return found if rows == 1 else np.tile(found.reshape(rows, -1).max(axis=0), rows)
