"""Training in a process that the script starts itself, while its own training goes on."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection

import torch
from fingerprint import fingerprint
from torch import nn


def train(seed: int, steps: int, width: int) -> nn.Module:
    """A short training."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(4, 3)).square().mean().backward()
        optimizer.step()
    return model


def work(answer: Connection) -> None:
    """What the child does."""
    answer.send(fingerprint(train(18, 5, 7)))


def main() -> None:
    """Both trainings."""
    torch.set_num_threads(1)
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=work, args=(sender,))
        child.start()
        print(method, receiver.recv())
        child.join()
        print(child.exitcode)
    print(fingerprint(train(17, 2, 5)))


if __name__ == "__main__":
    main()
