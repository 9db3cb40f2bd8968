"""Sizes and counts as people read them."""

from __future__ import annotations


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
