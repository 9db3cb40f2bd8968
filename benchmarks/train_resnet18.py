"""An ordinary training script, for the overhead of capture: ResNet-18 on 32×32 images of noise.

    python train_resnet18.py [--steps N] [--width N] [--batch-size N]

After a first step to warm up it measures the others, and prints one line of JSON: mean wall and
processor seconds of a step, the process's peak memory in bytes (null where Linux does not tell),
and how many threads torch uses.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sample_data"))
from train_digits import Block


def network(width: int) -> nn.Module:
    """ResNet-18 as it is used on 32×32 images: 20 convolutions and a linear head."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    ]
    channels = width
    for stage in range(4):
        stage_channels, stride = width << stage, 1 if stage == 0 else 2
        layers += [Block(channels, stage_channels, stride), Block(stage_channels, stage_channels)]
        channels = stage_channels
    head = nn.Linear(channels, 10)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


def peak_bytes() -> int | None:
    """Peak memory of this process. (`ru_maxrss` of a child starts at its parent's.)"""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    lines = status.read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def train(steps: int, width: int, batch_size: int) -> tuple[float, float]:
    """Mean wall and processor seconds of a step."""
    torch.manual_seed(0)
    model = network(width)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    x, y = torch.randn(batch_size, 3, 32, 32), torch.randint(10, (batch_size,))
    start = 0.0, 0.0
    for step in range(1 + steps):
        if step == 1:
            start = time.perf_counter(), time.process_time()
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    wall, processor = time.perf_counter() - start[0], time.process_time() - start[1]
    return wall / steps, processor / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--width", type=int, default=64, help="channels of the first layers")
    parser.add_argument("--batch-size", type=int, default=8)
    args = parser.parse_args()
    wall, processor = train(args.steps, args.width, args.batch_size)
    found = {"wall": wall, "processor": processor, "peak": peak_bytes()}
    print(json.dumps(found | {"threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
