"""`hqtool repair`: saves all that can be read, bit for bit, and reports what cannot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from command import hqtool

import hqtool.trace.raw as raw_module
import hqtool.trace.trusted as trusted_module
from hqtool.errors import DataError, UsageError
from hqtool.trace.journal import JournalContent, journal_content
from hqtool.trace.raw import RawTrace
from hqtool.trace.reader import TraceReader
from hqtool.trace.repair import Repaired, repair
from hqtool.trace.writer import TraceWriter
from hqtool.vocab import Stats

STATS = Stats(-1.0, 2.0, 2.0, 0.25, float("nan"), float("inf"), 3, 4, 5, 5e-324)

#: Records one of everything a trace can hold, at each of two steps, and leaves a third undone.
FILL = """
import sys
import numpy as np
from hqtool.trace.writer import TraceWriter
from hqtool.vocab import Stats
STATS = Stats(-1.0, 2.0, 2.0, 0.25, float("nan"), float("inf"), 3, 4, 5, 5e-324)

def fill(writer, steps=(0, 7)):
    rng = np.random.default_rng(0)
    writer.describe("a", {"op": "linear", "early": True})
    writer.name_classes("a", ["MyLinear", "Linear"])
    for step in steps:
        for name, kind in (("float16", "u2"), ("float32", "u4"), ("float64", "u8")):
            bits = rng.integers(0, np.iinfo(kind).max, (3, 50), kind, endpoint=True)
            writer.write(name, "output", step, bits.view(name), stats=STATS)
        raw = rng.permutation(np.arange(1 << 16, dtype=np.uint16)).reshape(256, 256)
        writer.write("bf", "grad_input", step, raw, 1, 2, dtype="bfloat16", stats=STATS)
        writer.write("bf", "grad_input", step, raw[0], 1, 3, dtype="bfloat16", stats=STATS,
                     shape=(64, 64), sampled=True, loss_scale=65536.0, flags=0xDEADBEEF)
        writer.write("none", "output", step, None, stats=STATS, shape=(2, 0, 7), flags=1)
        writer.write("empty", "output", step, np.zeros((0, 3)))
        writer.write("scalar", "weight", step, np.float32(3))
        writer.describe("a", {"op": "linear", "step": step})
        writer.commit(step)
        writer.commit(step + 1)

if __name__ == "__main__":
    writer = TraceWriter(sys.argv[1], run={"seed": 7, "argv": ["x"]})
    fill(writer)
    writer.write("late", "output", 9, np.ones(5_000_000))
    print("ready", flush=True)
    sys.stdin.read()
"""
RECORDS = 16

fill_names: dict[str, Any] = {"__name__": "fill"}
exec(FILL, fill_names)
fill = fill_names["fill"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace whose writer was killed in the middle of a step."""
    path = tmp_path_factory.mktemp("killed") / "killed.h5"
    command = [sys.executable, "-c", FILL, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as child:
        assert child.stdout.readline() == "ready\n"
        child.kill()
    return path


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    path = tmp_path / "closed.h5"
    with TraceWriter(path, run={"seed": 7}) as writer:
        fill(writer)
    return path


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    return tmp_path / "clean.h5"


def raw(path: Path) -> dict[str, bytes]:
    """The committed bytes of rows and values, and which steps the commits close."""
    with RawTrace(path) as trace:
        commits = trace.commits(trace.state())
        end = commits[-1]
        return {
            "rows": trace.items("rows", 0, end["rows"]).tobytes(),
            "payload": trace.items("payload", 0, end["payload"]).tobytes(),
            "commits": commits[["step", "rows", "payload"]][commits["step"] >= 0].tobytes(),
        }


def about(path: Path) -> list[Any]:
    """All else that a trace says."""
    with TraceReader(path) as reader:
        layers = {site.layer for site in reader.sites}
        geometry = {layer: reader.geometry(layer) for layer in (*layers, "a")}
        classes = [reader.classes(layer) for layer in geometry]
        return [reader.sites, reader.steps, geometry, classes, reader.overview()]


def run_of(path: Path) -> dict[str, Any]:
    with TraceReader(path) as reader:
        return reader.run


def state_of(path: Path) -> str:
    with TraceReader(path) as reader:
        return reader.state


def forge(path: Path, dataset: str, index: Any, field: str | None = None) -> None:
    """Change one item of a dataset, and no checksum."""
    with h5py.File(path, "r+") as file:
        items = file[dataset][:]
        target = items[field] if field else items
        target[index] ^= 1
        file[dataset][:] = items


def test_a_killed_trace_comes_back_bit_for_bit(killed: Path, clean: Path) -> None:
    before = killed.read_bytes()
    assert repair(killed, clean) == Repaired("truncated", 4, RECORDS, 0, 0)
    assert killed.read_bytes() == before
    assert raw(clean) == raw(killed)
    assert about(clean) == about(killed)
    note = {"state": "open", "records_lost": 0, "values_lost": 0}
    assert run_of(clean) == {"seed": 7, "argv": ["x"], "repaired": note}
    assert list(clean.parent.iterdir()) == [clean]


def test_blocks_do_not_matter(killed: Path, clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_module, "BLOCK_ROWS", 3)
    assert not repair(killed, clean).lost
    assert raw(clean) == raw(killed)


@pytest.mark.parametrize("state", ["complete", "truncated"])
def test_a_closed_trace_keeps_its_state(tmp_path: Path, clean: Path, state: str) -> None:
    path = tmp_path / "closed.h5"
    writer = TraceWriter(path)
    fill(writer)
    writer.note("late", 1)
    writer.close(state)
    assert repair(path, clean) == Repaired(state, 4, RECORDS, 0, 0)
    assert (state_of(clean), raw(clean)) == (state, raw(path))
    assert run_of(clean)["late"] == 1


def test_a_trace_of_nothing(tmp_path: Path, clean: Path) -> None:
    TraceWriter(tmp_path / "empty.h5").close()
    with pytest.raises(DataError, match="it holds no records; nothing was written"):
        repair(tmp_path / "empty.h5", clean)
    assert not clean.exists()


def test_a_trace_still_being_written(tmp_path: Path, clean: Path) -> None:
    with TraceWriter(tmp_path / "live.h5") as writer:
        fill(writer)
        assert repair(tmp_path / "live.h5", clean) == Repaired("truncated", 4, RECORDS, 0, 0)
        fill(writer, steps=[20])
    assert raw(clean)["rows"] == raw(tmp_path / "live.h5")["rows"][: len(raw(clean)["rows"])]


# --- damage -------------------------------------------------------------------------------------


def test_damaged_values_leave_statistics(closed: Path, clean: Path) -> None:
    forge(closed, "payload", 5)
    assert repair(closed, clean) == Repaired("complete", 4, RECORDS, 0, 1)
    with TraceReader(clean) as reader:
        hurt, whole = reader.records(reader.sites[0])
    assert (hurt.values, hurt.shape, hurt.stats.nzero) == (None, (3, 50), 3)
    assert whole.values is not None
    assert run_of(clean)["repaired"]["values_lost"] == 1


def test_damaged_rows_are_cut_at_the_last_sound_commit(closed: Path, clean: Path) -> None:
    forge(closed, "rows", -1, "step")
    assert repair(closed, clean) == Repaired("truncated", 2, RECORDS // 2, RECORDS // 2, 0)
    with TraceReader(clean) as reader:
        assert reader.steps == [0, 1]
        assert reader.geometry("a") == {"op": "linear", "step": 0}


@pytest.mark.parametrize(("commit", "steps", "lost"), [(-1, 3, 0), (-2, 2, 8)])
def test_a_damaged_commit(closed: Path, clean: Path, commit: int, steps: int, lost: int) -> None:
    forge(closed, "commits", commit, "payload")
    assert repair(closed, clean) == Repaired("truncated", steps, RECORDS - lost, lost, 0)


def test_nothing_saved_is_nothing_written(closed: Path, clean: Path) -> None:
    forge(closed, "commits", 1, "payload")  # only the commit before any record holds
    clean.write_text("precious")
    with pytest.raises(DataError, match="none of its 16 records can be saved"):
        repair(closed, clean, force=True)
    assert clean.read_text() == "precious"
    assert sorted(path.name for path in clean.parent.iterdir()) == ["clean.h5", "closed.h5"]


def test_a_damaged_state_costs_nothing(closed: Path, clean: Path) -> None:
    with h5py.File(closed, "r+") as file:
        file["state"][0] = np.bytes_("complexe")
    assert repair(closed, clean) == Repaired("truncated", 4, RECORDS, 0, 0)
    assert raw(clean) == raw(closed_again(closed))


def closed_again(path: Path) -> Path:
    with h5py.File(path, "r+") as file:
        file["state"][0] = np.bytes_("complete")
    return path


def test_rows_that_no_trace_can_hold_are_lost(
    closed: Path, clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checksums hold, yet the journal knows no such shape."""

    def forgetful(journal: Any) -> JournalContent:
        told = journal_content(journal)
        del told.shapes[0]
        return told

    monkeypatch.setattr(trusted_module, "journal_content", forgetful)
    done = repair(closed, clean)
    assert (done.state, done.records_lost, done.records) == ("truncated", 6, RECORDS - 6)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_copy_cut_short(tmp_path: Path, clean: Path, share: float) -> None:
    """Statistics lie before most values: a cut costs the values behind it, no more."""
    whole, cut = tmp_path / "whole.h5", tmp_path / "cut.h5"
    with TraceWriter(whole) as writer:
        for step in range(40):
            writer.write("a", "output", step, np.full(50_000, step, np.float32))
            writer.commit(step)
        data = whole.read_bytes()
    cut.write_bytes(data[: int(len(data) * share)])
    done = repair(cut, clean)
    assert (done.state, done.steps, done.records, done.records_lost) == ("truncated", 40, 40, 0)
    with TraceReader(clean) as reader:
        found = list(reader.records(reader.sites[0]))
    assert [record.stats.max for record in found] == list(range(40))
    kept = [record for record in found if record.values is not None]
    assert 0 < len(kept) == 40 - done.values_lost
    assert all(same_bits(r.values, np.full(50_000, r.step, np.float32)) for r in kept)


def same_bits(a: Any, b: Any) -> bool:
    return bool(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())


def test_a_first_commit_that_does_not_hold(closed: Path, clean: Path) -> None:
    forge(closed, "commits", 0, "crc")
    with pytest.raises(DataError, match="not even its first commit"):
        repair(closed, clean)
    assert not clean.exists()


# --- refusals -----------------------------------------------------------------------------------


def test_never_over_the_source(closed: Path, tmp_path: Path) -> None:
    before = closed.read_bytes()
    (tmp_path / "link.h5").symlink_to(closed)
    (tmp_path / "hard.h5").hardlink_to(closed)
    for out in (closed, tmp_path / "link.h5", tmp_path / "hard.h5"):
        for force in (False, True):
            with pytest.raises(UsageError, match="is the trace to repair"):
                repair(closed, out, force=force)
    assert closed.read_bytes() == before


def test_never_over_a_file_without_force(closed: Path, clean: Path, tmp_path: Path) -> None:
    clean.write_text("precious")
    with pytest.raises(UsageError, match="exists"):
        repair(closed, clean)
    assert clean.read_text() == "precious"
    repair(closed, clean, force=True)
    assert raw(clean) == raw(closed)
    with pytest.raises(UsageError, match="folder"):
        repair(closed, tmp_path / "none" / "clean.h5")


def test_nothing_is_left_where_there_was_nothing_to_repair(tmp_path: Path, clean: Path) -> None:
    clean.write_text("precious")
    (tmp_path / "text.h5").write_text("no trace")
    for source in ("none.h5", "text.h5"):
        with pytest.raises(DataError, match=source):
            repair(tmp_path / source, clean, force=True)
    assert clean.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clean.h5", "text.h5"]


# --- the command --------------------------------------------------------------------------------


def test_command(killed: Path, clean: Path) -> None:
    done = hqtool("repair", killed, "-o", clean)
    assert (done.status, done.out) == (0, "")
    assert done.err == f"wrote {clean}: 4 steps, 16 records, truncated\n"
    again = hqtool("repair", killed, "-o", clean)
    assert (again.status, "exists" in again.err) == (2, True)
    assert hqtool("repair", killed, "-o", clean, "-f", "-q") == (0, "", "")
    assert hqtool("repair", killed, "-o", killed, "-f").status == 2
    assert hqtool("repair", "none.h5", "-o", clean, "-f").status == 3
    assert hqtool("compare", clean, "--layers", "bf").status == 0


def test_command_says_what_is_lost_even_when_quiet(closed: Path, clean: Path) -> None:
    forge(closed, "payload", 5)
    forge(closed, "rows", -1, "step")
    done = hqtool("repair", closed, "-o", clean, "-q")
    assert (done.status, done.out, done.err.count("\n")) == (3, "", 1)
    assert "8 of 16 records are lost, 1 more kept their statistics" in done.err
    assert len(about(clean)[1]) == 2
