"""Real data: a fixed part of Fashion-MNIST, and the text of Python's own help."""

from __future__ import annotations

import gzip
import pydoc_data.topics
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

#: Where Debian's package `dataset-fashion-mnist` puts its files.
FASHION = Path("/usr/share/datasets/fashion-mnist")

TRAIN, TEST = 3_000, 2_000


def fashion() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The first images and labels for training, and of the test set, pooled to 14 × 14."""
    if not FASHION.exists():
        sys.exit("Fashion-MNIST is missing\n  as root: apt-get install dataset-fashion-mnist")
    train, test = (_images(name, count) for name, count in (("train", TRAIN), ("t10k", TEST)))
    return *train, *test


def _images(name: str, count: int) -> tuple[Tensor, Tensor]:
    pixels = _unpacked(f"{name}-images-idx3-ubyte.gz", 16)[: count * 784]
    labels = _unpacked(f"{name}-labels-idx1-ubyte.gz", 8)[:count]
    images = torch.from_numpy(pixels.reshape(-1, 1, 28, 28).astype(np.float32))
    return F.avg_pool2d(images, 2) / 128 - 0.56, torch.from_numpy(labels.astype(np.int64))


def _unpacked(name: str, header: int) -> np.ndarray:
    return np.frombuffer(gzip.decompress((FASHION / name).read_bytes()), np.uint8, offset=header)


def text() -> tuple[Tensor, Tensor]:
    """Bytes of the help texts, in the order of their names: nine tenths, and the last tenth."""
    topics = pydoc_data.topics.topics
    whole = "\n".join(topics[name] for name in sorted(topics)).encode("ascii", "replace")
    codes = torch.frombuffer(bytearray(whole), dtype=torch.uint8).long()
    split = len(codes) * 9 // 10
    return codes[:split], codes[split:]
