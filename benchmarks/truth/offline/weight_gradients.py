"""The weight gradient of each layer from quantized operands, against the exact one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.truth.offline.gradient_sums import GradientSums
from benchmarks.truth.offline.ranges import kept_records, quantized_values
from hqtool.estimators.quantizer import Quantizer
from hqtool.trace.reader import TraceReader
from hqtool.training.tensors.quantized import Quantized
from hqtool.vocab import Site

#: What quantizes a layer's X and its G_Y; None: nothing.
Operands = tuple[Quantizer | None, Quantizer | None]


def weight_gradient(geometry: Mapping[str, Any], x: Tensor, g: Tensor) -> Tensor:
    """G_W of a layer's input and its output's gradient, in float64.

    Args:
        geometry: as a trace describes the layer: a convolution in two dimensions, or linear.
    """
    x, g = x.double(), g.double()
    if geometry["op"] != "conv2d":
        return g.reshape(-1, g.shape[-1]).T @ x.reshape(-1, x.shape[-1])
    groups, kernel = geometry["groups"], tuple(geometry["kernel"])
    shape = (geometry["out_channels"], geometry["in_channels"] // groups, *kernel)
    how = {key: tuple(geometry[key]) for key in ("stride", "padding", "dilation")}
    return torch.nn.grad.conv2d_weight(x, shape, g, groups=groups, **how)


def gradient_sums(
    reader: TraceReader, layer: str, pairs: Sequence[Operands]
) -> dict[Operands, GradientSums]:
    """The sums of one layer, for each pair of quantizers of its operands."""
    geometry = reader.geometry(layer) or {}
    x, g = (
        _operands(reader, Site(layer, kind), {pair[i] for pair in pairs} | {None})
        for i, kind in enumerate(("input", "grad_output"))
    )
    exact = [
        weight_gradient(geometry, one.values, other.values)
        for one, other in zip(x[None], g[None], strict=True)
    ]
    noise = [
        _batch_noise(geometry, one.values, other.values)
        for one, other in zip(x[None], g[None], strict=True)
    ]
    found = {}
    for pair in dict.fromkeys(pairs):
        made = zip(x[None], x[pair[0]], g[None], g[pair[1]], strict=True)
        sums = [_sums(geometry, own, *each) for own, each in zip(exact, made, strict=True)]
        found[pair] = GradientSums(*np.array(sums).T, np.array(noise))
    return found


def _operands(
    reader: TraceReader, site: Site, quantizers: set[Quantizer | None]
) -> dict[Quantizer | None, list[Quantized]]:
    history = reader.history(site)
    kept = kept_records(history)
    return {each: quantized_values(site, history, each, kept) for each in quantizers}


def _batch_noise(geometry: Mapping[str, Any], x: Tensor, g: Tensor) -> float:
    """Sums over two independent halves differ by as much as their sum varies over batches."""
    half = len(x) // 2
    parts = [weight_gradient(geometry, x[s], g[s]) for s in (slice(half), slice(half, 2 * half))]
    return float((parts[0] - parts[1]).square().sum())


def _sums(
    geometry: Mapping[str, Any],
    exact: Tensor,
    x: Quantized,
    quantized_x: Quantized,
    g: Quantized,
    quantized_g: Quantized,
) -> tuple[float, float, float, float]:
    """‖g‖², ‖ĝ‖², g·ĝ, and the squared error of what is made of rounded operands, unclipped."""
    made = weight_gradient(geometry, quantized_x.values, quantized_g.values)
    rounded = made
    if quantized_x.clipped is not None or quantized_g.clipped is not None:
        operands = _unclipped(x, quantized_x), _unclipped(g, quantized_g)
        rounded = weight_gradient(geometry, *operands)
    products = (exact * exact, made * made, exact * made, (rounded - exact).square())
    one, two, three, four = (float(each.sum()) for each in products)
    return one, two, three, four


def _unclipped(exact: Quantized, made: Quantized) -> Tensor:
    """Quantized where it is not clipped, and exact where it is."""
    if made.clipped is None:
        return made.values
    return torch.where(made.clipped, exact.values, made.values)
