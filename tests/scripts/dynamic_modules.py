"""Layers that come to be while the model runs."""

from __future__ import annotations

import torch
from fingerprint import fingerprint
from torch import Tensor, nn


class Growing(nn.Module):
    """Makes a layer at its first call, and a throw-away projection at each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(3, 4)
        self.head: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.stem(x))
        if self.head is None:
            self.head = nn.Linear(x.shape[1], 2)
        noise = nn.Linear(4, 4, bias=False).requires_grad_(False)
        return self.head(x + noise(x))


torch.manual_seed(15)
model = nn.Sequential(nn.LazyLinear(3), Growing())
model(torch.randn(1, 5))
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for step in range(3):
    loss = model(torch.randn(4, 5)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(step, loss.item())
print(fingerprint(model))
