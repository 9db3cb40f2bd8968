"""Data-parallel training, or the same in one process: `ranked.py ranks|parts|whole`.

In one process the batches of both ranks are the parts of one, or one batch. All values are small
multiples of powers of two, so that sums of products are exact in any order.
"""

from __future__ import annotations

import gc
import sys

import torch
import torch.distributed as dist
from fingerprint import fingerprint
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

STEPS, RANKS, BATCH = 4, 2, 4


def integers(*shape: int) -> Tensor:
    """Small ones."""
    return torch.randint(-4, 5, shape).float()


def batches_of(step: int) -> list[Tensor]:
    """Of each rank; in the first step all have the same."""
    torch.manual_seed(step)
    found = [integers(BATCH, 3) * (1 + rank * step) for rank in range(RANKS)]
    return found[:1] * RANKS if step == 0 else found


def main() -> None:
    """Train, and print what the parameters are."""
    how = sys.argv[1]
    torch.set_num_threads(1)
    torch.manual_seed(20)
    body = nn.Sequential(
        nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False), nn.Flatten()
    )
    with torch.no_grad():
        for parameter in body.parameters():
            parameter.copy_(integers(*parameter.shape) / 4)
    model: nn.Module = body
    if how == "ranks":
        dist.init_process_group("gloo")
        model = DistributedDataParallel(body)  # averages gradients
    optimizer = torch.optim.SGD(model.parameters(), 2.0**-9 if how == "ranks" else 2.0**-10)
    for step in range(STEPS):
        parts = batches_of(step)
        if how != "parts":
            parts = [parts[dist.get_rank()] if how == "ranks" else torch.cat(parts)]
        optimizer.zero_grad()
        for part in parts:
            (model(part).square().sum() / 8).backward()
        optimizer.step()
    print(f"{fingerprint(nn.ParameterList(body.parameters()))}\n", end="")  # in one piece
    if how == "ranks":
        del model, optimizer
        gc.collect()
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
