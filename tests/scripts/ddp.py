"""Data-parallel training on CPUs: start it with torchrun."""

from __future__ import annotations

import gc
import os

import torch
import torch.distributed as dist
from fingerprint import fingerprint
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def main() -> None:
    """Each rank sees other data and keeps the same parameters."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(20)
    body = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(16, 5))
    model = DistributedDataParallel(body)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    torch.manual_seed(100 + rank)
    for _ in range(3):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(torch.randn(4, 2, 6)), torch.arange(4))
        loss.backward()
        optimizer.step()
    parameters = nn.ParameterList(body.parameters())
    torch.manual_seed(0)
    with open(os.path.join(os.environ["RESULTS"], f"rank{rank}.txt"), "w") as out:
        out.write(fingerprint(parameters))
    del model  # it uses the process group, which must be idle on all ranks when it ends
    gc.collect()
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
