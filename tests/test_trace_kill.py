"""A writer that is killed at any instant, forked, out of disk space, or never closed."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from hqtool.trace.appender import Appender
from hqtool.trace.reader import TraceReader
from hqtool.trace.writer import RESERVE_BYTES, TraceFull, TraceWriter
from hqtool.vocab import Site

#: Writes steps for ever and says each one it has committed. Small buffers: more goes to the file
#: between commits.
CHILD = """
import sys
import numpy as np
from hqtool.trace import writer as module
module.BUFFER_ITEMS.update(payload=1 << 16, rows=7, journal=50)
writer = module.TraceWriter(sys.argv[1], run={"seed": 7})
for step in range(1_000_000):
    for layer in range(10):
        size = (step * 37 + layer * 1013) % 30_000
        values = np.random.default_rng([step, layer]).standard_normal(size, np.float32)
        writer.write(f"layer{layer}", "output", step, values)
    writer.describe(f"layer{step}", {"step": step})
    writer.commit(step)
    print(step, flush=True)
"""


def expected(step: int, layer: int) -> np.ndarray:
    size = (step * 37 + layer * 1013) % 30_000
    return np.random.default_rng([step, layer]).standard_normal(size, np.float32)


@contextmanager
def running(path: Path) -> Iterator[subprocess.Popen[str]]:
    """The child at work; killed in the end."""
    command = [sys.executable, "-c", CHILD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def run_and_kill(path: Path, commits: int, work: int) -> int:
    """Run the child until it reported some commits, work on a little, kill it: the last report."""
    with running(path) as child:
        for _ in range(commits):
            child.stdout.readline()
        sum(range(work))
        child.kill()
        reports = child.stdout.read().split()
    return max([commits - 1, *map(int, reports[:-1])])


def check(path: Path, reported: int) -> int:
    """Every step up to the one reported is there, and whatever is there is right."""
    with TraceReader(path) as reader:
        assert reader.state == "open"
        assert reader.run == {"seed": 7}
        assert reader.steps == list(range(len(reader.steps)))
        assert reader.steps[-1] >= reported
        for layer in range(10):
            records = list(reader.records(Site(f"layer{layer}", "output")))
            assert [record.step for record in records] == reader.steps
            for record in records:
                np.testing.assert_array_equal(record.values, expected(record.step, layer))
        assert reader.geometry(f"layer{reported}") == {"step": reported}
        return len(reader.steps)


@pytest.mark.parametrize("seed", range(20))
def test_committed_steps_survive_kill(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = tmp_path / "killed.h5"
    check(path, run_and_kill(path, 1 + rng.randrange(40), rng.randrange(1_000_000)))


def test_a_trace_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "live.h5"
    with running(path) as child:
        reports = map(int, child.stdout)
        seen = [check(path, next(reports))]
        for _ in range(7):
            later = next(step for step in reports if step >= seen[-1])  # one not seen yet
            seen.append(check(path, later))
    assert seen == sorted(set(seen))


def write_step(writer: TraceWriter, step: int, size: int = 10) -> None:
    for layer in range(3):
        writer.write(f"layer{layer}", "output", step, np.full(size, step, np.float32))


def values_of(path: Path) -> list[list[int]]:
    """By site, the first value of each record, where all of its values are the same."""
    with TraceReader(path) as reader:
        return [
            [int(values[0]) for values in (record.values for record in reader.records(site))]
            for site in reader.sites
        ]


def leave(how: str, writer: TraceWriter) -> None:
    """How a forked child may end."""
    writer.write("child", "output", 99, np.ones(3))
    writer.describe("child", {})
    writer.note("child", 1)
    writer.commit(99)
    if how == "close":
        writer.close()
    if how == "exit":
        raise SystemExit(0)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("how", ["close", "exit", "return"])
def test_a_forked_child_leaves_the_trace_alone(tmp_path: Path, how: str) -> None:
    path = tmp_path / "trace.h5"
    with TraceWriter(path) as writer:
        for step in range(4):
            write_step(writer, step, size=300_000)
            child = multiprocessing.get_context("fork").Process(target=leave, args=(how, writer))
            child.start()
            child.join()
            assert child.exitcode == 0
            writer.commit(step)
    assert values_of(path) == [[0, 1, 2, 3]] * 3
    with TraceReader(path) as reader:
        assert (reader.state, reader.run) == ("complete", {})


#: Forks children that run through the interpreter's whole shutdown, and HDF5's with it.
FORKER = """
import os, sys
import numpy as np
from hqtool.trace.writer import TraceWriter
writer = TraceWriter(sys.argv[1])
for step in range(6):
    for layer in range(3):
        writer.write(f"layer{layer}", "output", step, np.full(600_000, step, np.float32))
        if not os.fork():
            sys.exit()
        assert os.wait()[1] == 0
    writer.commit(step)
writer.close()
"""


def test_a_forked_child_may_run_its_exit_handlers(tmp_path: Path) -> None:
    path = tmp_path / "trace.h5"
    subprocess.run([sys.executable, "-c", FORKER, str(path)], check=True)
    assert values_of(path) == [[0, 1, 2, 3, 4, 5]] * 3


FORGETFUL = """
import sys
import numpy as np
from hqtool.trace.writer import TraceWriter
writer = TraceWriter(sys.argv[1])
writer.write("layer", "output", 3, np.full(3, 3.0))
{ending}
"""


@pytest.mark.parametrize("ending", ["", "del writer", "sys.exit(1)", "1 / 0"])
def test_a_forgotten_writer_is_closed_at_exit(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "trace.h5"
    script = FORGETFUL.format(ending=ending)
    subprocess.run([sys.executable, "-c", script, str(path)], check=False, capture_output=True)
    assert values_of(path) == [[3]]
    with TraceReader(path) as reader:
        assert reader.state == "truncated"


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A disk whose free bytes are the list's one entry."""
    usage = namedtuple("usage", "total used free")
    free = [1 << 40]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1 << 41, 0, free[0]))
    return free


def test_recording_stops_before_the_disk_is_full(tmp_path: Path, free: list[int]) -> None:
    path = tmp_path / "trace.h5"
    writer = TraceWriter(path)
    write_step(writer, 0)
    writer.commit(0)
    write_step(writer, 1)
    free[0] = RESERVE_BYTES - 1
    before = path.read_bytes()
    with pytest.raises(TraceFull, match=r"255 MiB are free.*\nfree some space") as caught:
        writer.commit(1)
    assert caught.value.exit_status == 3
    assert path.read_bytes() == before
    free[0] = 1 << 40
    with pytest.raises(TraceFull):
        writer.write("layer", "output", 2, np.ones(2))
    with pytest.raises(TraceFull):
        writer.commit(2)
    writer.close()
    assert values_of(path) == [[0]] * 3
    with TraceReader(path) as reader:
        assert (reader.state, reader.steps) == ("truncated", [0])


def test_large_values_meet_the_full_disk_at_once(tmp_path: Path, free: list[int]) -> None:
    path = tmp_path / "trace.h5"
    writer = TraceWriter(path)
    free[0] = RESERVE_BYTES + 7_000_000
    with pytest.raises(TraceFull):
        writer.write("layer", "output", 0, np.ones(1_000_000))
    writer.close()
    with TraceReader(path) as reader:
        assert (reader.state, reader.steps, reader.sites) == ("truncated", [], ())


@pytest.mark.parametrize("state", ["complete", "truncated"])
def test_closing_on_a_full_disk(tmp_path: Path, free: list[int], state: str) -> None:
    path = tmp_path / "trace.h5"
    writer = TraceWriter(path)
    write_step(writer, 0)
    writer.commit(0)
    write_step(writer, 1)
    free[0] = 0
    if state == "complete":
        with pytest.raises(TraceFull):
            writer.close(state)
    writer.close(state)
    assert values_of(path) == [[0]] * 3
    with TraceReader(path) as reader:
        assert reader.state == "truncated"


def test_no_trace_is_begun_on_a_full_disk(tmp_path: Path, free: list[int]) -> None:
    free[0] = 1000
    with pytest.raises(TraceFull):
        TraceWriter(tmp_path / "trace.h5")
    assert list(tmp_path.iterdir()) == []
    TraceWriter(tmp_path / "trace.h5", reserve_bytes=999).close()


#: Writes until the system refuses: a quota, which the free space does not tell.
REFUSED = """
import resource, sys
import numpy as np
from hqtool.trace.writer import TraceFull, TraceWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 20, resource.RLIM_INFINITY))
writer = TraceWriter(sys.argv[1])
try:
    for step in range(10_000):
        writer.write("layer", "output", step, np.full(int(sys.argv[2]), step, np.float32))
        writer.commit(step)
        print(step)
except TraceFull as full:
    print(full.cause, file=sys.stderr)
{ending}
"""


@pytest.mark.parametrize("ending", ["writer.close()", ""])
@pytest.mark.parametrize("size", [30_000, 2_000_000])
def test_a_refused_write_ends_recording_not_the_process(
    tmp_path: Path, ending: str, size: int
) -> None:
    path = tmp_path / "trace.h5"
    command = [sys.executable, "-c", REFUSED.format(ending=ending), str(path), str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "writing failed" in done.stderr
    steps = [int(step) for step in done.stdout.split()]
    assert values_of(path) == [steps] * bool(steps)
    with TraceReader(path) as reader:
        assert (reader.state, reader.steps) == ("truncated", steps)


#: Another limit comes in mid run: a file may not grow beyond a part of what the trace has already.
LIMITED = """
import os, resource, sys
import numpy as np
from hqtool.trace import writer as module
{buffers}
writer = module.TraceWriter(sys.argv[1])
for step in range(20):
    if step == 10:
        limit = int(os.path.getsize(sys.argv[1]) * float(sys.argv[2]))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, {hard}))
    try:
        for layer in range(40):
            values = np.full(1000, step, np.float32)
            writer.write(f"layer{{layer + step}}", "output", step, values)
        writer.commit(step)
        print(step)
    except module.TraceFull as full:
        print(full.cause, file=sys.stderr)
{ending}
"""

#: Large buffers keep back a whole step; small ones write all along.
BUFFERS = {"large": "", "small": "module.BUFFER_ITEMS.update(payload=1 << 12, rows=7, journal=50)"}


@pytest.mark.parametrize("ending", ["writer.close()", ""])
@pytest.mark.parametrize("hard", ["resource.RLIM_INFINITY", "limit"])
@pytest.mark.parametrize("part", [0.9, 0.01, 0])
@pytest.mark.parametrize("buffers", BUFFERS)
def test_a_limit_below_the_present_size_ends_recording_not_the_process(
    tmp_path: Path, buffers: str, part: float, hard: str, ending: str
) -> None:
    path = tmp_path / "trace.h5"
    script = LIMITED.format(hard=hard, buffers=BUFFERS[buffers], ending=ending)
    command = [sys.executable, "-c", script, str(path), str(part)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "writing failed" in done.stderr
    assert [int(step) for step in done.stdout.split()] == list(range(10))
    with TraceReader(path) as reader:
        assert reader.state in ("open", "truncated")
        assert reader.steps == list(range(10))
        for site in reader.sites:
            for record in reader.records(site):
                np.testing.assert_array_equal(record.values, np.full(1000, record.step))


@pytest.mark.parametrize("pending", ["", 'writer.note("late", 1)'])
def test_nothing_can_be_written_when_the_trace_is_closed(tmp_path: Path, pending: str) -> None:
    path = tmp_path / "trace.h5"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))"
    script = FORGETFUL.format(ending=f"writer.commit(3); {pending}\n{limit}")
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
    assert values_of(path) == [[3]]
    with TraceReader(path) as reader:
        assert reader.state == "open"


def test_a_trace_that_cannot_be_begun_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(appender: Appender) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Appender, "flush", refuse)
    for force in (False, True):
        with pytest.raises(TraceFull, match=r"writing failed.*No space left"):
            TraceWriter(tmp_path / "trace.h5", force=force)
    assert list(tmp_path.iterdir()) == []


#: A thread writes without pause; the main thread forks; each child reads another trace and ends.
FORKING = """
import os, sys, threading
import numpy as np
from hqtool.trace.reader import TraceReader
from hqtool.trace.writer import TraceWriter
TraceWriter(sys.argv[2]).close()
writer, forked = TraceWriter(sys.argv[1]), threading.Event()
def write():
    step = 0
    while not forked.is_set():
        writer.write("layer", "output", step, np.full(300_000, step, np.float32))
        writer.commit(step)
        step += 1
thread = threading.Thread(target=write)
thread.start()
for _ in range(10):
    child = os.fork()
    if child == 0:
        TraceReader(sys.argv[2]).close()
        sys.exit(3)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
forked.set()
thread.join()
writer.close()
"""


def test_forks_while_another_thread_writes(tmp_path: Path) -> None:
    path = tmp_path / "trace.h5"
    command = [sys.executable, "-W", "ignore", "-c", FORKING, path, tmp_path / "other.h5"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.split() == ["3"] * 10, done.stderr
    (values,) = values_of(path)
    assert values == list(range(len(values)))
