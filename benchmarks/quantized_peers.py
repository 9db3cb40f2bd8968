"""How one would train quantized with torch alone: what `hqtool train` is compared with.

The hooks quantize as the recipe paper-w8a8g8 says: weights by their own min-max, outputs and
gradients of inputs in hindsight. They write nothing, and know one kind of layer.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

#: A tensor, its range and the values quantized.
Quantize = Callable[[Tensor, tuple[float, float]], Tensor]

MOMENTUM, HIGHEST = 0.9, 255


def eager(x: Tensor, ends: tuple[float, float], stochastic: bool = False) -> Tensor:
    """By operations of torch, each on the whole tensor; the gradient is 0 where x is clipped."""
    quantized: Tensor = _Eager.apply(x, *_scale_and_zero(ends), stochastic)
    return quantized


def eager_stochastic(x: Tensor, ends: tuple[float, float]) -> Tensor:
    """The same with stochastic rounding."""
    return eager(x, ends, True)


def fused(x: Tensor, ends: tuple[float, float]) -> Tensor:
    """By torch's own operator, which rounds to nearest."""
    return torch.fake_quantize_per_tensor_affine(x, *_scale_and_zero(ends), 0, HIGHEST)


def _scale_and_zero(ends: tuple[float, float]) -> tuple[float, int]:
    lo, hi = min(ends[0], 0.0), max(ends[1], 0.0)
    scale = (hi - lo) / HIGHEST or 1.0
    return scale, min(HIGHEST, max(0, round(-lo / scale)))


class _Eager(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, zero: int, stochastic: bool) -> Tensor:
        y = x / scale + zero
        code = torch.floor(y + torch.rand_like(y)) if stochastic else torch.round(y)
        ctx.save_for_backward((code < 0) | (code > HIGHEST))
        return (code.clamp(0, HIGHEST) - zero) * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (clipped,) = ctx.saved_tensors
        return gradient.masked_fill(clipped, 0), None, None, None


class Hindsight(nn.Module):
    """Quantizes with the moving average of the extremes of earlier tensors."""

    def __init__(self, quantize: Quantize) -> None:
        super().__init__()
        self._quantize = quantize
        self._ends: tuple[float, float] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """The tensor quantized."""
        found = _extremes(x)
        used = self._ends or found
        lo, hi = (MOMENTUM * a + (1 - MOMENTUM) * b for a, b in zip(used, found, strict=True))
        self._ends = lo, hi
        return self._quantize(x, used)


class Current(nn.Module):
    """Quantizes with a tensor's own extremes."""

    def __init__(self, quantize: Quantize) -> None:
        super().__init__()
        self._quantize = quantize

    def forward(self, x: Tensor) -> Tensor:
        """The tensor quantized."""
        return self._quantize(x, _extremes(x))


def _extremes(x: Tensor) -> tuple[float, float]:
    least, most = torch.aminmax(x.detach())
    return least.item(), most.item()


class _OfGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, quantizer: nn.Module) -> Tensor:
        ctx.quantizer = quantizer
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return ctx.quantizer(gradient), None


def with_hooks(model: nn.Module, forward: Quantize, backward: Quantize) -> nn.Module:
    """A copy of a model that quantizes weights and outputs, and gradients of inputs."""
    model = copy.deepcopy(model)
    for layer in [each for each in model.modules() if isinstance(each, (nn.Conv2d, nn.Linear))]:
        parametrize.register_parametrization(layer, "weight", Current(forward))
        _hook(layer, Hindsight(forward), Hindsight(backward))
    return model


def _hook(layer: nn.Module, output: nn.Module, gradient: nn.Module) -> None:
    def before(layer: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        (x,) = args
        return (_OfGradient.apply(x, gradient) if x.requires_grad else x,)

    layer.register_forward_pre_hook(before)
    layer.register_forward_hook(lambda layer, args, y: output(y))


def prepared_by_torch_ao(model: nn.Module) -> nn.Module:
    """A copy of a model as torch.ao prepares it: activations and weights, not gradients."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.ao.quantization import get_default_qat_qconfig, prepare_qat

        model = copy.deepcopy(model).train()
        model.qconfig = get_default_qat_qconfig()  # type: ignore[assignment]
        return prepare_qat(model)
