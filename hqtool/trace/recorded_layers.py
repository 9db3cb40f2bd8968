"""The layer spec of a recorded run: every layer with its geometry, as often as a step called it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hqtool.errors import DataError
from hqtool.sizes import counted
from hqtool.trace.ranks import ranks_of_one_run
from hqtool.trace.reader import TraceReader
from hqtool.traffic.bill import DEFAULT_BITS
from hqtool.traffic.layers import Layer, layer_from_json
from hqtool.traffic.spec import LayerSpec

#: What every trace leaves out.
_NOT_RECORDED = (
    "a trace tells of layers that multiply, not of the sums, norms, poolings and activations "
    "between them: hqtool spec PACKAGE.MODULE:FACTORY sees all of a model"
)


def recorded_spec(traces: Sequence[TraceReader]) -> LayerSpec:
    """The layers of one training step, each `repeat`ed as often as the step called it.

    Of steps that differ, the one with most calls counts for each layer. Where G_X was recorded of
    other layers, one without it computes none. Ranks of one run count together.

    Args:
        traces: one, or several ranks of one run.

    Raises:
        DataError: no layer has a geometry that the bill knows; or several traces are not of
            one run.
    """
    if len(traces) > 1:
        ranks_of_one_run(traces)
    layers: dict[str, Layer] = {}
    unknown = Counter[str]()
    for trace in traces:
        for layer in _layers(trace, unknown):
            known = layers.get(layer.name)
            layers[layer.name] = layer if known is None else _together(known, layer)
    if not layers:
        cause = f"{traces[0].path}: no layer in it has a geometry"
        raise DataError(cause, "record it with hqtool capture, or write a layer spec")
    notes = (_as_run(traces, list(layers.values())), *_unbilled(unknown), _NOT_RECORDED)
    return LayerSpec(Path(traces[0].path), DEFAULT_BITS, tuple(layers.values()), notes)


def _layers(trace: TraceReader, unknown: Counter[str]) -> Iterator[Layer]:
    calls = _calls_a_step(trace)
    with_gradient = {site.layer for site in trace.sites if site.tensor == "grad_input"}
    for name in dict.fromkeys(site.layer for site in trace.sites):
        geometry = trace.geometry(name)
        try:
            layer = layer_from_json((geometry or {}) | {"name": name})
        except DataError:  # a recorder may describe layers that the bill does not know
            unknown[name] += 1
            continue
        has_gradient = layer.grad_input and (name in with_gradient or not with_gradient)
        yield replace(layer, repeat=layer.repeat * calls[name], grad_input=has_gradient)


def _calls_a_step(trace: TraceReader) -> dict[str, int]:
    """How often the step with most calls called each layer."""
    most: dict[str, int] = {}
    for site in trace.sites:
        _, records_of_steps = np.unique(trace.history(site).steps, return_counts=True)
        records = int(records_of_steps.max())
        most[site.layer] = max(most.get(site.layer, 0), records)
    return most


def _together(one: Layer, other: Layer) -> Layer:
    """A layer as two ranks call it; they may run batches of different sizes."""
    batch = max(one.batch, other.batch)
    return replace(one, batch=batch, repeat=one.repeat + other.repeat)


def _as_run(traces: Sequence[TraceReader], layers: Sequence[Layer]) -> str:
    batches = sorted({layer.batch for layer in layers})
    batch = str(batches[0]) if len(batches) == 1 else f"{batches[0]} to {batches[-1]}"
    ranks = f", on {len(traces)} ranks together" if len(traces) > 1 else ""
    steps = counted(len(traces[0].steps), "recorded step")
    return f"one step as run: batch {batch}, every call of a layer{ranks}; {steps}"


def _unbilled(unknown: Counter[str]) -> list[str]:
    names = sorted(unknown)
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return [f"not billed, for want of a geometry that the bill knows: {shown}"] if names else []
