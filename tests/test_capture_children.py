"""Training in processes that a script starts: it is recorded, or reported as not recorded."""

from __future__ import annotations

import functools
import re
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

torch = pytest.importorskip("torch")

from capture_models import read_records, read_run  # noqa: E402
from command import finish, start  # noqa: E402
from warm_python import WarmPython  # noqa: E402

from hqtool.trace.reader import TraceReader  # noqa: E402

SCRIPTS = Path(__file__).parent / "scripts"

RUNS = {
    "plain": (),
    "unfollowed": ("-m", "hqtool", "capture", "--every", "1", "-o", "T.h5", "--"),
    "followed": ("-m", "hqtool", "capture", "--every", "1", "-o", "T.h5", "--follow-fork"),
}


class Ran(NamedTuple):
    """How a script ended, and the traces it left: (state, steps) each, the first process's first.

    Of the children the first to be started comes first.
    """

    status: int
    out: str
    err: str
    folder: Path
    traces: list[tuple[str, int]]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, warm_python: WarmPython) -> Callable[[str], Ran]:
    """Runs 'SCRIPT HOW', once for all tests."""
    base = tmp_path_factory.mktemp("children")

    @functools.cache
    def run(name: str) -> Ran:
        script, how = name.split()
        folder = base / script / how
        done = warm_python.run(folder, *RUNS[how], SCRIPTS / f"{script}.py")
        return _ended(folder, done)

    return run


def _ended(folder: Path, done: subprocess.CompletedProcess[str]) -> Ran:
    traces = []
    for path in sorted(folder.glob("*.h5"), key=_pid_of):
        with TraceReader(path) as trace:
            traces.append((trace.state, len(trace.steps)))
    return Ran(done.returncode, done.stdout, done.stderr, folder, traces)


def _pid_of(path: Path) -> int:
    """Of the process that made a trace; 0 for the first one."""
    found = re.search(r"\.pid(\d+)", path.name)
    return int(found[1]) if found else 0


def children(ran: Ran) -> list[Path]:
    """Their traces."""
    return sorted(ran.folder.glob("T.pid*.h5"), key=_pid_of)


@pytest.mark.parametrize("run", ["forks unfollowed", "forks followed", "spawned_ranks followed"])
def test_children_train_as_under_python(run: str, ran: Callable[[str], Ran]) -> None:
    """What they print includes the fingerprint of their parameters."""
    plain, captured = ran(f"{run.split()[0]} plain"), ran(run)
    assert (captured.status, captured.out) == (plain.status, plain.out)
    assert len(plain.out.split()[-1]) == 64
    own = re.sub(r"hqtool: .*\n", "", captured.err)
    assert own == re.sub(r"hqtool: .*\n", "", plain.err)


def test_forked_children_are_said_not_to_be_recorded(ran: Callable[[str], Ran]) -> None:
    found = ran("forks unfollowed")
    assert found.traces == [("complete", 5)]
    told = [line for line in found.err.splitlines() if " trains, " in line]
    assert len(told) == 3
    for line in told:
        assert re.fullmatch(r"hqtool: process \d+ trains, but is a child .*--follow-fork.*", line)


def test_each_forked_child_has_its_trace(ran: Callable[[str], Ran]) -> None:
    """One exits, an exception ends the next, SIGTERM the last; then the parent trains."""
    found = ran("forks followed")
    states = [("complete", 5), ("complete", 2), ("truncated", 3), ("truncated", 4)]
    assert found.traces == states
    assert found.err.count(".h5 (") == 4
    assert " trains, " not in found.err


def test_a_childs_trace_holds_all_values_and_says_whose_it_is(ran: Callable[[str], Ran]) -> None:
    paths = children(ran("forks followed"))
    assert len({read_run(path)["parent"] for path in paths}) == 1
    for steps, path in enumerate(paths, 2):
        run, records = read_run(path), read_records(path)
        assert run["command"] == ["forks.py"]
        assert "failed" not in run
        assert {key[:2] for key in records} == {
            ("0", "output"),
            ("2", "output"),
            ("2", "grad_input"),
        }
        assert {key[2] for key in records} == set(range(steps))
        assert all(record.values is not None for record in records.values())


#: Starts processes that might train; loaders' workers, and other programs, do not.
STARTING = """
    import multiprocessing, subprocess, sys
    if __name__ == "__main__":
        for method in ("fork", "spawn", "spawn", "forkserver"):
            child = multiprocessing.get_context(method).Process(target=len, args=("",))
            child.start()
            child.join()
        subprocess.run([sys.executable, "-c", "pass"])
        subprocess.run("true", shell=True)
        sys.exit(child.exitcode)
    """


def test_what_was_started_and_is_not_recorded_is_told(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(textwrap.dedent(STARTING))
    found = _ended(tmp_path, finish(start(tmp_path, *RUNS["unfollowed"], "script.py")))
    assert found.status == 0
    assert found.err.splitlines()[:3] == [
        "hqtool: not recorded: 1 process started by forkserver, if it trains (--follow-fork)",
        "hqtool: not recorded: 2 processes started by spawn, if they train (--follow-fork)",
        "hqtool: not recorded: 1 Python program started, if it trains",
    ]
    assert len(found.err.splitlines()) == 5


def test_each_spawned_rank_has_its_trace(ran: Callable[[str], Ran]) -> None:
    found = ran("spawned_ranks followed")
    assert found.traces == [("complete", 0), ("complete", 3), ("complete", 3)]
    assert "not recorded" not in found.err
    runs = [read_run(path) for path in children(found)]
    assert sorted(run["rank"] for run in runs) == [0, 1]
    assert {run["world_size"] for run in runs} == {2}


def test_workers_of_data_loaders_leave_nothing(ran: Callable[[str], Ran]) -> None:
    """Forked and spawned ones; their data passes through a network in training mode."""
    found = ran("workers followed")
    assert found.status == 0, found.err
    assert found.traces == [("complete", 4)]
    assert found.err.count("hqtool:") == 3
