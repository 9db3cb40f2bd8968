"""Making a trace of archives of arrays; where that fails, nothing is left."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hqtool.errors import DataError, HqtoolError, UsageError
from hqtool.trace import convert as convert_module
from hqtool.trace.convert import convert_npz
from hqtool.trace.reader import TraceReader
from hqtool.vocab import Site


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def records_of(path: Path) -> dict[str, Any]:
    with TraceReader(path) as reader:
        assert reader.state == "complete"
        return {
            f"{site}/{record.step}": record.values
            for site in reader.sites
            for record in reader.records(site)
        }


def test_arrays_come_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "conv1/output/0": rng.standard_normal((2, 3)),
        "conv1/output/10": rng.standard_normal((4, 3)).astype(np.float32),
        "conv1/output/2": np.array([np.nan, np.inf, -0.0], np.float16),
        "layer1.0/down/sample/grad_input/2": np.float64(3.5),
        "output/weight/7": np.empty((0, 3), np.float32),
        "слой/grad_output/00": np.asfortranarray(rng.standard_normal((5, 6))),
        "swapped/input/1": np.arange(3, dtype=">f4"),
    }
    out = tmp_path / "trace.h5"
    done = convert_npz([save(tmp_path / "a.npz", **arrays)], out)
    assert done == (5, 5, 7)
    found = records_of(out)
    assert set(found) == {key.replace("/00", "/0") for key in arrays}
    for key, values in arrays.items():
        np.testing.assert_array_equal(found[key.replace("/00", "/0")], values)
        assert found[key.replace("/00", "/0")].shape == values.shape
    with TraceReader(out) as reader:
        assert reader.steps == [0, 1, 2, 7, 10]
        assert reader.run["files"] == [str(tmp_path / "a.npz")]


def test_steps_spread_over_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert_module, "MAX_OPEN", 2)
    files = []
    for number in range(5):
        steps = range(9 - number, -1, -1 - number % 2)
        arrays = {f"l{number}/output/{step}": np.full(3, step, np.float32) for step in steps}
        np.savez_compressed(tmp_path / f"{number}.npz", **arrays)
        files.append(tmp_path / f"{number}.npz")
    convert_npz(files, tmp_path / "trace.h5")
    with TraceReader(tmp_path / "trace.h5") as reader:
        assert reader.steps == list(range(10))
        for number in range(5):
            records = list(reader.records(Site(f"l{number}", "output")))
            assert [r.step for r in records] == sorted(range(9 - number, -1, -1 - number % 2))
            assert all((r.values == r.step).all() for r in records)


def test_out_is_not_overwritten_without_force(tmp_path: Path) -> None:
    archive, out = save(tmp_path / "a.npz", **{"a/output/0": np.ones(2)}), tmp_path / "trace.h5"
    out.write_text("mine")
    with pytest.raises(UsageError, match=r"trace.h5 exists"):
        convert_npz([archive], out)
    assert out.read_text() == "mine"
    convert_npz([archive], out, force=True)
    assert list(records_of(out)) == ["a/output/0"]


def test_where_out_cannot_be(tmp_path: Path) -> None:
    archive = save(tmp_path / "a.npz", **{"a/output/0": np.ones(2)})
    with pytest.raises(UsageError, match="folder"):
        convert_npz([archive], tmp_path / "none" / "trace.h5")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="exists"):
        convert_npz([archive], tmp_path / "folder")
    with pytest.raises(UsageError, match="cannot be replaced"):
        convert_npz([archive], tmp_path / "folder", force=True)
    with pytest.raises(UsageError, match="nothing"):
        convert_npz([], tmp_path / "trace.h5")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.npz", "folder"]


def assert_refused(files: list[Path], out: Path, *words: str) -> None:
    """A DataError with these words, and neither a new nor a changed file."""
    folder = {file.name for file in out.parent.iterdir()}
    out.write_text("mine")
    with pytest.raises(DataError) as caught:
        convert_npz(files, out, force=True)
    for word in words:
        assert word in caught.value.cause
    assert caught.value.remedy
    assert out.read_text() == "mine"
    assert {file.name for file in out.parent.iterdir()} == folder | {out.name}


@pytest.mark.parametrize(
    "key",
    [
        "plain",
        "conv/output",
        "conv/0/output",
        "conv/outputs/0",
        "conv/output/-1",
        "conv/output/1.5",
        "conv/output/١",
        "conv/output/x",
        "/output/0",
        f"conv/output/{10**19}",
        "conv/output/0\n",
    ],
)
def test_misnamed_arrays(tmp_path: Path, key: str) -> None:
    archive = save(tmp_path / "a.npz", **{"a/output/0": np.ones(2), key: np.ones(2)})
    assert_refused([archive], tmp_path / "trace.h5", "a.npz", repr(key))


@pytest.mark.parametrize(
    "values",
    [
        np.arange(3),
        np.array([True]),
        np.ones(2, np.complex128),
        np.array(["text"]),
        np.array([{}, None]),
        np.ones(2, np.longdouble),
    ],
)
def test_arrays_of_other_types(tmp_path: Path, values: Any) -> None:
    archive = save(tmp_path / "a.npz", **{"a/output/0": np.ones(2), "b/output/1": values})
    assert_refused([archive], tmp_path / "trace.h5", "a.npz: b/output/1")


@pytest.mark.parametrize("again", ["a/output/3", "a/output/03"])
def test_arrays_given_twice(tmp_path: Path, again: str) -> None:
    files = [
        save(tmp_path / "a.npz", **{"a/output/3": np.ones(2)}),
        save(tmp_path / "b.npz", **{again: np.ones(2)}),
    ]
    assert_refused(files, tmp_path / "trace.h5", "b.npz", again, "a.npz")


def test_missing_file(tmp_path: Path) -> None:
    assert_refused([tmp_path / "no.npz"], tmp_path / "trace.h5", "no.npz", "No such file")


@pytest.mark.parametrize("data", [b"", b"text", b"PK\x03\x04" + bytes(100), b"\x80\x04N."])
def test_no_archive(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(data)
    assert_refused([tmp_path / "a.npz"], tmp_path / "trace.h5", "a.npz: not an .npz archive")


def test_other_things_than_archives(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones(3))
    assert_refused([tmp_path / "a.npy"], tmp_path / "trace.h5", "a.npy", "single array")
    assert_refused([tmp_path], tmp_path / "trace.h5", "cannot be opened")
    np.savez(tmp_path / "empty.npz")
    assert_refused([tmp_path / "empty.npz"], tmp_path / "trace.h5", "empty.npz: no arrays")
    with zipfile.ZipFile(tmp_path / "zip.npz", "w") as archive:
        archive.writestr("a/output/0", "text")
    assert_refused([tmp_path / "zip.npz"], tmp_path / "trace.h5", "zip.npz: a/output/0")


def error_of(files: list[Path], out: Path) -> HqtoolError | None:
    try:
        convert_npz(files, out, force=True)
    except HqtoolError as error:
        return error
    return None


def test_damaged_archives(tmp_path: Path) -> None:
    arrays = {f"layer/output/{step}": np.arange(40.0) + step for step in range(4)}
    archive, out = save(tmp_path / "a.npz", **arrays), tmp_path / "trace.h5"
    data, rng = archive.read_bytes(), np.random.default_rng(0)
    for _ in range(200):
        changed = bytearray(data[: rng.integers(1, len(data))] if rng.random() < 0.3 else data)
        for _ in range(rng.integers(1, 4)):
            changed[rng.integers(len(changed))] ^= rng.integers(1, 256)
        archive.write_bytes(changed)
        error = error_of([archive], out)
        assert error is None or re.fullmatch(rf"{re.escape(str(archive))}: [^\n]+", error.cause)
        assert {file.name for file in tmp_path.iterdir()} <= {"a.npz", "trace.h5"}
