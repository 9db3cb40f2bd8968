"""Four small networks: residual, depthwise, plain, and a transformer over bytes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 10


def normed(*layer: nn.Module) -> nn.Sequential:
    """A convolution and the batch norm of its outputs."""
    conv = layer[0]
    assert isinstance(conv, nn.Conv2d)
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), *layer[1:])


class ResidualBlock(nn.Module):
    """Two convolutions and a way around them, as in ResNet-18."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.first = normed(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.ReLU())
        self.second = normed(nn.Conv2d(after, after, 3, 1, 1, bias=False))
        self.around: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.around = normed(nn.Conv2d(before, after, 1, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x)) + self.around(x))


class InvertedBlock(nn.Module):
    """Expand, one filter a channel, project: MobileNetV2's block."""

    def __init__(self, before: int, after: int, stride: int = 1, expand: int = 4) -> None:
        super().__init__()
        wide = before * expand
        depthwise = nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False)
        self.body = nn.Sequential(
            normed(nn.Conv2d(before, wide, 1, bias=False), nn.ReLU6()),
            normed(depthwise, nn.ReLU6()),
            normed(nn.Conv2d(wide, after, 1, bias=False)),
        )
        self.adds = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.adds else y


class Pooled(nn.Sequential):
    """The mean over positions, and a linear head."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


def residual() -> nn.Module:
    return nn.Sequential(
        normed(nn.Conv2d(1, 8, 3, 1, 1, bias=False), nn.ReLU()),
        ResidualBlock(8, 16, stride=2),
        ResidualBlock(16, 16),
        ResidualBlock(16, 32, stride=2),
        Pooled(32),
    )


def depthwise() -> nn.Module:
    return nn.Sequential(
        normed(nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.ReLU6()),
        InvertedBlock(16, 16),
        InvertedBlock(16, 24, stride=2),
        InvertedBlock(24, 24),
        normed(nn.Conv2d(24, 64, 1, bias=False), nn.ReLU6()),
        Pooled(64),
    )


def plain() -> nn.Module:
    """As VGG, without batch norm: two, then two convolutions, then two linear layers."""
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 1, 1), nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 24, 3, 1, 1), nn.ReLU(), nn.Conv2d(24, 24, 3, 1, 1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(24 * 9, 64), nn.ReLU(), nn.Linear(64, CLASSES),
    )  # fmt: skip
    for layer in network:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return network


IMAGE_MODELS = {"residual": residual, "depthwise": depthwise, "plain": plain}


class TransformerBlock(nn.Module):
    """Attention and two linear layers, each after a layer norm and with a way around it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.project(self._attend(self.norm1(x)))
        return x + self.narrow(F.gelu(self.widen(self.norm2(x))))

    def _attend(self, x: Tensor) -> Tensor:
        parts = self.query_key_value(x).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        found = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return found.transpose(1, 2).flatten(2)


class Transformer(nn.Module):
    """The next byte from those before it."""

    def __init__(self, width: int = 32, blocks: int = 2, heads: int = 4, context: int = 32) -> None:
        super().__init__()
        self.bytes_in = nn.Embedding(128, width)
        self.places = nn.Parameter(0.02 * torch.randn(context, width))
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads) for _ in range(blocks)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 128)

    def forward(self, codes: Tensor) -> Tensor:
        x = self.bytes_in(codes) + self.places[: codes.shape[1]]
        found: Tensor = self.head(self.norm(self.blocks(x)))
        return found
