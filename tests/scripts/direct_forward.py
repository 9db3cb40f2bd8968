"""Layers called by their forward method, past `__call__`."""

from __future__ import annotations

import torch
from fingerprint import fingerprint
from torch import Tensor, nn


class Net(nn.Module):
    """One layer called as it should be, three in other ways."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(1, 3, 3)
        self.mixer = nn.Linear(4, 4)
        self.mixed = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem.forward(x))
        x = self.mixer(x)
        x = x + self.mixed.forward(x, x, x)[0]
        return self.head.forward(x)


torch.manual_seed(16)
model = Net()
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for step in range(3):
    loss = model.forward(torch.randn(2, 1, 6)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(step, loss.item())
print(fingerprint(model))
