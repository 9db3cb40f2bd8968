"""A model given to torch.compile, and a compiled function around a second one."""

from __future__ import annotations

import torch
from fingerprint import fingerprint
from torch import Tensor, nn

torch.manual_seed(9)
body = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Conv1d(4, 4, 3, stride=2))
head = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 2))
fast_body = torch.compile(body, backend="eager")


@torch.compile(backend="eager", dynamic=False)
def classify(x: Tensor) -> Tensor:
    """Mean over time, then the head."""
    return head(x.mean(-1))


optimizer = torch.optim.SGD([*fast_body.parameters(), *head.parameters()], 0.1)
for step in range(3):
    loss = nn.functional.cross_entropy(
        classify(fast_body(torch.randn(4, 2, 9))), torch.arange(4) % 2
    )
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(step, loss.item())
print(fingerprint(body, head))
