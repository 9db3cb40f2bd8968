"""Smoothings: combine a step's reading with those of earlier steps, entry by entry."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from hqtool.core.entry_ranges import each_end, joined_ranges, known_or
from hqtool.vocab import AnyRange, Range


class Smoothing(Protocol):
    """Pure; its memory is a frozen value of its own, in which nobody else looks.

    Where a reading says nothing of an entry, what was known of that entry stays.
    """

    def __call__(self, memory: Any, new: AnyRange) -> Any:
        """The memory after a reading; `memory` is None before the first one."""

    def range(self, memory: Any) -> AnyRange:
        """The smoothed range, of a memory that is not None."""


@dataclass(frozen=True, slots=True)
class Latest:
    """The last reading alone; the memory is the range."""

    def __call__(self, memory: AnyRange | None, new: AnyRange) -> AnyRange:
        return known_or(new, memory)

    def range(self, memory: AnyRange) -> AnyRange:
        return memory


@dataclass(frozen=True, slots=True)
class Ema:
    """Exponential moving average of both ends, eq. 2 and 3: (1−η)·new + η·old; the memory is it.

    Args:
        momentum: η, weight of the OLD value, 0 … 1. The first reading is taken as it is.
    """

    momentum: float

    def __post_init__(self) -> None:
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum={self.momentum:g} lies outside 0…1")

    def __call__(self, memory: AnyRange | None, new: AnyRange) -> AnyRange:
        return new if memory is None else each_end(self._mix, memory, new)

    def range(self, memory: AnyRange) -> AnyRange:
        return memory

    def _mix(self, old: Any, new: Any) -> Any:
        return (1 - self.momentum) * new + self.momentum * old


class Window(NamedTuple):
    """The widest ends of some readings, and these readings."""

    range: AnyRange
    readings: tuple[AnyRange, ...]


@dataclass(frozen=True, slots=True)
class WindowMax:
    """The widest ends of the last `window` steps' readings.

    An entry of which these readings say nothing keeps the range that it had.

    Args:
        window: number of steps whose readings are kept, ≥ 1.
    """

    window: int

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window={self.window} is less than 1")

    def __call__(self, memory: Window | None, new: AnyRange) -> Window:
        readings = (*(memory.readings if memory else ()), new)[-self.window :]
        return Window(known_or(joined_ranges(readings), memory and memory.range), readings)

    def range(self, memory: Window) -> AnyRange:
        return memory.range


@dataclass(frozen=True, slots=True)
class Widest:
    """The widest ends of all readings so far; the memory is the range."""

    def __call__(self, memory: AnyRange | None, new: AnyRange) -> AnyRange:
        return new if memory is None else joined_ranges((memory, new))

    def range(self, memory: AnyRange) -> AnyRange:
        return memory


class MeanExponent(NamedTuple):
    """±mantissa·2^exponent, the exponent not yet rounded, the mantissa of ½ … 1."""

    mantissa: float
    exponent: float


@dataclass(frozen=True, slots=True)
class ExponentEma:
    """Exponential moving average of the exponents of ranges ±m·2^e, taken at its nearest integer.

    For statistics whose readings, all ±hi, differ by powers of two alone.

    Args:
        momentum: weight of the OLD exponent, 0 … 1. The first reading is taken as it is.
    """

    momentum: float

    def __post_init__(self) -> None:
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum={self.momentum:g} lies outside 0…1")

    def __call__(self, memory: MeanExponent | None, new: AnyRange) -> MeanExponent:
        assert isinstance(new, Range)
        mantissa, exponent = math.frexp(new.hi)
        if memory is None:
            return MeanExponent(mantissa, exponent)
        mean = (1 - self.momentum) * exponent + self.momentum * memory.exponent
        return MeanExponent(mantissa, mean)

    def range(self, memory: MeanExponent) -> Range:
        reach = math.ldexp(memory.mantissa, math.floor(memory.exponent + 0.5))
        return Range(-reach, reach)
