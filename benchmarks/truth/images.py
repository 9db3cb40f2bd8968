"""Train a network on Fashion-MNIST: an ordinary PyTorch script.

python images.py [--model residual|depthwise|plain] [--seed N] [--epochs N]
"""

from __future__ import annotations

import argparse

import torch
from data import fashion
from models import IMAGE_MODELS
from torch.nn import functional as F

BATCH = 32

#: The highest learning rate of one cycle.
RATE = 0.05


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    x, y, x_test, y_test = fashion()
    model = IMAGE_MODELS[args.model]()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    steps = args.epochs * (len(y) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps + 1)
    for _ in range(args.epochs):
        order = torch.randperm(len(y))
        for start in range(0, len(y) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            loss = F.cross_entropy(model(x[chosen]), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        logits = model(x_test)
    print(f"loss: {F.cross_entropy(logits, y_test).item():.4f}")
    print(f"accuracy: {100 * (logits.argmax(1) == y_test).float().mean().item():.2f} %")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a network on Fashion-MNIST.")
    parser.add_argument("--model", choices=IMAGE_MODELS, default="residual")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=2)
    train(parser.parse_args())
