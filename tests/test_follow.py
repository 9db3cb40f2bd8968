"""Traces that grow: `info --follow` until they are closed, `compare` on what is committed."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import hqtool
from quantizing import settings as settings_of

import hqtool.compare.execute as execute
import hqtool.report.follow as follow_module
from hqtool.compare.comparison import Comparison, Selection, compare
from hqtool.compare.execute import SiteResult, Task
from hqtool.errors import DataError
from hqtool.report.follow import follow, snapshot_of, snapshots
from hqtool.trace.reader import TraceReader
from hqtool.trace.writer import TraceWriter
from hqtool.vocab import Site

#: Takes orders: 'step N' writes and commits one, 'begin N' leaves it open, or 'close STATE'.
WRITE = """
import sys
import numpy as np
from hqtool.trace.writer import TraceWriter

def write_step(writer, step):
    for layer in range(8):
        x = np.random.default_rng([step, layer]).standard_normal(2000, np.float32)
        writer.write(f"layer{layer}", "output", step, x * (layer + 1) ** step)

if __name__ == "__main__":
    writer = TraceWriter(sys.argv[1])
    print("open", flush=True)
    for line in sys.stdin:
        order, argument = line.split()
        if order == "close":
            writer.close(argument)
        else:
            write_step(writer, int(argument))
            if order == "step":
                writer.commit(int(argument))
        print(order, flush=True)
"""

names: dict[str, Any] = {"__name__": "write"}
exec(WRITE, names)
write_step = names["write_step"]


class Child:
    """A writer at work in another process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        command = [sys.executable, "-c", WRITE, str(path)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert self.process.stdout.readline() == "open\n"

    def order(self, *words: object) -> None:
        print(*words, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == f"{words[0]}\n"


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    child = Child(tmp_path / "live.h5")
    with child.process:
        yield child
        child.process.kill()


def write_trace(path: Path, steps: int) -> Path:
    with TraceWriter(path) as writer:
        for step in range(steps):
            write_step(writer, step)
            writer.commit(step)
    return path


# --- reading no more than the last steps --------------------------------------------------------


def test_recent_takes_the_last_commits_only(tmp_path: Path) -> None:
    path = write_trace(tmp_path / "trace.h5", 6)
    for recent, steps in ((1, [5]), (2, [4, 5]), (6, [*range(6)]), (99, [*range(6)])):
        with TraceReader(path, recent=recent) as reader:
            records = list(reader.records(reader.sites[3]))
            assert [record.step for record in records] == steps
            assert (len(reader.sites), reader.steps) == (8, [*range(6)])
            assert reader.overview()[0].records == len(steps)
    assert records[-1].values is not None


def test_recent_counts_commits_that_close_a_step(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "trace.h5") as writer:
        for step in range(3):
            write_step(writer, step)
            writer.commit(step)
        writer.note("late", 1)
    with TraceReader(tmp_path / "trace.h5", recent=1) as reader:
        assert [record.step for record in reader.records(reader.sites[0])] == [2]
        assert reader.run == {"late": 1}


# --- snapshots -----------------------------------------------------------------------------------


def test_glimpses_of_a_live_writer(child: Child) -> None:
    """A second passes between two looks; meanwhile the writer is given its orders."""
    orders = iter(["step 0", "step 1", "begin 2", "step 3", "close complete"])
    now = [100.0]

    def let_pass(seconds: float) -> None:
        child.order(*next(orders).split())
        now[0] += seconds

    seen = list(snapshots(str(child.path), 1.0, lambda: now[0], let_pass))
    assert [len(look.steps) for look in seen] == [0, 1, 2, 2, 4, 4]
    assert [look.rate for look in seen] == [None, 1, 1, 2 / 3, 1, 4 / 5]
    assert [look.state for look in seen] == ["open"] * 5 + ["complete"]
    assert [len(look.moves) for look in seen] == [0, 0, 5, 5, 5, 5]


def test_moves_are_of_the_last_two_steps(tmp_path: Path) -> None:
    """By hand: widths hold 0, all of a step's records count, what has no range moves nowhere."""
    path = tmp_path / "trace.h5"
    with TraceWriter(path) as writer:
        for step, scale in enumerate([100.0, 1.0, 4.0]):
            writer.write("up", "output", step, np.array([2.0, 3.0]) * scale)
            writer.write("up", "output", step, np.array([-1.0, np.inf]), call=1)
            writer.write("down", "output", step, np.array([-1.0, 7.0]) / scale**2)
            writer.write("still", "output", step, np.ones(3))
            writer.write("zero", "output", step, np.zeros(3) if step == 2 else np.ones(3))
            writer.write("nan", "output", step, np.array([np.nan]))
            writer.write("huge", "output", step, np.array([-1.7e308, 1.7e308]))
            if step != 1:
                writer.write("now and then", "output", step, np.ones(3))
            writer.commit(step)
    assert snapshot_of(str(path)).moves == (
        (Site("down", "output"), 8.0, 0.5),
        (Site("up", "output"), 4.0, 13.0),
        (Site("still", "output"), 1.0, 1.0),
    )


def test_a_trace_begun_anew_starts_a_new_rate(tmp_path: Path) -> None:
    path, now = tmp_path / "trace.h5", [0.0]
    first = TraceWriter(path)
    for step in range(5):
        first.commit(step)
    looks = snapshots(str(path), 1.0, lambda: now[0], lambda seconds: None)
    assert len(next(looks).steps) == 5
    first.close()
    with TraceWriter(path, force=True):
        now[0] = 1.0
        assert next(looks).rate is None


def test_a_moment_that_does_not_open_is_waited_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_trace(tmp_path / "trace.h5", 2)
    failures = [DataError("busy"), DataError("busy")]

    def flaky(path: str, **options: Any) -> TraceReader:
        if failures:
            raise failures.pop()
        return TraceReader(path, **options)

    monkeypatch.setattr(follow_module, "TraceReader", flaky)
    pauses: list[float] = []
    (look,) = snapshots(str(path), 9.0, lambda: 0.0, pauses.append)
    assert (look.state, pauses) == ("complete", [follow_module.RETRY_PAUSE_SECONDS] * 2)


# --- the command --------------------------------------------------------------------------------


def test_follow_ends_with_the_writer(child: Child) -> None:
    command = [sys.executable, "-m", "hqtool", "info", str(child.path), "--follow"]
    command += ["--interval", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
        first = follower.stdout.readline()
        child.order("step", 0)
        child.order("step", 1)
        lines = iter(follower.stdout.readline, "")
        moved = next(line for line in lines if "moved most" in line)
        child.order("close", "truncated")
        rest = list(lines)
    assert follower.returncode == 0
    assert f"{child.path}: open, 0 steps, – steps/s, " in first
    assert "open, 2 steps" in moved
    assert "moved most: layer7/output" in moved
    assert "truncated, 2 steps" in rest[-1]
    assert not any("truncated" in line for line in rest[:-1])


def test_a_closed_trace_takes_one_line(tmp_path: Path) -> None:
    done = hqtool("info", write_trace(tmp_path / "trace.h5", 3), "--follow")
    assert (done.status, done.err, done.out.count("\n")) == (0, "", 1)
    assert "complete, 3 steps, – steps/s, " in done.out
    assert done.out.count("layer") == 5


def test_ctrl_c_ends_quietly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(path: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(follow_module, "snapshot_of", interrupt)
    done = hqtool("info", tmp_path / "trace.h5", "--follow")
    assert (done.status, done.out, done.err.strip()) == (130, "", "")


def test_refusals(tmp_path: Path) -> None:
    path = write_trace(tmp_path / "trace.h5", 1)
    assert hqtool("info", path, "--follow", "--json", "-").status == 2
    assert hqtool("info", path, "--follow", "--csv", tmp_path / "x.csv").status == 2
    assert hqtool("info", path, "--follow", "--interval", "-1").status == 2
    missing = hqtool("info", tmp_path / "none.h5", "--follow")
    assert (missing.status, missing.out) == (3, "")
    assert "no such file" in missing.err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot redraw still gets the last block; [brackets] are no markup."""
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("TERM", "xterm")
    with TraceWriter(tmp_path / "trace.h5") as writer:
        for step in (3, 4):
            writer.write("[bold]", "output", step, np.array([1.0 + step]))
            writer.commit(step)
    screen = Terminal()
    follow(str(tmp_path / "trace.h5"), screen, 0.0)
    assert "ranges that moved most, step 3 to 4" in screen.getvalue()
    assert "1.25×  [bold]/output, width 4 to 5" in screen.getvalue()


# --- compare ------------------------------------------------------------------------------------


def compared(path: Path) -> dict[str, Any]:
    """What compare says, but for the trace's name and state."""
    done = hqtool("compare", path, "--json", "-", "--per-step", "-q")
    assert done.status == 0, done.err
    found: dict[str, Any] = json.loads(done.out.replace(str(path), "TRACE"))
    assert found.pop("trace")
    return found


def test_compare_on_a_growing_trace_is_compare_on_its_prefix(child: Child, tmp_path: Path) -> None:
    """The writer goes on between two comparisons, and always has a step open."""
    for step in range(3):
        child.order("step", step)
    child.order("begin", 3)
    assert compared(child.path) == compared(write_trace(tmp_path / "three.h5", 3))
    child.order("begin", 4)
    assert compared(child.path) == compared(tmp_path / "three.h5")
    child.order("step", 5)
    child.order("begin", 6)
    assert compared(child.path) == compared(write_trace(tmp_path / "six.h5", 6))
    with TraceReader(child.path) as reader:
        assert (reader.state, reader.steps) == ("open", [0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize("jobs", [1, 2])
def test_all_sites_are_scored_over_what_the_survey_saw(
    child: Child, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer commits three more steps before the first task: none of them is replayed."""
    monkeypatch.setattr(execute, "WORTH_PROCESSES", 0.0)

    def grow_first(tasks: Sequence[Task]) -> Iterator[tuple[int, SiteResult]]:
        for step in (2, 3, 4):
            child.order("step", step)
        yield from execute.processes(jobs)(tasks)

    def replayed(executor: execute.Executor = execute.serial) -> Comparison:
        settings = settings_of()
        return compare([str(child.path)], settings, Selection(), executor)

    child.order("step", 0)
    child.order("step", 1)
    before, during, after = replayed(), replayed(grow_first), replayed()
    assert during == before
    assert [facts.steps for facts in during.traces] == [2]
    assert {summary.steps for summary in during.summaries} == {2}
    assert {summary.steps for summary in after.summaries} == {5}
