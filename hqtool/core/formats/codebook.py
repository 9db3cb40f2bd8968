"""Codebooks: any ascending list of levels, and the formats that scale one to a range."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hqtool.core.formats.format import Array, Gaps, Indices, Levels
from hqtool.core.formats.scaling import SCALINGS, Scaling
from hqtool.errors import UsageError


class Codebook:
    """A list of levels in units of the scale; it is a value, equal to any of the same levels.

    Ties go to the level an even number of places from 0, or from the lowest where 0 is no level.

    Args:
        values: at least two, finite, ascending.

    Raises:
        UsageError: they are not.
    """

    def __init__(self, values: Sequence[float] | Array) -> None:
        self.values: Array = np.array(values, np.float64)
        ascending = self.values.ndim == 1 and bool((np.diff(self.values) > 0).all())
        if self.values.size < 2 or not ascending or not np.isfinite(self.values).all():
            raise UsageError("the levels of a codebook do not ascend", "give two or more, rising")
        self._edges: dict[Any, NDArray[Any]] = {}
        self._key = self.values.tobytes()
        self._hash = hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Codebook) and self._key == other._key

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"Codebook({self.values.size} levels, {self.lowest:g} to {self.highest:g})"

    @cached_property
    def lowest(self) -> float:
        """The lowest level."""
        return float(self.values[0])

    @cached_property
    def highest(self) -> float:
        """The highest level."""
        return float(self.values[-1])

    @cached_property
    def largest(self) -> float:
        """The largest magnitude of a level."""
        return max(-self.lowest, self.highest)

    @property
    def gaps(self) -> Gaps | None:
        """See `Levels.gaps`."""
        return None

    @cached_property
    def zero_at(self) -> int:
        """Index of the level 0; −1 where there is none."""
        found = np.flatnonzero(self.values == 0)
        return int(found[0]) if found.size else -1

    @cached_property
    def extended(self) -> Array:
        """The levels, with one more at either end at the gap there."""
        low, high = 2 * self.values[[0, -1]] - self.values[[1, -2]]
        return np.concatenate([[low], self.values, [high]])

    def edges(self, dtype: Any = np.float64) -> NDArray[Any]:
        """Between neighbours of `extended`, the smallest y of this type that goes to the upper."""
        if dtype not in self._edges:
            middle = ((self.extended[:-1] + self.extended[1:]) / 2).astype(dtype)
            places = np.arange(middle.size) - max(self.zero_at, 0)  # of the upper one
            above = np.nextafter(middle, dtype(np.inf))
            self._edges[dtype] = np.where(places % 2 == 0, middle, above)
        return self._edges[dtype]

    def nearest(self, y: Any, xp: Any = np) -> Any:
        """The level nearest to each y; of NaN it is NaN."""
        edges = self.edges(np.float64 if is_plain(y) else _numpy_type(y, xp))
        at = _places(_like(edges[1:-1], y, xp), y, xp)
        return xp.where(xp.isnan(y), y, _taken(_like(self.values, y, xp), at, xp))

    def neighbours(self, y: Any, xp: Any = np) -> tuple[Any, Any]:
        """The levels l ≤ y < u; farther than a gap beyond an end, the two outermost there."""
        levels = _like(self.extended, y, xp)
        at = _places(levels[1:-1], y, xp)
        return _taken(levels, at, xp), _taken(levels, at + 1, xp)

    def drawn(self, y: Any, noise: Any, xp: Any = np) -> Any:
        """One of the neighbours, see `Levels.drawn`."""
        below, above = self.neighbours(y, xp)
        found = xp.where((y - below) / (above - below) + noise >= 1, above, below)
        return xp.where(xp.isnan(y), y, found)

    def interval(self, y: Array) -> tuple[Array, Array]:
        """See `Levels.interval`."""
        return self.neighbours(y)

    def variance(self, y: Array) -> Array:
        """See `Levels.variance`."""
        below, above = self.neighbours(y)
        found: Array = (y - below) * (above - y)
        return found

    def chance_of_zero(self, y: Array) -> Array:
        """See `Levels.chance_of_zero`."""
        if self.zero_at < 0:
            return np.zeros_like(y)
        below, above = self.extended[self.zero_at], self.extended[self.zero_at + 2]
        low = np.maximum(1.0 - y / below, 0.0) if self.lowest < 0 else 1.0
        high = np.maximum(1.0 - y / above, 0.0) if self.highest > 0 else 1.0
        return np.where(y < 0, low, high)


def _places(edges: Any, y: Any, xp: Any) -> Any:
    """How many edges are ≤ each y. In one row: of gaps in y's memory torch would warn the user."""
    row = xp.reshape(y, (-1,)) if len(y.shape) > 1 else y
    return xp.reshape(xp.searchsorted(edges, row, side="right"), y.shape)


def is_plain(y: Any) -> bool:
    """Whether y is numpy's float64, for which tables are kept."""
    return isinstance(y, np.ndarray | np.generic) and y.dtype == np.float64


def _numpy_type(y: Any, xp: Any) -> Any:
    return {64: np.float64, 32: np.float32}[xp.finfo(y.dtype).bits]


def _like(table: NDArray[Any], y: Any, xp: Any) -> Any:
    """A table in y's namespace, type and place."""
    return table if is_plain(y) else xp.asarray(table, dtype=y.dtype, device=y.device)


def _taken(table: Any, at: Any, xp: Any) -> Any:
    """table[at], for indices of any shape."""
    return xp.reshape(xp.take(table, xp.reshape(at, (-1,))), at.shape)


@dataclass(frozen=True, slots=True, eq=False)
class CodebookLevels(Levels):
    """One codebook on the scale of each lane."""

    codebook: Codebook = field(kw_only=True)

    @property
    def lowest(self) -> float:
        return self.codebook.lowest

    @property
    def highest(self) -> float:
        return self.codebook.highest

    @property
    def low_gap(self) -> float:
        return self.codebook.lowest - float(self.codebook.extended[0])

    @property
    def high_gap(self) -> float:
        return float(self.codebook.extended[-1]) - self.codebook.highest

    @property
    def gaps(self) -> Gaps | None:
        return self.codebook.gaps

    def nearest(self, y: Any, xp: Any = np) -> Any:
        return self.codebook.nearest(y, xp)

    def neighbours(self, y: Any, xp: Any = np) -> tuple[Any, Any]:
        return self.codebook.neighbours(y, xp)

    def drawn(self, y: Any, noise: Any, xp: Any = np) -> Any:
        return self.codebook.drawn(y, noise, xp)

    def interval(self, y: Array) -> tuple[Array, Array]:
        return self.codebook.interval(y)

    def variance(self, y: Array) -> Array:
        return self.codebook.variance(y)

    def chance_of_zero(self, y: Array) -> Array:
        return self.codebook.chance_of_zero(y)

    @property
    def sizes(self) -> Indices:
        return np.full(len(self), self.codebook.values.size, np.intp)

    @property
    def zero_at(self) -> Indices:
        return np.full(len(self), self.codebook.zero_at, np.intp)

    def extended(self) -> Array:
        return np.tile(self.codebook.extended, len(self))

    def edges(self) -> Array:
        return np.tile(self.codebook.edges(), len(self))

    def changed(self, change: Callable[[Any], Any]) -> Self:
        return replace(self, scale=change(self.scale))

    def _with_lanes_of(self, parts: Sequence[Self]) -> Self:
        return replace(self, scale=np.concatenate([part.scale for part in parts]))


@dataclass(frozen=True, slots=True)
class CodebookFormat:
    """A codebook, scaled so that its largest magnitude is that of the range.

    Args:
        bits: stored for each element.
        scale: a name of `SCALINGS`: 'free', 'pow2' (rounded up to a power of two), or 'one' (the
            levels as they are; a range is asked for all the same, and makes no difference).

    Raises:
        UsageError: an unknown scaling, or bits that no element can take.
    """

    codebook: Codebook
    bits: float
    scale: Scaling = "free"

    def __post_init__(self) -> None:
        if not 0 < self.bits < math.inf:
            raise UsageError(f"{self.bits:g} bits is out of bounds", "choose more than 0 bits")
        if self.scale not in SCALINGS:
            raise UsageError(f"unknown scaling '{self.scale}'", f"known: {', '.join(SCALINGS)}")

    @property
    def needs_range(self) -> bool:
        return True

    @property
    def family(self) -> Hashable:
        return self.codebook

    def levels(self, lo: Array, hi: Array, exponent: int = 0) -> CodebookLevels:
        reach = np.maximum(np.abs(lo), np.abs(hi))
        scale = SCALINGS[self.scale](reach, self.codebook.largest, exponent)
        return CodebookLevels(scale, exponent=exponent, codebook=self.codebook)
