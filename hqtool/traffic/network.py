"""The works of a network's layers in the passes that are billed."""

from __future__ import annotations

from collections.abc import Sequence

from hqtool.traffic.fusing.backward import fuse_backward
from hqtool.traffic.fusing.choice import DEFAULT_FUSE
from hqtool.traffic.fusing.forward import fuse_forward
from hqtool.traffic.fusing.graph import graph_of
from hqtool.traffic.layers import Layer
from hqtool.traffic.works import PASSES, Work


def network_works(
    layers: Sequence[Layer], pass_name: str, fuse: frozenset[str] = DEFAULT_FUSE
) -> list[tuple[Work, ...]]:
    """For each layer the works of one of its repeats, in one of `PASSES`.

    Args:
        layers: in the order in which they are computed.
        fuse: operations that are joined to the one before where they can be.

    Raises:
        DataError: a layer's geometry is impossible.
    """
    graph, passes = graph_of(layers), PASSES[pass_name]
    works = [layer.works() for layer in layers]
    forward = fuse_forward(graph, works, fuse, trains="backward" in passes)
    backward = fuse_backward(graph, [_of_pass(each, "backward") for each in works], fuse)
    found = zip(forward, backward, strict=True)
    return [tuple(w for w in (first, *rest) if w.pass_name in passes) for first, rest in found]


def _of_pass(works: Sequence[Work], pass_name: str) -> tuple[Work, ...]:
    return tuple(work for work in works if work.pass_name == pass_name)
