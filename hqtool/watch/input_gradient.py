"""The gradient of a layer's input, found in the graph of autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch._C._autograd import _get_sequence_nr
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

#: A node of the graph that reads a tensor, and which of its inputs are that tensor.
ReadingNode = tuple[Node, list[int]]


class InputGradient:
    """The gradient of a tensor as far as one layer contributes to it.

    A hook on the tensor would see the sum over everything that reads it. If the layer read an alias
    of the tensor instead, autograd might add up gradients in another order. So hooks are put on the
    nodes that the layer makes, and the graph stays as it is.

    It must be made before the layer runs, for the layer may change the tensor in place.
    """

    def __init__(self, x: Tensor) -> None:
        self._edge = _edge_of(x)
        self._began = _get_sequence_nr()

    def call(self, act: Callable[[Tensor], None], outputs: Iterable[Tensor]) -> bool:
        """Call `act` with the layer's contribution in each backward pass.

        Args:
            outputs: the layer's outputs.

        Returns:
            whether a backward pass from the outputs reaches the tensor at all.
        """
        readers = self._readers(outputs)
        gradient_sum = _GradientSum(act, len(readers))
        for node, places in readers:
            node.register_hook(gradient_sum.hook(places))
        return bool(readers)

    def _readers(self, outputs: Iterable[Tensor]) -> list[ReadingNode]:
        """The nodes that read the tensor, among those the layer made on the way to its outputs."""
        source, found = self._edge, list[ReadingNode]()
        waiting, met = [output.grad_fn for output in outputs], set[Node]()
        while waiting:
            node = waiting.pop()
            if node is None or node in met or node._sequence_nr() < self._began:
                continue
            met.add(node)
            inputs = node.next_functions
            places = [i for i, each in enumerate(inputs) if each == (source.node, source.output_nr)]
            found += [(node, places)] if places else []
            waiting += [each for each, _ in inputs]
        return found


def _edge_of(x: Tensor) -> GradientEdge:
    """The edge of the graph at which a tensor's gradient arrives."""
    if x.grad_fn is not None or not x.is_nested or x.layout == torch.jagged:
        return get_gradient_edge(x)
    copy = x.clone().grad_fn  # torch would need a view, which such tensors lack
    assert copy is not None
    return GradientEdge(*copy.next_functions[0])  # type: ignore[arg-type]


class _GradientSum:
    """Adds up what several nodes contribute in one backward pass."""

    def __init__(self, act: Callable[[Tensor], None], nodes: int) -> None:
        self._act = act
        self._nodes = nodes
        self._came = 0
        self._sum: Tensor | None = None

    def hook(self, places: Sequence[int]) -> Callable[[Sequence[Tensor | None], object], None]:
        """A node's hook: it is given the gradients of the node's inputs."""

        def hook(gradients: Sequence[Tensor | None], _: object) -> None:
            for place in places:
                self._add(gradients[place])
            self._came += 1
            if self._came == self._nodes:
                self._finish()
            elif self._came == 1:  # the others may not be part of this backward pass
                torch.autograd.Variable._execution_engine.queue_callback(self._finish)

        return hook

    def _add(self, gradient: Tensor | None) -> None:
        if gradient is not None:
            self._sum = gradient if self._sum is None else self._sum + gradient

    def _finish(self) -> None:
        total, self._sum, self._came = self._sum, None, 0
        if total is not None:
            self._act(total)
