"""Sizes that an ONNX model computes from the shapes of its tensors, worked out ahead.

ONNX's own inference of shapes knows few of the operators that such sizes are computed with: a chunk
of a third, for one, is unknown to it, and all that follows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqtool.traffic.sources.operation import Shape

#: Larger constants are weights, whose values shapes do not depend on.
SMALL = 1024

#: What sizes are computed with. Only ConstantOfShape makes more than the operands together hold.
_OPS = {
    *("Shape", "Size", "Constant", "Identity", "Cast", "Gather", "Slice", "Concat", "Split"),
    *("Squeeze", "Unsqueeze", "Reshape", "Flatten", "Transpose", "ReduceProd", "ReduceSum"),
    *("Add", "Sub", "Mul", "Div", "Mod", "Neg", "Abs", "Min", "Max", "Floor", "Ceil", "Sqrt"),
    *("Equal", "Less", "Greater", "Not", "And", "Or", "Where"),
    "ConstantOfShape",
}

Values = NDArray[Any]


def with_shapes(model: Any) -> Any:
    """The model with the shape of every tensor that can be told, and with sizes as constants.

    Raises:
        onnx.shape_inference.InferenceError: its shapes do not fit.
    """
    import onnx

    known = {name: values for each in model.graph.initializer for name, values in _small(each)}
    while True:
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        found = _worked_out(model, known)
        if not found:
            return model
        known |= found
        _keep(model.graph, found)


def known_shape(value: Any) -> Shape | None:
    """The shape that a model tells of a tensor; None where a dimension is not known."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape") or not all(d.HasField("dim_value") for d in tensor.shape.dim):
        return None
    return tuple(d.dim_value for d in tensor.shape.dim)


def _small(tensor: Any) -> list[tuple[str, Values]]:
    import onnx

    if tensor.external_data or math.prod(tensor.dims) > SMALL:
        return []
    return [(tensor.name, onnx.numpy_helper.to_array(tensor))]


def _worked_out(model: Any, known: Mapping[str, Values]) -> dict[str, Values]:
    """Sizes that can be computed from what is known, by their names."""
    graph, values = model.graph, dict(known)
    told = (*graph.input, *graph.value_info)
    shapes = {each.name: shape for each in told if (shape := known_shape(each)) is not None}
    opsets = {each.domain: each.version for each in model.opset_import}
    for node in graph.node:
        if node.op_type in _OPS and node.output[0] not in values:
            results = _results(node, shapes, values, opsets)
            if all(each.size <= SMALL for each in results):
                values |= zip(node.output, results, strict=False)
    return {name: found for name, found in values.items() if name not in known}


def _results(
    node: Any, shapes: Mapping[str, Shape], values: Mapping[str, Values], opsets: dict[str, int]
) -> list[Values]:
    """What a node computes; nothing where an operand is not known, or ONNX's own code refuses."""
    from onnx.reference import ReferenceEvaluator

    operands = [name for name in node.input if name]
    if node.op_type in ("Shape", "Size"):
        values = {n: np.broadcast_to(np.float32(0), shapes[n]) for n in operands if n in shapes}
    if any(name not in values for name in operands):
        return []
    if node.op_type == "ConstantOfShape" and math.prod(values[operands[0]].tolist()) > SMALL:
        return []
    try:
        evaluator = ReferenceEvaluator(node, opsets=opsets)
        results: Any = evaluator.run(None, {name: values[name] for name in operands})
    except Exception:  # what cannot be computed stays unknown, and is told as that
        return []
    return [np.asarray(each) for each in results]


def _keep(graph: Any, found: Mapping[str, Values]) -> None:
    """Whole numbers as constants in place of the nodes that made them; others might be weights."""
    import onnx

    sizes = {name: each for name, each in found.items() if each.dtype.kind in "iub"}
    others = [node for node in graph.node if not any(name in sizes for name in node.output)]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(others)
    constants = (onnx.numpy_helper.from_array(each, name) for name, each in sizes.items())
    graph.initializer.extend(constants)
