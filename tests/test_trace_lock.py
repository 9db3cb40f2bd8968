"""A trace that is being written: no process may replace it, and all may read it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
from command import hqtool

from hqtool import file_lock
from hqtool.errors import UsageError
from hqtool.file_lock import claimed, hold, is_held
from hqtool.trace.reader import TraceReader
from hqtool.trace.repair import repair
from hqtool.trace.writer import TraceWriter

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="such locks exist on Linux alone")


@contextmanager
def live(path: Path, **options: bool) -> Iterator[TraceWriter]:
    """A trace that is being written, one step long."""
    with TraceWriter(path, **options) as writer:
        write(writer, 0)
        yield writer


def write(writer: TraceWriter, step: int) -> None:
    writer.write("layer", "output", step, np.ones(3, np.float32))
    writer.commit(step)


def steps(path: Path) -> list[int]:
    with TraceReader(path) as trace:
        return [record.step for record in trace.records(trace.sites[0])]


def test_a_second_writer_is_refused_and_destroys_nothing(tmp_path: Path) -> None:
    path = tmp_path / "t.h5"
    with live(path) as writer:
        for force in (False, True):
            with pytest.raises(UsageError):
                TraceWriter(path, force=force)
        write(writer, 1)
    assert steps(path) == [0, 1]
    assert os.listdir(tmp_path) == ["t.h5"]
    with live(path, force=True):  # closed, it may be replaced
        assert steps(path) == [0]
        with pytest.raises(UsageError, match="is being written"):
            TraceWriter(path, force=True)


def test_every_command_refuses_to_replace_it(tmp_path: Path) -> None:
    path = tmp_path / "t.h5"
    with live(tmp_path / "other.h5"):
        pass
    with live(path) as writer:
        for command in (
            ("repair", tmp_path / "other.h5", "-f", "-o", path),
            ("info", tmp_path / "other.h5", "-f", "--json", path),
            ("capture", "-f", "-o", path, __file__),
            ("capture", "-f", "--verify", "-o", path, __file__),
        ):
            done = hqtool(*map(str, command))
            assert done.status == 2, command
            assert "is a trace that is being written" in done.err
            assert done.err.count("\n") <= 2
        write(writer, 1)
    assert steps(path) == [0, 1]


def test_it_can_be_read_and_repaired_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "t.h5"
    with live(path):
        assert steps(path) == [0]
        assert hqtool("info", str(path)).status == 0
        with h5py.File(path, "r", swmr=True) as file:
            assert file["rows"].shape == (1,)
        done = repair(path, tmp_path / "clean.h5")
        assert (done.state, done.steps, done.records_lost) == ("truncated", 1, 0)
        assert is_held(path)
    assert not is_held(path)


def test_a_killed_writer_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import os, sys; from hqtool.trace.writer import TraceWriter\n"
        "writer = TraceWriter('t.h5'); open('t.h5').close()\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, **pipes) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            assert is_held(tmp_path / "t.h5")
        finally:
            process.kill()
    assert not is_held(tmp_path / "t.h5")
    with live(tmp_path / "t.h5", force=True):
        pass


def test_children_neither_hold_nor_release_it(tmp_path: Path) -> None:
    """One ends while the trace is written, one outlives it; a third is another program."""
    path = tmp_path / "t.h5"
    reading, writing = os.pipe()
    with live(path):
        if not (first := os.fork()):
            os._exit(0)
        os.waitpid(first, 0)
        assert is_held(path)
        if not (second := os.fork()):
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
        program = subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False)
    try:
        assert not is_held(path)
    finally:
        os.close(writing)
        os.waitpid(second, 0)
        program.communicate()
        os.close(reading)


def test_who_replaces_a_file_excludes_all_others(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with claimed(path) as first, claimed(path) as second:
        assert (first, second) == (True, False)
    path.chmod(0o444)
    with claimed(path) as free:
        assert free
    with claimed(tmp_path / "none") as free:
        assert free


@pytest.mark.parametrize("reused", [False, True])
def test_a_closed_descriptor_ends_recording_and_harms_no_other_file(
    reused: bool, tmp_path: Path
) -> None:
    path, other = tmp_path / "t.h5", tmp_path / "other"
    writer = TraceWriter(path)
    write(writer, 0)
    os.close(writer._descriptor)
    if reused:
        assert os.open(other, os.O_RDWR | os.O_CREAT) == writer._descriptor
        os.write(writer._descriptor, b"mine")
    with pytest.raises(Exception, match="has closed its file descriptor"):
        write(writer, 1)
    if not (child := os.fork()):
        os._exit(os.path.exists(f"/proc/self/fd/{writer._descriptor}") != reused)
    assert os.waitpid(child, 0)[1] == 0
    writer.close("truncated")
    if reused:
        os.write(writer._descriptor, b"!")
        os.close(writer._descriptor)
        assert other.read_bytes() == b"mine!"
    else:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(writer._descriptor)
    assert steps(path) == [0]


def test_where_a_trace_lies(tmp_path: Path) -> None:
    path, moved = tmp_path / "t.h5", tmp_path / "moved.h5"
    with live(path) as writer:
        assert writer.place == str(path)
        path.rename(moved)
        assert writer.place == str(moved)
        size = writer.bytes_written
        assert size == moved.stat().st_size
        path.write_text("another")
        moved.unlink()
        assert (writer.place, writer.bytes_written) == (None, size)
        write(writer, 1)
    assert writer.place is None
    assert path.read_text() == "another"


def test_a_lock_that_outlives_its_process_for_an_instant_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that is being started has the descriptor until its own program begins."""
    path = tmp_path / "journal"
    held, wanted = (os.open(path, os.O_RDWR | os.O_CREAT) for _ in range(2))
    left = [held]
    assert hold(held)
    monkeypatch.setattr(file_lock.time, "sleep", lambda seconds: os.close(left.pop()))
    try:
        assert hold(wanted)
        assert not left
    finally:
        os.close(wanted)
