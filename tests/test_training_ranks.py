"""Quantized training on several ranks: ranges are joined, or it is said that they are not."""

from __future__ import annotations

import functools
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402
from warm_python import WarmPython  # noqa: E402

from hqtool.core.recorded import RecordedObservation  # noqa: E402
from hqtool.estimators.protocol import Reading, advance, decide, widest  # noqa: E402
from hqtool.estimators.quantizer import parse_quantizer  # noqa: E402
from hqtool.trace.reader import TraceReader  # noqa: E402
from hqtool.training.ranks.exchange import Told  # noqa: E402
from hqtool.training.sites.trained_site import Taught  # noqa: E402
from hqtool.training.trainer import seed_of_rank  # noqa: E402
from hqtool.vocab import EntryRanges, Range, Record, Site  # noqa: E402

if not torch.distributed.is_available():
    pytest.skip("this torch has no torch.distributed", allow_module_level=True)

SCRIPTS = Path(__file__).parent / "scripts"

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
TWO_RANKS = (str(SCRIPTS / "two_ranks.py"),)

#: Recipes of formats in which sums are exact, and of estimators of every kind.
RECIPES = {
    "exact": {
        "weight": "current@e4m3:scale=pow2",
        "output": "hindsight@e4m3:scale=pow2",
        "grad_output": "hindsight:momentum=0.5@e4m3:scale=pow2",
    },
    "mixed": {
        "weight": "current@int8",
        "input": "running@int8",
        "output": "saturation@int8",
        "grad_output": "delayed:window=2@e5m2",
        "grad_input": "hindsight:per=channel@int8",
    },
    "simple": {"output": "hindsight@int8"},
}


def recipe(folder: Path, name: str) -> Path:
    rule = "".join(f'{kind} = "{label}"\n' for kind, label in RECIPES[name].items())
    path = folder / f"{name}.toml"
    path.write_text(f'schema = "hqtool.recipe/1"\n[[rule]]\nlayers = ["*"]\n{rule}')
    return path


Trained = Callable[..., tuple[subprocess.CompletedProcess[str], Path]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, warm_python: WarmPython) -> Trained:
    """Trains by a recipe, once for all tests: how it ended, and the folder of its RUN files."""

    @functools.cache
    def train(
        name: str, launcher: tuple[str, ...], *command: str
    ) -> tuple[subprocess.CompletedProcess[str], Path]:
        folder = tmp_path_factory.mktemp("ranks")
        words = ("train", "--recipe", str(recipe(folder, name)), "-o", "T.h5")
        script, *args = command[-2:]
        hqtool = (*words, *command[:-2], str(SCRIPTS / script), *args)
        done = warm_python.run(folder, *launcher, "hqtool", *hqtool)
        return done, folder

    return train


Records = dict[Site, list[Record]]


def records_of(path: Path) -> Records:
    with TraceReader(path) as trace:
        return {site: list(trace.records(site)) for site in trace.sites}


def run_of(path: Path) -> dict[str, Any]:
    with TraceReader(path) as trace:
        return dict(trace.run)


def of_ranks(folder: Path) -> list[Records]:
    return [records_of(folder / f"T.rank{rank}.h5") for rank in range(2)]


def test_ranges_of_two_ranks_are_those_of_one_joined_batch(trained: Trained) -> None:
    """Under torchrun. A look is at the rank's own tensor, but in the first step all are alike."""
    done, folder = trained("exact", TORCHRUN, "ranked.py", "ranks")
    assert "ranges joined over 2 ranks\n" in done.stderr, done.stderr
    plain, whole = trained("exact", ("-m",), "ranked.py", "whole")
    assert plain.returncode == 0, plain.stderr
    assert done.stdout.split() == 2 * plain.stdout.split()
    of_whole, ranges = records_of(whole / "T.h5"), set[Range | None]()
    assert len(of_whole) == 6
    for rank, found in enumerate(of_ranks(folder)):
        run = run_of(folder / f"T.rank{rank}.h5")
        assert (run["rank"], run["world_size"]) == (rank, 2)
        assert run["training"]["ranges_joined"] == {"ranks": 2, "steps": 4}
        for site, records in of_whole.items():
            assert [each.step for each in found[site]] == [0, 1, 2, 3]
            assert [each.range for each in found[site]] == [each.range for each in records]
            ranges |= {each.range for each in records}
    own = [each.stats.range for each in of_ranks(folder)[0][Site("0", "output")]]
    assert own[1:] != [each.stats.range for each in of_whole[Site("0", "output")]][1:]
    assert len(ranges) > 10


def test_two_ranks_train_as_two_parts_of_a_batch(trained: Trained) -> None:
    """Whatever the estimator: the same statistics, ranges, looks, and parameters at the end."""
    done, folder = trained("mixed", TWO_RANKS, "ranked.py", "ranks")
    assert done.returncode == 0, done.stderr
    parts, single = trained("mixed", ("-m",), "ranked.py", "parts")
    assert done.stdout.split() == 2 * parts.stdout.split()
    of_parts = records_of(single / "T.h5")
    assert {site.tensor for site in of_parts} == RECIPES["mixed"].keys()
    for rank, found in enumerate(of_ranks(folder)):
        for site, records in of_parts.items():
            mine = [each for each in records if each.micro == rank]
            assert [each.stats for each in found[site]] == [each.stats for each in mine]
            assert [each.used for each in found[site]] == [each.used for each in mine]


def test_the_ranges_are_those_of_a_replay_of_all_ranks(trained: Trained) -> None:
    _, folder = trained("exact", TORCHRUN, "ranked.py", "ranks")
    found = of_ranks(folder)
    for site in found[0]:
        quantizer = parse_quantizer(RECIPES["exact"][site.tensor])
        estimator = quantizer.estimator.value
        state = estimator.start()
        for of_step in zip(*(records[site] for records in found), strict=True):
            made = [
                decide(estimator, state, RecordedObservation(each.stats, quantizer.format.value))
                for each in of_step
            ]
            assert [each.range for each in of_step] == [decision.range for decision, _ in made]
            used = widest([decision.range for decision, _ in made if decision.range])
            state = advance(estimator, state, [reading for _, reading in made], used)


def test_ranges_that_are_not_to_be_joined(trained: Trained) -> None:
    done, folder = trained("simple", TWO_RANKS, "--rank-timeout", "0", "ranked.py", "ranks")
    assert done.stderr.count("they were not joined (--rank-timeout 0)") == 2
    first, second = of_ranks(folder)
    for site, records in first.items():
        assert records[2].range != second[site][2].range


def uneven(trained: Trained, stops: int) -> tuple[str, list[Records]]:
    command = ("--rank-timeout", "0.5", "uneven_ranks.py", str(stops))
    done, folder = trained("simple", TWO_RANKS, *command)
    assert done.returncode == 0, done.stderr
    steps = [(rank, step) for rank in range(2) for step in range(2 if rank == stops else 4)]
    assert sorted(done.stdout.splitlines()) == [f"{rank} {step}" for rank, step in steps]
    return done.stderr, of_ranks(folder)


def test_a_rank_that_does_not_answer_is_left_out(trained: Trained) -> None:
    """The k-th tensor of rank r is (1+k)(1+r)·(−1, 2)."""
    told, (first, second) = uneven(trained, stops=1)
    gone = "rank 1 did not answer within 0.5 s of the end of step 2: ranges go on without it"
    assert told.count(gone) == 1
    assert "ranges joined over 2 ranks at 2 of 4 steps" in told
    ends = [each.range and each.range.hi for each in first[Site("0", "output")]]
    assert ends == pytest.approx([2, 4, 0.9 * 4 + 0.1 * 8, 0.9 * 4.4 + 0.1 * 6])
    assert [each.looked for each in second[Site("1", "output")]] == [False]
    assert second[Site("1", "output")][0].range == pytest.approx(Range(-1, 2), rel=0.01)


def test_a_rank_goes_on_alone_without_rank_0(trained: Trained) -> None:
    told, (_, second) = uneven(trained, stops=0)
    alone = "rank 1: rank 0 did not answer within 0.5 s: from step 2 on its ranges go on alone"
    assert told.count(alone) == 1
    ends = [each.range and each.range.hi for each in second[Site("0", "output")]]
    expected = [4.0, 4.0, 0.9 * 4 + 0.1 * 8]
    assert ends == pytest.approx([*expected, 0.9 * expected[2] + 0.1 * 12])


def test_ranks_calibrate_together_and_train_anew(trained: Trained) -> None:
    """They meet twice at one address."""
    command = ("--calibrate", "2", "ranked.py", "ranks")
    done, folder = trained("simple", TWO_RANKS, *command)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("ranges calibrated on 2 steps") == 2
    assert done.stderr.count("ranges joined over 2 ranks\n") == 2
    first, second = of_ranks(folder)
    for site, records in first.items():
        assert [each.looked for each in records] == [False] * 4
        assert [each.range for each in records] == [each.range for each in second[site]]


def test_messages_reach_other_ranks_whole() -> None:
    ends = EntryRanges("channel", np.array([-1.0, np.nan]), np.array([2.0, np.nan]))
    for known in (None, Range(-0.1, 0.3), ends):
        readings = (Reading(known, 3, (0.5, 0.25), 7.0), Reading(None))
        told = Told((4, 1), (Taught(Site("a.b", "output"), 4, readings, known),), 9, (2,))
        assert Told.unpacked(pickle.loads(pickle.dumps(told.packed()))) == told
    assert Told.unpacked(Told(None).packed()) == Told(None)


def test_noise_differs_between_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of two micro-batches; a weight, which is the same on all, has the same everywhere."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    seeds = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        seeds.append(seed_of_rank(7))
    assert seeds == [7, 7 + (1 << 32)]
