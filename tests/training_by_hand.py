"""Quantizers and layers by hand, for the tests of training: plain torch, nothing of hqtool."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn import grad as conv_grad

#: Quantizes a tensor; where it was saturated.
Rounds = Callable[[Tensor], tuple[Tensor, Tensor]]

KINDS = ("input", "weight", "output", "grad_output", "grad_input", "grad_weight")


def same(x: Tensor) -> tuple[Tensor, Tensor]:
    return x, torch.zeros_like(x, dtype=torch.bool)


def symmetric4(x: Tensor) -> tuple[Tensor, Tensor]:
    """int4-symmetric over (-1, 1): levels k/7, k = -7 … 7."""
    return (x * 7).round().clamp(-7, 7) / 7, x.abs() > (7.5 + 1e-6) / 7


def asymmetric(x: Tensor, lo: float, hi: float, bits: int = 8) -> tuple[Tensor, Tensor]:
    """The uniform asymmetric levels of section 3 of the design, over a range."""
    lo, hi = min(lo, 0.0), max(hi, 0.0)
    top = 2**bits - 1
    step = (hi - lo) / top
    if not step:
        return x * 0, x != 0
    zero = min(max(round(-lo / step), 0), top)
    codes = (x / step).round() + zero
    beyond = (x / step + zero < -0.5 - 1e-6) | (x / step + zero > top + 0.5 + 1e-6)
    return (codes.clamp(0, top) - zero) * step, beyond


class Layer:
    """A linear layer or a convolution, forward and backward, each tensor quantized as given."""

    def __init__(self, module: torch.nn.Module, rounds: Mapping[str, Rounds], full: bool = False):
        self.module = module
        self.rounds = {kind: rounds.get(kind, same) for kind in KINDS}
        self.full = full

    def _masked(self, gradient: Tensor, mask: Tensor) -> Tensor:
        return gradient if self.full else gradient.masked_fill(mask, 0)

    def forward(self, x: Tensor) -> Tensor:
        self.x, self.x_beyond = self.rounds["input"](x)
        self.w, self.w_beyond = self.rounds["weight"](self.module.weight.detach())
        bias = self.module.bias
        bias = None if bias is None else bias.detach()
        y = self._multiplied(self.x, self.w, bias)
        y, self.y_beyond = self.rounds["output"](y)
        return y

    def _multiplied(self, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        if w.dim() == 2:
            return F.linear(x, w, bias)
        how = self.module.stride, self.module.padding
        if isinstance(self.module, torch.nn.ConvTranspose2d):
            return F.conv_transpose2d(x, w, bias, *how)
        return F.conv2d(x, w, bias, *how)

    def _gradients(self, g: Tensor) -> tuple[Tensor, Tensor]:
        """G_X and G_W: each a product of the same kind (paper, section 3.1)."""
        if self.w.dim() == 2:
            return g @ self.w, g.T @ self.x
        how = {"stride": self.module.stride, "padding": self.module.padding}
        if isinstance(self.module, torch.nn.ConvTranspose2d):  # a convolution's own backward pass
            gx = F.conv2d(g, self.w, None, **how)
            return gx, conv_grad.conv2d_weight(g, self.w.shape, self.x, **how)
        gx = conv_grad.conv2d_input(self.x.shape, self.w, g, **how)
        return gx, conv_grad.conv2d_weight(self.x, self.w.shape, g, **how)

    def backward(self, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """G_X, G_W and the gradient of the bias."""
        g = self.rounds["grad_output"](self._masked(gradient, self.y_beyond))[0]
        gx, gw = self._gradients(g)
        gb = g.sum([axis for axis in range(g.dim()) if axis != min(1, g.dim() - 1)])
        gx = self._masked(self.rounds["grad_input"](gx)[0], self.x_beyond)
        gw = self._masked(self.rounds["grad_weight"](gw)[0], self.w_beyond)
        return gx, gw, gb


class Product:
    """A product of two activations, forward and backward: the second stands where weights do."""

    def __init__(self, rounds: Mapping[str, Rounds], full: bool = False):
        self.rounds = {kind: rounds.get(kind, same) for kind in KINDS}
        self.full = full

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        self.a, self.a_beyond = self.rounds["input"](a)
        self.b, self.b_beyond = self.rounds["weight"](b)
        y, self.y_beyond = self.rounds["output"](self.a @ self.b)
        return y

    def backward(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of both."""
        g = self.rounds["grad_output"](self._masked(gradient, self.y_beyond))[0]
        ga = self.rounds["grad_input"](g @ self.b.mT)[0]
        gb = self.rounds["grad_weight"](self.a.mT @ g)[0]
        return self._masked(ga, self.a_beyond), self._masked(gb, self.b_beyond)

    def _masked(self, gradient: Tensor, mask: Tensor) -> Tensor:
        return gradient if self.full else gradient.masked_fill(mask, 0)
