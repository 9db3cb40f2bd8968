"""Joining works of the forward pass.

The first work of a joined group keeps its save and its look, which are then those of the group's
end, of equal size; what is left of the others is what they read beside.
"""

from __future__ import annotations

from hqtool.traffic.fusing.choice import can_fuse
from hqtool.traffic.fusing.graph import Graph
from hqtool.traffic.works import Work


def fuse_forward(
    graph: Graph, works: list[tuple[Work, ...]], fuse: frozenset[str], *, trains: bool
) -> list[Work]:
    """The work of each layer's forward pass, joined to that of the layer before where possible.

    Args:
        works: of each layer, forward and backward.
        trains: a backward pass follows, which reads tensors of this one.
    """
    found: list[Work] = []
    looked: list[bool] = []
    for number, layer in enumerate(graph.layers):
        work = next(work for work in works[number] if work.pass_name == "forward")
        seen = work.quantizes
        if can_fuse(layer, fuse, trains=trains) and _follows(graph, number):
            work = _joined_input(work)
            if not _is_kept(graph, works, number, trains):
                work = work._replace(saves=False, quantizes=seen and not looked[number - 1])
                seen = seen or looked[number - 1]
        found.append(work)
        looked.append(seen)
    return found


def _follows(graph: Graph, number: int) -> bool:
    """Whether a layer reads the one before, whole."""
    before = number - 1
    return before in graph.sources[number] and graph.made(before) == graph.read(number)


def _joined_input(work: Work) -> Work:
    """Without the load of the operand that is on the chip already."""
    return work._replace(reads=tuple(each for each in work.reads if each.name != "input"))


def _is_kept(graph: Graph, works: list[tuple[Work, ...]], number: int, trains: bool) -> bool:
    """Whether the tensor between a layer and the one before is needed in memory all the same."""
    before = number - 1
    if len(graph.readers[before]) > 1:
        return True
    backward = (_backward_reads(works[before], "output"), _backward_reads(works[number], "input"))
    return trains and any(backward)


def _backward_reads(works: tuple[Work, ...], name: str) -> bool:
    backward = (work for work in works if work.pass_name == "backward")
    return any(each.name == name for work in backward for each in work.reads)
