"""Curves as a picture, both axes logarithmic."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot


def plot(curves: dict[str, list[tuple[float, float]]], path: Path) -> None:
    """One panel a curve: seconds of a comparison against what grows."""
    figure, panels = pyplot.subplots(1, len(curves), figsize=(4 * len(curves), 3.4))
    for panel, (name, points) in zip(panels, curves.items(), strict=True):
        panel.loglog(*zip(*points, strict=True), "o-")
        panel.set_xlabel(name)
        panel.set_ylabel("seconds, one job")
        panel.grid(alpha=0.3, which="both")
    figure.tight_layout()
    figure.savefig(path)
