"""Which modules are layers, and their geometry."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from hqtool.traffic.layers import Layer

#: Modules whose multiplications the bill counts, by their op in a layer spec.
OPS: dict[type[nn.Module], str] = {
    nn.Linear: "linear",
    nn.Conv1d: "conv1d",
    nn.Conv2d: "conv2d",
    nn.Conv3d: "conv3d",
    nn.ConvTranspose1d: "conv_transpose1d",
    nn.ConvTranspose2d: "conv_transpose2d",
    nn.ConvTranspose3d: "conv_transpose3d",
}

LAYER_TYPES = tuple(OPS)

#: Modules that multiply, too, but are not recorded: a note names them.
UNRECORDED_TYPES = (nn.RNNBase, nn.RNNCellBase, nn.Bilinear)


def is_layer(module: nn.Module) -> bool:
    """Whether a module is recorded as one layer."""
    return isinstance(module, LAYER_TYPES)


def geometry_of(name: str, module: nn.Module, x: Tensor) -> dict[str, Any]:
    """The layer-spec keys of a layer module that has read `x`.

    It never reads `module.weight`: a parametrized one would be computed anew, with side effects.
    """
    if isinstance(module, nn.Linear):
        return linear_geometry(name, module.in_features, module.out_features, x)
    return _conv_geometry(name, module, x)


def linear_geometry(name: str, in_channels: int, out_channels: int, x: Tensor) -> dict[str, Any]:
    """The layer-spec keys of a linear layer that has read `x`, (…, in_channels).

    The first dimension counts as the batch, all others as positions.
    """
    batch = x.shape[0] if x.dim() > 1 else 1
    positions = (math.prod(x.shape[1:-1]),)
    return Layer(name, "linear", in_channels, out_channels, positions, batch=batch).to_json()


def _conv_geometry(name: str, module: Any, x: Tensor) -> dict[str, Any]:
    dims = len(module.kernel_size)
    layer = Layer(
        name,
        next(op for kind, op in OPS.items() if isinstance(module, kind)),
        module.in_channels,
        module.out_channels,
        tuple(x.shape[-dims:]),
        module.kernel_size,
        module.stride,
        _padding(module.padding, dims),
        module.dilation,
        module.output_padding,
        module.groups,
        batch=x.shape[0] if x.dim() == dims + 2 else 1,
    )
    return layer.to_json()


def _padding(padding: tuple[int, ...] | str, dims: int) -> tuple[int, ...] | str:
    return (0,) * dims if padding == "valid" else padding
