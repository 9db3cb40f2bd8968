"""One node of an ONNX graph, and the operations of a layer spec that it computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from hqtool.traffic.sources.operation import Keys, Shape


@dataclass(frozen=True, slots=True)
class OnnxCall:
    """One node, with what is known of its tensors.

    Args:
        inputs: names; empty where an optional one is left out.
        x, y: shapes of its inputs and outputs; None where unknown.
        active: of each input, whether it changes with the network's input.
        floats: of each input, whether it holds floating point numbers.
        samples: N, the number of samples that the network reads at once.
        integers: the values of an input of whole numbers; None where it is no constant.
    """

    op: str
    attributes: dict[str, Any]
    inputs: tuple[str, ...]
    x: tuple[Shape | None, ...]
    y: tuple[Shape | None, ...]
    active: tuple[bool, ...]
    floats: tuple[bool, ...]
    samples: int
    integers: tuple[list[int] | None, ...]

    def shape(self, index: int = 0) -> Shape:
        """The shape of an input.

        Raises:
            UnknownShape: it is not known, or there is no such input.
        """
        found = self.x[index] if index < len(self.x) else None
        if found is None:
            raise UnknownShape
        return found

    def result(self) -> Shape:
        """The shape of the first output; raises as `shape` does."""
        if self.y[0] is None:
            raise UnknownShape
        return self.y[0]

    def has(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.inputs) and bool(self.inputs[index])


class UnknownShape(Exception):
    """A shape cannot be told from the model."""


@dataclass(frozen=True, slots=True)
class OnnxPart:
    """One operation of a layer spec; see `seen.Seen`.

    Args:
        reads: which inputs are activations that it reads, in the order of operands.
        weight: which input is its weight; None where it has none.
    """

    label: str
    keys: Keys
    reads: tuple[int, ...] = (0,)
    weight: int | None = None


Reader = Callable[[OnnxCall], Iterator[OnnxPart]]
