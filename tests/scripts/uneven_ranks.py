"""Ranks that do not train alike: `uneven_ranks.py STOPS`; the rank STOPS makes two steps, the other
four. Rank 1 runs its second layer from its second step on only.
"""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from torch import nn


def main() -> None:
    """Train, and say so."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    for parameter in model.parameters():
        nn.init.eye_(parameter)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    for step in range(2 if str(rank) == sys.argv[1] else 4):
        x = torch.tensor([[-1.0, 2.0]]) * (1 + step) * (1 + rank)
        (model[0](x) if rank and not step else model(x)).sum().backward()
        optimizer.step()
        print(f"{rank} {step}\n", end="", flush=True)  # in one piece
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
