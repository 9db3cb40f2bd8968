"""Every operation that the bill knows: its tensors, its works, and the keys of its spec.

A new one is one row of `OPS`, with a function that tells its tensors and one that tells its works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from hqtool.traffic.geometry import Geometry
from hqtool.traffic.ops.embedding import embedding_tensors, embedding_works
from hqtool.traffic.ops.pointwise import (
    ACTIVATIONS,
    NORMS,
    activation_works,
    add_tensors,
    add_works,
    mul_works,
    norm_tensors,
    norm_works,
    pointwise_tensors,
)
from hqtool.traffic.ops.pool import POOLS, pool_tensors, pool_works
from hqtool.traffic.ops.products import (
    conv_tensors,
    conv_transpose_tensors,
    linear_tensors,
    matmul_tensors,
)
from hqtool.traffic.works import Tensors, Work, product_works


def _product_works(layer: Geometry, tensors: Tensors) -> tuple[Work, ...]:
    return product_works(tensors)


class SameAs(NamedTuple):
    """The default of a key: what another, earlier one is."""

    key: str


class Unsaid(NamedTuple):
    """The default of a key that may be left out: what then stands in a geometry."""

    value: object


@dataclass(frozen=True, slots=True)
class Op:
    """An operation.

    Args:
        tensors: geometry to W, X and Y; raises DataError on an impossible shape.
        dims: spatial dimensions; None where `input` may have any number, and tells it.
        keys: the layer-spec keys it takes, each with its default; None: must be given.
        works: what its passes compute from these tensors.
        kinds: what `kind` may be.
        fields: keys that give a field of another name.
        also: other words that a layer spec may use, and the keys that they stand for.
    """

    tensors: Callable[[Geometry], Tensors]
    dims: int | None
    keys: Mapping[str, object]
    works: Callable[[Geometry, Tensors], tuple[Work, ...]] = _product_works
    kinds: Iterable[str] = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    also: Mapping[str, str] = field(default_factory=dict)


def _keys(own: Mapping[str, object]) -> dict[str, object]:
    """These keys, between those that every operation takes."""
    common = {"repeat": 1, "batch": 1, "grad_input": True, "from": Unsaid(())}
    return {"name": None, "op": None, **own, **common}


_SIZES: dict[str, object] = {"in_channels": None, "out_channels": None, "input": 1}
_WINDOWS: dict[str, object] = _SIZES | {
    "input": None,
    "kernel": None,
    "stride": 1,
    "padding": "same",
    "dilation": 1,
    "groups": 1,
}
_SAME_SIZES = _SIZES | {"out_channels": SameAs("in_channels")}
_POOL_SIZES = _SAME_SIZES | {
    "kind": "max",
    "input": None,
    "kernel": Unsaid(()),
    "stride": SameAs("kernel"),
    "padding": 0,
    "dilation": 1,
    "ceil_mode": False,
    "output_size": Unsaid(()),
}

_LINEAR = _keys(_SIZES)
_CONV = _keys(_WINDOWS)
_CONV_TRANSPOSE = _keys(_WINDOWS | {"padding": 0, "output_padding": 0})
_MATMUL = _keys({"m": None, "k": None, "n": None})
_ADD = _keys(_SAME_SIZES | {"operands": Unsaid(0)})
_NORM = _keys(_SAME_SIZES | {"kind": "batch", "affine": True})
_POOL = _keys(_POOL_SIZES)
_ACTIVATION = _keys(_SAME_SIZES | {"kind": "relu"})
_EMBEDDING = _keys({"num_embeddings": None, "embedding_dim": None, "input": 1})

_ROWS_AND_COLUMNS = {"num_embeddings": "in_channels", "embedding_dim": "out_channels"}
_IN_AND_OUT = {"in_features": "in_channels", "out_features": "out_channels"}
_FEATURES = dict.fromkeys(("num_features", "num_channels", "normalized_shape"), "in_channels")

#: By the name a layer spec gives it.
OPS: dict[str, Op] = {
    "conv1d": Op(conv_tensors, 1, _CONV),
    "conv2d": Op(conv_tensors, 2, _CONV),
    "conv3d": Op(conv_tensors, 3, _CONV),
    "conv_transpose1d": Op(conv_transpose_tensors, 1, _CONV_TRANSPOSE),
    "conv_transpose2d": Op(conv_transpose_tensors, 2, _CONV_TRANSPOSE),
    "conv_transpose3d": Op(conv_transpose_tensors, 3, _CONV_TRANSPOSE),
    "linear": Op(linear_tensors, None, _LINEAR, also=_IN_AND_OUT),
    "matmul": Op(
        matmul_tensors,
        1,
        _MATMUL,
        fields={"m": "input", "k": "in_channels", "n": "out_channels"},
    ),
    "add": Op(add_tensors, None, _ADD, add_works),
    "mul": Op(add_tensors, None, _ADD, mul_works),
    "norm": Op(norm_tensors, None, _NORM, norm_works, NORMS, also=_FEATURES),
    "pool": Op(pool_tensors, None, _POOL, pool_works, POOLS),
    "activation": Op(pointwise_tensors, None, _ACTIVATION, activation_works, ACTIVATIONS),
    "embedding": Op(
        embedding_tensors,
        None,
        _EMBEDDING,
        embedding_works,
        fields=_ROWS_AND_COLUMNS,
        also={field: key for key, field in _ROWS_AND_COLUMNS.items()},
    ),
}
