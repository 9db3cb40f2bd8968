"""A data set that passes each image through a network of its own; no optimizer updates that."""

from __future__ import annotations

import torch
from fingerprint import fingerprint
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


class Blurred(Dataset):
    """Random images, made smooth by convolutions in training mode."""

    def __init__(self) -> None:
        self.images = torch.randn(8, 1, 6, 6)
        self.blur = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1))
        self.mean = torch.stack([self[index][0] for index in range(8)]).mean()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.blur(self.images[index]).detach(), index % 2


torch.manual_seed(21)
model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2))
optimizer = torch.optim.SGD(model.parameters(), 0.1)
data = Blurred()
for epoch in range(2):
    for x, target in DataLoader(data, 4, shuffle=True):
        loss = nn.functional.cross_entropy(model(x - data.mean), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(epoch, loss.item())
print(fingerprint(model))
