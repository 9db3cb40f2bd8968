"""All number formats by name: `FORMATS`, extended by other packages through entry points."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np

from hqtool.core.formats.codebook import Codebook, CodebookFormat
from hqtool.core.formats.floating import floating_codebook
from hqtool.core.formats.format import Format
from hqtool.core.formats.scaling import Scaling
from hqtool.core.formats.uniform import UniformFormat, check_bits
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
    return CodebookFormat(_midrise_codebook(bits), bits)


@lru_cache(maxsize=16)
def _midrise_codebook(bits: int) -> Codebook:
    """In units of the gap."""
    check_bits(bits)
    return Codebook(np.arange(2**bits) - (2**bits - 1) / 2)


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
