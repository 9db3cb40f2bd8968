"""Embedding: each position reads one row of a table."""

from __future__ import annotations

import math

from hqtool.traffic.geometry import Geometry
from hqtool.traffic.works import Tensors, Work, gradient, tensors_of


def embedding_tensors(layer: Geometry) -> Tensors:
    """W = num_embeddings·embedding_dim, X = N·positions, Y = N·positions·embedding_dim elements."""
    positions = (layer.batch, *layer.input)
    weight = (layer.in_channels, layer.out_channels)
    return tensors_of(weight, positions, (*positions, layer.out_channels))


def embedding_works(layer: Geometry, tensors: Tensors) -> tuple[Work, ...]:
    """Y from the rows of W that are looked up, which keep their levels; G_W of the rows alone.

    X, whole numbers, is not counted; it has no gradient.
    """
    y, positions = tensors.output, math.prod((layer.batch, *layer.input))
    read = tensors.weight._replace(numel=y.numel, shape=(positions, layer.out_channels))
    rows = min(positions, layer.in_channels)
    changed = read._replace(numel=rows * layer.out_channels, shape=(rows, layer.out_channels))
    return (
        Work("forward", y, (read,), quantizes=False),
        Work("backward", gradient(changed), (gradient(y),), quantizes=False),
    )
