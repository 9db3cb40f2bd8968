"""Fit a small network with LBFGS, which evaluates a closure several times a step."""

from __future__ import annotations

import torch
from fingerprint import fingerprint
from torch import Tensor, nn

torch.manual_seed(5)
x = torch.linspace(-1, 1, 12)[:, None]
y = torch.sin(3 * x)
model = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1))
optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)
closures = 0


def closure() -> Tensor:
    """The loss and its gradients."""
    global closures
    closures += 1
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(x), y)
    loss.backward()
    return loss


for step in range(3):
    print(step, optimizer.step(closure).item())
print(closures, "closures")
print(fingerprint(model))
