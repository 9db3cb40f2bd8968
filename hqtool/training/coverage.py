"""How much of what a network multiplies is quantized, and why the rest is not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

#: Why layers that a recipe gives nothing are not quantized.
EXCLUDED = "excluded by the recipe"


@dataclass(slots=True)
class Coverage:
    """Counts multiplications of forward passes that trained or may train.

    A layer's count as quantized where the recipe gives it any quantizer that can be reached.

    Args:
        quantized: how many were.
        excluded: how many the recipe leaves alone.
        missed: reason → how many could not be reached.
    """

    quantized: int = 0
    excluded: int = 0
    missed: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """All of them."""
        return self.quantized + self.excluded + sum(self.missed.values())

    @property
    def share(self) -> float | None:
        """The share quantized; None where nothing was multiplied."""
        return self.quantized / self.total if self.total else None

    def lines(self) -> list[str]:
        """What the user is told at the end."""
        if not self.total:
            return ["coverage: no layer multiplied anything"]
        parts = [f"{self._percent(self.quantized)} of all multiplications quantized"]
        if self.excluded:
            parts.append(f"{self._percent(self.excluded)} {EXCLUDED}")
        missed = sum(self.missed.values())
        if missed:
            parts.append(f"{self._percent(missed)} out of reach")
        reasons = [
            f"  out of reach: {self._percent(count)} {reason}"
            for reason, count in self.missed.most_common()
            if count
        ]
        return ["coverage: " + ", ".join(parts), *reasons]

    def _percent(self, count: int) -> str:
        return f"{100 * count / self.total:.1f} %"

    def to_json(self) -> dict[str, Any]:
        """JSON-safe, for the notes of a trace."""
        return {
            "quantized": self.quantized,
            "excluded": self.excluded,
            "out_of_reach": dict(self.missed),
            "share": self.share,
        }
