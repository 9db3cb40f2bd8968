"""Data loaders whose workers are forked and spawned; the data set owns a network, too."""

from __future__ import annotations

import torch
from fingerprint import fingerprint
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


class Features(Dataset):
    """Random features, passed through a network that is in training mode."""

    def __init__(self) -> None:
        self.rows = torch.randn(8, 3)
        self.embed = nn.Linear(3, 4)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.embed(self.rows[index]).detach() + torch.rand(4), index % 2


def main() -> None:
    """One epoch with each way to start a worker."""
    torch.manual_seed(10)
    data = Features()
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for method in ("fork", "spawn"):
        loader = DataLoader(
            data, 4, shuffle=True, num_workers=1, multiprocessing_context=method, timeout=60
        )
        for x, target in loader:
            loss = nn.functional.cross_entropy(model(x), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            print(method, loss.item())
    print(fingerprint(model))


if __name__ == "__main__":
    main()
