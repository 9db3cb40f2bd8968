"""Train a small ResNet on handwritten digits: an ordinary PyTorch script.

    python train_digits.py [--epochs N] [--batch-size N] [--lr X] [--seed N] [--steps N]

Prints the mean loss of every epoch and the accuracy on a held-out fifth of the images.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

DATA = Path(__file__).resolve().parent / "digits.npz"


class Block(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + self.downsample(x))


class SmallResNet(nn.Module):
    """Ten convolutions and a linear head for 8×8 images."""

    def __init__(self, classes: int = 10, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(Block(width, width), Block(width, width))
        self.layer2 = nn.Sequential(Block(width, 2 * width, stride=2), Block(2 * width, 2 * width))
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(self.stem(x)))
        x = self.layer2(self.layer1(x))
        return self.head(x.mean(dim=(2, 3)))


def load(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images and labels, then the held-out fifth's."""
    with np.load(DATA) as data:
        images, labels = data["images"], data["labels"]
    order = np.random.default_rng(seed).permutation(len(labels))
    x = torch.from_numpy(images[order]).float().unsqueeze(1) / 8 - 1
    y = torch.from_numpy(labels[order]).long()
    held_out = len(y) // 5
    return x[held_out:], y[held_out:], x[:held_out], y[:held_out]


def batches(x: Tensor, y: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Full batches in a new random order."""
    order = torch.randperm(len(y))
    for start in range(0, len(y) - size + 1, size):
        chosen = order[start : start + size]
        yield x[chosen], y[chosen]


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of images whose digit is recognised."""
    model.eval()
    right = (model(x).argmax(dim=1) == y).float().mean().item()
    model.train()
    return right


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    x, y, x_test, y_test = load(args.seed)
    model = SmallResNet()
    steps_per_epoch = len(y) // args.batch_size
    total = min(args.steps or args.epochs * steps_per_epoch, args.epochs * steps_per_epoch)
    optimizer = torch.optim.SGD(model.parameters(), args.lr, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2 * args.lr, total_steps=total + 1)
    step = 0
    for epoch in range(args.epochs):
        losses = []
        for images, labels in batches(x, y, args.batch_size):
            if step == total:
                break
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            step += 1
        if losses:
            print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}", flush=True)
    print(f"test accuracy: {100 * accuracy(model, x_test, y_test):.2f} %")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a small ResNet on handwritten digits.")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="stop after so many steps")
    return parser.parse_args()


if __name__ == "__main__":
    train(parse())
