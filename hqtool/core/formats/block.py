"""Block formats: a few elements along the channel axis share a scale that they make themselves.

Each is a value: an element format, how many elements form a block, and how the scale of a block
follows from its largest magnitude. An outside package adds one as a function that returns such a
value, named under the entry-point group `hqtool.formats`; a rule of its own for the scale is a
frozen value with three names:

    from dataclasses import dataclass

    from hqtool.core.formats.block import BlockFormat
    from hqtool.core.formats.named import FORMATS


    @dataclass(frozen=True)
    class Headroom:
        '''The largest value of a block on 1/room of the largest level.'''

        room: float = 2.0
        bits = 16  # of a block's scale
        needs_range = False

        def scales(self, amax, element, wanted, xp):
            return self.room * amax / element.largest


    def roomy(element: str = "e3m2", room: float = 2.0):
        '''blocks of 64 with room above their largest value'''
        return BlockFormat(FORMATS.parse(element).value, 64, Headroom(room))
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from hqtool.core.formats.floating import power_of_two
from hqtool.core.formats.format import ElementFormat, Levels
from hqtool.errors import UsageError
from hqtool.nearest import known_names
from hqtool.vocab import Range


class ElementLimits:
    """What block scales must know of the elements, whose levels have a scale of 1.

    Args:
        levels: of the elements, one lane as plain numbers.

    Attributes:
        largest: the highest level: 448 of e4m3.
        exponent: of `largest`, ⌊log2⌋: OCP's emax, 8 of e4m3.
        fraction_bits: how many of them the largest elements have: 3 of e4m3.
    """

    __slots__ = ("exponent", "fraction_bits", "largest")

    def __init__(self, levels: Levels) -> None:
        self.largest = float(levels.highest * levels.scale)
        self.exponent = math.frexp(self.largest)[1] - 1
        self.fraction_bits = self.exponent - math.frexp(levels.high_gap * levels.scale)[1] + 1


class BlockScaling(Protocol):
    """How the scale of a block follows from its largest magnitude: a frozen, hashable value."""

    @property
    def bits(self) -> int:
        """Bits that the scale of one block takes."""
        ...

    @property
    def needs_range(self) -> bool:
        """Whether it needs the range of the whole tensor, which an estimator must give."""
        ...

    def scales(self, amax: Any, element: ElementLimits, wanted: Range, xp: Any = np) -> Any:
        """The scale of each block, 0 where all of it becomes 0.

        Args:
            amax: the largest magnitude of each block's finite values, 0 where it has none.
            wanted: range of the whole tensor; without meaning where `needs_range` is false.
            xp: the namespace of amax: numpy, torch, or another.
        """
        ...


#: Scales that E8M0 can hold (OCP Microscaling Formats 1.0, section 5.4.1).
E8M0_ENDS = 2.0**-127, 2.0**127


def _floor(amax: Any, element: ElementLimits, xp: Any) -> Any:
    """2^(⌊log2 amax⌋ − emax), the OCP default; it clips the largest magnitudes of many blocks."""
    return power_of_two(amax, xp) / 2.0**element.exponent


def _ceil(amax: Any, element: ElementLimits, xp: Any) -> Any:
    """Twice as much where amax is no power of two."""
    return _rounded_up(amax, xp) / 2.0**element.exponent


def _even(amax: Any, element: ElementLimits, xp: Any) -> Any:
    """As `floor` of amax rounded to the element's fraction bits, halves up."""
    below = power_of_two(amax, xp)
    carries = amax >= below * (2.0 - 2.0 ** -(element.fraction_bits + 1))
    return xp.where(carries, 2.0 * below, below) / 2.0**element.exponent


def _rceil(amax: Any, element: ElementLimits, xp: Any) -> Any:
    """2^⌈log2(amax / largest)⌉: the smallest that clips nothing; TransformerEngine's."""
    return _rounded_up(amax / element.largest, xp)


def _rounded_up(y: Any, xp: Any) -> Any:
    """The smallest power of two that is no less; 0 of 0."""
    below = power_of_two(y, xp)
    return xp.where(y > below, 2.0 * below, below)


#: Name → the scale (torchao, mx_tensor.py; FIELD: Microscaling).
SCALE_RULES: dict[str, Callable[[Any, ElementLimits, Any], Any]] = {
    "floor": _floor,
    "ceil": _ceil,
    "even": _even,
    "rceil": _rceil,
}


@dataclass(frozen=True, slots=True)
class PowerOfTwo:
    """An E8M0 scale: a power of two from 2^-127 to 2^127, whatever the block would need.

    Args:
        rule: a name of `SCALE_RULES`.

    Raises:
        UsageError: an unknown rule.
    """

    rule: str = "floor"

    def __post_init__(self) -> None:
        if self.rule not in SCALE_RULES:
            cause = f"unknown block scale '{self.rule}'"
            raise UsageError(cause, known_names(self.rule, SCALE_RULES))

    @property
    def bits(self) -> int:
        return 8

    @property
    def needs_range(self) -> bool:
        return False

    def scales(self, amax: Any, element: ElementLimits, wanted: Range, xp: Any = np) -> Any:
        return xp.clip(SCALE_RULES[self.rule](amax, element, xp), *E8M0_ENDS)


@dataclass(frozen=True, slots=True)
class RealScale:
    """A float32 scale that puts the largest magnitude on the largest level.

    DeepSeek-V3 has it for 1×128 and 128×128 tiles of E4M3, TransformerEngine's block scaling with
    `power_of_two`. As with all scales of DESIGN section 3 it is computed in float64.

    Args:
        power_of_two: rounded up to a power of two.
    """

    power_of_two: bool = False

    @property
    def bits(self) -> int:
        return 32

    @property
    def needs_range(self) -> bool:
        return False

    def scales(self, amax: Any, element: ElementLimits, wanted: Range, xp: Any = np) -> Any:
        return _rceil(amax, element, xp) if self.power_of_two else amax / element.largest


@dataclass(frozen=True, slots=True)
class TwoLevels:
    """A floating-point scale of the block, under one float32 scale of the tensor: NVFP4's.

    S = largest scale · largest level / m, with m from the tensor's range; the block's scale is
    amax·S/largest level, rounded to its format and saturated there, and an element's value is
    level · block scale / S. S is at most the largest float32, and 1 where it or m would be 0
    (TransformerEngine, core_nvfp4.cuh). A block whose scale is rounded to 0 becomes 0.

    Args:
        scale: the format of a block's scale.
    """

    scale: ElementFormat

    @property
    def bits(self) -> int:
        return int(self.scale.bits)

    @property
    def needs_range(self) -> bool:
        return True

    def scales(self, amax: Any, element: ElementLimits, wanted: Range, xp: Any = np) -> Any:
        stored = _unit_levels(self.scale)
        of_tensor = self.of_tensor(wanted, self.largest(element))
        return stored.nearest(amax * of_tensor / element.largest, xp) / of_tensor

    def largest(self, element: ElementLimits) -> float:
        """The largest value where S is 1: 448 · 6 of NVFP4."""
        return float(_unit_levels(self.scale).highest * element.largest)

    @staticmethod
    def of_tensor(wanted: Range, largest: float) -> float:
        """S, the scale of the tensor, for `largest` in place of the range's larger magnitude."""
        m = max(abs(wanted.lo), abs(wanted.hi))
        with np.errstate(all="ignore"):
            scale = np.float32(np.float64(largest) / m)
        return float(min(scale, np.finfo(np.float32).max)) if m > 0 and scale > 0 else 1.0


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """Blocks along the channel axis, each with a scale of its own; a last short block as it is.

    Args:
        element: the format of the elements, of levels that do not depend on the range but for
            their scale.
        size: elements along the channel axis that share a scale.
        scaling: the scale of a block.
        rows: how many neighbours along the axes before the channel axis share it, too.
        unit: the value of the element's level 1 in a block of scale 1.

    Raises:
        UsageError: a block without elements.
    """

    element: ElementFormat
    size: int
    scaling: BlockScaling
    rows: int = 1
    unit: float = 1.0

    def __post_init__(self) -> None:
        if self.size < 1 or self.rows < 1:
            raise UsageError("a block has no elements", "give it a size of 1 or more")

    @property
    def bits(self) -> float:
        """Of an element and its share of the block's scale; that of the tensor is not counted."""
        found = self.element.bits + self.scaling.bits / (self.size * self.rows)
        return int(found) if found == int(found) else found

    @property
    def needs_range(self) -> bool:
        return self.scaling.needs_range

    @property
    def largest(self) -> float:
        """The largest value where the scale of the tensor is 1; ∞ where a tensor has none."""
        if not isinstance(self.scaling, TwoLevels):
            return math.inf
        return self.scaling.largest(ElementLimits(_unit_levels(self.element)))

    def levels(self, amax: Any, wanted: Range, exponent: int = 0, xp: Any = np) -> Levels:
        """The levels of blocks, plain numbers but for the scale, which is of amax's shape.

        Args:
            amax: the largest magnitude of each block.
            wanted: the range of the tensor, not divided.
            exponent: e, where amax, and the values to quantize, were divided by 2^e; numpy's.
            xp: the namespace of amax: numpy, torch, or another.
        """
        unit, limits = _of_elements(self.element, self.unit)
        whole = np.ldexp(amax, exponent) if exponent else amax
        scales = self.scaling.scales(whole, limits, wanted, xp) * self.unit
        scales = np.ldexp(scales, -exponent) if exponent else scales
        return replace(unit, scale=scales, exponent=exponent)


@lru_cache(maxsize=256)
def _unit_levels(element: ElementFormat) -> Levels:
    """The levels of a format at scale 1, as plain numbers."""
    one = element.levels(np.array([-1.0]), np.array([1.0])).one()
    return replace(one, scale=1.0)


@lru_cache(maxsize=256)
def _of_elements(element: ElementFormat, unit: float) -> tuple[Levels, ElementLimits]:
    """The levels of a block's elements in a block of scale 1, and their limits."""
    levels = replace(_unit_levels(element), scale=unit)
    return levels, ElementLimits(levels)


def tile_rows(tile: int, size: int) -> int:
    """How many rows share a scale: one, or where `tile` is 1 or the block's size, as many.

    Raises:
        UsageError: another tile.
    """
    if tile not in (0, 1, size):
        raise UsageError(f"tile={tile} is neither 0 nor {size}", f"write tile={size}")
    return size if tile else 1
