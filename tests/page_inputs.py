"""What pages are made of in tests: traces with names that must stay inert, a study's document."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from hqtool import TraceWriter
from hqtool.traffic.layers import layer_from_json

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "sample_data" / "digits.h5"

#: Names that would act, were they markup, code, or shown in a terminal as they are.
NASTY = (
    "<script>window.hacked=1</script>",
    "</script><img src=x onerror=window.hacked=2>",
    "a'b\"c&amp;\x1b[31m\u202e`${window.hacked=3}`",
)


def write_trace(path: Path, layers: tuple[str, ...], steps: int = 40, factor: float = 1.0) -> None:
    """Convolutions whose outputs drift and whose gradients have tails; values at every fifth."""
    rng = np.random.default_rng(0)
    with TraceWriter(path) as writer:
        for layer in layers:
            geometry = {"name": layer, "op": "conv2d", "in_channels": 8, "out_channels": 8}
            geometry |= {"kernel": 1, "input": [4, 4], "batch": 2}
            writer.describe(layer, layer_from_json(geometry).to_json())
        for step in range(steps):
            for place, layer in enumerate(layers):
                x = rng.standard_normal((2, 8, 4, 4)).astype("f4") * (1 + place + step / 10)
                g = rng.laplace(size=(2, 8, 4, 4)).astype("f4") * 1e-5
                writer.write(layer, "output", step, x * np.float32(factor))
                writer.write(layer, "grad_input", step, g)
            writer.commit(step)


def study_document() -> dict[str, object]:
    """What `hqtool study --json` writes, of four recipes and two seeds."""
    figures = {"none": (0.97, None), "good": (0.96, 30.0), "fair": (0.9, 20.0), "bad": (0.5, 9.0)}
    table = [
        {
            "recipe": name, "runs": 2, "mean": mean, "std": 0.01,
            "difference": None if db is None else mean - 0.97,
            "difference_low": None if db is None else mean - 0.98,
            "difference_high": None if db is None else mean - 0.96,
            "pairs": 2, "diverged": 0, "failed": 0, "timed_out": 0, "static": None if db is None
            else True, "static_bytes": 1e6, "traffic_bytes": 1e6 * (place + 1), "seconds": 1.0,
            "sqnr_db": db, "cosine": None if db is None else 1 - 10 ** (-db / 10),
        }
        for place, (name, (mean, db)) in enumerate(figures.items())
    ]  # fmt: skip
    runs = [
        {"recipe": "bad", "seed": 1, "outcome": "diverged", "metric": None, "reason": "NaN"},
        {"recipe": "good", "seed": 1, "outcome": "finished", "metric": 0.96, "reason": None},
    ]
    return {
        "schema": "hqtool.study-result/1",
        "study": {
            "path": "study.toml", "folder": "study", "command": ["train.py"],
            "metric": "accuracy: ([0-9.]+)", "seeds": [0, 1], "recipes": list(figures),
            "baseline": "none", "trace": "run.h5", "options": [], "resumed": 0,
        },
        "table": table,
        "correlation": [
            {"score": "sqnr_db", "recipes": 3, "spearman": 1.0, "low": 1.0, "high": 1.0},
            {"score": "cosine", "recipes": 3, "spearman": None, "low": None, "high": None},
        ],
        "runs": runs,
    }  # fmt: skip


def write_study(folder: Path) -> Path:
    """A study's folder with its results."""
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps(study_document()))
    return folder
