"""One process, many, a cluster: the same bytes. An interruption leaves nothing but results."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command import hqtool
from quantizing import settings as settings_of

import hqtool.compare.execute as execute
from hqtool import TraceReader, TraceWriter
from hqtool.compare.comparison import Selection, compare
from hqtool.errors import DataError
from hqtool.traffic.layers import Counts
from hqtool.vocab import Stats

DIGITS = Path(__file__).parent.parent / "sample_data" / "digits.h5"


def write(path, steps=4, layers=5, size=3000, growth=1):
    rng = np.random.default_rng(0)
    with TraceWriter(path) as writer:
        for step in range(steps):
            for layer in range(layers):
                x = rng.standard_normal(int(size * (1 + growth * layer))).astype("f4")
                writer.write(f"layer{layer}", "output", step, x)
            writer.commit(step)
    return str(path)


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    return write(tmp_path_factory.mktemp("trace") / "run.h5")


@pytest.fixture
def always_in_pool(monkeypatch):
    monkeypatch.setattr(execute, "WORTH_PROCESSES", 0.0)


def test_results_are_the_same_bytes_whatever_the_jobs(trace, always_in_pool):
    args = ["compare", trace, "--json", "-", "--per-step", "--bits", "3,8,12"]
    alone = hqtool(*args, "--jobs", 1)
    assert alone.status == 0
    assert len(json.loads(alone.out)["steps"]) == 5 * 4 * 4 * 3
    for jobs in (2, 3, 8):
        assert hqtool(*args, "--jobs", jobs) == alone


def test_the_longest_task_starts_first(trace, always_in_pool):
    """One worker beside an idle one takes tasks as they were handed out."""
    settings = settings_of("current")
    seen = []
    compare([trace], settings, Selection(), watching(execute.processes(2), seen))
    seconds = [task.seconds for task in seen[0]]
    assert seconds == sorted(seconds), "layers of this trace grow"
    assert execute.longest_first(seen[0]) == [4, 3, 2, 1, 0]


def watching(executor, seen):
    def run(tasks):
        seen.append(tasks)
        return executor(tasks)

    return run


def run_out_of_memory(task):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_an_error_of_two_lines(trace, always_in_pool, monkeypatch):
    monkeypatch.setattr(execute, "run_task", run_out_of_memory)
    done = hqtool("compare", trace, "--jobs", 2)
    assert (done.status, len(done.err.splitlines())) == (3, 2)
    assert "--jobs" in done.err


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_damaged_site_is_an_error_of_two_lines(trace, tmp_path, jobs, always_in_pool):
    data = bytearray(Path(trace).read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(b ^ 255 for b in data[middle : middle + 64])
    broken = tmp_path / "broken.h5"
    broken.write_bytes(data)
    done = hqtool("compare", broken, "--jobs", jobs)
    assert (done.status, done.out) == (3, "")
    assert "damaged" in done.err


@pytest.mark.parametrize("at_sigterm", [signal.SIG_DFL, lambda *_: sys.exit(3)])
def test_a_failing_task_ends_the_pools_own_processes_alone(
    trace, always_in_pool, monkeypatch, at_sigterm
):
    """The program that compares may have child processes, and do as it likes at SIGTERM."""
    earlier = signal.signal(signal.SIGTERM, at_sigterm)
    fork = multiprocessing.get_context("fork")
    theirs = fork.Process(target=signal.pause)
    theirs.start()
    try:
        monkeypatch.setattr(execute, "run_task", fail_at_layer_3)
        settings = settings_of("current")
        with pytest.raises(DataError, match="layer3"):
            compare([trace], settings, executor=execute.processes(3))
        assert multiprocessing.active_children() == [theirs]
    finally:
        signal.signal(signal.SIGTERM, earlier)
        theirs.kill()
        theirs.join()


def test_processes_that_miss_a_sigterm_end_with_a_failing_task(trace, always_in_pool, monkeypatch):
    """As one does that has just been forked: Python forgets what came before its first line."""
    monkeypatch.setattr(execute, "_take_signals", lambda: signal.signal(*IGNORED))
    monkeypatch.setattr(execute, "run_task", fail_at_layer_3)
    with pytest.raises(DataError, match="layer3"):
        compare([trace], settings_of("current"), executor=execute.processes(3))
    assert multiprocessing.active_children() == []


IGNORED = signal.SIGTERM, signal.SIG_IGN


def fail_at_layer_3(task):
    """The others would never end."""
    if task.site.layer == "layer3":
        raise DataError("layer3", "as planned")
    signal.pause()


#: `hqtool ARGS`, but that the replay of all sites but one goes on for ever.
ENDLESS = """
import signal, sys
from hqtool.cli.main import main
from hqtool.compare import execute
run_task = execute.run_task
def endless(task):
    if task.site.layer != "layer0":
        while True:
            signal.pause()
    return run_task(task)
execute.run_task, execute.WORTH_PROCESSES = endless, 0.0
main()
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -15)])
def test_a_signal_stops_at_once_and_keeps_what_was_written(tmp_path, number, status):
    """Sites stream to the file as they end; on Ctrl-C or SIGTERM it is kept, no process is.

    A terminal sends Ctrl-C to every process, kill sends SIGTERM to one.
    """
    path = write(tmp_path / "long.h5", layers=6, growth=-0.1)
    out = tmp_path / "steps.jsonl"
    command = [sys.executable, "-c", ENDLESS, "compare", path, "--jobs", "2", "--jsonl", out]
    child = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=tmp_path
    )
    part = tmp_path / f"{out.name}.{child.pid}.part"
    while child.poll() is None and not (part.exists() and part.stat().st_size):
        os.sched_yield()
    (os.killpg if number == signal.SIGINT else os.kill)(child.pid, number)
    _, err = child.communicate()
    assert child.returncode == status
    assert "Traceback" not in err
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["layer"] for row in rows} == {"layer0"}
    with pytest.raises(ProcessLookupError):
        os.killpg(child.pid, 0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["long.h5", "steps.jsonl"]


# --- streams of scored steps --------------------------------------------------------------------


def test_every_format_holds_the_same_steps(trace, tmp_path):
    files = {kind: tmp_path / f"steps.{kind}" for kind in ("json", "csv", "jsonl", "parquet")}
    parquet = pytest.importorskip("pyarrow.parquet")
    args = [part for kind, path in files.items() for part in (f"--{kind}", path)]
    assert hqtool("compare", trace, "--per-step", *args, "--bits", "2..3").status == 0
    steps = json.loads(files["json"].read_text())["steps"]
    assert len(steps) == 5 * 4 * 4 * 2
    assert [json.loads(line) for line in files["jsonl"].read_text().splitlines()] == steps
    assert parquet.read_table(files["parquet"]).to_pylist() == steps
    with files["csv"].open() as lines:
        rows = list(csv.DictReader(lines))
    assert [float(row["mse"]) for row in rows] == [row["mse"] for row in steps]
    assert list(rows[0]) == list(steps[0])


def test_json_lines_can_go_to_stdout(trace):
    done = hqtool("compare", trace, "--jsonl", "-", "--estimator", "current")
    assert len([json.loads(line) for line in done.out.splitlines()]) == 20


def test_parquet_without_pyarrow_says_how_to_get_it(trace, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = hqtool("compare", trace, "--parquet", tmp_path / "x.parquet")
    assert done.status == 3
    assert "hqtool[parquet]" in done.err
    assert list(tmp_path.iterdir()) == []


def test_files_of_steps_are_valid_without_any(tmp_path):
    """A trace of statistics alone scores no step."""
    parquet = pytest.importorskip("pyarrow.parquet")
    write(tmp_path / "run.h5", layers=1)
    write_statistics(tmp_path / "bare.h5")
    found = {}
    for name in ("run", "bare"):
        files = {kind: tmp_path / f"{name}.{kind}" for kind in ("csv", "jsonl", "parquet")}
        args = [part for kind, path in files.items() for part in (f"--{kind}", path)]
        done = hqtool("compare", tmp_path / f"{name}.h5", "--per-step", *args)
        assert done.status == 0, done.err
        table = parquet.read_table(files["parquet"])
        lines = files["csv"].read_text().splitlines()
        found[name] = table.num_rows, len(files["jsonl"].read_text().splitlines()), len(lines) - 1
        header = table.schema.names, lines[0]
        assert found.setdefault("header", header) == header
    assert found["run"] == (16, 16, 16)
    assert found["bare"] == (0, 0, 0)


def write_statistics(path):
    with TraceWriter(path) as writer:
        stats = Stats(-1.0, 1.0, 1.0, 0.0, 0.5, 5.0, 0, 0, 0, 0.1)
        writer.write("a", "output", 0, None, stats=stats, shape=(100,))
        writer.commit(0)


# --- sweeps -------------------------------------------------------------------------------------


def test_best_shows_each_method_at_its_best_parameters(trace):
    sweep = ["--estimator", "hindsight:momentum=0,0.5,0.9", "--estimator", "std:k=1..4"]
    for by, better in (("cosine", max), ("sqnr_db", max), ("mse", min)):
        done = hqtool("compare", trace, *sweep, "--json", "-", "--best", "--rank-by", by)
        found = json.loads(done.out)
        mean = {}
        for row in found["summary"]:
            mean.setdefault(row["estimator"], []).append(row[by])
        mean = {label: np.mean(figures) for label, figures in mean.items()}
        want = [
            better((label for label in mean if label.startswith(method)), key=mean.__getitem__)
            for method in ("hindsight", "std")
        ]
        assert [row["estimator"] for row in found["best"]["rows"]] == want
    text = hqtool("compare", trace, *sweep, "--best").out
    assert sum(line.startswith("hindsight") for line in text.splitlines()) == 1


def test_best_parameters_may_differ_between_kinds():
    """Of either kind another momentum is best here; the closing sentence names the method."""
    sweep = ["--estimator", "running:momentum=0,0.5,0.9", "--estimator", "hindsight"]
    done = hqtool("compare", DIGITS, "--best", "--rank-by", "sqnr_db", "--bits", 3, *sweep)
    assert done.status == 0
    best = [line.split()[0] for line in done.out.splitlines() if line.startswith("running:")]
    assert len(set(best)) == 2
    assert "Against running at 3 bits: hindsight" in done.out


def test_sites_that_are_zero_half_the_time_are_noted(tmp_path):
    with TraceWriter(tmp_path / "zero.h5") as writer:
        for step in range(4):
            for layer, first in (("bn", 3), ("fc", 1)):
                x = np.full(6, float(step >= first), "f4")
                writer.write(layer, "grad_input", step, x)
            writer.commit(step)
    done = hqtool("compare", tmp_path / "zero.h5", "--json", "-", "--estimator", "current")
    assert [row["all_zero"] for row in json.loads(done.out)["summary"]] == [3, 1]
    text = " ".join(hqtool("compare", tmp_path / "zero.h5").out.split())
    assert "at 1 site, 75 % at bn/grad_input" in text


def test_search_gap_finds_what_a_search_missed(tmp_path):
    """Few values far out hold as much as all others: at 2 bits the cosine has two maxima."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal(20_000), 40 * np.sign(rng.standard_normal(12))])
    with TraceWriter(tmp_path / "two.h5") as writer:
        writer.write("fc", "grad_input", 0, x.astype("f4"))
        writer.commit(0)
    args = ["--bits", "2", "--estimator", "dsgc:coarse=0,64", "--estimator", "current"]
    done = hqtool("compare", tmp_path / "two.h5", "--search-gap", "--json", "-", *args)
    plain, coarse, current = json.loads(done.out)["summary"]
    assert plain["multimodal"] == coarse["multimodal"] == 1
    assert coarse["search_gap"] <= plain["search_gap"] + 1e-12
    assert coarse["search_gap"] < 1e-3
    assert current["search_gap"] is None
    assert "several maxima" in hqtool("compare", tmp_path / "two.h5", "--search-gap", *args).out


# --- a cluster ----------------------------------------------------------------------------------


def test_a_cluster_gives_the_same_although_a_worker_is_killed(tmp_path):
    """A real cluster of three worker processes; one is killed while it works."""
    distributed = pytest.importorskip("distributed")
    path = write(tmp_path / "run.h5", steps=12, layers=8, size=20_000)
    settings = settings_of(formats="int8,int16")
    alone = compare([path], settings, Selection())
    killed = []

    def kill_one(done, of):
        if not killed:
            killed.append(os.kill(workers[0], signal.SIGKILL))

    with distributed.LocalCluster(3, threads_per_worker=1, dashboard_address=None) as cluster:
        with distributed.Client(cluster) as client:
            workers = list(client.run(os.getpid).values())
        executor = execute.cluster(cluster.scheduler_address, 1)
        together = compare([path], settings, Selection(), executor, on_site=kill_one)
    assert killed
    assert together == alone


def test_workers_elsewhere_find_relative_paths(tmp_path, monkeypatch):
    """'From anywhere': neither trace nor spool depends on a worker's own working directory."""
    distributed = pytest.importorskip("distributed")
    write(tmp_path / "run.h5", layers=2, size=50)
    monkeypatch.chdir(tmp_path)
    args = ["compare", "run.h5", "--estimator", "current", "--json", "out.json", "--per-step"]
    assert hqtool(*args).status == 0
    alone = Path("out.json").read_text()
    with distributed.LocalCluster(1, threads_per_worker=1, dashboard_address=None) as cluster:
        with distributed.Client(cluster) as client:
            client.run(os.chdir, "/")
        done = hqtool(*args, "-f", "--scheduler", cluster.scheduler_address)
    assert done.status == 0, done.err
    assert Path("out.json").read_text() == alone
    assert sorted(os.listdir()) == ["out.json", "run.h5"]


def test_no_scheduler_and_no_dask_are_errors_of_two_lines(trace, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(execute, "SCHEDULER_WAIT_SECONDS", 1)
    done = hqtool("compare", trace, "--scheduler", "tcp://127.0.0.1:9")
    assert (done.status, len(done.err.splitlines())) == (3, 2)
    monkeypatch.setitem(sys.modules, "distributed", None)
    done = hqtool("compare", trace, "--scheduler", "local")
    assert done.status == 3
    assert "hqtool[dask]" in done.err


# --- traces that grow ---------------------------------------------------------------------------


def write_step(writer, step):
    rng = np.random.default_rng(step)
    for layer in range(4):
        writer.write(f"layer{layer}", "output", step, rng.standard_normal(500).astype("f4"))
    writer.commit(step)


def meanwhile(executor, happens):
    """An executor that lets something happen between the survey and the first task."""

    def run(tasks):
        happens()
        yield from executor(tasks)

    return run


def test_a_trace_replaced_meanwhile_is_an_error(tmp_path):
    path = write(tmp_path / "run.h5", steps=2)
    settings = settings_of("current")

    def replace_trace():
        os.replace(write(tmp_path / "new.h5", steps=2, size=20), path)

    with pytest.raises(DataError, match="another trace took its place") as caught:
        compare([path], settings, Selection(), meanwhile(execute.serial, replace_trace))
    assert caught.value.remedy


def test_a_reader_stops_at_the_commit_it_is_told(tmp_path):
    path = tmp_path / "run.h5"
    with TraceWriter(path) as writer:
        prefixes = []
        for step in range(4):
            write_step(writer, step)
            with TraceReader(path) as reader:
                prefixes.append(reader.prefix)
        writer.note("late", 1)
    for step, prefix in enumerate(prefixes):
        with TraceReader(prefix.path, upto=prefix.upto) as reader:
            assert reader.steps == list(range(step + 1))
            assert [s.records for s in reader.overview()] == [step + 1] * 4
            assert [r.step for r in reader.records(reader.sites[2])] == reader.steps
            assert (reader.prefix, reader.run) == (prefix, {})
        with TraceReader(prefix.path, upto=prefix.upto, recent=1) as reader:
            assert [r.step for r in reader.records(reader.sites[2])] == [step]


def test_a_geometry_need_not_repeat_the_layers_name():
    """A linear layer of 3×2 weights, at 4 positions in all: 6 + 8 + 12 elements."""
    geometry = {"op": "linear", "in_channels": 2, "out_channels": 3, "input": [2], "batch": 2}
    assert execute.counts_of("a", geometry) == Counts(6, 8, 12)
    assert execute.counts_of("a", {**geometry, "name": "b"}) == Counts(6, 8, 12)
    assert execute.counts_of("a", {"op": "lookup"}) is None
