"""Which modules are layers, and their geometry."""

from __future__ import annotations

import math
from typing import Any, TypeGuard

from torch import Size, nn
from torch.nn.utils.parametrize import ParametrizationList

from hqtool.traffic.layers import Layer

#: Modules whose multiplications the bill counts, by their op in a layer spec.
OP_OF_MODULE: dict[type[nn.Module], str] = {
    nn.Linear: "linear",
    nn.Conv1d: "conv1d",
    nn.Conv2d: "conv2d",
    nn.Conv3d: "conv3d",
    nn.ConvTranspose1d: "conv_transpose1d",
    nn.ConvTranspose2d: "conv_transpose2d",
    nn.ConvTranspose3d: "conv_transpose3d",
}

LAYER_TYPES = tuple(OP_OF_MODULE)

#: Other modules that multiply, which the bill does not know.
UNBILLED_TYPES = (nn.RNNBase, nn.RNNCellBase, nn.Bilinear)

#: Modules whose parameters are not multiplied in a product.
LOOKUP_TYPES = (
    nn.Embedding,
    nn.EmbeddingBag,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.modules.batchnorm._NormBase,
    nn.PReLU,
)


class LayerTypes:
    """Which modules are layers: by default those that multiply.

    Args:
        names: of classes to record in their place, with all classes derived from them.

    Attributes:
        are_chosen: such names were given.
    """

    def __init__(self, names: tuple[str, ...] = ()) -> None:
        self.are_chosen = bool(names)
        self._names = frozenset(names)
        self._known: dict[type, bool] = {}

    def is_layer(self, module: nn.Module) -> bool:
        """Whether a module is recorded as one layer."""
        kind = type(module)
        if kind not in self._known:
            classes = {each.__name__ for each in kind.__mro__}
            by_default = issubclass(kind, (*LAYER_TYPES, *UNBILLED_TYPES)) or _is_gpt_linear(kind)
            self._known[kind] = bool(self._names & classes) if self.are_chosen else by_default
        return self._known[kind] and not self.is_attention(module)

    def is_attention(self, module: nn.Module) -> TypeGuard[nn.MultiheadAttention]:
        """Whether the products within a module are recorded, each as a layer."""
        wanted = not self._names or "MultiheadAttention" in self._names
        return wanted and isinstance(module, nn.MultiheadAttention)

    def is_named(self, module: nn.Module) -> bool:
        """Whether a module's name appears in a trace."""
        return self.is_layer(module) or self.is_attention(module)

    def hides_functions(self, module: nn.Module) -> bool:
        """Whether the products in a module's forward pass are not layers of their own.

        It is a layer itself then, or computes a weight.
        """
        return self.is_named(module) or isinstance(module, ParametrizationList)

    def may_be_named(self, module: nn.Module) -> bool:
        """Whether a module's name may appear in a trace, for a product of one of its parameters."""
        if self.is_named(module) or self.are_chosen or isinstance(module, LOOKUP_TYPES):
            return self.is_named(module)
        return any(each is not None for each in module._parameters.values())


def channel_axis_of(module: nn.Module) -> int:
    """The channel axis of a layer's tensors, weights included, counted from the last axis, -1.

    It is axis 1 of a convolution's tensors (0 where they have no batch), the last of all others.
    """
    return -1 - len(module.kernel_size) if isinstance(module, nn.modules.conv._ConvNd) else -1


def classes_of(module: nn.Module | None) -> tuple[str, ...]:
    """Names of a module's class and of those it derives from, up to PyTorch's `Module`."""
    derived = () if module is None else type(module).__mro__
    return tuple(each.__name__ for each in derived if each not in (nn.Module, object))


def output_axis_of(module: nn.Module | None) -> int:
    """The axis of a weight's output channels: 0, as PyTorch lays weights out, or 1 (transposed)."""
    return 1 if isinstance(module, nn.modules.conv._ConvTransposeNd) else 0


def geometry_of(name: str, module: nn.Module, shape: Size) -> dict[str, Any]:
    """The layer-spec keys of a layer that has read a tensor of this shape, or its class alone.

    It never reads `module.weight`: a parametrized one would be computed again, with side effects.
    """
    if isinstance(module, nn.Linear):
        return linear_geometry(name, module.in_features, module.out_features, shape)
    if isinstance(module, LAYER_TYPES):
        return _conv_geometry(name, module, shape)
    if _is_gpt_linear(type(module)):
        weight: Any = module.weight
        return linear_geometry(name, weight.shape[0], weight.shape[1], shape)
    return {"name": name, "op": type(module).__name__}


def _is_gpt_linear(kind: type) -> bool:
    """Whether it is the linear layer of transformers' GPT models, whose weight is transposed."""
    return kind.__name__ == "Conv1D" and kind.__module__ == "transformers.pytorch_utils"


def linear_geometry(name: str, in_channels: int, out_channels: int, shape: Size) -> dict[str, Any]:
    """The layer-spec keys of a linear layer that has read a tensor (…, in_channels).

    The first dimension counts as the batch, all others as positions.
    """
    batch = shape[0] if len(shape) > 1 else 1
    positions = math.prod(shape) // (batch * in_channels) if batch else 0
    return Layer(name, "linear", in_channels, out_channels, (positions,), batch=batch).to_json()


def _conv_geometry(name: str, module: Any, shape: Size) -> dict[str, Any]:
    dims = len(module.kernel_size)
    layer = Layer(
        name,
        next(op for kind, op in OP_OF_MODULE.items() if isinstance(module, kind)),
        module.in_channels,
        module.out_channels,
        tuple(shape[-dims:]),
        module.kernel_size,
        module.stride,
        _padding(module.padding, dims),
        module.dilation,
        module.output_padding,
        module.groups,
        batch=shape[0] if len(shape) == dims + 2 else 1,
    )
    return layer.to_json()


def _padding(padding: tuple[int, ...] | str, dims: int) -> tuple[int, ...] | str:
    return (0,) * dims if padding == "valid" else padding
