"""How a run counts: finished with a figure, diverged, failed or timed out."""

from __future__ import annotations

import math
import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hqtool.study.metric import Metric
from hqtool.study.run import STDERR, STDOUT, Ended, Run

Outcome = Literal["finished", "diverged", "failed", "timed-out"]

#: The error with which `hqtool train --on-nonfinite stop` ends a training; it names site and step.
#: A script that prints or raises it again names its class.
_STOPPED = re.compile(
    r"^(?:hqtool|(?:\w+\.)*NotFinite): (\S+ is not finite at step .*)$", re.MULTILINE
)


#: What hqtool's own lines begin with, and the one with which `--min-coverage` fails a run.
_HQTOOL = "hqtool: "
_BELOW = re.compile(rf"{_HQTOOL}coverage .* is below --min-coverage ")


@dataclass(frozen=True, slots=True)
class Result:
    """A run that ended.

    Args:
        metric: the figure; None where there is no finite one.
        reason: why it has none; empty where it finished.
    """

    run: Run
    ended: Ended
    outcome: Outcome
    metric: float | None
    reason: str = ""


def result_of(run: Run, ended: Ended, metric: Metric) -> Result:
    """Judge a run by how it ended and by what it printed.

    It diverged where `hqtool train` says so, and where it ended well but printed no finite metric.
    """
    if ended.timed_out:
        return Result(run, ended, "timed-out", None, f"ended after {ended.seconds:.0f} s")
    if ended.status != 0:
        complaint = _text(run.place / STDERR)
        if stopped := _STOPPED.search(complaint):
            return Result(run, ended, "diverged", None, stopped[1])
        return Result(run, ended, "failed", None, _failure(ended, complaint))
    value = metric.read(_text(run.place / STDOUT))
    if value is None:
        return Result(run, ended, "diverged", None, f"printed no {metric.name}")
    if not math.isfinite(value):
        return Result(run, ended, "diverged", None, f"{metric.name} is {value}")
    return Result(run, ended, "finished", value)


def _failure(ended: Ended, complaint: str) -> str:
    status = ended.status or 0
    how = f"exit status {status}" if status > 0 else _signal_name(-status)
    reason = _reason(complaint)
    return f"{how}: {reason[:200]}" if reason else how


def _reason(complaint: str) -> str:
    """The line of stderr that says why a run failed.

    It is the script's last one, which what `hqtool train` says at the end follows; else the error
    with which that ended before the script began.
    """
    said = [line for line in complaint.splitlines() if line and not line[0].isspace()]
    gates = [line.removeprefix(_HQTOOL) for line in said if _BELOW.match(line)]
    own = [line for line in said if not line.startswith(_HQTOOL)]
    return gates[-1] if gates else own[-1] if own else said[0] if said else ""


def _signal_name(number: int) -> str:
    try:
        return f"killed by {signal.Signals(number).name}"
    except ValueError:
        return f"killed by signal {number}"


def _text(path: Path) -> str:
    """What a run wrote; nothing where the file is gone."""
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""
