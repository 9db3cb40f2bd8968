"""How much of what a network multiplies is quantized, and why the rest is not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

#: Why layers that a recipe gives nothing are not quantized.
EXCLUDED = "excluded by the recipe"

#: Why products within attention are not quantized, unless a rule names them.
UNNAMED = "products of two activations, which no rule names (types matmul)"


#: What is quantized in part.
STATES = "by their weights alone, within recurrent layers: their states stay as they are"


@dataclass(slots=True)
class Coverage:
    """Counts multiplications of forward passes that trained or may train.

    A layer's count as quantized where the recipe gives it any quantizer that can be reached.

    Args:
        quantized: how many were.
        weight_alone: of these, how many within recurrent layers, whose states stay as they are.
        excluded: how many of layers the recipe leaves alone.
        unnamed: how many of products of two activations, which no rule names.
        missed: reason → how many could not be reached.
    """

    quantized: int = 0
    weight_alone: int = 0
    excluded: int = 0
    unnamed: int = 0
    missed: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """All of them."""
        return self.quantized + self.excluded + self.unnamed + sum(self.missed.values())

    @property
    def share(self) -> float | None:
        """The share quantized; None where nothing was multiplied."""
        return self.quantized / self.total if self.total else None

    def lines(self) -> list[str]:
        """What the user is told at the end."""
        if not self.total:
            return ["coverage: no layer multiplied anything"]
        parts = [f"{self._percent(self.quantized)} of all multiplications quantized"]
        excluded = self.excluded + self.unnamed
        if excluded:
            parts.append(f"{self._percent(excluded)} {EXCLUDED}")
        missed = sum(self.missed.values())
        if missed:
            parts.append(f"{self._percent(missed)} out of reach")
        reasons = [f"  excluded: {self._percent(self.unnamed)} {UNNAMED}"] if self.unnamed else []
        if self.weight_alone:
            reasons.insert(0, f"  quantized: {self._percent(self.weight_alone)} {STATES}")
        reasons += [
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
            "quantized_weight_alone": self.weight_alone,
            "excluded": self.excluded + self.unnamed,
            "excluded_products": self.unnamed,
            "out_of_reach": dict(self.missed),
            "share": self.share,
        }
