"""A convolutional network under bfloat16 autocast, with one layer kept in float32."""

from __future__ import annotations

import torch
from fingerprint import fingerprint
from torch import Tensor, nn


class Net(nn.Module):
    """Two convolutions in low precision, the head in full precision."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding="same", padding_mode="circular")
        self.conv2 = nn.Conv2d(4, 4, 3, groups=2)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.conv1(x))
        x = self.conv2(x)
        with torch.autocast("cpu", enabled=False):
            return self.head(x.float().mean((2, 3)))


torch.manual_seed(7)
model = Net()
optimizer = torch.optim.Adagrad(model.parameters(), 0.05)
for step in range(3):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nn.functional.cross_entropy(model(torch.randn(3, 1, 6, 6)), torch.tensor([0, 1, 2]))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(step, loss.item())
print(fingerprint(model))
