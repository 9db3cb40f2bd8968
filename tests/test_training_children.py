"""Quantized training in processes that a script starts: followed, or said not to be quantized."""

from __future__ import annotations

import functools
import os
import re
import select
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")

from command import finish, start
from warm_python import WarmPython

from hqtool.recipes.named import load_recipe
from hqtool.trace.reader import TraceReader
from hqtool.training.plan import TrainPlan
from hqtool.training.settings import TrainSettings

SCRIPTS = Path(__file__).parent / "scripts"

Ran = tuple[subprocess.CompletedProcess[str], list[tuple[str, int]], Path]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, warm_python: WarmPython) -> Callable[..., Ran]:
    """Trains a script, once for all tests: how it ended, and (state, steps) of each RUN file."""

    @functools.cache
    def run(script: str, *options: str) -> Ran:
        folder = tmp_path_factory.mktemp("children")
        command = ("train", "--recipe", "paper-w8a8g8", "-o", "T.h5", *options, "--")
        done = warm_python.run(folder, "-m", "hqtool", *command, str(SCRIPTS / f"{script}.py"))
        found = []
        for path in files_of(folder):
            with TraceReader(path) as trace:
                found.append((trace.state, len(trace.steps)))
        return done, found, folder

    return run


def files_of(folder: Path) -> list[Path]:
    """The first process's file, and those of the children in the order of their start."""
    return sorted(folder.glob("T*.h5"), key=lambda path: (len(path.name), path.name))


FORKS = [("complete", 5), ("complete", 2), ("truncated", 3), ("truncated", 4)]


def test_forked_children_are_said_not_to_be_quantized(ran: Callable[..., Ran]) -> None:
    done, files, _ = ran("forks")
    assert (done.returncode, files) == (0, FORKS[:1])
    told = [line for line in done.stderr.splitlines() if " trains, " in line]
    assert len(told) == 3
    for line in told:
        assert re.fullmatch(r"hqtool: process \d+ trains, .* not quantized \(--follow-fork.*", line)


def test_each_forked_child_is_quantized_into_its_own_file(ran: Callable[..., Ran]) -> None:
    """One exits, an exception ends the next, SIGTERM the last; then the parent trains."""
    done, files, folder = ran("forks", "--follow-fork")
    assert (done.returncode, files) == (0, FORKS)
    assert " trains, " not in done.stderr
    assert done.stderr.count(", a child:") == 3
    first, *_, last = done.stdout.split()
    unfollowed = ran("forks")[0].stdout.split()
    assert last == unfollowed[-1]
    assert first != unfollowed[0]  # the child's parameters, quantized or not
    for path in files_of(folder)[1:]:
        with TraceReader(path) as trace:
            assert trace.run["command"] == ["forks.py"]
            assert "parent" in trace.run
            assert trace.run["training"]["coverage"]["share"] == 1
            assert {site.tensor for site in trace.sites} == {"output", "weight", "grad_input"}


def test_steps_aside_leave_children_out(ran: Callable[..., Ran]) -> None:
    """They end where they would begin to train; in earnest they begin with ranges of their own."""
    done, files, folder = ran("forks", "--follow-fork", "--calibrate", "2")
    assert (done.returncode, files) == (0, FORKS)
    assert done.stderr.count("ranges calibrated on 2 steps") == 1
    looks = []
    for path in files_of(folder)[:2]:
        with TraceReader(path) as trace:
            site = next(each for each in trace.sites if each.tensor == "output")
            looks.append([each.looked for each in trace.records(site)])
    assert looks == [[False] * 5, [True, False]]


def test_spawned_ranks_are_quantized_and_joined(ran: Callable[..., Ran]) -> None:
    done, files, folder = ran("spawned_ranks", "--follow-fork")
    assert (done.returncode, files) == (0, [("complete", 0), ("complete", 3), ("complete", 3)])
    assert done.stderr.count("ranges joined over 2 ranks\n") == 2
    ranks = []
    for path in files_of(folder)[1:]:
        with TraceReader(path) as trace:
            ranks.append(trace.run["rank"])
            assert trace.run["world_size"] == 2
    assert sorted(ranks) == [0, 1]


def test_workers_of_data_loaders_leave_nothing(ran: Callable[..., Ran]) -> None:
    done, files, _ = ran("workers", "--follow-fork")
    assert (done.returncode, files) == (0, [("complete", 4)])
    assert ", a child:" not in done.stderr


#: Says that it runs, and then waits; its end closes the pipe.
WAITS = """
import threading
pipe = open("pipe", "wb", 0)
pipe.write(b"runs")
threading.Event().wait()
"""


@pytest.mark.parametrize(
    ("options", "number"),
    [(("--calibrate", "3"), signal.SIGTERM), (("--list-sites",), signal.SIGKILL)],
)
def test_steps_aside_end_with_the_command(
    tmp_path: Path, options: tuple[str, ...], number: signal.Signals
) -> None:
    (tmp_path / "waits.py").write_text(WAITS)
    os.mkfifo(tmp_path / "pipe")
    command = ("train", "--recipe", "paper-w8a8g8", *options, "waits.py")
    process = start(tmp_path, "-m", "hqtool", *command, TMPDIR=str(tmp_path))
    with open(tmp_path / "pipe", "rb", 0) as pipe:
        assert pipe.read(4) == b"runs"
        process.send_signal(number)
        finish(process)
        readable, _, _ = select.select([pipe], [], [], 10)
        assert readable
        assert pipe.read() == b""
    assert process.returncode == -number
    assert number == signal.SIGKILL or not list(tmp_path.glob("hqtool-*"))


def test_a_plan_reaches_another_process_whole() -> None:
    recipe = load_recipe("paper-w8a8g8")
    settings = TrainSettings(seed=3, on_nonfinite="stop", follow_fork=True)
    plan = TrainPlan("a b'\".h5", "/tmp", ("train.py", "--x", "ü"), recipe, settings, True)
    again = TrainPlan.from_json(plan.to_json())
    assert again.recipe.rules == recipe.rules
    assert (again.path, again.command, again.settings) == (plan.path, plan.command, settings)
    assert (again.folder, again.quiet, again.recipe.name) == ("/tmp", True, "paper-w8a8g8")
