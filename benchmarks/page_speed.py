"""How long a page takes, how much memory, and how large it is: of the sample and of a long run."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.traces import write_small_records

SAMPLE = Path(__file__).parent.parent / "sample_data" / "digits.h5"

#: Of the long run: values are kept at every so many steps.
SITES, STEPS, EVERY = 300, 10_000, 1000


def run() -> str:
    """The section's text."""
    with tempfile.TemporaryDirectory() as folder:
        long = f"{folder}/long.h5"
        write_small_records(long, sites=SITES, steps=STEPS, every=EVERY)
        rows = [
            ("sample trace (21 sites, 264 steps)", *_measured(str(SAMPLE), folder)),
            (f"{SITES} sites × {STEPS:,} steps of statistics", *_measured(long, folder)),
        ]
    lines = [f"| {name} | {s:.1f} | {mib:.0f} | {mb:.2f} |" for name, s, mib, mb in rows]
    head = (
        "| `hqtool report TRACE` | seconds | largest process, MiB | page, MB |\n|---|---|---|---|"
    )
    return "\n".join([head, *lines])


def _measured(trace: str, folder: str) -> tuple[float, float, float]:
    """Seconds, MiB of the largest process so far, and MB of the page; of one run."""
    out = f"{folder}/page.html"
    words = [sys.executable, "-m", "hqtool", "report", trace, "-o", out, "-f", "-q"]
    start = time.perf_counter()
    subprocess.run(words, check=True)
    seconds = time.perf_counter() - start
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return seconds, largest, os.path.getsize(out) / 1e6
