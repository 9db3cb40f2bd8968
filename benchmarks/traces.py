"""Traces to measure on: gaussian outputs and Laplace gradients that drift as training's do."""

from __future__ import annotations

import numpy as np

from hqtool import TraceWriter
from hqtool.core.stats import stats_of
from hqtool.traffic.layers import layer_from_json

SITES = (("conv1", "output"), ("conv1", "grad_input"), ("conv2", "output"),
         ("conv2", "grad_input"), ("conv3", "output"), ("conv3", "grad_input"))  # fmt: skip


def geometry(layer: str, values: int) -> dict:
    """A convolution whose input and output hold so many values (a multiple of 1024)."""
    return layer_from_json(
        {"name": layer, "op": "conv2d", "in_channels": 64, "out_channels": 64, "kernel": 3,
         "padding": 1, "input": [4, 4], "batch": values // 1024}
    ).to_json()  # fmt: skip


def write_trace(path: str, steps: int = 10, values: int = 1 << 20, sites: int = 6) -> None:
    """6 sites × 10 steps × 1 Mi float32 values, or other numbers of each."""
    rng = np.random.default_rng(0)
    with TraceWriter(path, force=True) as writer:
        for layer, _ in SITES[:sites]:
            writer.describe(layer, geometry(layer, values))
        for step in range(steps):
            for layer, kind in SITES[:sites]:
                if kind == "output":
                    x = rng.standard_normal(values, np.float32) * np.float32(1 + 0.1 * step)
                else:
                    x = rng.laplace(size=values).astype("f4") * np.float32(1e-5 / (1 + step))
                writer.write(layer, kind, step, x.reshape(-1, 64, 4, 4))
            writer.commit(step)


def write_small_records(path: str, *, sites: int, steps: int, every: int) -> None:
    """A trace of records of 64 values, most of which keep only their statistics.

    Args:
        every: values are kept at every so many steps; 0: at none.
    """
    rng = np.random.default_rng(0)
    with TraceWriter(path, force=True) as writer:
        for step in range(steps):
            for site in range(sites):
                values = rng.standard_normal(64).astype(np.float32)
                kept = values if every and step % every == 0 else None
                writer.write(
                    f"layer{site}", "output", step, kept, stats=stats_of(values), shape=(64,)
                )
            writer.commit(step)
