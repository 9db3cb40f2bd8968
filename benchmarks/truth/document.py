"""benchmarks/truth.md, from the kept runs and scores alone."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.truth import correlation_section
from benchmarks.truth.correlation import HERE, RUNS, rows_of
from benchmarks.truth.runs import Runs
from benchmarks.truth.settings import settings
from benchmarks.truth.tables import training_sections

DOCUMENT = HERE.parent / "truth.md"

#: Machine and versions, as the trainings ended.
ABOUT = HERE / "about.json"

INTRODUCTION = """\
# Does replay tell the truth?

hqtool replays one recorded training and says which quantizer loses how much. Here networks are
trained with the quantizers themselves, and what that cost in accuracy is set beside what the paper
says, and beside what one full-precision run told before.

- **Networks**, small enough for two cores: `residual` (ResNet's blocks), `depthwise`
  (MobileNetV2's) and `plain` (VGG-like, no batch norm) on the first 3,000 images of Fashion-MNIST,
  pooled to 14 × 14, two epochs of batches of 32, SGD with momentum 0.9 and one cycle of the rate;
  `transformer`, two blocks over the bytes of Python's help texts, 250 steps of AdamW. Accuracy is
  that on 2,000 test images, or of the next byte in 200 held-out stretches, after the last step.
- **Settings**: {settings} a network, and two with calibrated ranges. Everything is trained by
  `hqtool study`, with the script's seed for hqtool's noise, too.
- **Runs**: {runs}, of {seeds} seeds; {hours:.1f} hours of one core. {about}
- A cell is the mean accuracy in percent ± the standard deviation over seeds, and in brackets the
  difference from full precision, paired by seed, ± half its 95 % interval (Student's t). A run that
  diverged, which ends it, counts as 0 %.
- **To repeat it**: `./dev bench truth` (resumes where it was stopped, in `truth-runs/`);
  `./dev bench truth --quick` trains a few settings with two seeds and prints their table.
"""

CLAIMS = """\
In a cell: the difference in percentage points over all networks and seeds, paired, ± half its 95 %
interval. "Held" means that the interval lies wholly above 0, or above −1 where the paper says "on
par" and −0.5 where it says "within 0.5"; "did not hold", wholly below. The paper's networks and
data are larger, and it tuned momentum and the like for each method; here nothing was tuned.
"""


def document() -> str:
    """All of it, computed anew."""
    rows = rows_of(RUNS)
    runs = Runs.of(rows)
    introduction = INTRODUCTION.format(
        settings=len(settings()),
        runs=f"{len(rows):,}",
        seeds=_seeds(runs),
        hours=runs.seconds / 3600,
        about=json.loads(ABOUT.read_text(encoding="utf-8"))["machine"],
    )
    trained = f"## The paper's tables, small\n\n{CLAIMS}\n{training_sections(runs)}"
    foretold = f"## Which offline figure foretells it\n\n{correlation_section.section()}"
    return "\n".join([introduction, trained, "", foretold])


def _seeds(runs: Runs) -> str:
    counts = {len(each) for each in runs.accuracy.values()}
    return str(max(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"


def write(path: Path = DOCUMENT) -> None:
    """Write it beside the other results."""
    path.write_text(document(), encoding="utf-8")
