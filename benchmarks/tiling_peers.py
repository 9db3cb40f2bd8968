"""Elements of W, X and Y that Table 5's layers move through a buffer: here, and in SCALE-Sim.

SCALE-Sim needs numpy below 2, so that it has an interpreter of its own, named in the environment:

    python -m venv scalesim && scalesim/bin/pip install scalesim 'numpy<2'
    SCALESIM_PYTHON=scalesim/bin/python python -m benchmarks tiling
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from hqtool.traffic.bill import Bits
from hqtool.traffic.layers import Layer
from hqtool.traffic.pricing.rereads import shares_of
from hqtool.traffic.pricing.tiling import Streamed, loads_by_order
from hqtool.traffic.spec import load_spec

HERE = Path(__file__).parent
SPEC = HERE.parent / "sample_data" / "table5.toml"

#: The buffer here, and each of the three that SCALE-Sim has.
KIB = 64

#: SCALE-Sim's dataflow → its name, and the stationary operand here: X is A, W is B.
ORDERS = {"ws": ("weight", "B"), "os": ("output", "M"), "is": ("input", "A")}

Counts = dict[str, int]

EXPLAINED = """\
Elements have 8 bits. *Overhead* is what a look at each output adds to such traffic: 2·Y·4 bytes.
SCALE-Sim's Y are the elements that it saves, partial sums among them. Why they differ:

- **What is stationary.** SCALE-Sim holds in its 32×32 multipliers what its dataflow names, and its
  buffers cache what streams by. Here the whole buffer holds the stationary tensor: 64 KiB of
  weights, where there 1,024 are held.
- **Partial sums.** SCALE-Sim's weight- and input-stationary orders cut sums into parts of 32
  products, and save what is summed up after each. Here nothing is saved before it is summed up.
- **Padding.** SCALE-Sim has none: it is given the padded input, whose rim counts as elements of X,
  which here are not loaded.
- **Caches.** SCALE-Sim has a buffer for each tensor, which fetches ahead in the order of use, half
  a buffer at a time, keeps some of what streams by, and may fetch again what it dropped. Here what
  streams takes no room and is not kept: W of row 1, which fit SCALE-Sim's buffer, are loaded for
  each tile of sums, where they are not the stationary tensor.
- **Depthwise layers** are products of one channel by one: there simulated for a single channel,
  times the channels. Neither loads anything again.

So `--tiling` bills what a mapping made for the buffer moves, and the paper's model is its limit. A
fixed array with a fixed dataflow moves more operands, beside which looks weigh less."""


def run() -> str:
    """The section of results.md."""
    layers = load_spec(SPEC).layers
    rows = [line for number, layer in enumerate(layers, 1) for line in _rows(number, layer)]
    head = (
        "| row | stationary | W there | here | X there | here | Y there | here | overhead | here |"
    )
    return "\n".join(
        [
            f"Table 5's layers, forward: SCALE-Sim {_version()} with 32×32 multipliers and",
            f"{KIB} KiB for each of W, X and Y, beside the loop orders of `traffic --tiling`",
            f"in {KIB} KiB. Thousands of elements.",
            "",
            head,
            "|" + "---|" * head.count(" | ") + "---|",
            *rows,
            "",
            EXPLAINED,
        ]
    )


def _rows(number: int, layer: Layer) -> Iterator[str]:
    here = _here(layer)
    for dataflow, (name, order) in ORDERS.items():
        there, mine = _there(layer, dataflow), here.get(order)
        pairs = [(there[t], mine[t] if mine else None) for t in "WXY"]
        cells = [cell for pair in pairs for cell in map(_thousands, pair)]
        overheads = [_overhead(layer, each) for each in (there, mine)]
        yield f"| {' | '.join([str(number), name, *cells, *overheads])} |"


def _here(layer: Layer) -> dict[str, Counts]:
    """Loop order → elements moved."""
    work = next(each for each in layer.works() if each.pass_name == "forward")
    counts, bits, (groups, rows) = layer.counts(), Bits(), shares_of(work)
    of = {
        each.kind: (bits.stored(each).payload, n) for each, n in zip(work.reads, rows, strict=True)
    }
    x, w = Streamed(*of["input"]), Streamed(*of["weight"])
    return {
        order: {"W": counts.weight * loads.b, "X": counts.input * loads.a, "Y": counts.output}
        for order, loads in loads_by_order(x, w, groups, bits.acc, KIB * 8192).items()
    }


def _there(layer: Layer, dataflow: str) -> Counts:
    """SCALE-Sim's counts; of a depthwise layer those of one channel, times the channels."""
    rim = layer.kernel[0] - 1
    sizes = [layer.input[0] + rim, layer.input[1] + rim, layer.kernel[0]]
    channels = [each // layer.groups for each in (layer.in_channels, layer.out_channels)]
    words = [dataflow, KIB, *sizes, *channels]
    done = subprocess.run(
        [os.environ["SCALESIM_PYTHON"], HERE / "scalesim_counts.py", *map(str, words)],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name: count * layer.groups for name, count in json.loads(done.stdout).items()}


def _overhead(layer: Layer, moved: Counts | None) -> str:
    if moved is None:
        return "–"
    return f"+{100 * 8 * layer.counts().output / sum(moved.values()):.0f} %"


def _thousands(count: int | None) -> str:
    return "–" if count is None else f"{count / 1000:,.{0 if count >= 1e5 else 1}f}"


def _version() -> str:
    code = "from importlib.metadata import version; print(version('scalesim'))"
    python = os.environ["SCALESIM_PYTHON"]
    return subprocess.run([python, "-c", code], capture_output=True, text=True).stdout.strip()
