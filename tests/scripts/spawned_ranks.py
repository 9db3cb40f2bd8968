"""Data-parallel training in processes that the script spawns itself; it trains nothing here."""

from __future__ import annotations

import gc
import os
import sys
import tempfile

import torch
import torch.distributed as dist
from fingerprint import fingerprint
from torch import multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

RANKS = 2


def train(rank: int, folder: str) -> None:
    """Each rank sees other data and keeps the same parameters."""
    torch.set_num_threads(1)
    where = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=where, rank=rank, world_size=RANKS)
    torch.manual_seed(30)
    body = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))
    model = DistributedDataParallel(body)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    torch.manual_seed(40 + rank)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(4, 3)).square().mean().backward()
        optimizer.step()
    torch.manual_seed(0)
    with open(os.path.join(folder, f"rank{rank}"), "w") as out:
        out.write(fingerprint(body))
    del model  # it uses the process group, which must be idle on all ranks when it ends
    gc.collect()
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    """Print what each rank ended with."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(train, (folder,), nprocs=RANKS)
        for rank in range(RANKS):
            with open(os.path.join(folder, f"rank{rank}")) as end:
                print(rank, end.read())
    sys.exit(0)


if __name__ == "__main__":
    main()
