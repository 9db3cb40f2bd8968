"""Whole studies of a script that takes no time: outcomes, journal, kill and resume."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command import hqtool

from hqtool.file_lock import hold

#: Prints its seed as accuracy, and says in `began` and `ended` that it did.
SCRIPT = """
import sys
seed = int(sys.argv[1])
open("began", "a").write(f"{seed}\\n")
print("accuracy: 0.5")
print(f"accuracy: {seed}")
open("ended", "a").write(f"{seed}\\n")
"""

STUDY = """
schema = "hqtool.study/1"
command = ["s.py", "{seed}"]
metric = 'accuracy: ([0-9.]+)'
seeds = %s
recipes = ["none"%s]
"""


def write(folder: Path, seeds: list[int], script: str = SCRIPT, more: str = "") -> None:
    (folder / "s.py").write_text(script)
    (folder / "study.toml").write_text(STUDY % (seeds, more))


def result(folder: Path, *args: str, status: int = 0):
    done = hqtool("study", folder / "study.toml", "-o", folder / "out", "--json", "-", *args)
    assert done.status == status, done.err
    return json.loads(done.out)


def lines(folder: Path, name: str) -> list[int]:
    return [int(line) for line in (folder / name).read_text().split()]


def test_each_seed_runs_once_and_resumes(tmp_path):
    write(tmp_path, [4, 2])
    first = result(tmp_path)
    assert first["schema"] == "hqtool.study-result/1"
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == first
    row = first["table"][0]
    wanted = {"recipe": "none", "runs": 2, "mean": 3.0, "diverged": 0, "traffic_bytes": None}
    assert wanted.items() <= row.items()
    assert row["std"] == pytest.approx(2**0.5)
    assert [(run["seed"], run["metric"], run["outcome"]) for run in first["runs"]] == [
        (4, 4.0, "finished"),
        (2, 2.0, "finished"),
    ]
    place = Path(first["runs"][0]["folder"])
    assert (place / "stdout.txt").read_text() == "accuracy: 0.5\naccuracy: 4\n"
    write(tmp_path, [4, 2, 9])
    again = result(tmp_path, "--jobs", "2")
    assert again["table"][0]["mean"] == 5.0
    assert again["study"]["resumed"] == 2
    assert lines(tmp_path, "began") == [4, 2, 9]


def test_outcomes_are_told_apart(tmp_path):
    script = """
import sys, threading
seed = int(sys.argv[1])
print("accuracy:", "nan" if seed == 1 else seed, flush=True)
if seed == 2: raise ValueError("broken")
if seed == 3: threading.Event().wait()
"""
    write(tmp_path, [0, 1, 2, 3], script)
    found = result(tmp_path, "--timeout", "1", "--jobs", "4", status=1)
    outcomes = [run["outcome"] for run in found["runs"]]
    assert outcomes == ["finished", "diverged", "failed", "timed-out"]
    assert found["runs"][2]["reason"] == "exit status 1: ValueError: broken"
    counts = {"runs": 1, "diverged": 1, "failed": 1, "timed_out": 1, "mean": 0.0, "std": None}
    assert counts.items() <= found["table"][0].items()
    write(tmp_path, [0, 1, 2, 3], "print('accuracy: 7')")
    retried = result(tmp_path, "--retry")
    assert [run["metric"] for run in retried["runs"]] == [0.0, None, 7.0, 7.0]


def test_a_script_that_prints_no_metric(tmp_path):
    write(tmp_path, [0], "print('hello')")
    done = hqtool("study", tmp_path / "study.toml", "-o", tmp_path / "out", "-q")
    assert done.status == 1
    assert "no run gave a figure" in done.out
    assert not done.err


def test_table_and_csv(tmp_path):
    write(tmp_path, [1, 2, 3], more=', {name = "still", output = "none"}')
    done = hqtool(
        "study", tmp_path / "study.toml", "-o", tmp_path / "out", "--csv", tmp_path / "t.csv"
    )
    assert done.status == 0, done.err
    assert "2.0 ± 1.0" in done.out
    assert "+0.0 ± 0.0" in done.out
    with open(tmp_path / "t.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["recipe"], row["mean"], row["difference"]) for row in rows] == [
        ("none", "2.0", ""),
        ("still", "2.0", "0.0"),
    ]


def test_offline_scores_beside_the_metric(tmp_path):
    shutil.copy(Path(__file__).parent.parent / "sample_data" / "digits.h5", tmp_path)
    write(tmp_path, [1])
    study = tmp_path / "study.toml"
    study.write_text(f'{study.read_text()}trace = "digits.h5"\n')
    found = result(tmp_path)
    assert found["table"][0]["sqnr_db"] is None
    assert found["correlation"][0] == {
        "score": "sqnr_db", "recipes": 0, "spearman": None, "low": None, "high": None
    }  # fmt: skip
    assert found["table"][0]["traffic_bytes"] > 0
    study.write_text(study.read_text().replace("digits.h5", "s.py").replace("[1]", "[1, 2]"))
    done = hqtool("study", study, "-o", tmp_path / "out")
    assert (done.status, "cannot be opened as HDF5" in done.err) == (3, True)
    assert lines(tmp_path, "began") == [1]  # before anything runs


def test_another_study_is_refused(tmp_path):
    write(tmp_path, [1], more=', {name = "a", output = "none"}')
    result(tmp_path)
    write(tmp_path, [1], more=', {name = "a", input = "none"}')
    done = hqtool("study", tmp_path / "study.toml", "-o", tmp_path / "out")
    assert (done.status, "recipe 'a' has changed" in done.err) == (2, True)
    study = tmp_path / "study.toml"
    study.write_text(study.read_text().replace('"{seed}"]', '"{seed}", "more"]'))
    done = hqtool("study", study, "-o", tmp_path / "out")
    assert (done.status, "another command" in done.err) == (2, True)
    done = hqtool("study", study, "-o", tmp_path)
    assert (done.status, "holds files, but no study" in done.err) == (2, True)


def test_a_changed_script_is_told(tmp_path):
    write(tmp_path, [1])
    result(tmp_path)
    write(tmp_path, [1, 2], SCRIPT + "# changed\n")
    done = hqtool("study", tmp_path / "study.toml", "-o", tmp_path / "out")
    assert "the script has changed" in done.out


def test_two_processes_are_not_one_study(tmp_path):
    write(tmp_path, [1])
    result(tmp_path)
    with open(tmp_path / "out" / "journal.jsonl", "r+b") as journal:
        assert hold(journal.fileno())
        done = hqtool("study", tmp_path / "study.toml", "-o", tmp_path / "out")
    assert (done.status, "another process is running this study" in done.err) == (2, True)


def test_a_torn_last_line_is_run_again(tmp_path):
    write(tmp_path, [1, 2])
    result(tmp_path)
    journal = tmp_path / "out" / "journal.jsonl"
    whole = journal.read_bytes()
    last = whole.rstrip(b"\n").rindex(b"\n") + 1
    for cut in (last + 1, len(whole) - 1):
        journal.write_bytes(whole[:cut])
        assert result(tmp_path)["study"]["resumed"] == 1
        assert len(journal.read_bytes().splitlines()) == 3
    assert lines(tmp_path, "ended") == [1, 2, 2, 2]
    journal.write_bytes(whole[1:])
    done = hqtool("study", tmp_path / "study.toml", "-o", tmp_path / "out")
    assert (done.status, "line 1: damaged" in done.err) == (3, True)


def test_killed_at_any_instant_nothing_is_lost_or_repeated(tmp_path):
    write(tmp_path, list(range(12)))
    words = [sys.executable, "-m", "hqtool", "study", "study.toml", "-o", "out", "--jobs", "2"]
    rng = random.Random(0)
    kept: list[bytes] = []
    for count in (1, 4, 7, 10):
        with subprocess.Popen(
            words, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        ) as study:
            for line in study.stderr:
                if line.startswith(f"[{count}/"):
                    break
            for _ in range(rng.randrange(200_000)):  # work on a little
                pass
            study.kill()
        journal = (tmp_path / "out" / "journal.jsonl").read_bytes()
        assert journal.startswith(b"".join(kept))
        kept = [line for line in journal.splitlines(keepends=True) if line.endswith(b"\n")]
        assert len(kept) >= count + 1
    found = result(tmp_path)
    assert [run["metric"] for run in found["runs"]] == list(map(float, range(12)))
    entries = (tmp_path / "out" / "journal.jsonl").read_text().splitlines()[1:]
    seeds = [json.loads(entry)["seed"] for entry in entries]
    assert sorted(seeds) == list(range(12))


def test_runs_of_a_cluster(tmp_path):
    pytest.importorskip("distributed")
    write(tmp_path, [1, 2])
    found = result(tmp_path, "--scheduler", "local", "--jobs", "1")
    assert [run["metric"] for run in found["runs"]] == [1.0, 2.0]


def test_threads_are_shared(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    script = "import os\nprint('accuracy:', os.environ.get('OMP_NUM_THREADS', '-'))"
    write(tmp_path, [1], script)
    found = result(tmp_path, "--jobs", str(os.cpu_count()))
    assert found["runs"][0]["metric"] == 1.0


def test_a_study_that_is_interrupted_ends_its_runs(tmp_path):
    script = "import os, threading\nopen('pid', 'w').write(f'{os.getpid()}\\n')\n"
    write(tmp_path, [1], script + "print('here', flush=True)\nthreading.Event().wait()\n")
    words = [sys.executable, "-m", "hqtool", "study", "study.toml", "-o", "out"]
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as study:
        pid = tmp_path / "pid"
        while not (pid.exists() and pid.read_text().endswith("\n")):
            assert study.poll() is None
        study.send_signal(signal.SIGINT)
        assert "the same command goes on" in study.stderr.read()
    assert study.returncode == 130
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
