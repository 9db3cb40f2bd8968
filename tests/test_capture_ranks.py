"""Several processes train one model: each records a trace of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402
from capture_models import read_records, read_run  # noqa: E402
from command import hqtool  # noqa: E402
from warm_python import WarmPython  # noqa: E402

if not torch.distributed.is_available():
    pytest.skip("this torch has no torch.distributed", allow_module_level=True)

SCRIPT = Path(__file__).parent / "scripts" / "ddp.py"
RANKS = range(2)


#: How torchrun tells of a rank that gloo's threads aborted while its interpreter went down: a fault
#: of plain torchrun, with or without capture, when the rank has done all of its work.
ABORTED_AT_EXIT = "Signal 6 (SIGABRT)"


def torchrun(warm_python: WarmPython, folder: Path, *command: str) -> None:
    """Run a program in two processes that know each other, to the end of their training."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = warm_python.run(folder, *launcher, *command, RESULTS=str(folder))
    assert done.returncode == 0 or ABORTED_AT_EXIT in done.stderr, done.stderr
    for rank in RANKS:
        assert (folder / f"rank{rank}.txt").exists(), done.stderr


def fingerprints(folder: Path) -> list[str]:
    """Of each rank's parameters at the end."""
    return [(folder / f"rank{rank}.txt").read_text() for rank in RANKS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, warm_python: WarmPython) -> Path:
    """Where both ranks were recorded."""
    folder = tmp_path_factory.mktemp("ranks")
    options = ("-f", "-o", "T.h5", "--every", "1", "--tensors", "output,grad_input,grad_weight")
    torchrun(warm_python, folder, "-m", "hqtool", "capture", *options, "--", str(SCRIPT))
    return folder


def test_each_rank_has_its_trace_and_says_so(folder: Path) -> None:
    assert sorted(path.name for path in folder.glob("*.h5")) == ["T.rank0.h5", "T.rank1.h5"]
    for rank in RANKS:
        run = read_run(folder / f"T.rank{rank}.h5")
        assert (run["rank"], run["world_size"]) == (rank, 2)
        assert "unrecorded_layers" not in run


def test_names_are_those_of_the_wrapped_model(folder: Path) -> None:
    names = {"0/output", "3/output", "3/grad_input", "0/grad_weight", "3/grad_weight"}
    places = [(step, 0, 0) for step in range(3)]
    for rank in RANKS:
        found: dict[str, list[tuple[int, int, int]]] = {}
        for layer, kind, *place in sorted(read_records(folder / f"T.rank{rank}.h5")):
            found.setdefault(f"{layer}/{kind}", []).append(tuple(place))
        assert found == dict.fromkeys(names, places)


def test_weight_gradients_are_averaged_and_input_gradients_local(folder: Path) -> None:
    first, second = (read_records(folder / f"T.rank{rank}.h5") for rank in RANKS)
    assert first.keys() == second.keys()
    for key in first:
        same = np.array_equal(first[key].values, second[key].values)
        assert same == (key[1] == "grad_weight"), key


def test_ranks_train_the_same_under_capture(
    folder: Path, tmp_path: Path, warm_python: WarmPython
) -> None:
    torchrun(warm_python, tmp_path, str(SCRIPT))
    plain = fingerprints(tmp_path)
    assert plain[0] == plain[1]
    assert fingerprints(folder) == plain


def test_each_trace_can_be_compared(folder: Path) -> None:
    for rank in RANKS:
        done = hqtool("compare", "-q", "--json", "-", folder / f"T.rank{rank}.h5")
        assert (done.status, done.err) == (0, "")
