"""Sizes and counts as people read them."""

from __future__ import annotations

import re
from fractions import Fraction

#: Unit → bytes. Units of 1000 are left out of sizes: memories are built in powers of two, and
#: papers write KB for KiB.
BINARY_UNITS = {"": 1, "B": 1, **{f"{letter}iB": 1024**i for i, letter in enumerate("KMGT", 1)}}
DECIMAL_UNITS = {f"{letter}B": 1000**i for i, letter in enumerate(("k", "M", "G", "T"), 1)}


def read_bytes(text: str) -> int | None:
    """Bytes of a text such as '64KiB', '1.5 MiB' or '4096', rounded down; None of any other."""
    found = read_amount(text, BINARY_UNITS)
    return None if found is None else int(found)


def read_amount(text: str, units: dict[str, int]) -> Fraction | None:
    """A number and its unit, exact; None where a text is anything else.

    Args:
        units: unit → how many it stands for.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)", text.strip())
    if found is None or found[2] not in units:
        return None
    return Fraction(found[1]) * units[found[2]]


def binary_bytes(amount: float) -> str:
    """Bytes in the largest of B, KiB, MiB, GiB, TiB that leaves at least 1 (KiB = 1024 B)."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(amount) < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A count and what it counts: '1 step', '2,000 steps'.

    Args:
        plural: of a noun that does not merely take an s.
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"
