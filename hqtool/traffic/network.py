"""The works of a network's layers in the passes that are billed."""

from __future__ import annotations

from collections.abc import Sequence

from hqtool.traffic.layers import Layer
from hqtool.traffic.works import PASSES, Work


def network_works(layers: Sequence[Layer], pass_name: str) -> list[tuple[Work, ...]]:
    """For each layer the works of one of its repeats, in one of `PASSES`.

    Raises:
        DataError: a layer's geometry is impossible.
    """
    passes = PASSES[pass_name]
    return [tuple(w for w in layer.works() if w.pass_name in passes) for layer in layers]
