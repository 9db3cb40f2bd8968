"""Every layer type that the bill knows: its tensors, its works, and the keys of its spec.

A new layer type is one row of `OPS`, with a function that tells its tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hqtool.traffic.geometry import Geometry
from hqtool.traffic.products import conv_tensors, conv_transpose_tensors, linear_tensors
from hqtool.traffic.works import Tensors, Work, product_works


def _product_works(layer: Geometry, tensors: Tensors) -> tuple[Work, ...]:
    return product_works(tensors)


@dataclass(frozen=True, slots=True)
class Op:
    """A layer type.

    Args:
        tensors: geometry to W, X and Y; raises DataError on an impossible shape.
        dims: spatial dimensions; None where `input` may have any number.
        keys: the layer-spec keys it takes, each with its default; None: must be given.
        works: what its passes compute from these tensors.
    """

    tensors: Callable[[Geometry], Tensors]
    dims: int | None
    keys: Mapping[str, object]
    works: Callable[[Geometry, Tensors], tuple[Work, ...]] = _product_works


_LINEAR: dict[str, object] = {
    "name": None,
    "op": None,
    "in_channels": None,
    "out_channels": None,
    "input": 1,
    "repeat": 1,
    "batch": 1,
    "grad_input": True,
}
_CONV = _LINEAR | {
    "input": None,
    "kernel": None,
    "stride": 1,
    "padding": "same",
    "dilation": 1,
    "groups": 1,
}
_CONV_TRANSPOSE = _CONV | {"padding": 0, "output_padding": 0}

#: By the name a layer spec gives it.
OPS: dict[str, Op] = {
    "conv1d": Op(conv_tensors, 1, _CONV),
    "conv2d": Op(conv_tensors, 2, _CONV),
    "conv3d": Op(conv_tensors, 3, _CONV),
    "conv_transpose1d": Op(conv_transpose_tensors, 1, _CONV_TRANSPOSE),
    "conv_transpose2d": Op(conv_transpose_tensors, 2, _CONV_TRANSPOSE),
    "conv_transpose3d": Op(conv_transpose_tensors, 3, _CONV_TRANSPOSE),
    "linear": Op(linear_tensors, None, _LINEAR),
}
