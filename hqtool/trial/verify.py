"""Training twice, plainly and under capture: does it end with the same bits, and how much later?"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hqtool.capture.settings import CaptureSettings
from hqtool.file_lock import is_held
from hqtool.launch.process_rank import path_of_rank, rank_of_process
from hqtool.launch.program import find_program
from hqtool.launch.requirements import require_torch
from hqtool.launch.stderr_lines import say
from hqtool.outputs import being_written
from hqtool.sizes import counted

#: What a child runs.
_CHILD = "from hqtool.trial.fingerprint import main; main()"

_MESSAGE_START = b"hqtool: "

_CHANGED = "capture changed this training: two runs without capture end with the same bits"
_IRREPRODUCIBLE = [
    "this says nothing about capture: two runs without it differ from each other, too",
    "  seed the script's random numbers, and let it not resume from what an earlier run left",
]

_EAGER = (
    "torch.compile: both runs let what it compiles run eagerly; "
    "compiled code may end with other bits"
)

#: Exit statuses: training is the same; capture changed it; the two runs cannot be compared.
SAME, CHANGED, UNKNOWN = 0, 1, 3


class FinishedRun(NamedTuple):
    """A run of the script.

    Args:
        status: its exit status.
        seconds: how long it took, the start of Python included.
        out, err: what it printed, less what hqtool said.
        messages: what hqtool said.
        report: as `Fingerprint` writes it; empty where the process was cut short.
    """

    status: int
    seconds: float
    out: bytes
    err: bytes
    messages: list[str]
    report: dict[str, Any]


class Verdict(NamedTuple):
    """The lines to print, and the exit status."""

    lines: list[str]
    status: int


def verify(
    target: str,
    argv: Sequence[str],
    *,
    out: str | os.PathLike[str],
    settings: CaptureSettings,
    module: bool,
    quiet: bool,
) -> Verdict:
    """Train without capture and then under capture, and compare; the trace is kept.

    Where the two differ, a second run without capture shows whether the script reproduces itself.
    What torch.compile compiles runs eagerly under capture, and so it does in the plain run.

    Raises:
        HqtoolError: PyTorch is missing.
        DataError: the script or module is missing; nothing was run.
        UsageError: the trace exists (without `settings.force`) or has no folder.
    """
    require_torch()
    find_program(target, argv, module=module)
    _require_place(path_of_rank(out, rank_of_process()), settings)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and the child, too
    job = {"target": target, "argv": list(argv), "module": module, "out": None}
    recorded = job | {"out": os.fspath(out), "settings": settings.to_json()}
    plain = _run(job, "without capture", quiet)
    captured = _run(recorded, "under capture", quiet)
    if not quiet:
        say(*captured.messages)
    for run in (plain, captured):
        if run.status or not run.report:
            sys.stderr.write(run.err.decode(errors="replace"))
    if why := _why_incomparable(plain, captured):
        killed = plain.report and captured.status < 0
        return Verdict([f"parameters: cannot be compared: {why}"], CHANGED if killed else UNKNOWN)
    further, difference = _further_lines(plain, captured), _difference(plain, captured)
    if difference is None:
        return Verdict([f"parameters: bit-identical {_extent(plain)}", *further], SAME)
    again = _run(job, "without capture, once more", quiet)
    if not again.report or _difference(plain, again):
        return Verdict([f"parameters: {difference}", *_IRREPRODUCIBLE], UNKNOWN)
    return Verdict([f"parameters: {difference}", _CHANGED, *further], CHANGED)


def _require_place(path: str, settings: CaptureSettings) -> None:
    """Refuse a trace that could not be written, before anything is run."""
    from hqtool.trace import hdf5_files

    hdf5_files.require_folder(os.path.realpath(path))
    if is_held(path):
        raise being_written(path)
    if os.path.exists(path) and not settings.force:
        raise hdf5_files.exists_already(path)


def _run(job: dict[str, Any], how: str, quiet: bool) -> FinishedRun:
    """Run the script in a process of its own, to its end."""
    if not quiet:
        say(f"running {job['target']} {how}")
    with tempfile.TemporaryDirectory(prefix="hqtool-") as folder:
        out, err, report = (Path(folder, name) for name in ("out", "err", "report"))
        command = [sys.executable, "-c", _CHILD, json.dumps(job | {"report": str(report)})]
        began = time.perf_counter()
        status = _wait_for(command, out, err)
        seconds = time.perf_counter() - began
        own, messages = _separated(err.read_bytes())
        found = json.loads(report.read_text()) if report.exists() else {}
        return FinishedRun(status, seconds, out.read_bytes(), own, messages, found)


def _wait_for(command: list[str], out: Path, err: Path) -> int:
    """Run a command to its end; if this process is ended, the command is, too."""
    with out.open("wb") as to_out, err.open("wb") as to_err:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=to_out, stderr=to_err)
        try:
            return child.wait()
        except BaseException:
            child.terminate()
            child.wait()
            raise


def _separated(err: bytes) -> tuple[bytes, list[str]]:
    """What the script printed to stderr, and what hqtool said there."""
    lines = err.splitlines(keepends=True)
    own = [line for line in lines if not line.startswith(_MESSAGE_START)]
    ours = [line.removeprefix(_MESSAGE_START) for line in lines if line.startswith(_MESSAGE_START)]
    return b"".join(own), [line.decode(errors="replace").rstrip() for line in ours]


def _why_incomparable(plain: FinishedRun, captured: FinishedRun) -> str | None:
    """Why there is nothing to compare; None if there is."""
    if plain.report and captured.report:
        if not plain.report["updates"]:
            return "no optimizer made a step in the script's own process"
        unreadable = plain.report["unreadable"]
        return None if plain.report["tensors"] or not unreadable else unreadable[0][1]
    cut, how = (captured, "under") if plain.report else (plain, "without")
    return f"the run {how} capture was cut short (exit status {cut.status})"


def _difference(plain: FinishedRun, other: FinishedRun) -> str | None:
    """How a run's result differs from the plain one's, in a few words; None: not in any bit."""
    if plain.status != other.status:
        return f"exit status {other.status} instead of {plain.status}"
    updates, others = plain.report["updates"], other.report["updates"]
    if updates != others:
        return f"{counted(others, 'step')} instead of {updates}"
    tensors, others = plain.report["tensors"], other.report["tensors"]
    if len(tensors) != len(others):
        return f"{counted(len(others), 'tensor')} instead of {len(tensors)}"
    if plain.report["unreadable"] != other.report["unreadable"]:
        return "other tensors are unreadable"
    differing = [each[0] for each, its in zip(tensors, others, strict=True) if each != its]
    if differing:
        of = counted(len(tensors), "tensor")
        return f"{len(differing)} of {of} differ, the first is {differing[0]}"
    return None


def _extent(run: FinishedRun) -> str:
    """How much was compared."""
    tensors = run.report["tensors"]
    values = sum(count for _, count, _ in tensors)
    extent = f"{counted(len(tensors), 'tensor')}, {counted(values, 'value')}"
    return f"({extent}, after {counted(run.report['updates'], 'step')})"


def _further_lines(plain: FinishedRun, captured: FinishedRun) -> list[str]:
    """What was not compared, how the runs ended, what they printed and how long they took."""
    lines = _limits(plain)
    if plain.status:
        lines.append(f"exit status: {plain.status} without capture, {captured.status} with it")
    return [*lines, _printed(plain, captured), _overhead(plain, captured)]


def _limits(plain: FinishedRun) -> list[str]:
    """What the comparison does not show."""
    lines = []
    if unreadable := plain.report["unreadable"]:
        name, why = unreadable[0]
        lines.append(f"not compared: {counted(len(unreadable), 'tensor')}, first {name} ({why})")
    if plain.report["compiles"]:
        lines.append(_EAGER)
    return lines


def _printed(plain: FinishedRun, captured: FinishedRun) -> str:
    differences = [
        f"{name} differs from line {_first_difference(one, other)} on"
        for name, one, other in (
            ("stdout", plain.out, captured.out),
            ("stderr", plain.err, captured.err),
        )
        if one != other
    ]
    return "printed: " + (", ".join(differences) or "the same")


def _first_difference(one: bytes, other: bytes) -> int:
    """The number of the first line in which two texts differ."""
    pairs = itertools.zip_longest(one.splitlines(), other.splitlines())
    return next((number for number, (a, b) in enumerate(pairs, 1) if a != b), 1)


def _overhead(plain: FinishedRun, captured: FinishedRun) -> str:
    """The times of both runs, and of a step alone, which leaves out what surrounds training."""
    line = f"time: {plain.seconds:.1f} s without capture, {captured.seconds:.1f} s with it"
    line += f": {captured.seconds / plain.seconds:.2f}×"
    a, b = plain.report["seconds"], captured.report["seconds"]
    return f"{line}; a step {b / a:.2f}×" if a and b else line
