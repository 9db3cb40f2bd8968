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
    exact = _gradients(geometry, x[None], g[None])
    noise = [_batch_noise(geometry, *each) for each in zip(x[None], g[None], strict=True)]
    return {
        pair: _sums(exact, _gradients(geometry, x[pair[0]], g[pair[1]]), noise)
        for pair in dict.fromkeys(pairs)
    }


def _operands(
    reader: TraceReader, site: Site, quantizers: set[Quantizer | None]
) -> dict[Quantizer | None, list[Tensor]]:
    history = reader.history(site)
    kept = kept_records(history)
    return {each: quantized_values(site, history, each, kept) for each in quantizers}


def _gradients(
    geometry: Mapping[str, Any], x: Sequence[Tensor], g: Sequence[Tensor]
) -> list[Tensor]:
    return [weight_gradient(geometry, *each) for each in zip(x, g, strict=True)]


def _batch_noise(geometry: Mapping[str, Any], x: Tensor, g: Tensor) -> float:
    """Sums over two independent halves differ by as much as their sum varies over batches."""
    half = len(x) // 2
    parts = [weight_gradient(geometry, x[s], g[s]) for s in (slice(half), slice(half, 2 * half))]
    return float((parts[0] - parts[1]).square().sum())


def _sums(exact: Sequence[Tensor], made: Sequence[Tensor], noise: Sequence[float]) -> GradientSums:
    pairs = list(zip(exact, made, strict=True))
    return GradientSums(
        np.array([float(g.square().sum()) for g, _ in pairs]),
        np.array([float(q.square().sum()) for _, q in pairs]),
        np.array([float((g * q).sum()) for g, q in pairs]),
        np.array(noise),
    )
