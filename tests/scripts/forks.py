"""Training in forked processes of every kind: one is left alone, one ends badly, one is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys

import torch
from fingerprint import fingerprint
from torch import nn


def train(steps: int) -> nn.Module:
    """A short training."""
    torch.manual_seed(steps)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(steps):
        model(torch.randn(4, 3)).square().mean().backward()
        optimizer.step()
    return model


def leave() -> None:
    """A child that has trained and exits like any script."""
    print(fingerprint(train(2)), flush=True)
    sys.exit(0)


def fail() -> None:
    """A child that has trained, and then an exception ends it."""
    train(3)
    raise ValueError("at the end")


def be_killed() -> None:
    """A child that is told to end."""
    train(4)
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """One after the other, then train here."""
    torch.set_num_threads(1)
    context = multiprocessing.get_context("fork")
    if os.fork() == 0:
        leave()
    print(os.waitstatus_to_exitcode(os.wait()[1]))
    for work in (fail, be_killed):
        child = context.Process(target=work)
        child.start()
        child.join()
        print(child.exitcode)
    print(fingerprint(train(5)))


if __name__ == "__main__":
    main()
