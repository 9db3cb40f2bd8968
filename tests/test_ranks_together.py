"""Ranks of one run taken together: by hand, against one trace of all values, against one rank."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import tracemalloc
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import hqtool
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from quantizing import settings as settings_of

import hqtool.compare.execute as execute
from hqtool import TraceReader, TraceWriter
from hqtool.compare.comparison import Selection, compare
from hqtool.compare.execute import SiteResult, Task
from hqtool.core.metrics import METRICS
from hqtool.core.stats import stats_of
from hqtool.errors import DataError
from hqtool.estimators.presets import DEFAULTS
from hqtool.trace.ranks import RanksReader, joint, names_of, pooled
from hqtool.traffic.layers import layer_from_json
from hqtool.vocab import Record, Site, Stats

OUTPUT, GRADIENT = Site("conv", "output"), Site("conv", "grad_input")
GEOMETRY = layer_from_json(
    {"name": "conv", "op": "conv2d", "in_channels": 2, "out_channels": 4, "input": [5, 5],
     "kernel": 3, "padding": 1}
).to_json()  # fmt: skip
STEPS = 4

Write = dict[str, Any]


def tensor(rank: int, kind: str, step: int, batch: int = 1) -> np.ndarray:
    rng = np.random.default_rng([rank, kind == "output", step])
    shape = (batch, 4, 5, 5) if kind == "output" else (batch, 2, 5, 5)
    return (rng.standard_normal(shape) * (1 + step) * (1 + rank)).astype("f4")


def usual(rank: int, batch: int = 1, steps: Iterable[int] = range(STEPS)) -> Iterator[Write]:
    """What each rank records of one layer."""
    for step in steps:
        for kind in ("output", "grad_input"):
            values = tensor(rank, kind, step, batch)
            yield {"layer": "conv", "tensor": kind, "step": step, "values": values}


def write(
    path: Path, writes: Iterable[Write], rank: int | None = None, world_size: int = 2, **run: Any
) -> str:
    """A trace; a rank's, where one is named."""
    told = {} if rank is None else {"rank": rank, "world_size": world_size}
    with TraceWriter(path, run=told | run) as writer:
        writer.describe("conv", GEOMETRY)
        writer.name_classes("conv", ["Conv2d"])
        for step, group in itertools.groupby(writes, lambda each: each["step"]):
            for each in group:
                writer.write(**each)
            writer.commit(step)
    return str(path)


def some_ranks(folder: Path, count: int = 2, **how: Any) -> list[str]:
    return [write(folder / f"T.rank{r}.h5", usual(r, **how), r, count) for r in range(count)]


def joined(paths: Iterable[str], site: Site, **how: Any) -> list[Record]:
    with RanksReader(paths) as reader:
        return list(reader.records(site, **how))


def assert_same_stats(found: Stats, wanted: Stats) -> None:
    assert found == pytest.approx(wanted, rel=1e-9, nan_ok=True)
    exact = ("min", "max", "absmax", "nzero", "nnan", "ninf", "min_nonzero")
    for name in exact:
        np.testing.assert_equal(getattr(found, name), getattr(wanted, name), name)


# --- pooling ------------------------------------------------------------------------------------

NOTHING = np.full(3, np.nan)
TENSORS = [
    np.random.default_rng(3).standard_normal(50) + 4,
    np.array([-7.0, 0.0, np.inf, np.nan, 1e-12]),
    np.zeros(6),
    NOTHING,
    np.zeros((0, 2)),
    np.array([2.0]),
    1e3 + 1e-3 * np.random.default_rng(4).standard_normal(1000),
]


def pool(tensors: Sequence[np.ndarray]) -> Stats:
    return pooled([(int(np.isfinite(x).sum()), stats_of(x)) for x in tensors])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_pooled_statistics_are_those_of_all_elements(count: int) -> None:
    for tensors in itertools.product(TENSORS, repeat=count):
        assert_same_stats(pool(tensors), stats_of(np.concatenate([x.ravel() for x in tensors])))


finite = arrays(np.float32, st.integers(0, 9), elements=st.floats(-1e6, 1e6, width=32))


@given(st.lists(finite, min_size=1, max_size=5))
def test_pooled_statistics_of_any_tensors(tensors: list[np.ndarray]) -> None:
    found, wanted = pool(tensors), stats_of(np.concatenate(tensors))
    size = max((float(np.abs(x).max(initial=0)) for x in tensors), default=0.0)
    assert found == pytest.approx(wanted, rel=1e-7, abs=1e-9 * size, nan_ok=True)


def test_pooling_does_not_overflow() -> None:
    found = pool([np.array([1e300, -1e300]), np.array([1e-300])])
    assert (found.max, found.mean) == (1e300, pytest.approx(1e-300 / 3))
    assert found.std == pytest.approx(1e300 * math.sqrt(2 / 3))
    assert found.l2 == pytest.approx(1e300 * math.sqrt(2))


# --- joint records ------------------------------------------------------------------------------


def record(x: np.ndarray, kept: Any = "all", **how: Any) -> Record:
    values = x if isinstance(kept, str) else kept
    return Record(3, 1, 2, x.shape, stats_of(x), values, **how)


@pytest.mark.parametrize(
    ("shapes", "wanted"),
    [
        ([(2, 3, 4), (5, 3, 4)], (7, 3, 4)),
        ([(2, 3), (2, 3), (2, 3)], (6, 3)),
        ([(2, 3), (2, 4)], (14,)),
        ([(2, 3), (6,)], (12,)),
        ([(4,), (1,)], (5,)),
        ([(), ()], (2,)),
        ([(), (3,)], (4,)),
        ([(0, 3), (2, 3)], (2, 3)),
    ],
)
def test_shapes_and_values_follow_each_other(
    shapes: list[tuple[int, ...]], wanted: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(0)
    tensors = [np.asarray(rng.standard_normal(shape)) for shape in shapes]
    found = joint([record(x) for x in tensors])
    assert found.values is not None
    assert found.values.shape == found.shape == wanted
    assert found.values.ravel().tolist() == [v for x in tensors for v in x.ravel().tolist()]
    assert found.rank_numels == tuple(x.size for x in tensors)
    assert (found.step, found.micro, found.call, found.sampled) == (3, 1, 2, False)
    assert_same_stats(found.stats, stats_of(found.values))


def test_a_sample_stays_a_sample() -> None:
    x, y = np.arange(6.0).reshape(2, 3), np.arange(9.0).reshape(3, 3)
    found = joint([record(x), record(y, y.ravel()[:4], sampled=True)])
    assert (found.sampled, found.shape, found.numel) == (True, (5, 3), 15)
    assert found.values is not None
    assert found.values.tolist() == [*x.ravel(), 0, 1, 2, 3]
    assert found.stats.max == 8


def test_values_are_there_where_every_rank_has_them() -> None:
    x = np.arange(6.0)
    found = joint([record(x), record(x + 1, None)])
    assert (found.values, found.shape, found.stats.max) == (None, (12,), 6)


def test_the_loss_scale_is_the_ranks_own() -> None:
    x = np.ones(2)
    assert joint([record(x, loss_scale=8.0), record(x, loss_scale=8.0)]).loss_scale == 8
    assert math.isnan(joint([record(x, loss_scale=8.0), record(x)]).loss_scale)


# --- reading ------------------------------------------------------------------------------------


def test_every_joint_record_by_hand(tmp_path: Path) -> None:
    """Trace by trace into a dictionary, then all values of a place in one array."""
    paths = some_ranks(tmp_path, 3, batch=2)
    for site in (OUTPUT, GRADIENT):
        held: dict[tuple[int, int, int], list[np.ndarray]] = {}
        for path in paths:
            with TraceReader(path) as reader:
                for each in reader.records(site):
                    held.setdefault((each.step, each.micro, each.call), []).append(each.values)
        found = joined(paths, site)
        assert [(r.step, r.micro, r.call) for r in found] == sorted(held)
        for each in found:
            together = np.concatenate(held[each.step, each.micro, each.call])
            assert each.values is not None
            assert each.values.dtype == together.dtype
            np.testing.assert_array_equal(each.values, together)
            assert_same_stats(each.stats, stats_of(together))


def test_the_order_of_the_traces_changes_nothing(tmp_path: Path) -> None:
    """Ten ranks and more: a shell's order puts rank 10 before rank 2."""
    paths = some_ranks(tmp_path, 11, steps=[0])
    (first,), (second,) = joined(paths, OUTPUT), joined(sorted(paths), OUTPUT)
    assert sorted(paths) != paths
    assert first.values is not None
    assert second.values is not None
    assert first.values.tobytes() == second.values.tobytes()
    assert first.stats == second.stats


def test_records_are_matched_by_step_micro_and_call(tmp_path: Path) -> None:
    """Written out of order and with gaps: what both have, in order."""
    places = [[(1, 0, 1), (0, 0, 0), (2, 1, 0), (0, 1, 0)], [(0, 1, 0), (2, 0, 0), (1, 0, 1)]]
    paths = []
    for rank, mine in enumerate(places):
        with TraceWriter(tmp_path / f"{rank}.h5", run={"rank": rank, "world_size": 2}) as writer:
            for step, micro, call in mine:
                x = np.float32([rank, step, micro, call])
                writer.write("conv", "output", step, x, micro, call)
            writer.commit(9)
        paths.append(str(tmp_path / f"{rank}.h5"))
    found = [r.values.tolist() for r in joined(paths, OUTPUT) if r.values is not None]
    assert found == [[0, 0, 1, 0, 1, 0, 1, 0], [0, 1, 0, 1, 1, 1, 0, 1]]


def test_loss_scales_are_divided_out_first(tmp_path: Path) -> None:
    x, y = np.float16([0.5, 2.0]), np.float16([-3.0, 1.0])
    writes = [
        {"layer": "conv", "tensor": "grad_input", "step": 0, "values": v * np.float16(s),
         "loss_scale": s} for v, s in ((x, 1024.0), (y, 4.0))
    ]  # fmt: skip
    paths = [write(tmp_path / f"{rank}.h5", [writes[rank]], rank) for rank in range(2)]
    (found,) = joined(paths, GRADIENT)
    assert found.values is not None
    assert (found.values.dtype, found.values.tolist()) == (np.float32, [0.5, 2, -3, 1])
    assert_same_stats(found.stats, stats_of(found.values))
    (kept,) = joined(paths, GRADIENT, scaled=True)
    assert (kept.stats.min, kept.stats.max) == (-12, 2048)


def test_sites_geometry_steps_and_state(tmp_path: Path) -> None:
    extra = {"layer": "head", "tensor": "output", "step": 3, "values": np.ones(2)}
    paths = [
        write(tmp_path / "a.h5", usual(0), 0),
        write(tmp_path / "b.h5", [*usual(1, steps=[1, 2, 3]), extra], 1),
    ]
    with RanksReader(reversed(paths)) as reader:
        assert reader.sites == (OUTPUT, GRADIENT)
        assert (reader.steps, reader.state) == ([1, 2, 3], "complete")
        assert reader.geometry("conv") == GEOMETRY
        assert reader.classes("conv") == ("Conv2d",)
        assert reader.classes("head") is None
        assert reader.geometry("head") is None
        overview = {summary.site: summary for summary in reader.overview()}
    assert overview[OUTPUT].records == overview[OUTPUT].with_values == 7
    assert overview[OUTPUT].payload_bytes == 7 * 100 * 4
    ends = [tensor(0, "output", t) for t in range(4)] + [tensor(1, "output", t) for t in (1, 2, 3)]
    assert overview[OUTPUT].range == (min(x.min() for x in ends), max(x.max() for x in ends))
    assert overview[Site("head", "output")].records == 1


def test_memory_holds_one_joint_record(tmp_path: Path) -> None:
    """Twelve records of 4 MB on each of two ranks: less than four joint ones at any time."""
    size = 1 << 20
    x = np.random.default_rng(0).standard_normal(size).astype("f4")
    writes = [{"layer": "conv", "tensor": "output", "step": t, "values": x} for t in range(12)]
    paths = [write(tmp_path / f"{rank}.h5", writes, rank) for rank in range(2)]
    tracemalloc.start()
    with RanksReader(paths) as reader:
        count = sum(1 for _ in reader.records(OUTPUT))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (count, peak < 4 * 2 * x.nbytes) == (12, True)


def test_values_that_are_left_out_are_not_even_read(tmp_path: Path) -> None:
    """Those of one rank are damaged where the other has no record, and where it has no values."""
    mine = [tensor(0, "output", step) for step in range(3)]
    theirs = [tensor(1, "output", step) for step in range(2)]
    how = {"layer": "conv", "tensor": "output"}
    bare = {"values": None, "stats": stats_of(theirs[1]), "shape": theirs[1].shape}
    first = write(tmp_path / "0.h5", ({**how, "step": t, "values": mine[t]} for t in range(3)), 0)
    second = write(
        tmp_path / "1.h5",
        [{**how, "step": 0, "values": theirs[0]}, {**how, "step": 1, **bare}],
        1,
    )
    data = Path(first).read_bytes()
    for lost in mine[1:]:
        assert lost.tobytes() in data
        data = data.replace(lost.tobytes(), bytes(lost.nbytes))
    Path(first).write_bytes(data)
    found = joined([first, second], OUTPUT)
    assert [(r.step, r.values is None) for r in found] == [(0, False), (1, True)]
    with pytest.raises(DataError, match="checksum"):
        joined([first], OUTPUT)


def test_words_for_ranks() -> None:
    assert names_of([3]) == "rank 3"
    assert names_of([1, 0]) == "ranks 0 and 1"
    assert names_of([0, 1, 2]) == "ranks 0 to 2"
    assert names_of([5, 0, 2, 3, 1, 8, 9]) == "ranks 0 to 3, 5, 8 and 9"


# --- compare ------------------------------------------------------------------------------------

BILL = ("static_bytes", "traffic_bytes", "elements", "spilled")


def compared(paths: Iterable[object], *options: object) -> dict[str, Any]:
    done = hqtool("compare", *paths, "--json", "-", "--per-step", *options)
    assert (done.status, done.err) == (0, "")
    found: dict[str, Any] = json.loads(done.out)
    return found


def without(rows: Iterable[dict[str, Any]], *keys: str) -> list[dict[str, Any]]:
    return [{key: row[key] for key in row if key not in keys} for row in rows]


def test_ranks_together_are_one_trace_of_all_values(tmp_path: Path) -> None:
    """Every figure but the bill, at several bit-widths, by a trace of the concatenated tensors."""
    paths = some_ranks(tmp_path, 3)
    whole = [
        {"layer": "conv", "tensor": kind, "step": step,
         "values": np.concatenate([tensor(rank, kind, step) for rank in range(3)])}
        for step in range(STEPS) for kind in ("output", "grad_input")
    ]  # fmt: skip
    one = write(tmp_path / "whole.h5", whole)
    options = ["--bits", "3,8", "--rounding", "stochastic-sampled", "--calibrate", 1]
    found, wanted = compared(paths, "--reduce-ranks", *options), compared([one], *options)
    assert len(found["steps"]) == 2 * 3 * 4 * 2
    assert without(found["steps"], "trace") == without(wanted["steps"], "trace")
    bill = ("trace", *BILL)
    assert without(found["summary"], *bill) == without(wanted["summary"], *bill)


def test_ranges_are_reduced_over_ranks(tmp_path: Path) -> None:
    """Rank 0 holds the largest value, rank 1 the smallest; hindsight sees both a step later."""
    ends = [[(-1.0, 9.0), (-2.0, 1.0)], [(-7.0, 2.0), (-4.0, 3.0)]]
    how = {"layer": "conv", "tensor": "output"}
    paths = []
    for rank, mine in enumerate(ends):
        writes = [{**how, "step": t, "values": np.float32(mine[t])} for t in range(2)]
        paths.append(write(tmp_path / f"{rank}.h5", writes, rank))
    specs = ("--estimator", "current", "--estimator", "hindsight:momentum=0")
    rows = compared(paths, "--reduce-ranks", *specs)["steps"]
    assert [(r["estimator"], r["lo"], r["hi"], r["looked"]) for r in rows] == [
        ("current", -7, 9, True),
        ("hindsight:momentum=0", -7, 9, True),
        ("current", -4, 3, True),
        ("hindsight:momentum=0", -7, 9, False),
    ]


@pytest.mark.parametrize("count", [2, 3])
def test_identical_ranks_are_one_rank(tmp_path: Path, count: int) -> None:
    """The same looks and bytes to the last one, and the same metrics.

    The sums behind them round otherwise, which can move a search within its tolerance.
    """
    paths = [write(tmp_path / f"{r}.h5", usual(0, batch=3), r, count) for r in range(count)]
    specs = [part for name in (*DEFAULTS, "std", "delayed") for part in ("--estimator", name)]
    alone = compared(paths[:1], *specs)["summary"]
    together = compared(paths, "--reduce-ranks", *specs)["summary"]
    assert len(together) == 2 * 6
    measured = ("trace", "sqnr_db_low", *METRICS)
    assert without(together, *measured) == without(alone, *measured)
    for found, wanted in zip(together, alone, strict=True):
        rel = 1e-3 if found["estimator"] == "dsgc" else 1e-9
        metrics = {name: wanted[name] for name in METRICS}
        assert {name: found[name] for name in METRICS} == pytest.approx(metrics, rel=rel)


def test_the_bill_is_that_of_the_mean_rank(tmp_path: Path) -> None:
    """Batches of 1, 2 and 6: each rank's own comparison, then the mean."""
    paths = [
        write(tmp_path / f"{rank}.h5", usual(rank, batch), rank, 3)
        for rank, batch in enumerate([1, 2, 6])
    ]
    specs = ("--estimator", "current", "--estimator", "hindsight")
    alone = [compared([path], *specs)["summary"] for path in paths]
    together = compared(paths, "--reduce-ranks", *specs)["summary"]
    for found, *each in zip(together, *alone, strict=True):
        assert {row["looks"] for row in each} == {found["looks"]}
        for key in BILL:
            assert found[key] == pytest.approx(sum(row[key] for row in each) / 3, rel=1e-12)
    assert together[0]["static_bytes"] > alone[0][0]["static_bytes"]


def test_what_some_rank_lacks_is_left_out_and_counted(tmp_path: Path) -> None:
    """Rank 1 lacks step 0 and has a head; rank 2 lacks step 3's gradient."""
    head = {"layer": "head", "tensor": "output", "step": 3, "values": np.ones(2)}
    writes = [
        [*usual(0)],
        [*usual(1, steps=[1, 2, 3]), head],
        [*usual(2)][:-1],
    ]
    paths = [write(tmp_path / f"{r}.h5", w, r, 3) for r, w in enumerate(writes)]
    for calibrate in (0, 2):
        found = compared(paths, "--reduce-ranks", "--calibrate", calibrate)
        assert found["ranks"] == {
            "world_size": 3,
            "given": [0, 1, 2],
            "missing": [],
            "records": 4 + 3 + 4 + 4 + 3 + 3 + 1,
            "records_left_out": (4 + 3 + 4 - 3 * 3) + (4 + 3 + 3 - 3 * 2) + 1,
            "sites_left_out": 1,
        }
    rows = compared(paths, "--reduce-ranks", "--estimator", "current")["steps"]
    assert [(r["tensor"], r["step"]) for r in rows] == [
        *(("output", t) for t in (1, 2, 3)),
        *(("grad_input", t) for t in (1, 2)),
    ]
    text = " ".join(hqtool("compare", *paths, "--reduce-ranks").out.split())
    assert "sites left out because some rank lacks them: 1" in text
    assert "records left out because some rank lacks them: 7 of the ranks' 22" in text
    chosen = compared(paths, "--reduce-ranks", "--tensors", "grad_input")["ranks"]
    assert (chosen["records_left_out"], chosen["sites_left_out"]) == (4, 0)


def test_documents_say_that_ranks_were_reduced(tmp_path: Path) -> None:
    paths = some_ranks(tmp_path)
    found = compared(paths, "--reduce-ranks")
    assert [(t["path"], t["steps"], t["sites"]) for t in found["trace"]] == [
        (path, STEPS, 2) for path in paths
    ]
    assert found["settings"]["reduce_ranks"] is True
    assert {row["trace"] for row in found["summary"] + found["steps"]} == {None}
    assert found["ranks"]["records_left_out"] == 0
    apart = compared(paths)
    assert (apart["settings"]["reduce_ranks"], "ranks" in apart) == (False, False)
    assert len(apart["summary"]) == 2 * len(found["summary"])


@pytest.mark.parametrize("by", ["tensor", "layer"])
def test_the_table_fits_and_says_whose_traffic_it_is(tmp_path: Path, by: str) -> None:
    text = hqtool("compare", *some_ranks(tmp_path), "--reduce-ranks", "--by", by).out
    assert max(map(len, text.splitlines())) <= 80
    assert "ranks 0 and 1 of 2 taken together" in " ".join(text.split())
    assert "left out" not in text
    assert "rank0.h5" not in text


def test_the_same_bytes_whatever_the_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "WORTH_PROCESSES", 0.0)
    args = ["compare", *some_ranks(tmp_path), "--reduce-ranks", "--bits", "3,8"]
    for output in (["--json", "-", "--per-step"], ["--jsonl", "-"], ["--csv", "-"]):
        alone = hqtool(*args, *output, "--jobs", 1)
        assert alone.status == 0
        assert len(alone.out.splitlines()) > 16
        assert hqtool(*args, *output, "--jobs", 2) == alone


def test_a_cluster_gives_the_same(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    args = ["compare", *some_ranks(tmp_path), "--reduce-ranks", "--json", "-"]
    assert hqtool(*args, "--scheduler", "local", "--jobs", 1) == hqtool(*args, "--jobs", 1)


def test_ranks_that_still_grow_are_read_as_the_survey_saw_them(tmp_path: Path) -> None:
    """One rank commits more between survey and tasks than the other ever will."""
    settings = settings_of()
    rest = write(tmp_path / "1.h5", usual(1), 1)
    with TraceWriter(tmp_path / "0.h5", run={"rank": 0, "world_size": 2}) as writer:
        for each in usual(0, steps=[0, 1]):
            writer.write(**each)
        writer.commit(1)

        def grow_first(tasks: Sequence[Task]) -> Iterator[tuple[int, SiteResult]]:
            for each in usual(0, steps=[2, 3]):
                writer.write(**each)
            writer.commit(3)
            yield from execute.serial(tasks)

        paths = [str(tmp_path / "0.h5"), rest]
        during = compare(paths, settings, Selection(), grow_first, reduce_ranks=True)
        after = compare(paths, settings, Selection(), reduce_ranks=True)
    assert [facts.steps for facts in during.traces] == [2, 4]
    assert {summary.steps for summary in during.summaries} == {2}
    assert during.records_left_out == 4
    assert ({summary.steps for summary in after.summaries}, after.records_left_out) == ({4}, 0)


def test_missing_ranks_are_a_warning(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{r}.h5", usual(r), r, 4) for r in (0, 2)]
    done = hqtool("compare", *paths, "--reduce-ranks", "--json", "-")
    assert done.status == 0
    assert done.err == "hqtool: ranks 1 and 3 of 4 are missing: ranges are those of the others\n"
    assert json.loads(done.out)["ranks"]["missing"] == [1, 3]
    assert hqtool("compare", *paths, "--reduce-ranks", "-q").err == ""


def test_what_cannot_be_reduced_is_refused(tmp_path: Path) -> None:
    first, second = some_ranks(tmp_path)
    other = {"layer": "head", "tensor": "output", "step": 0, "values": np.ones(2)}
    alien = write(tmp_path / "alien.h5", [other], 1)
    four = write(tmp_path / "four.h5", usual(1), 1, 4)
    plain = write(tmp_path / "plain.h5", usual(1))
    odd = write(tmp_path / "odd.h5", usual(1), 2)
    empty = [write(tmp_path / f"empty{rank}.h5", [], rank) for rank in range(2)]
    for traces, status, words in (
        ([first], 2, ["--reduce-ranks", "two traces"]),
        ([first, first], 3, ["both rank 0", "once"]),
        ([first, four], 3, ["2 ranks", "four.h5", "4"]),
        ([first, plain], 3, ["plain.h5", "which rank", "torchrun"]),
        ([first, odd], 3, ["odd.h5", "which rank"]),
        ([first, alien], 3, ["no site", "same layers"]),
        ([first, tmp_path / "none.h5"], 3, ["none.h5", "no such file"]),
        (empty, 3, ["nothing was recorded"]),
        ([first, second, "--layers", "nope"], 2, ["nope"]),
    ):
        done = hqtool("compare", "--reduce-ranks", *traces)
        assert (done.status, done.out) == (status, ""), traces
        assert 1 <= len(done.err.splitlines()) <= 2
        assert done.err.startswith("hqtool: ")
        for word in words:
            assert word in done.err


# --- info ---------------------------------------------------------------------------------------


def test_info_of_ranks_together(tmp_path: Path) -> None:
    head = {"layer": "head", "tensor": "output", "step": 3, "values": np.ones(2)}
    paths = [
        write(tmp_path / "0.h5", usual(0), 0, seed=7, host="a"),
        write(tmp_path / "1.h5", [*usual(1, batch=2, steps=[1, 2, 3]), head], 1, seed=7, host="b"),
    ]
    found = json.loads(hqtool("info", *paths, "--json", "-").out)
    assert found["schema"] == "hqtool.info.ranks/1"
    assert [(t["path"], t["rank"], t["steps"]["count"]) for t in found["traces"]] == [
        (paths[0], 0, 4),
        (paths[1], 1, 3),
    ]
    assert found["ranks"] == {"world_size": 2, "given": [0, 1], "missing": [], "problem": None}
    assert found["steps"] == {"count": 3, "first": 1, "last": 3}
    assert found["file_bytes"] == sum(Path(path).stat().st_size for path in paths)
    assert (found["state"], found["layers"]["conv"]) == ("complete", GEOMETRY)
    by_site = {(row["layer"], row["tensor"]): row for row in found["sites"]}
    assert len(by_site) == len(found["sites"]) == 3
    conv = by_site["conv", "output"]
    assert (conv["records"], conv["traces"]) == (7, 2)
    assert conv["shapes"] == [[1, 4, 5, 5], [2, 4, 5, 5]]
    tensors = [tensor(0, "output", t) for t in range(4)]
    tensors += [tensor(1, "output", t, batch=2) for t in (1, 2, 3)]
    assert conv["min"] == min(x.min() for x in tensors)
    assert conv["max"] == max(x.max() for x in tensors)
    assert conv["payload_bytes"] == sum(x.nbytes for x in tensors)
    assert by_site["head", "output"]["traces"] == 1
    text = hqtool("info", *paths).out
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text.split())
    for told in (
        "ranks 0 and 1 of 2",
        "3 (1 to 3) in common",
        "seed 7 host a (rank 0); b (rank 1)",
        "not in every trace: head/output",
    ):
        assert told in words
    rows = list(csv.DictReader(io.StringIO(hqtool("info", *paths, "--csv", "-").out)))
    assert [row["records"] for row in rows] == ["7", "7", "1"]


def test_info_says_which_ranks_are_missing(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{r}.h5", usual(r), r, 8) for r in (0, 1, 2, 5)]
    found = json.loads(hqtool("info", *paths, "--json", "-").out)
    assert found["ranks"]["missing"] == [3, 4, 6, 7]
    words = " ".join(hqtool("info", *paths).out.split())
    assert "ranks 0 to 2 and 5 of 8; ranks 3, 4, 6 and 7 of 8 are missing" in words


def test_info_says_why_traces_are_not_ranks_of_one_run(tmp_path: Path) -> None:
    (first, second), plain = some_ranks(tmp_path), write(tmp_path / "plain.h5", usual(3))
    for paths, why in (([first, plain], "plain.h5 does not say"), ([first, first], "both rank 0")):
        done = hqtool("info", *paths)
        assert (done.status, done.err) == (0, "")
        assert "not ranks of one run: " in " ".join(done.out.split())
        found = json.loads(hqtool("info", *paths, "--json", "-").out)["ranks"]
        assert (found["given"], why in found["problem"]) == (None, True)
    assert "not ranks" not in hqtool("info", first, second).out


def test_info_of_one_rank_is_that_of_any_trace(tmp_path: Path) -> None:
    path = write(tmp_path / "0.h5", usual(0), 0)
    found = json.loads(hqtool("info", path, "--json", "-").out)
    assert found["schema"] == "hqtool.info/1"
    assert found["run"] == {"rank": 0, "world_size": 2}
    assert "min" not in found["sites"][0]
    assert "together" not in hqtool("info", path).out


def test_info_refuses(tmp_path: Path) -> None:
    paths = some_ranks(tmp_path)
    for args, status, word in (
        ([*paths, "--follow"], 2, "one trace"),
        ([paths[0], tmp_path / "none.h5"], 3, "none.h5"),
        ([], 2, "TRACE"),
    ):
        done = hqtool("info", *args)
        assert (done.status, done.out, word in done.err) == (status, "", True)
        assert len(done.err.splitlines()) == 2
