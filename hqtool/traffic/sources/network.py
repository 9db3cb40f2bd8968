"""A network as seen: its operations in the order in which they run, and what has no bill."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hqtool.errors import DataError
from hqtool.traffic.layers import Layer, layer_from_json


@dataclass(slots=True)
class Network:
    """What was seen of a network.

    Attributes:
        operations: name → the table of a layer spec, in the order in which they run.
        unbilled: operator → how often it moved tensors that no layer of a spec stands for.
        first_at: operator → where it first did.
    """

    operations: dict[str, dict[str, Any]] = field(default_factory=dict)
    unbilled: Counter[str] = field(default_factory=Counter)
    first_at: dict[str, str] = field(default_factory=dict)
    _met: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, keys: Mapping[str, Any]) -> str:
        """Add an operation; returns its name, which gets a number, from #2, if it recurs."""
        self._met[name] += 1
        own = name if self._met[name] == 1 else f"{name}#{self._met[name]}"
        self.operations[own] = {"name": own, **keys}
        return own

    def leave_out(self, operator: str, where: str) -> None:
        """Note an operation that moves tensors and has no bill."""
        self.unbilled[operator] += 1
        self.first_at.setdefault(operator, where)

    def layers(self, source: str) -> tuple[Layer, ...]:
        """The layers of a spec.

        Args:
            source: what errors call the network.

        Raises:
            DataError: it has none.
        """
        if not self.operations:
            cause = f"{source}: no operation of it has a bill"
            remedy = "the bill knows products, sums, norms, poolings, activations and embeddings"
            raise DataError(cause, remedy)
        return tuple(map(layer_from_json, self.operations.values()))

    def notes(self) -> tuple[str, ...]:
        """The operations without a bill, in one sentence; none where there are none."""
        if not self.unbilled:
            return ()
        counts = (f"{_times(n)}{name}{self._where(name)}" for name, n in self.unbilled.items())
        return (f"not billed, though they move tensors: {', '.join(counts)}",)

    def _where(self, operator: str) -> str:
        where = self.first_at[operator]
        return f" ({'first ' * (self.unbilled[operator] > 1)}in {where})" if where else ""


def _times(count: int) -> str:
    return f"{count} × " if count > 1 else ""
