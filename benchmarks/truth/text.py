"""Train a small transformer on the bytes of Python's help texts: an ordinary PyTorch script.

python text.py [--seed N] [--steps N]
"""

from __future__ import annotations

import argparse

import torch
from data import text
from models import Transformer
from torch import Tensor
from torch.nn import functional as F

BATCH, CONTEXT = 32, 32

#: Of so many stretches of the held-out text each byte is predicted.
TESTED = 200


def stretches(codes: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Bytes from each start on, and those that follow them."""
    found = codes[starts[:, None] + torch.arange(CONTEXT + 1)]
    return found[:, :-1], found[:, 1:]


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    codes, held_out = text()
    model = Transformer(context=CONTEXT)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=args.steps + 1)
    for _ in range(args.steps):
        x, y = stretches(codes, torch.randint(len(codes) - CONTEXT, (BATCH,)))
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    x, y = stretches(held_out, torch.linspace(0, len(held_out) - CONTEXT - 1, TESTED).long())
    with torch.no_grad():
        logits = model(x)
    print(f"loss: {F.cross_entropy(logits.flatten(0, 1), y.flatten()).item():.4f}")
    print(f"accuracy: {100 * (logits.argmax(-1) == y).float().mean().item():.2f} %")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a small transformer on text.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=250)
    train(parser.parse_args())
