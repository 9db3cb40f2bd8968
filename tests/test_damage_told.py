"""What each command reports of a damaged trace, and which remedy it names."""

from __future__ import annotations

import json
import random
import shlex
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from command import hqtool

from hqtool.errors import DataError
from hqtool.report.info import condition_of, info_report
from hqtool.trace import check
from hqtool.trace.reader import TraceReader
from hqtool.trace.repair import repair
from hqtool.trace.writer import TraceWriter
from hqtool.vocab import Stats

DIGITS = Path(__file__).parent.parent / "sample_data" / "digits.h5"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "run 1.h5"
    with TraceWriter(path) as writer:
        for step in range(20):
            for layer in ("a", "b"):
                writer.write(layer, "output", step, np.arange(400, dtype=np.float32) + step)
            writer.write("c", "output", step, None, stats=Stats(*[0] * 10), shape=(3,))
            writer.commit(step)
    return path


def flip(path: Path, dataset: str, *places: int) -> None:
    with h5py.File(path, "r+") as file:
        items = file[dataset][:]
        bits = items.view("u1")
        bits[list(places)] ^= 1
        file[dataset][:] = items


def told(path: Path) -> str | None:
    """The remedy against what is wrong with a trace, as info finds it; None where nothing is."""
    try:
        with TraceReader(path) as reader:
            document = info_report(reader).document
    except DataError as error:
        return str(error.remedy)
    return "repair" if document["state"] == "damaged" else None


def test_repair_is_recommended_just_where_it_saves_something(path: Path, tmp_path: Path) -> None:
    data, rng = path.read_bytes(), random.Random(3)
    used = [place for place, byte in enumerate(data) if byte]
    outcomes = set()
    for case in range(50):
        changed = bytearray(data)
        if case % 4:
            changed[rng.choice(used)] ^= 1 << rng.randrange(8)
        else:
            del changed[rng.choice(used) :]
        path.write_bytes(changed)
        out = tmp_path / f"{case}.h5"
        try:
            lost = repair(path, out).lost
        except DataError:
            assert not out.exists()
            assert "repair" not in str(told(path))
            outcomes.add("nothing to save")
        else:
            remedy = told(path)
            assert "repair" in remedy if remedy else not lost
            outcomes.add("lost" if lost else "whole")
    assert outcomes >= {"nothing to save", "lost"}


def test_the_remedy_is_the_command_that_helps(path: Path, tmp_path: Path) -> None:
    flip(path, "rows", 3000)
    done = hqtool("info", path)
    assert (done.status, done.out) == (3, "")
    words = shlex.split(done.err.splitlines()[1].partition("hqtool ")[2])
    assert words == ["repair", str(path), "-o", str(tmp_path / "run 1.repaired.h5")]
    assert hqtool(*words).status == 3  # something was lost, as it says
    assert hqtool("info", words[-1]).status == 0


def test_damaged_values_in_info(path: Path, tmp_path: Path) -> None:
    shutil.copy(path, tmp_path / "sound.h5")
    flip(path, "payload", 0, 1700, 1701)  # of two records
    done = hqtool("info", path)
    assert done.status == 3
    assert "complete" not in done.out
    assert "state damaged: the file was cut or changed" in " ".join(done.out.split())
    assert done.err.splitlines()[0].endswith("the values of 2 records are damaged")
    assert "hqtool repair " in done.err
    document = json.loads(hqtool("info", path, "--json", "-").out)
    assert (document["state"], document["damaged_values"]) == ("damaged", 2)
    both = hqtool("info", tmp_path / "sound.h5", path, "--json", "-")
    found = [(trace["state"], trace["damaged_values"]) for trace in json.loads(both.out)["traces"]]
    assert (both.status, found) == (3, [("complete", 0), ("damaged", 2)])
    assert json.loads(both.out)["state"] == "damaged"


def test_values_are_checked_as_one_by_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [0, 1599, 1600, 9000, 9001, 63_999]
    flip(path, "payload", *places)
    expected = len({place // 1600 for place in places})
    for span in (1, 1600, 1601, 5000, 1 << 30):
        monkeypatch.setattr(check, "SPAN_BYTES", span)
        with TraceReader(path) as reader:
            assert reader.damaged_values() == expected
            assert reader.payload_bytes == 64_000


def test_values_past_the_limit_are_not_called_checked(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hqtool.report.info.CHECKED_BYTES", 63_999)
    with TraceReader(path) as reader:
        condition = condition_of(reader)
    assert (condition.state, condition.damaged_values) == ("complete", None)
    assert "62.5 KiB, were not checked for damage" in condition.notes[0]


def test_a_cut_copy_of_a_real_trace_is_never_complete(tmp_path: Path) -> None:
    data, cut = DIGITS.read_bytes(), tmp_path / "cut.h5"
    for end in (*(int(share * len(data)) for share in (0.2, 0.5, 0.8, 0.95)), len(data) - 1):
        cut.write_bytes(data[:end])
        assert told(cut) is not None
    done = hqtool("info", cut)  # what is missing held nothing
    assert (done.status, "complete" in done.out) == (3, False)
    assert done.err.startswith(f"hqtool: {cut}: the file is cut short\n")
    assert not repair(cut, tmp_path / "clean.h5").lost


def test_a_trace_is_told_as_one_where_it_does_not_belong(path: Path, tmp_path: Path) -> None:
    done = hqtool("traffic", path)
    assert (done.status, "no layer in it has a geometry" in done.err) == (3, True)
    done = hqtool("convert", path, "-o", tmp_path / "out.h5")
    assert (done.status, "not an .npz archive" in done.err) == (3, True)
    flip(path, "rows", 3000)
    done = hqtool("traffic", path)
    assert (done.status, "the trace is damaged" in done.err) == (3, True)
    assert "hqtool repair" in done.err
    path.write_bytes(bytes(100) + path.read_bytes()[100:])
    done = hqtool("traffic", path)
    assert (done.status, "cannot be opened as HDF5" in done.err) == (3, True)
