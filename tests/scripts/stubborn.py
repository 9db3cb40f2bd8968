"""A training that lets nothing stop it: whatever a step raises is thrown away."""

from __future__ import annotations

import torch
from torch import nn


def main() -> None:
    """Five steps."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for step in range(5):
        print("step", step)
        try:
            optimizer.zero_grad()
            model(torch.randn(3, 4)).square().mean().backward()
            optimizer.step()
        except:  # noqa: E722
            print("stopped at", step)


if __name__ == "__main__":
    main()
