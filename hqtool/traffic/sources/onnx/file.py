"""ONNX models: reading a file, and the shape of each of its tensors.

Only this room imports the package `onnx`. Weights are not read where they lie in other files.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hqtool.errors import DataError, HqtoolError, UsageError
from hqtool.nearest import known_names
from hqtool.traffic.bill import DEFAULT_BITS
from hqtool.traffic.sources.onnx.graph import Graph, Node, network_of_graph
from hqtool.traffic.sources.onnx.sizes import SMALL, known_shape, with_shapes
from hqtool.traffic.sources.operation import Shape
from hqtool.traffic.spec import LayerSpec


def onnx_spec(path: str | Path, dims: Mapping[str, int]) -> LayerSpec:
    """The layers of an ONNX model.

    Args:
        dims: the size of each dimension that the model leaves open, by its name; of one without a
            name INPUT.AXIS.

    Raises:
        HqtoolError: the package `onnx` is not installed.
        UsageError: `dims` names no open dimension.
        DataError: the file is missing or no ONNX model, or a dimension has no size.
    """
    _require_onnx(path)
    model = _loaded(os.fspath(path))
    _set_sizes(model, dims, os.fspath(path))
    graph = _graph(_with_shapes(model, os.fspath(path)))
    network = network_of_graph(graph)
    return LayerSpec(Path(path), DEFAULT_BITS, network.layers(os.fspath(path)), network.notes())


def _require_onnx(path: str | Path) -> None:
    if importlib.util.find_spec("onnx") is None:
        cause = f"{os.fspath(path)}: reading ONNX models needs the package onnx"
        raise HqtoolError(cause, "pip install 'hqtool[onnx]'")


def _loaded(path: str) -> Any:
    import onnx
    from google.protobuf.message import DecodeError

    if not os.path.isfile(path):
        raise DataError(f"{path}: no such file", "check the path")
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise DataError(f"{path}: not an ONNX model: {error}", "export it anew") from error
    if not model.graph.node:
        raise DataError(f"{path}: not an ONNX model: it has no nodes", "export it anew")
    if model.functions:
        from onnx.inliner import inline_local_functions

        model = inline_local_functions(model)
    return model


# --- sizes --------------------------------------------------------------------------------------


def _set_sizes(model: Any, dims: Mapping[str, int], path: str) -> None:
    """Give the open dimensions of the inputs their sizes, and forget all shapes that follow."""
    named = list(_open_dims(model))
    names = dict.fromkeys(name for name, _ in named)
    for name in dims:
        if name not in names:
            remedy = known_names(name, names) if names else "drop --dim"
            raise UsageError(f"--dim {name}: {path} has no such open dimension", remedy)
    if missing := [name for name in names if name not in dims]:
        asked = " ".join(f"--dim {name}=SIZE" for name in missing)
        raise DataError(f"{path} leaves dimensions open: {', '.join(missing)}", f"add {asked}")
    for name, dim in named:
        dim.dim_value = dims[name]
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")


def _open_dims(model: Any) -> Iterator[tuple[str, Any]]:
    constants = {each.name for each in model.graph.initializer}
    for given in model.graph.input:
        if given.name in constants:
            continue
        for axis, dim in enumerate(given.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                yield dim.dim_param or f"{given.name}.{axis}", dim


def _with_shapes(model: Any, path: str) -> Any:
    """The model with the shape of every tensor that can be told."""
    import onnx

    for each in model.graph.initializer:
        if sum(each.dims) > SMALL:  # so that the model fits into a message, however large it is
            for field in ("raw_data", "float_data", "double_data", "int32_data"):
                each.ClearField(field)
    try:
        return with_shapes(model)
    except (onnx.shape_inference.InferenceError, RuntimeError) as error:
        said = next(iter(str(error).splitlines()), "")
        raise DataError(f"{path}: its shapes do not fit: {said}", "export it anew") from error


# --- the graph ----------------------------------------------------------------------------------


def _graph(model: Any) -> Graph:
    import onnx

    graph = model.graph
    shapes: dict[str, Shape] = {each.name: tuple(each.dims) for each in graph.initializer}
    types = {each.name: each.data_type for each in graph.initializer}
    for each in (*graph.input, *graph.value_info, *graph.output):
        types[each.name] = each.type.tensor_type.elem_type
        if (shape := known_shape(each)) is not None:
            shapes.setdefault(each.name, shape)
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE}
    floats |= {onnx.TensorProto.BFLOAT16}
    constants = {each.name: each for each in graph.initializer}
    return Graph(
        nodes=[_node(each) for each in graph.node],
        inputs=[each.name for each in graph.input if each.name not in constants],
        shapes=shapes,
        floats={name for name, kind in types.items() if kind in floats},
        weights={
            n for n, t in constants.items() if math.prod(t.dims) > 1 and t.data_type in floats
        },
        integers={n: _integers(each) for n, each in constants.items() if sum(each.dims) <= SMALL},
    )


def _integers(tensor: Any) -> list[int]:
    """The values of a small constant of whole numbers; empty of any other."""
    import onnx

    if tensor.data_type != onnx.TensorProto.INT64 or tensor.external_data:
        return []
    return [int(each) for each in onnx.numpy_helper.to_array(tensor).reshape(-1)]


def _node(node: Any) -> Node:
    import onnx

    values = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    told = {each.key: each.value for each in getattr(node, "metadata_props", ())}
    return Node(
        op=node.op_type,
        name=node.name,
        inputs=tuple(node.input),
        outputs=tuple(node.output),
        attributes={k: v.decode() if isinstance(v, bytes) else v for k, v in values.items()},
        scopes=told.get("pkg.torch.onnx.name_scopes", ""),
    )
