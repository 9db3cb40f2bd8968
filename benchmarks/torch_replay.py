"""A replay in torch as one would write it without hqtool: one fake quantization for each score.

It is straightforward, not slow on purpose: float32 throughout, torch's own fused fake quantization,
tensors loaded once and scored by every estimator at every bit-width. It computes the same four
estimators and the same figures (mean squared error, cosine, saturation).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from hqtool import TraceReader

GOLDEN_SHARE = (math.sqrt(5) - 1) / 2


def fake_quantized(x, lo, hi, bits):
    """Per-tensor affine fake quantization; also the scale and zero point."""
    lo, hi = min(lo, 0.0), max(hi, 0.0)
    top = 2**bits - 1
    scale = max((hi - lo) / top, 1e-30)
    zero_point = int(min(max(round(-lo / scale), 0), top))
    return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, 0, top), scale, zero_point


def direction_kept(x, q):
    """The cosine between a tensor and its quantized values."""
    return torch.nn.functional.cosine_similarity(x, q, dim=0).item()


def figures_of(x, lo, hi, bits):
    """Mean squared error, cosine, saturation."""
    q, scale, zero_point = fake_quantized(x, lo, hi, bits)
    low, high = (0 - zero_point - 0.5) * scale, (2**bits - 1 - zero_point + 0.5) * scale
    saturated = ((x < low) | (x > high)).float().mean().item()
    return torch.nn.functional.mse_loss(q, x).item(), direction_kept(x, q), saturated


def search(x, lo, hi, bits, tolerance=1e-3):
    """Golden section for the clip ratio of best cosine, re-quantizing at each step."""

    def f(a):
        return direction_kept(x, fake_quantized(x, a * lo, a * hi, bits)[0])

    best, low, high = {1.0: f(1.0)}, 0.0, 1.0
    left, right = 1 - GOLDEN_SHARE, GOLDEN_SHARE
    best[left], best[right] = f(left), f(right)
    while high - low > tolerance * (high + low) / 2:
        if best[left] > best[right]:
            high, right = right, left
            left = high - GOLDEN_SHARE * (high - low)
            best[left] = f(left)
        else:
            low, left = left, right
            right = low + GOLDEN_SHARE * (high - low)
            best[right] = f(right)
    a = max(best, key=best.__getitem__)
    return a * lo, a * hi


def mix(old, new, momentum):
    """Moving average of both ends."""
    return tuple((1 - momentum) * n + momentum * o for o, n in zip(old, new, strict=True))


def replay_in_torch(path: str, bits: Iterable[int], momentum: float = 0.9, interval: int = 100):
    """current, running, hindsight and dsgc over every site of a trace; mean figures of each."""
    totals: dict[tuple, list] = {}
    with TraceReader(path) as reader:
        for site in reader.sites:
            running, held = None, {}
            for t, record in enumerate(reader.records(site)):
                x = torch.from_numpy(record.values).reshape(-1)
                now = tuple(v.item() for v in torch.aminmax(x))
                lagging = running or now
                running = now if running is None else mix(running, now, momentum)
                for b in bits:
                    if t % interval == 0:
                        held[b] = search(x, *now, b)
                    ranges = {"current": now, "running": running, "hindsight": lagging,
                              "dsgc": held[b]}  # fmt: skip
                    for name, ends in ranges.items():
                        found = figures_of(x, *ends, b)
                        totals.setdefault((site, name, b), []).append(found)
    return {k: [sum(c) / len(c) for c in zip(*v, strict=True)] for k, v in totals.items()}
