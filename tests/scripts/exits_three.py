"""Train, then end with an exit status of its own."""

from __future__ import annotations

import sys

import torch
from fingerprint import fingerprint
from torch import nn

torch.manual_seed(13)
model = nn.Linear(3, 2)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for _ in range(2):
    optimizer.zero_grad()
    model(torch.randn(4, 3)).square().mean().backward()
    optimizer.step()
print(fingerprint(model))
sys.exit(3)
