"""Sizes as people read them."""

from __future__ import annotations


def binary_bytes(amount: float) -> str:
    """Bytes in the largest of B, KiB, MiB, GiB, TiB that leaves at least 1 (KiB = 1024 B)."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(amount) < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
