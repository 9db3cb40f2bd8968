"""What a number format is, and what it makes of a range: levels, which both engines ask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

#: A value is saturated when it lies more than so many gaps beyond an end of the levels: half a gap
#: is the rounding error of any value; the rest allows for errors of the arithmetic.
BEYOND = 0.5 + 1e-6


class Format(Protocol):
    """How numbers are stored: a frozen, hashable value."""

    def __hash__(self) -> int: ...

    @property
    def bits(self) -> float:
        """Bits stored for each element, scales included; an int where it is whole."""
        ...

    @property
    def needs_range(self) -> bool:
        """Whether an estimator must give it a range; not where each block scales itself."""
        ...


class ElementFormat(Format, Protocol):
    """A format that stores each element by itself, and makes levels of a range."""

    @property
    def family(self) -> Hashable:
        """Formats of one family make levels of one class that can be joined."""
        ...

    def levels(self, lo: Array, hi: Array, exponent: int = 0) -> Levels:
        """The levels over each range (lo, hi), one lane for each.

        Args:
            lo, hi: in the unit of the values that are quantized.
            exponent: e, where these values, and so lo and hi, were divided by 2^e.
        """
        ...


class Gaps(NamedTuple):
    """How far apart levels are, in units of the scale, that lie alike on both sides of 0.

    Args:
        relative: of floating point, the gap at y is this times 2^⌊log2|y|⌋ clamped to the next
            two; 0 of whole numbers, whose gap is 1.
        least_power, greatest_power: what the power of two is clamped to.
        below, above: the levels of floating point that would follow beyond the ends.
    """

    relative: float = 0.0
    least_power: float = 0.0
    greatest_power: float = 0.0
    below: float = 0.0
    above: float = 0.0

    @property
    def at_zero(self) -> float:
        """Between 0 and the levels next to it."""
        return self.relative * self.least_power or 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Levels(ABC):
    """The representable values of many lanes of one family: level × scale, level ascending.

    A lane is one range in one format. What is asked for one lane or for many is answered alike:
    the fields have one entry a lane, or are columns (`as_columns`), or plain numbers (`one`);
    values y, in units of the scale, are of any shape that goes with them.

    Args:
        scale: Δ or s, in the tensor's own unit divided by 2^exponent; 0 quantizes all to 0.
        exponent: e, where the values to quantize are divided by 2^e.
    """

    scale: Any
    exponent: int = field(default=0, kw_only=True)

    # --- in units of the scale, for numpy, torch and any namespace of the array API standard

    @property
    @abstractmethod
    def lowest(self) -> Any:
        """The lowest level."""

    @property
    @abstractmethod
    def highest(self) -> Any:
        """The highest level."""

    @property
    @abstractmethod
    def low_gap(self) -> Any:
        """The gap between the lowest level and the next."""

    @property
    @abstractmethod
    def high_gap(self) -> Any:
        """The gap between the highest level and the one before."""

    @property
    def gaps(self) -> Gaps | None:
        """How far apart the levels are; None where it takes more than that to find them."""
        return None

    @abstractmethod
    def nearest(self, y: Any, xp: Any = np) -> Any:
        """The level nearest to each value, ties to even."""

    def nearest_for_sums(self, y: Array) -> Array:
        """`nearest`, but a level 0 may have either sign, where that is faster to find."""
        found: Array = self.nearest(y)
        return found

    @abstractmethod
    def neighbours(self, y: Any, xp: Any = np) -> tuple[Any, Any]:
        """The levels l ≤ y < u of each value; beyond an end they go on at the gap there."""

    @abstractmethod
    def drawn(self, y: Any, noise: Any, xp: Any = np) -> Any:
        """One of the `neighbours`: the upper one where (y−l)/(u−l) + noise ≥ 1.

        Args:
            noise: uniform [0, 1), of y's shape.
        """

    def interval(self, y: Array) -> tuple[Array, Array]:
        """The `neighbours`, but where y is a level: there any of l ≤ y ≤ u that is faster to find.

        Stochastic rounding leaves such a y as it is, whatever the other end.
        """
        return self.neighbours(y)

    def variance(self, y: Array) -> Array:
        """Of stochastic rounding between the levels l ≤ y < u: (y−l)(u−y)."""
        below, above = self.neighbours(y)
        found: Array = (y - below) * (above - y)
        return found

    @abstractmethod
    def chance_of_zero(self, y: Array) -> Array:
        """The probability that stochastic rounding makes a nonzero value 0."""

    def below(self, y: Any, xp: Any = np) -> Any:
        """The largest level ≤ y; below the lowest they go on at the gap there."""
        return self.neighbours(y, xp)[0]

    def above(self, y: Any, xp: Any = np) -> Any:
        """The smallest level > y; above the highest they go on at the gap there."""
        return self.neighbours(y, xp)[1]

    # --- for the sorted engine: all lanes' levels, one lane after the other

    @property
    @abstractmethod
    def sizes(self) -> Indices:
        """How many levels each lane has."""

    @property
    @abstractmethod
    def zero_at(self) -> Indices:
        """Index of the level 0 among each lane's levels; −1 where 0 is no level."""

    @abstractmethod
    def extended(self) -> Array:
        """Each lane's levels, with one more at either end at the gap there, in one array."""

    @abstractmethod
    def edges(self) -> Array:
        """Between neighbours of `extended`, the smallest y that `nearest` puts on the upper one.

        As if the added levels were levels; one fewer a lane than in `extended`.
        """

    # --- lanes

    @abstractmethod
    def changed(self, change: Callable[[Any], Any]) -> Self:
        """The same with every field that has one entry a lane changed alike."""

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The lanes of all parts, one part after the other; all of one family and exponent."""
        return parts[0]._with_lanes_of(parts) if len(parts) > 1 else parts[0]

    @abstractmethod
    def _with_lanes_of(self, parts: Sequence[Self]) -> Self:
        """The lanes of all parts, this one among them."""

    def __len__(self) -> int:
        return int(self.scale.size)

    def at(self, index: Indices | slice) -> Self:
        """The lanes at these indices."""
        return self.changed(lambda each: each[index])

    def one(self, index: int = 0) -> Self:
        """One lane as plain numbers, for arithmetic in any namespace and type."""
        return self.changed(lambda each: each[index].item())

    def as_columns(self, tensors: int = 0) -> Self:
        """For arithmetic with a row of values: (lanes, 1) arrays.

        Args:
            tensors: 0, or among how many the lanes are shared out: (tensors, lanes of each, 1).
        """
        shape = (tensors, -1, 1) if tensors else (-1, 1)
        return self.changed(lambda each: each.reshape(shape))

    def divided(self, exponent: int) -> Self:
        """The same levels for values that were divided by 2^exponent."""
        if exponent == self.exponent:
            return self
        with np.errstate(over="ignore"):
            scale = np.ldexp(self.scale, self.exponent - exponent)
        return replace(self, scale=scale, exponent=exponent)

    @property
    def limits(self) -> tuple[Any, Any]:
        """The lowest and the highest value that is not saturated, in the values' own unit."""
        lowest = (self.lowest - BEYOND * self.low_gap) * self.scale
        return lowest, (self.highest + BEYOND * self.high_gap) * self.scale
