"""Inverted residual blocks with depthwise convolutions, as in MobileNetV2."""

from __future__ import annotations

import torch
from fingerprint import fingerprint
from torch import Tensor, nn


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; add the input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        wide = 2 * inputs
        self.shortcut = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            nn.Conv2d(inputs, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(inplace=True),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(inplace=True),
            nn.Conv2d(wide, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        if not self.shortcut:
            return self.conv(x)
        y = self.conv(x)
        y += x
        return y


class Net(nn.Module):
    """A stem, two blocks and a classifier behind dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.ReLU6(inplace=True))
        self.blocks = nn.ModuleList([InvertedResidual(4, 4, 1), InvertedResidual(4, 6, 2)])
        self.classifier = nn.Sequential(nn.Dropout(0.2, inplace=True), nn.Linear(6, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.classifier(x.mean((2, 3)))


torch.manual_seed(1)
model = Net().to(memory_format=torch.channels_last)
optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, nesterov=True)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3)
for step in range(3):
    images = torch.randn(4, 3, 8, 8).to(memory_format=torch.channels_last)
    loss = nn.functional.cross_entropy(model(images), torch.randint(5, (4,)))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    print(step, loss.item())
print(fingerprint(model))
