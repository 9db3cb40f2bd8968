"""All number formats by name: `FORMATS`, extended by other packages through entry points."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np

from hqtool.core.formats.block import BlockFormat, PowerOfTwo, RealScale, TwoLevels, tile_rows
from hqtool.core.formats.codebook import Codebook, CodebookFormat
from hqtool.core.formats.floating import floating_codebook
from hqtool.core.formats.format import Format
from hqtool.core.formats.householder import HouseholderFormat
from hqtool.core.formats.midrise import midrise_codebook
from hqtool.core.formats.scaling import Scaling
from hqtool.core.formats.uniform import UniformFormat
from hqtool.registry import Registry

#: Every format by name. A new one is a function that returns it; outside packages name theirs in
#: the entry-point group.
FORMATS: Registry[Format] = Registry("format", "hqtool.formats", ("bits", "needs_range"))


def _widths(suffix: str = "") -> list[str]:
    return [f"int{bits}{suffix}" for bits in range(2, 17)]


@FORMATS.family("intN", r"int(?P<bits>\d+)", _widths())
def asymmetric(bits: int) -> Format:
    """N bits, 2 to 16: levels of equal distance over the range and 0, with a zero point"""
    return UniformFormat(bits)


@FORMATS.family("intN-symmetric", r"int(?P<bits>\d+)-symmetric", _widths("-symmetric"))
def symmetric(bits: int) -> Format:
    """levels −(2^(N−1)−1) … 2^(N−1)−1: one code is left unused, 0 is in the middle"""
    return UniformFormat(bits, "symmetric")


@FORMATS.family("intN-fullrange", r"int(?P<bits>\d+)-fullrange", _widths("-fullrange"))
def fullrange(bits: int) -> Format:
    """levels −2^(N−1) … 2^(N−1)−1 over ±m, gap 2m/(2^N−1), as torch.ao's symmetric qint8"""
    return UniformFormat(bits, "fullrange")


@FORMATS.family("intN-midrise", r"int(?P<bits>\d+)-midrise", _widths("-midrise"))
def midrise(bits: int) -> Format:
    """2^N levels (2i/(2^N−1)−1)·m: as far apart over ±m, 0 halfway between two (DoReFa [24])"""
    return CodebookFormat(midrise_codebook(bits), bits)


@FORMATS.family(
    "eXmY",
    r"e(?P<exponent_bits>\d+)m(?P<mantissa_bits>\d+)",
    ["e4m3", "e5m2", "e3m2", "e2m3", "e2m1", "e3m0", "e5m10", "e8m7"],
)
def floating(exponent_bits: int, mantissa_bits: int, scale: Scaling = "free") -> Format:
    """floating point, X bits of exponent, Y of mantissa (e4m3, e5m2, e2m1, … as OCP has them)"""
    codebook = floating_codebook(exponent_bits, mantissa_bits)
    return CodebookFormat(codebook, 1 + exponent_bits + mantissa_bits, scale)


@FORMATS.register
def fp4_radix4(scale: Scaling = "free", phase: Literal["even", "odd"] = "even") -> Format:
    """0, ±4^0 … ±4^6, and of phase odd their doubles, which only scale=one can tell apart [19]"""
    return CodebookFormat(_radix4_codebook(2.0 if phase == "odd" else 1.0), 4, scale)


@lru_cache(maxsize=2)
def _radix4_codebook(factor: float) -> Codebook:
    positive = factor * 4.0 ** np.arange(7)
    return Codebook(np.concatenate([-positive[::-1], [0.0], positive]))


#: A name of `SCALE_RULES`.
Rule = Literal["floor", "ceil", "even", "rceil"]


@FORMATS.register
def mxfp8(scale: Rule = "floor") -> Format:
    """blocks of 32 e4m3 under a power of two (OCP MX); scale=rceil clips nothing"""
    return BlockFormat(_floats(4, 3), 32, PowerOfTwo(scale))


@FORMATS.register
def mxfp8_e5m2(scale: Rule = "floor") -> Format:
    """blocks of 32 e5m2 under a power of two (OCP MX)"""
    return BlockFormat(_floats(5, 2), 32, PowerOfTwo(scale))


@FORMATS.register
def mxfp6_e3m2(scale: Rule = "floor") -> Format:
    """blocks of 32 e3m2 under a power of two (OCP MX)"""
    return BlockFormat(_floats(3, 2), 32, PowerOfTwo(scale))


@FORMATS.register
def mxfp6_e2m3(scale: Rule = "floor") -> Format:
    """blocks of 32 e2m3 under a power of two (OCP MX)"""
    return BlockFormat(_floats(2, 3), 32, PowerOfTwo(scale))


@FORMATS.register
def mxfp4(scale: Rule = "floor") -> Format:
    """blocks of 32 e2m1 under a power of two (OCP MX)"""
    return BlockFormat(_floats(2, 1), 32, PowerOfTwo(scale))


@FORMATS.register
def mxint8(scale: Rule = "floor") -> Format:
    """blocks of 32 levels k/64, k = −128 … 127, under a power of two (OCP MX; −2 is used)"""
    return BlockFormat(UniformFormat(8, "fullrange"), 32, PowerOfTwo(scale), unit=1 / 64)


@FORMATS.register
def nvfp4(tile: int = 0) -> Format:
    """blocks of 16 e2m1 under e4m3 scales, and those under one of the tensor; tile=16: 16×16"""
    return BlockFormat(_floats(2, 1), 16, TwoLevels(_floats(4, 3)), tile_rows(tile, 16))


@FORMATS.family(
    "eXmY-blockN",
    r"e(?P<exponent_bits>\d+)m(?P<mantissa_bits>\d+)-block(?P<size>\d+)",
    ["e4m3-block128", "e5m2-block128"],
)
def float_blocks(
    exponent_bits: int,
    mantissa_bits: int,
    size: int,
    scale: Literal["free", "pow2"] = "free",
    tile: int = 0,
) -> Format:
    """blocks of N eXmY under a float32 scale, amax onto the largest level; tile=N: N×N"""
    element = _floats(exponent_bits, mantissa_bits)
    return BlockFormat(element, size, RealScale(scale == "pow2"), tile_rows(tile, size))


@FORMATS.family(
    "intB-blockN", r"int(?P<bits>\d+)-block(?P<size>\d+)", ["int8-block32", "int4-block32"]
)
def integer_blocks(
    bits: int, size: int, scale: Literal["free", "pow2"] = "free", tile: int = 0
) -> Format:
    """blocks of N integers −(2^(B−1)−1) … 2^(B−1)−1 under a float32 scale; tile=N: N×N (Jetfire)"""
    element = UniformFormat(bits, "symmetric")
    return BlockFormat(element, size, RealScale(scale == "pow2"), tile_rows(tile, size))


@FORMATS.family("bhqN", r"bhq(?P<bits>\d+)", ["bhq4", "bhq8"])
def householder(bits: int) -> Format:
    """samples mixed in blocks by reflections, a range for each mixed one: StatQuant's BHQ [2]"""
    return HouseholderFormat(UniformFormat(bits))


def _floats(exponent_bits: int, mantissa_bits: int) -> CodebookFormat:
    codebook = floating_codebook(exponent_bits, mantissa_bits)
    return CodebookFormat(codebook, 1 + exponent_bits + mantissa_bits)
