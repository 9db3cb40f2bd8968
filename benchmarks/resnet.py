"""ResNet-18 as it is used on 32×32 images, and an ordinary loop that trains a network on noise."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sample_data"))
from train_digits import Block

#: Channels of the first layers and images in a batch: of usual steps, and of short ones.
SIZES = ((64, 8), (32, 8))


def network(width: int) -> nn.Module:
    """20 convolutions and a linear head.

    Args:
        width: channels of the first layers.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(3, width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    ]
    channels = width
    for stage in range(4):
        stage_channels, stride = width << stage, 1 if stage == 0 else 2
        layers += [Block(channels, stage_channels, stride), Block(stage_channels, stage_channels)]
        channels = stage_channels
    head = nn.Linear(channels, 10)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


def training(
    model: nn.Module, batch_size: int, shape: tuple[int, ...] = (3, 32, 32)
) -> Callable[[], float]:
    """An ordinary training loop; each call makes a step and tells the seconds it took."""
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    x, y = torch.randn(batch_size, *shape), torch.randint(10, (batch_size,))

    def step() -> float:
        began = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        return time.perf_counter() - began

    return step
