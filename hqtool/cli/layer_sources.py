"""Where a command finds a network's layers: a layer spec, a trace or the ranks of a run, ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from hqtool.errors import UsageError
from hqtool.trace.signature import may_be_trace
from hqtool.traffic.spec import LayerSpec, load_spec


def layer_spec_of(paths: Sequence[str], dims: Sequence[str] = ()) -> LayerSpec:
    """The layers that files tell of.

    Args:
        paths: one file, or the traces of several ranks of one run.
        dims: NAME=SIZE for each dynamic dimension of an ONNX model.

    Raises:
        UsageError: several files that are not all traces; or `dims` without an ONNX model.
        DataError: a file is missing, broken, or none of these.
        HqtoolError: what a kind of file needs is not installed.
    """
    if len(paths) > 1 and not all(map(may_be_trace, paths)):
        raise UsageError(
            "several files are billed together only if they are the traces of one run's ranks",
            "give one layer spec, one ONNX model, or traces",
        )
    if dims and not _is_onnx(paths[0]):
        raise UsageError("--dim sets sizes of an ONNX model", f"drop it: {paths[0]} is none")
    if may_be_trace(paths[0]):
        return _recorded(paths)
    return load_spec(paths[0])


def _is_onnx(path: str) -> bool:
    return path.lower().endswith(".onnx")


def _recorded(paths: Sequence[str]) -> LayerSpec:
    from hqtool.trace.reader import TraceReader
    from hqtool.trace.recorded_layers import recorded_spec

    with ExitStack() as files:
        return recorded_spec([files.enter_context(TraceReader(path)) for path in paths])
