"""The operations of an ONNX graph."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hqtool.traffic.sources.network import Network
from hqtool.traffic.sources.onnx.calls import OnnxCall, OnnxPart, UnknownShape
from hqtool.traffic.sources.onnx.operators import (
    ACTIVATION_OPS,
    ELEMENTWISE_OPS,
    FREE,
    PRODUCTS,
    READERS,
    REDUCTIONS,
    SIZES,
)
from hqtool.traffic.sources.operation import Shape
from hqtool.traffic.sources.seen import ELEMENTWISE, REDUCTION, Place, Seen, network_of


@dataclass(frozen=True, slots=True)
class Node:
    """One node of a graph.

    Args:
        op: its operator, such as "Conv".
        scopes: PyTorch's names of the modules around it, as a list in Python; empty where untold.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    scopes: str = ""


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph in the order in which it runs.

    Args:
        inputs: names of the network's inputs.
        shapes: of each tensor whose shape is known.
        floats: tensors that hold floating point numbers.
        weights: those of them that are given, and are more than one number.
        integers: values of small constants of whole numbers.
    """

    nodes: list[Node]
    inputs: list[str]
    shapes: dict[str, Shape]
    floats: set[str]
    weights: set[str]
    integers: dict[str, list[int]]


def network_of_graph(graph: Graph) -> Network:
    """The operations of a graph, in the order in which they run."""
    first = graph.shapes.get(graph.inputs[0], ()) if graph.inputs else ()
    samples = first[0] if first else 1
    reading = _Reading(graph, samples)
    seen = [each for node in graph.nodes for each in reading.seen(node)]
    return network_of(seen, samples)


class _Reading:
    """Follows which tensors change with the network's input, and which need gradients."""

    def __init__(self, graph: Graph, samples: int) -> None:
        self._samples = samples
        self._graph = graph
        self._active = set(graph.inputs)
        self._trained = set[str]()
        self._products = set[str]()
        self._same: dict[str, str] = {}  # tensor → the one that it is a view of
        self._places = _places(graph.nodes)

    def seen(self, node: Node) -> Iterator[Seen]:
        """The operations of a node; none where it moves nothing, or could be computed ahead."""
        is_active = node.op not in SIZES and any(name in self._active for name in node.inputs)
        parts = self._parts(node) if is_active else []
        self._active |= set(node.outputs) if is_active else set()
        self._products |= set(node.outputs) if node.op in PRODUCTS else set()
        needs_gradient = any(n in self._trained or n in self._graph.weights for n in node.inputs)
        if self._is_free(node) and node.inputs:
            of = next((name for name in node.inputs if name in self._active), node.inputs[0])
            self._same |= dict.fromkeys(node.outputs, self._origin(of))
        yield from self._seen(node, parts)
        self._trained |= set(node.outputs) if needs_gradient else set()

    def _parts(self, node: Node) -> list[OnnxPart | None]:
        if self._is_free(node) or not any(name in self._graph.floats for name in node.outputs):
            return []
        try:
            reader = READERS.get(node.op)
            return [*(reader(self._call(node)) if reader else ())] or [None]
        except UnknownShape:
            return [None]

    def _is_free(self, node: Node) -> bool:
        """Whether a node moves nothing: a view, or a bias that is added to a product."""
        shapes = self._graph.shapes
        if node.op == "Gather":  # of one index
            return node.inputs[1] in self._graph.integers and shapes[node.inputs[1]] == ()
        if node.op != "Add":
            return node.op in FREE
        sides = sorted(node.inputs, key=lambda name: name not in self._products)
        is_bias = sides[1] not in self._active and len(shapes.get(sides[1], (0, 0))) == 1
        return sides[0] in self._products and is_bias

    def _seen(self, node: Node, parts: Sequence[OnnxPart | None]) -> Iterator[Seen]:
        before: tuple[Hashable, ...] = ()
        for number, part in enumerate(parts):
            is_last = number == len(parts) - 1
            makes: tuple[Hashable, ...] = node.outputs if is_last else ((node.outputs, number),)
            yield self._one(node, part, before, makes)
            before = makes

    def _one(
        self,
        node: Node,
        part: OnnxPart | None,
        before: tuple[Hashable, ...],
        makes: tuple[Hashable, ...],
    ) -> Seen:
        shapes, weight = self._graph.shapes, None if part is None else part.weight
        indices = range(len(node.inputs)) if part is None else part.reads
        names = [node.inputs[i] for i in indices if i >= 0 and node.inputs[i] in self._active]
        follows = part is not None and (not part.reads or -1 in part.reads) and bool(before)
        needs_gradient = follows or any(name in self._trained for name in names)
        path = self._places[id(node)].path  # an exporter may let equal weights share one name
        return Seen(
            place=self._places[id(node)],
            label=node.op.lower() if part is None else part.label,
            keys=None if part is None else part.keys,
            own_name=None if weight is None or path else _module_of(node.inputs[weight]),
            step=_step(node.op),
            reads=(*(before if follows else ()), *map(self._origin, names)),
            makes=makes,
            x=shapes.get(names[0], ()) if names else (),
            y=shapes.get(node.outputs[0], ()),
            grad_input=needs_gradient,
        )

    def _call(self, node: Node) -> OnnxCall:
        graph = self._graph
        return OnnxCall(
            op=node.op,
            attributes=node.attributes,
            inputs=node.inputs,
            x=tuple(map(graph.shapes.get, node.inputs)),
            y=tuple(map(graph.shapes.get, node.outputs)),
            active=tuple(name in self._active for name in node.inputs),
            floats=tuple(name in graph.floats for name in node.inputs),
            samples=self._samples,
            integers=tuple(map(graph.integers.get, node.inputs)),
        )

    def _origin(self, name: str) -> str:
        return self._same.get(name, name)


# --- names --------------------------------------------------------------------------------------


def _places(nodes: Sequence[Node]) -> dict[int, Place]:
    """Where each node runs, by its identity: successive nodes of one module are one call of it."""
    paths = {id(node): _path_of(node) for node in nodes}
    known = set(paths.values())
    inner = {path.rpartition(".")[0] for path in known} | {""}
    found = dict[int, Place]()
    for path, group in itertools.groupby(nodes, lambda node: paths[id(node)]):
        place = Place(path, is_leaf=path not in inner)
        found |= dict.fromkeys(map(id, group), place)
    return found


def _path_of(node: Node) -> str:
    """The qualified name of the module that a node is part of, by what PyTorch's exporters write.

    Names such as /layer1/layer1.0/conv1/Conv, or a list of the names of the modules around it.
    """
    if node.scopes:
        scopes = ast.literal_eval(node.scopes)
        return str(scopes[-2]) if len(scopes) > 1 else ""
    parts = node.name.strip("/").split("/")[:-1] if node.name.startswith("/") else []
    path: list[str] = []
    for part in parts:
        if path and part.startswith(f"{path[-1]}."):
            path[-1] = part
        else:
            path.append(part)
    return ".".join(path)


def _module_of(weight: str) -> str | None:
    """The module of a weight that is named as PyTorch names parameters; None of any other."""
    name, _, last = weight.rpartition(".")
    return name if last == "weight" else None


def _step(op: str) -> str:
    if op in REDUCTIONS:
        return REDUCTION
    return ELEMENTWISE if op in (*ACTIVATION_OPS, *ELEMENTWISE_OPS) else ""
