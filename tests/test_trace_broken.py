"""Damaged files: a DataError with cause and remedy, or the right data."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hqtool.errors import DataError
from hqtool.trace.reader import TraceReader
from hqtool.trace.schema import COMMIT
from hqtool.trace.writer import TraceWriter


def fill(writer: TraceWriter) -> None:
    for step in range(3):
        for layer in ("a", "b.c"):
            values = np.arange(150, dtype=np.float32).reshape(3, 50) + step
            writer.write(layer, "output", step, values)
            writer.write(layer, "grad_input", step, values[0].astype(np.float16))
        writer.describe("a", {"step": step})
        writer.commit(step)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A sound trace."""
    path = tmp_path / "trace.h5"
    with TraceWriter(path, run={"seed": 1}) as writer:
        fill(writer)
    return path


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A trace as a killed writer leaves it."""
    path = tmp_path / "killed.h5"
    with TraceWriter(tmp_path / "live.h5", run={"seed": 1}) as writer:
        fill(writer)
        path.write_bytes((tmp_path / "live.h5").read_bytes())
    return path


def contents(path: Path) -> list[Any]:
    """All that a trace says, comparable."""
    with TraceReader(path) as reader:
        about = [reader.run, reader.state, reader.steps, reader.geometry("a"), reader.overview()]
        return about + [
            [site, r.step, r.micro, r.call, r.shape, r.stats, r.loss_scale, r.values.tobytes()]
            for site in reader.sites
            for r in reader.records(site)
        ]


def outcome(path: Path) -> list[Any] | DataError:
    """What a trace says, or the error it makes."""
    try:
        return contents(path)
    except DataError as error:
        return error


def error_of(path: Path) -> DataError:
    error = outcome(path)
    assert isinstance(error, DataError)
    assert str(path) in error.cause
    assert "\n" not in error.cause
    assert error.remedy
    assert error.exit_status == 3
    return error


def test_missing(tmp_path: Path) -> None:
    assert "no such file" in error_of(tmp_path / "none.h5").cause


def test_a_folder(tmp_path: Path) -> None:
    assert "not a file" in error_of(tmp_path).cause


@pytest.mark.parametrize("data", [b"", b"\x89HDF\r\n\x1a\n", b"text\n" * 1000, bytes(5000)])
def test_not_hdf5(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    assert "HDF5" in error_of(path).cause


def test_another_hdf5_file(tmp_path: Path) -> None:
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["rows"] = np.arange(3)
    assert "not a trace" in error_of(path).cause


@pytest.mark.parametrize("name", ["other/1", "", 7, "text"])
def test_another_format(path: Path, name: Any) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["format"] = np.bytes_(name) if isinstance(name, str) else name
    assert "not a trace" in error_of(path).cause


def test_a_newer_format(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["format"] = np.bytes_("hqtrace/2")
    error = error_of(path)
    assert "hqtrace/2" in error.cause
    assert "newer hqtool" in str(error.remedy)


def test_cut_before_the_first_commit(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["commits"].resize((0,))
    assert "before it began" in error_of(path).cause


@pytest.mark.parametrize("name", ["commits", "rows", "payload", "journal", "state"])
@pytest.mark.parametrize("how", ["gone", "empty", "short", "typed"])
def test_a_dataset_is_not_what_it_should_be(path: Path, name: str, how: str) -> None:
    with h5py.File(path, "r+") as file:
        data = file[name][:]
        del file[name]
        if how == "empty":
            file.create_dataset(name, data=data[:0], maxshape=(None,))
        if how == "short":
            file.create_dataset(name, data=data[:-1], maxshape=(None,))
        if how == "typed":
            file.create_dataset(name, data=np.arange(len(data), dtype="i2"), maxshape=(None,))
    if (name, how) == ("commits", "short"):
        assert contents(path)[2] == [0, 1]  # cut cleanly: an older commit of the same trace
    else:
        error_of(path)


def forge(path: Path, change: Callable[[Any], None]) -> None:
    """Change the rows, and make every checksum right again."""
    with h5py.File(path, "r+") as file:
        rows, commits = file["rows"][:], file["commits"][:]
        change(rows)
        commits["rows_crc"][-1] = zlib.crc32(rows)
        commits["crc"][-1] = zlib.crc32(commits[-1:].tobytes()[: COMMIT.itemsize - 4])
        file["rows"][:], file["commits"][:] = rows, commits


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("offset", -1),
        ("offset", 1 << 62),
        ("offset", 4),
        ("size", 1 << 61),
        ("size", -1),
        ("size", 1),
        ("shape", 99),
        ("shape", -1),
        ("shape", 1),
        ("element", 9),
        ("element", 4),
        ("crc", 0),
    ],
)
def test_rows_that_point_astray(path: Path, field: str, value: int) -> None:
    def change(rows: Any) -> None:
        rows[field][0] = value

    forge(path, lambda rows: None)
    contents(path)
    forge(path, change)
    error_of(path)


def test_rows_changed_alone(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        rows = file["rows"][:]
        rows["stats"]["max"][0] += 1
        file["rows"][:] = rows
    assert "checksum" in error_of(path).cause


def test_an_unfinished_commit_record_is_no_commit(killed: Path) -> None:
    data = killed.read_bytes()
    with TraceReader(killed) as reader:
        last = np.array([reader.prefix.upto], COMMIT).tobytes()
    killed.write_bytes(data.replace(last, last[:20] + bytes(24)))
    assert contents(killed)[2] == [0, 1]


def test_damaged_metadata_of_a_killed_writer_does_not_hang(killed: Path) -> None:
    data = bytearray(killed.read_bytes())
    data[20] ^= 1  # in the superblock
    killed.write_bytes(data)
    assert "checksum" in error_of(killed).cause


def is_sound(path: Path, data: bytes, expected: list[Any]) -> bool:
    """Whether a file of these bytes reads as expected; a DataError if not."""
    path.write_bytes(data)
    found = outcome(path)
    if isinstance(found, DataError):
        assert str(path) in found.cause
        return False
    assert repr(found) == repr(expected)  # by repr, for NaN equals nothing
    return True


@pytest.mark.parametrize("kind", ["path", "killed"])
def test_cut_anywhere(kind: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(kind)
    data, expected, rng = path.read_bytes(), contents(path), random.Random(1)
    end = len(data.rstrip(b"\0"))
    cuts = [*range(0, 600, 31), *(rng.randrange(end) for _ in range(60)), end - 1]
    assert not any(is_sound(path, data[:cut], expected) for cut in cuts)


@pytest.mark.parametrize("kind", ["path", "killed"])
@pytest.mark.parametrize("seed", range(3))
def test_bytes_flipped_anywhere(kind: str, seed: int, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(kind)
    data, expected, rng = path.read_bytes(), contents(path), random.Random(seed)
    used = [place for place, byte in enumerate(data) if byte]
    sound = 0
    for _ in range(60):
        changed = bytearray(data)
        for place in rng.sample(used, rng.choice([1, 1, 2, 8])):
            changed[place] ^= rng.randrange(1, 256)
        sound += is_sound(path, bytes(changed), expected)
    assert sound < 30
