"""The backward pass of a network: gradients summed up at forks, and works joined.

A tensor that several layers read gets a gradient from each; their sum has new values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hqtool.traffic.fusing.choice import can_fuse
from hqtool.traffic.fusing.graph import Graph
from hqtool.traffic.works import Work, gradient


class Gradient(NamedTuple):
    """The gradient of a layer's output, or what one of its readers adds to it.

    Args:
        made_by: the layer whose work made it.
        looked: a look at it has been paid for.
        is_shared: others read it, too: each operand of a sum has the same gradient.
    """

    made_by: int
    looked: bool
    is_shared: bool = False


def fuse_backward(
    graph: Graph, works: Sequence[tuple[Work, ...]], fuse: frozenset[str]
) -> list[tuple[Work, ...]]:
    """The works of each layer's backward pass, joined to those of the layer after where possible.

    Args:
        works: of each layer's backward pass, as if it stood alone.
    """
    walk = _Walk(graph, fuse, list(works))
    for number in reversed(range(len(graph.layers))):
        walk.step(number)
    return walk.works


@dataclass(slots=True)
class _Walk:
    """The layers so far, from the last one on.

    Args:
        works: of each layer; those of layers so far are joined.
        passed_on: of each layer so far, the gradients of its operands, by the names of works.
    """

    graph: Graph
    fuse: frozenset[str]
    works: list[tuple[Work, ...]]
    passed_on: dict[int, dict[str, Gradient]] = field(default_factory=dict)

    def step(self, number: int) -> None:
        """Sum up what arrives at a layer's output, and join what the layer makes of it."""
        shares = self._shares(number)
        sums = (self._sum(number, shares),) if len(shares) > 1 else ()
        arrived = Gradient(number, looked=True) if sums else (*shares, self._elsewhere)[0]
        if self.graph.layers[number].op == "add":
            self.passed_on[number] = {"grad_input": arrived._replace(is_shared=True)}
            self.works[number] = sums
            return
        own = tuple(self._joined(number, work, arrived) for work in self.works[number])
        self.passed_on[number] = {work.made.name: _made(number, work, arrived) for work in own}
        self.works[number] = sums + own

    @property
    def _elsewhere(self) -> Gradient:
        """What the loss makes, or several layers that each read a part."""
        return Gradient(len(self.works), looked=True, is_shared=True)

    def _shares(self, number: int) -> list[Gradient]:
        """Gradients of a layer's whole output, that made last first; parts are not summed up."""
        shares = [
            self.passed_on[reader].get(name)
            for reader in self.graph.readers[number]
            for source, name in self.graph.whole_operands(reader)
            if source == number
        ]
        return sorted((each for each in shares if each), key=lambda each: each.made_by)

    def _sum(self, number: int, shares: list[Gradient]) -> Work:
        """The sum of the gradients of one tensor, joined to the work that makes the last of them.

        It is what the readers of the tensor pass on, and is quantized as that.
        """
        output = gradient(self.graph.tensors[number].output)._replace(kind="grad_input")
        work = Work("backward", output, (output,) * len(shares), quantizes=True)
        if "add" not in self.fuse or not self._is_next(number, shares[0]):
            return work
        return _on_chip(work._replace(reads=work.reads[1:]), shares[0], shares[0].is_shared)

    def _joined(self, number: int, work: Work, arrived: Gradient) -> Work:
        is_fused = can_fuse(self.graph.layers[number], self.fuse, trains=True)
        if work.made.kind != "grad_input" or not is_fused or not self._is_next(number, arrived):
            return work
        others = (each for each in self.works[number] if each is not work)
        is_kept = arrived.is_shared or any(_reads_gradient(each) for each in others)
        left = tuple(each for each in work.reads if each.name != "grad_output")
        return _on_chip(work._replace(reads=left), arrived, is_kept)

    def _is_next(self, number: int, arrived: Gradient) -> bool:
        """Whether nothing is computed between the work that made a gradient and this layer's."""
        between = range(number + 1, arrived.made_by)
        return arrived != self._elsewhere and not any(self.works[each] for each in between)


def _on_chip(work: Work, arrived: Gradient, is_kept: bool) -> Work:
    """A work on a gradient as it is made, whose save and look are then those of the result."""
    if is_kept:
        return work
    return work._replace(saves=False, quantizes=work.quantizes and not arrived.looked)


def _made(number: int, work: Work, arrived: Gradient) -> Gradient:
    return Gradient(number, work.quantizes or (arrived.looked and not work.saves))


def _reads_gradient(work: Work) -> bool:
    return any(each.name == "grad_output" for each in work.reads)
