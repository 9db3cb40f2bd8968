"""Speed of replay: of hqtool, of a replay in torch, and of the least work any replay needs."""

from __future__ import annotations

import contextlib
import io
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from benchmarks import block_speed, torch_replay
from benchmarks.traces import write_small_records, write_trace
from hqtool import TraceReader
from hqtool.compare.comparison import Selection, compare
from hqtool.compare.execute import default_jobs, processes
from hqtool.compare.settings import ReplaySettings
from hqtool.estimators.presets import DEFAULTS, ESTIMATORS
from hqtool.estimators.quantizer import Quantizer, product, sweep_formats
from hqtool.recipes.named import RECIPES, load_recipe

#: Forty parameter settings; with seven bit-widths, 280 grids for each tensor.
FORTY = (
    "current",
    "running:momentum=0.05..0.95/0.1",
    "hindsight:momentum=0.05..0.95/0.1",
    "dsgc:interval=10..100/10",
    "std:k=1..5",
    "delayed:window=2..5",
)
SWEEP = tuple(range(2, 9))


def run_comparison(path: str, specs: Iterable[str], bits: tuple[int, ...], jobs: int) -> None:
    """One comparison through the library, as the command runs it."""
    choices = [choice for spec in specs for choice in ESTIMATORS.sweep(spec)]
    formats = sweep_formats(",".join(f"int{each}" for each in bits))
    settings = ReplaySettings(tuple(product(choices, formats)))
    compare([path], settings, Selection(), processes(jobs))


def read(path: str) -> list[np.ndarray]:
    """Every tensor of a trace."""
    with TraceReader(path) as reader:
        return [r.values for site in reader.sites for r in reader.records(site)]


def read_and_sort(path: str) -> None:
    """The least work of any replay by sorting, called the floor."""
    with TraceReader(path) as reader:
        for site in reader.sites:
            for record in reader.records(site):
                np.sort(record.values.reshape(-1))


def histogram_observer(tensors: list[np.ndarray]) -> None:
    """Best range by mean squared error, searched anew at every tensor."""
    from torch.ao.quantization import HistogramObserver

    for x in tensors:
        observer = HistogramObserver()
        observer(torch.from_numpy(x))
        observer.calculate_qparams()


def moving_average_observer(tensors: list[np.ndarray]) -> None:
    """A moving average of min-max."""
    from torch.ao.quantization import MovingAverageMinMaxObserver

    observer = MovingAverageMinMaxObserver(averaging_constant=0.1)
    for x in tensors:
        observer(torch.from_numpy(x))
        observer.calculate_qparams()


def seconds(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each; they take turns, so that a busy machine slows all of them alike."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(t) for name, t in taken.items()}


def torch_replay_on(threads: int, path: str, bits: tuple[int, ...]) -> None:
    """The replay in torch on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch_replay.replay_in_torch(path, bits)
    torch.set_num_threads(before)


def peak_mib(path: str) -> float:
    """Peak memory of a process that runs the default comparison alone (Linux)."""
    code = (
        "import sys; from hqtool.cli.main import cli\n"
        "cli.main(sys.argv[1:], standalone_mode=False)\n"
        "status = open('/proc/self/status').read()\n"
        "print(status.partition('VmHWM:')[2].split()[0], file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "compare", path, "--jobs", "1", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stderr.splitlines()[-1]) / 1024


def command_seconds(*args: str) -> float:
    """Median wall time of a whole command, process start included."""
    start = [sys.executable, "-m", "hqtool", *args]
    runs = {"it": lambda: subprocess.run(start, capture_output=True, check=True)}
    return seconds(runs, 5)["it"]


def against(folder: str, rounds: int) -> list[str]:
    """hqtool, the replay in torch and the floor on the same trace."""
    path = f"{folder}/main.h5"
    write_trace(path)
    cores = default_jobs()
    found = seconds(
        {
            "read": lambda: read(path),
            "read + np.sort": lambda: read_and_sort(path),
            **{
                f"{name}, {jobs} job(s)": lambda s=s, b=b, jobs=jobs: run_comparison(
                    path, s, b, jobs
                )
                for name, s, b in CASES
                for jobs in sorted({1, cores})
            },
            "torch, 8 bits, 1 thread": lambda: torch_replay_on(1, path, (8,)),
            f"torch, 8 bits, {cores} threads": lambda: torch_replay_on(cores, path, (8,)),
        },
        rounds,
    )
    slow = seconds({"torch": lambda: torch_replay_on(cores, path, SWEEP)}, max(1, rounds // 2))[
        "torch"
    ]
    return _against_lines(found, slow, cores)


CASES = (
    ("4 estimators × 8 bits", DEFAULTS, (8,)),
    ("4 estimators × 2..8 bits", DEFAULTS, SWEEP),
    ("40 settings × 2..8 bits (280 grids)", FORTY, SWEEP),
)


def _against_lines(found: dict[str, float], sweep_peer: float, cores: int) -> list[str]:
    floor = found["read + np.sort"]
    peer_8 = found[f"torch, 8 bits, {cores} threads"]
    one = found["torch, 8 bits, 1 thread"]
    lines = [
        f"Floor: reading {found['read']:.3f} s; reading and `np.sort` of every tensor "
        f"{floor:.3f} s. Torch replay: {peer_8:.2f} s at 8 bits on {cores} threads "
        f"({one:.2f} s on one), {sweep_peer:.2f} s at 2..8 bits.",
        "",
        "| comparison | jobs | seconds | times the floor | torch replay takes |",
        "|---|---|---|---|---|",
    ]
    peers = (peer_8, sweep_peer, sweep_peer * 10)
    for (name, _, _), torch_time in zip(CASES, peers, strict=True):
        for jobs in sorted({1, cores}):
            took = found[f"{name}, {jobs} job(s)"]
            lines.append(
                f"| {name} | {jobs} | {took:.3f} | {took / floor:.2f} | {torch_time / took:.0f} × |"
            )
    return [*lines, "", "The torch replay of 280 grids is taken as ten times that of 28."]


def observers(folder: str, rounds: int) -> list[str]:
    """Those of torch's observers that do the same as an estimator of hqtool."""
    path = f"{folder}/main.h5"
    tensors = read(path)[:20]
    from hqtool.core.formats.uniform import UniformFormat
    from hqtool.core.observation import PreparedValues
    from hqtool.core.recorded import RecordedObservation
    from hqtool.core.stats import stats_of
    from hqtool.estimators.protocol import advance, decide

    recorded = [stats_of(x) for x in tensors]  # a trace has them

    def ours(spec: str) -> None:
        estimator = ESTIMATORS.parse(spec).value
        state = estimator.start()
        for x, stats in zip(tensors, recorded, strict=True):
            obs = RecordedObservation(stats, UniformFormat(8), PreparedValues(x), shape=x.shape)
            _, reading = decide(estimator, state, obs)
            state = advance(estimator, state, [reading])

    found = seconds(
        {
            "hist": lambda: histogram_observer(tensors),
            "dsgc": lambda: ours("dsgc:interval=1"),
            "moving": lambda: moving_average_observer(tensors),
            "running": lambda: ours("running"),
        },
        rounds,
    )
    return [
        "| work on 20 tensors of 1 Mi values | torch.ao | hqtool |",
        "|---|---|---|",
        f"| best range searched at every tensor | HistogramObserver {found['hist']:.2f} s | "
        f"dsgc:interval=1 {found['dsgc']:.2f} s |",
        f"| moving average of min-max | MovingAverageMinMaxObserver {found['moving']:.3f} s | "
        f"running {found['running']:.4f} s, from recorded statistics |",
    ]


#: What one lane at each of these formats is compared with: `current` at int8, and sorting alone.
FORMATS_TIMED = ("int8", "int8-symmetric", "e4m3", "e5m2", "mxfp8", "mxfp4", "nvfp4")


def formats(folder: str, rounds: int) -> list[str]:
    """One quantizer at each format, and whole recipes, in multiples of the default comparison."""
    path = f"{folder}/formats.h5"
    write_trace(path, steps=4, sites=3)
    recipes = tuple(load_recipe(entry.name) for entry in RECIPES)

    def timed(settings: ReplaySettings) -> Callable[[], object]:
        return lambda: compare([path], settings)

    found = seconds(
        {
            "sort": lambda: read_and_sort(path),
            "default": lambda: run_comparison(path, DEFAULTS, (8,), 1),
            **{name: timed(ReplaySettings(_at_format(name))) for name in FORMATS_TIMED},
            "recipes": timed(ReplaySettings((), recipes=recipes)),
        },
        rounds,
    )
    rows = [(f"`{q.label}`", found[n]) for n in FORMATS_TIMED for q in _at_format(n)]
    rows.append((f"all {len(recipes)} recipes", found["recipes"]))
    return [
        f"Reading and `np.sort` of every tensor takes {found['sort']:.3f} s, the default "
        f"comparison {found['default']:.3f} s, on one core.",
        "",
        "| quantizer | seconds | times read and sort | times the default |",
        "|---|---|---|---|",
        *(
            f"| {name} | {took:.3f} | {took / found['sort']:.2f} | {took / found['default']:.2f} |"
            for name, took in rows
        ),
    ]


def _at_format(name: str) -> tuple[Quantizer, ...]:
    """`current` at a format; `local` where that needs no range."""
    return tuple(product([ESTIMATORS.parse("current")], sweep_formats(name)))


def growth(folder: str, rounds: int) -> tuple[list[str], dict[str, list[tuple[float, float]]]]:
    """Seconds against grids, tensor size, trace length and jobs; peak memory with them."""
    path = f"{folder}/grow.h5"
    curves: dict[str, list[tuple[float, float]]] = {}

    def timed(specs: Iterable[str], bits: tuple[int, ...], jobs: int = 1) -> float:
        return seconds({"it": lambda: run_comparison(path, specs, bits, jobs)}, rounds)["it"]

    write_trace(path, steps=4, sites=2)
    momenta = [f"hindsight:momentum={m / 1000}" for m in range(1000)]
    curves["grids"] = [(n, timed(momenta[:n], (8,))) for n in (1, 4, 16, 64, 256, 1000)]
    lines = ["| what grows | | seconds, 1 job | peak MiB |", "|---|---|---|---|"]
    for values in (1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24):
        write_trace(path, steps=2, values=values, sites=1)
        took = timed(DEFAULTS, (8,))
        curves.setdefault("values of a tensor", []).append((values, took))
        lines.append(f"| values of a tensor | {values:,} | {took:.3f} | {peak_mib(path):.0f} |")
    for steps in (2, 20, 200):
        write_trace(path, steps=steps, values=1 << 18, sites=2)
        took = timed(DEFAULTS, (8,))
        curves.setdefault("steps of a trace", []).append((steps, took))
        lines.append(f"| steps of a trace | {steps} | {took:.3f} | {peak_mib(path):.0f} |")
    lines += [f"| grids of a tensor | {n} | {took:.3f} | |" for n, took in curves["grids"]]
    return lines, curves


def small_records(folder: str, rounds: int) -> list[str]:
    """Time for a record where most records hold statistics alone, and for a long run."""
    rows = ["| trace | seconds, 1 job | a record |", "|---|---|---|"]
    for name, shape in {
        "10 sites × 1,000 steps of statistics alone": (10, 1000, 0),
        "10 sites × 300 steps of 64 values": (10, 300, 1),
        "100 sites × 1,000 steps, 64 values at every tenth": (100, 1000, 10),
    }.items():
        sites, steps, every = shape
        path = f"{folder}/small.h5"
        write_small_records(path, sites=sites, steps=steps, every=every)
        took = seconds({"it": lambda path=path: run_comparison(path, DEFAULTS, (8,), 1)}, rounds)[
            "it"
        ]
        rows.append(f"| {name} | {took:.3f} | {1e6 * took / (sites * steps):.1f} µs |")
    return rows


def commands(folder: str) -> list[str]:
    """Whole commands, process start and imports included."""
    sample = str(Path(__file__).parent.parent / "sample_data" / "digits.h5")
    spec = str(Path(__file__).parent.parent / "sample_data" / "resnet18.toml")
    rows = {
        "hqtool --help": ("--help",),
        "hqtool traffic resnet18.toml": ("traffic", spec),
        "hqtool compare digits.h5": ("compare", sample),
    }
    lines = ["| command | seconds |", "|---|---|"]
    return lines + [f"| `{name}` | {command_seconds(*args):.2f} |" for name, args in rows.items()]


def run(rounds: int = 5) -> tuple[str, dict[str, list[tuple[float, float]]]]:
    """All replay benchmarks: Markdown, and the curves to plot."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        parts = [
            "### Against a torch replay, and the floor",
            "",
            "Trace: 6 sites × 10 steps × 1 Mi float32 values.",
            "",
            *against(folder, rounds),
            "",
            "### Against torch's observers",
            "",
            *observers(folder, rounds),
            "",
            "### Formats and recipes",
            "",
            *formats(folder, rounds),
            "",
            "### Block formats",
            "",
            *block_speed.run(rounds),
            "",
            "### Small records",
            "",
            "Four estimators at 8 bits; reading the trace included.",
            "",
            *small_records(folder, rounds),
            "",
            "### Whole commands",
            "",
            *commands(folder),
            "",
            "### How it grows",
            "",
        ]
        lines, curves = growth(folder, max(1, rounds // 2))
    return "\n".join([*parts, *lines]), curves
