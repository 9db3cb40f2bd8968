"""Run benchmarks and write benchmarks/results.md.

python -m benchmarks [replay|capture|train|kernels|tiling|page]
python -m benchmarks truth [--quick]    (trains for hours, and writes benchmarks/truth.md)
"""

from __future__ import annotations

import os
import platform
import sys
from datetime import date
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results.md"


def machine() -> str:
    """The machine and versions that the benchmarks ran on."""
    names = (
        [
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ]
        if Path("/proc/cpuinfo").exists()
        else []
    )
    import numpy
    import torch

    disabled = os.environ.get("NPY_DISABLE_CPU_FEATURES")
    without = f" without its kernels for {disabled}" if disabled else ""
    return (
        f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, "
        f"{platform.system()} {platform.machine()}; Python {platform.python_version()}, "
        f"numpy {numpy.__version__}{without}, torch {torch.__version__}; {date.today()}. "
        "Medians; the contenders take turns in one run."
    )


def replay_section() -> str:
    """The replay benchmarks, and their plot."""
    from benchmarks import replay_speed
    from benchmarks.plot import plot

    text, curves = replay_speed.run()
    plot(curves, HERE / "replay.svg")
    return f"{text}\n\n![seconds against what grows](replay.svg)"


def capture_section() -> str:
    """The overhead of capture."""
    from benchmarks import capture_overhead

    return capture_overhead.run()


def train_section() -> str:
    """The slowdown of quantized training, and that of its peers."""
    from benchmarks import train_overhead

    return train_overhead.run()


def tiling_section() -> str:
    """Traffic through a buffer, beside that of SCALE-Sim."""
    from benchmarks import tiling_peers

    return tiling_peers.run()


def kernels_section() -> str:
    """The kernels on one tensor."""
    from benchmarks import kernel_speed

    return kernel_speed.run()


def page_section() -> str:
    """Pages of the sample and of a long run."""
    from benchmarks import page_speed

    return page_speed.run()


SECTIONS = {
    "replay": replay_section,
    "capture": capture_section,
    "train": train_section,
    "kernels": kernels_section,
    "tiling": tiling_section,
    "page": page_section,
}

#: What no clock measures.
COUNTED = ("tiling",)

#: Measured where none is named; SCALE-Sim needs an interpreter of its own (`tiling_peers`).
USUAL = [name for name in SECTIONS if name != "tiling" or "SCALESIM_PYTHON" in os.environ]


def main() -> None:
    """Measure the sections named (default: `USUAL`), and keep earlier results of the others."""
    if sys.argv[1:2] == ["truth"]:
        from benchmarks.truth.__main__ import main as truth

        truth(sys.argv[2:])
        return
    chosen = sys.argv[1:] or USUAL
    kept = _sections(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name in chosen:
        print(f"measuring {name} …", file=sys.stderr)
        section = SECTIONS[name]()
        kept[name] = section if name in COUNTED else f"Measured on {machine()}\n\n{section}"
    body = "\n\n".join(f"## {name}\n\n{kept[name]}" for name in SECTIONS if name in kept)
    RESULTS.write_text(f"# Benchmarks\n\n{body}\n", encoding="utf-8")
    print(body)


def _sections(text: str) -> dict[str, str]:
    parts = text.split("\n## ")[1:]
    return {p.partition("\n")[0].strip(): p.partition("\n")[2].strip() for p in parts}


if __name__ == "__main__":
    main()
