"""A network at another batch size than its spec was written for."""

from __future__ import annotations

from dataclasses import replace

from hqtool.errors import UsageError
from hqtool.traffic.layers import Layer
from hqtool.traffic.spec import LayerSpec


def with_batch(spec: LayerSpec, samples: int) -> LayerSpec:
    """The spec at a batch of so many samples: N of its first layer, and all others in proportion.

    Raises:
        UsageError: a layer's N does not divide so.
    """
    usual = spec.layers[0].batch
    return replace(spec, layers=tuple(_layer(layer, samples, usual) for layer in spec.layers))


def _layer(layer: Layer, samples: int, usual: int) -> Layer:
    batch, rest = divmod(layer.batch * samples, usual)
    if rest or not batch:
        cause = f"layer '{layer.name}' has a batch of {layer.batch} where the first has {usual}"
        raise UsageError(cause, f"give --batch a multiple of {usual}")
    return replace(layer, batch=batch)
