"""Which layer of a network reads which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hqtool.traffic.layers import Layer
from hqtool.traffic.works import Tensors


@dataclass(frozen=True, slots=True)
class Graph:
    """Layers by their number in the order in which they are computed.

    Args:
        tensors: W, X and Y of one repeat of each.
        sources: of each layer, those whose outputs are its operands, as far as they are told.
        readers: of each layer, those that read its output.
    """

    layers: Sequence[Layer]
    tensors: tuple[Tensors, ...]
    sources: tuple[tuple[int, ...], ...]
    readers: tuple[tuple[int, ...], ...]

    def made(self, number: int) -> int:
        """Elements that a layer and its repeats make."""
        return self.tensors[number].output.numel * self.layers[number].repeat

    def read(self, number: int) -> int:
        """Elements of the first operand of a layer and its repeats."""
        return self.tensors[number].input.numel * self.layers[number].repeat

    def whole_operands(self, number: int) -> list[tuple[int, str]]:
        """Each source that a layer reads the whole output of, and which of its gradients is its.

        Several sources of one operand are joined to one tensor, each a part of it.
        """
        sources, layer = self.sources[number], self.layers[number]
        names, sizes = ["grad_input"] * len(sources), [self.read(number)]
        if layer.op == "matmul":
            names = ["grad_input", "grad_other"]
            sizes.append(self.tensors[number].weight.numel * layer.repeat)
        elif len(sources) > 1:
            sizes = [self.made(source) for source in sources]
        each = zip(sources, names, sizes, strict=False)
        return [(source, name) for source, name, size in each if size == self.made(source)]


def graph_of(layers: Sequence[Layer]) -> Graph:
    """A layer that names no sources reads the one before, the first one the network's input.

    A source that is no earlier layer is passed over: it may be an input of the network.
    """
    sources: list[tuple[int, ...]] = []
    numbers: dict[str, int] = {}
    for number, layer in enumerate(layers):
        before = (number - 1,) if number else ()
        named = tuple(numbers[name] for name in layer.sources if name in numbers)
        sources.append(named if layer.sources else before)
        numbers[layer.name] = number
    readers: list[list[int]] = [[] for _ in layers]
    for number, each in enumerate(sources):
        for source in dict.fromkeys(each):
            readers[source].append(number)
    tensors = tuple(layer.tensors() for layer in layers)
    return Graph(layers, tensors, tuple(sources), tuple(map(tuple, readers)))
