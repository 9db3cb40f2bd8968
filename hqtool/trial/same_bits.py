"""Comparing what two runs of a script end with: parameters and buffers, status, what they print."""

from __future__ import annotations

import itertools

from hqtool.sizes import counted
from hqtool.trial.finished_run import FinishedRun

_EAGER = (
    "torch.compile: both runs let what it compiles run eagerly; "
    "compiled code may end with other bits"
)


def why_incomparable(plain: FinishedRun, other: FinishedRun) -> str | None:
    """Why there is nothing to compare; None if there is."""
    if plain.report and other.report:
        if not plain.report["updates"]:
            return "no optimizer made a step in the script's own process"
        unreadable = plain.report["unreadable"]
        return None if plain.report["tensors"] or not unreadable else unreadable[0][1]
    cut = other if plain.report else plain
    return f"the run {cut.how} was cut short (exit status {cut.status})"


def difference_of(plain: FinishedRun, other: FinishedRun) -> str | None:
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


def extent(run: FinishedRun) -> str:
    """How much was compared."""
    tensors = run.report["tensors"]
    values = sum(count for _, count, _ in tensors)
    extent = f"{counted(len(tensors), 'tensor')}, {counted(values, 'value')}"
    return f"({extent}, after {counted(run.report['updates'], 'step')})"


def further_lines(plain: FinishedRun, other: FinishedRun) -> list[str]:
    """What was not compared, how the runs ended, what they printed and how long they took."""
    lines = _limits(plain)
    if plain.status:
        lines.append(f"exit status: {plain.status} {plain.how}, {other.status} with it")
    return [*lines, _printed(plain, other), _overhead(plain, other)]


def _limits(plain: FinishedRun) -> list[str]:
    """What the comparison does not show."""
    lines = []
    if unreadable := plain.report["unreadable"]:
        name, why = unreadable[0]
        lines.append(f"not compared: {counted(len(unreadable), 'tensor')}, first {name} ({why})")
    if plain.report["compiles"]:
        lines.append(_EAGER)
    return lines


def _printed(plain: FinishedRun, other: FinishedRun) -> str:
    differences = [
        f"{name} differs from line {_first_difference(one, other)} on"
        for name, one, other in (
            ("stdout", plain.out, other.out),
            ("stderr", plain.err, other.err),
        )
        if one != other
    ]
    return "printed: " + (", ".join(differences) or "the same")


def _first_difference(one: bytes, other: bytes) -> int:
    """The number of the first line in which two texts differ."""
    pairs = itertools.zip_longest(one.splitlines(), other.splitlines())
    return next((number for number, (a, b) in enumerate(pairs, 1) if a != b), 1)


def _overhead(plain: FinishedRun, other: FinishedRun) -> str:
    """The times of both runs, and of a step alone, which leaves out what surrounds training."""
    line = f"time: {plain.seconds:.1f} s {plain.how}, {other.seconds:.1f} s with it"
    line += f": {other.seconds / plain.seconds:.2f}×"
    a, b = plain.report["seconds"], other.report["seconds"]
    return f"{line}; a step {b / a:.2f}×" if a and b else line
