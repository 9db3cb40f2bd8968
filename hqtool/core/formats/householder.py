"""The block Householder quantizer of StatQuant [2]: samples of a batch are mixed, then quantized.

A few samples mostly have far larger gradients than the others. Each of these, a leader, is mixed
with several small ones, its followers, so that all rows of the block are of one size and share its
largest values; each row is quantized over its own range, and the rows are unmixed again. Facts from
its authors' code; their floor of 1e-8 under every range is left out (DESIGN section 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hqtool.core.formats.format import Array, ElementFormat, Indices
from hqtool.core.moments.grouped import OUTCOMES, PIECE
from hqtool.vocab import Moments


class Blocks(NamedTuple):
    """Blocks of as many rows, each of which are mixed with each other.

    Args:
        rows: (blocks, n), the rows' indices, the leader first.
        mix, unmix: (blocks, n, n), one the inverse of the other.
    """

    rows: Indices
    mix: Array
    unmix: Array


def blocks_of(spans: Array) -> list[Blocks]:
    """The blocks that rows form, by the size of their ranges; those of as many rows together.

    Args:
        spans: of each row, max − min ≥ 0.
    """
    if not spans.size:
        return []
    order = np.argsort(-spans, kind="stable")
    leaders = _leaders(spans[order])
    shares = np.cumsum(spans[order[:leaders]])
    ends = np.rint((spans.size - leaders) * shares / shares[-1]) if shares[-1] else shares
    sizes = np.diff(ends, prepend=0).astype(np.intp)
    sizes[-1] += spans.size - leaders - sizes.sum()
    first = leaders + np.cumsum(sizes) - sizes  # follower of each leader, in the order
    return [
        _mixed(order[_places(np.flatnonzero(sizes == size), first, int(size))], spans)
        for size in np.unique(sizes)
    ]


def _places(leaders: Indices, first: Indices, followers: int) -> Indices:
    """(leaders, 1 + followers): the places of each leader and its followers in the order."""
    return np.column_stack([leaders, first[leaders, None] + np.arange(followers)])


def _leaders(spans: Array) -> int:
    """N−k for the smallest k with k·m_{N−k} > Σ_{j≤N−k} m_j: each leader has over one follower.

    Args:
        spans: m, descending.
    """
    sums, followers = np.cumsum(spans), np.arange(spans.size - 1, -1, -1)
    enough = np.flatnonzero(followers * spans > sums)
    return int(enough[-1]) + 1 if enough.size else spans.size


def _mixed(rows: Indices, spans: Array) -> Blocks:
    """Q·diag(s), Q a reflection that shares the leader out over all n rows equally.

    Rows stay as they are where a leader is alone, or all its followers' ranges are 0.
    """
    n = rows.shape[1]
    leaders, others = spans[rows[:, 0]], spans[rows[:, 1:]].max(axis=1, initial=0.0)
    v = np.eye(n)[0] - 1 / np.sqrt(n)
    reflection = np.eye(n) - (2 * np.outer(v, v) / (v @ v) if n > 1 else 0.0)
    with np.errstate(all="ignore"):
        smaller = (others * np.abs(reflection).max() / (n - 1)) ** (-1 / 3)
        s = np.repeat(smaller[:, None], n, axis=1)
        s[:, 0] = (leaders / np.sqrt(n)) ** (-1 / 3)
        found = Blocks(rows, reflection * s[:, None], np.swapaxes(reflection / s[:, None], 1, 2))
    alone = np.flatnonzero(~(others > 0))
    found.mix[alone] = found.unmix[alone] = np.eye(n)
    return found


@dataclass(frozen=True, slots=True)
class HouseholderFormat:
    """Samples are mixed, each mixed row is stored in `element` over its own range, and unmixed.

    The scales of the rows are not counted in `bits`, as for other ranges of samples. It needs all
    values of the tensor; a sample of it answers nothing.
    """

    element: ElementFormat

    @property
    def bits(self) -> float:
        return self.element.bits

    @property
    def needs_range(self) -> bool:
        """An estimator must read the tensor, though the ranges are those of the mixed rows."""
        return True

    def moments(self, x: Array, rounding: str = "nearest", noise: Array | None = None) -> Moments:
        """Moments of finite values, one entry.

        Under 'stochastic', the expectation, E[q] = x; how many values become 0 is not known (NaN).

        Args:
            x: (samples, values of each).
            rounding: a name of `OUTCOMES`.
            noise: uniform [0, 1) of x's shape, where rounding is 'stochastic-sampled'.
        """
        spans = x.max(axis=1) - x.min(axis=1) if x.size else np.zeros(len(x))
        q, variance = np.zeros_like(x), np.zeros_like(x)
        for rows, mix, unmix in _pieces(blocks_of(spans), x.shape[1]):
            y = mix @ x[rows]
            levels = self.element.levels(y.min(axis=2).reshape(-1), y.max(axis=2).reshape(-1))
            u = None if noise is None else noise[rows]
            with np.errstate(all="ignore"):
                found = OUTCOMES[rounding](y, levels.as_columns(len(rows)), u)
            q[rows] = unmix @ found.q
            if found.variance is not None:
                variance[rows] = unmix**2 @ found.variance
        return _moments(x, q, variance if rounding == "stochastic" else None)


def _pieces(blocks: Iterable[Blocks], values: int) -> Iterator[Blocks]:
    """The blocks, fewer at a time: about `PIECE` values, of which a row has so many."""
    for each in blocks:
        step = max(1, PIECE // max(1, each.rows.shape[1] * values))
        for start in range(0, len(each.rows), step):
            yield Blocks._make(field[start : start + step] for field in each)


def _moments(x: Array, q: Array, variance: Array | None) -> Moments:
    """No value is beyond the levels: each row's range holds it."""
    extra = 0.0 if variance is None else float(variance.sum())
    became_zero = np.nan if variance is not None else float(np.sum((q == 0) & (x != 0)))
    sums = (np.sum(q * q) + extra, np.sum(x * q), np.sum((x - q) ** 2) + extra, 0.0, became_zero)
    each = [np.array([figure]) for figure in sums]
    return Moments(x.size, int(np.count_nonzero(x)), float(np.sum(x * x)), *each)
