"""A model from a factory, a moving average of it by deepcopy, and evaluation in between."""

from __future__ import annotations

import copy

import torch
from fingerprint import fingerprint
from torch import Tensor, nn


def build(width: int) -> nn.Module:
    """A classifier whose parts are put together from outside."""
    model = nn.Module()
    model.add_module("features", nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU(inplace=True)))
    model.register_module("head", nn.Linear(width, 2))
    return model


def predict(model: nn.Module, x: Tensor) -> Tensor:
    """The parts are called one by one: the whole has no forward method."""
    return model.head(model.features(x).mean((2, 3)))


@torch.no_grad()
def evaluate(model: nn.Module) -> float:
    """Accuracy on noise, in eval mode."""
    model.eval()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 1, 5, 5, generator=generator)
    accuracy = (predict(model, x).argmax(1) == 0).float().mean().item()
    model.train()
    return accuracy


torch.manual_seed(11)
model = build(3)
average = copy.deepcopy(model).requires_grad_(False)
optimizer = torch.optim.Adam(model.parameters(), 0.01)
for step in range(3):
    x = torch.randn(4, 1, 5, 5)
    loss = nn.functional.cross_entropy(predict(model, x), torch.tensor([0, 1, 0, 1]))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        for mean, value in zip(average.parameters(), model.parameters(), strict=True):
            mean.lerp_(value, 0.1)
    print(step, loss.item(), evaluate(model), evaluate(average))
print(fingerprint(model, average))
