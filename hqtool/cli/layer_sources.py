"""Where a command finds a network's layers: a layer spec, a trace, an ONNX file, a model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click

from hqtool.errors import UsageError
from hqtool.trace.signature import may_be_trace
from hqtool.traffic.spec import LayerSpec, load_spec

dim_option = click.option(
    "--dim",
    "dims",
    metavar="NAME=SIZE",
    multiple=True,
    help="Size of a dimension that an ONNX model leaves open, such as batch=1.",
)


def layer_spec_of(
    paths: Sequence[str], dims: Sequence[str] = (), inputs: Sequence[str] | None = None
) -> LayerSpec:
    """The layers that files tell of.

    Args:
        paths: one file, or the traces of several ranks of one run.
        dims: NAME=SIZE for each dimension that an ONNX model leaves open.
        inputs: the shape of each input of a model, which is named PACKAGE.MODULE:FACTORY; None
            where a file is needed.

    Raises:
        UsageError: several files that are not all traces; or options that belong to another
            source.
        DataError: a file is missing, broken, or none of these; or a model fails.
        HqtoolError: what a source needs is not installed.
    """
    first = paths[0]
    if len(paths) > 1 and not all(map(may_be_trace, paths)):
        raise UsageError(
            "several files count together only if they are the traces of one run's ranks",
            "give one file, or traces",
        )
    if dims and not _is_onnx(first):
        raise UsageError("--dim sets sizes of an ONNX model", f"drop it: {first} is none")
    if inputs is not None and _names_factory(first):
        return _of_model(first, inputs)
    if inputs:
        remedy = "drop it, or name a model: PACKAGE.MODULE:FACTORY"
        raise UsageError(f"--input gives the inputs of a model, and {first} is none", remedy)
    if _is_onnx(first):
        return _of_onnx(first, dims)
    return _recorded(paths) if may_be_trace(first) else load_spec(first)


def _is_onnx(path: str) -> bool:
    return path.lower().endswith(".onnx")


def _names_factory(source: str) -> bool:
    return ":" in source and not os.path.exists(source)


def _recorded(paths: Sequence[str]) -> LayerSpec:
    from hqtool.trace.reader import TraceReader
    from hqtool.trace.recorded_layers import recorded_spec

    with ExitStack() as files:
        return recorded_spec([files.enter_context(TraceReader(path)) for path in paths])


def _of_onnx(path: str, dims: Sequence[str]) -> LayerSpec:
    from hqtool.traffic.sources.input_shape import parse_dims
    from hqtool.traffic.sources.onnx.file import onnx_spec

    return onnx_spec(path, parse_dims(dims))


def _of_model(target: str, inputs: Sequence[str]) -> LayerSpec:
    from hqtool.launch.requirements import require_torch
    from hqtool.traffic.bill import DEFAULT_BITS
    from hqtool.traffic.sources.input_shape import parse_input

    shapes = [parse_input(text) for text in inputs]
    if not shapes:
        remedy = "add --input 1x3x224x224, of tokens --input 1x128:int64"
        raise UsageError(f"{target}: the shape of its input is not given", remedy)
    require_torch("the layer spec of a model")
    from hqtool.trial.shapes.building import built
    from hqtool.trial.shapes.recorder import network_of_model

    network = network_of_model(built(target), shapes, target)
    return LayerSpec(Path(target), DEFAULT_BITS, network.layers(target), network.notes())
