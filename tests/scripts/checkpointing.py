"""Activation checkpointing: one segment reentrant, one not, a sequence of two more."""

from __future__ import annotations

import torch
from fingerprint import fingerprint
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential


def segment(width: int) -> nn.Sequential:
    """With dropout, whose random numbers must come out the same again."""
    return nn.Sequential(
        nn.Linear(width, 2 * width),
        nn.ReLU(inplace=True),
        nn.Dropout(0.3),
        nn.Linear(2 * width, width),
    )


class Net(nn.Module):
    """Plain, reentrant, non-reentrant, sequential and plain parts."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(3, 4)
        self.reentrant = segment(4)
        self.modern = segment(4)
        self.tail = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh())
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + checkpoint(self.reentrant, x, use_reentrant=True)
        x = x + checkpoint(self.modern, x, use_reentrant=False)
        x = checkpoint_sequential(self.tail, 2, x, use_reentrant=False)
        return self.head(x)


torch.manual_seed(8)
model = Net()
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for step in range(3):
    loss = model(torch.randn(5, 3)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(step, loss.item())
print(fingerprint(model))
