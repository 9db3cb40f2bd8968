"""A study's figures by hand, its metric and its file."""

from __future__ import annotations

import math

import pytest

from hqtool.errors import DataError, UsageError
from hqtool.study.figures import Estimate, paired_difference, rank_correlation, spread
from hqtool.study.metric import Metric
from hqtool.study.outcome import result_of
from hqtool.study.run import Ended, Run
from hqtool.study.study_file import read_study


def test_spread_is_the_sample_standard_deviation():
    found = spread([1.0, 2.0, 6.0])
    assert (found.mean, found.std) == (3.0, math.sqrt((4 + 1 + 9) / 2))
    assert spread([4.0]).std is None
    assert spread([]).mean is None


def test_difference_is_paired_by_seed():
    # Of seeds 0, 1, 2 the differences are 1, 2, 3: mean 2, standard deviation 1.
    found, pairs = paired_difference({0: 11, 1: 22, 2: 33, 9: 0}, {0: 10, 1: 20, 2: 30, 7: 5})
    half = 4.302652729911275 / math.sqrt(3)  # t at 0.975 with 2 degrees of freedom, from a table
    assert pairs == 3
    assert (found.value, found.low, found.high) == pytest.approx((2, 2 - half, 2 + half))


def test_one_pair_has_no_interval_and_none_no_difference():
    assert paired_difference({0: 3.0}, {0: 1.0}) == (Estimate(2.0, None, None), 1)
    assert paired_difference({0: 3.0}, {1: 1.0}) == (Estimate(None, None, None), 0)


def test_rank_correlation_by_hand():
    # Ranks 1 2 3 4 beside 1 3 2 4: ρ = 1 − 6·2 / (4·15).
    found = rank_correlation([10, 20, 30, 40], [0.1, 0.3, 0.2, 0.4])
    assert found.value == pytest.approx(0.8)
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert rank_correlation([10, 20, 30, 40], [0.1, 0.3, 0.2, 0.4]) == found
    assert rank_correlation([1, 2, 3], [6, 5, 4]).value == pytest.approx(-1)


@pytest.mark.parametrize("pair", [([1, 2], [1, 2]), ([1, 2, 3], [5, 5, 5])])
def test_rank_correlation_that_says_nothing_is_missing(pair):
    assert rank_correlation(*pair).value is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("accuracy: 0.5\naccuracy: 0.75\n", 0.75),
        ("accuracy: 0.5. Done.", 0.5),
        ("loss 3", None),
        ("accuracy: ...", None),
        ("accuracy: nan", math.nan),
        ("accuracy: 0.5\naccuracy: -Inf", -math.inf),
        ("accuracy: nan\naccuracy: 0.25", 0.25),
    ],
)
def test_metric_is_the_last_that_was_printed(text, value):
    assert Metric("accuracy: ([0-9.]+)").read(text) == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("test accuracy: ([0-9.]+)", "test accuracy"),
        (r"^loss\s*=\s*(\S+)", "metric"),
        ("(.+)", "metric"),
    ],
)
def test_metric_has_a_name(pattern, name):
    assert Metric(pattern).name == name


@pytest.mark.parametrize("pattern", ["accuracy: [0-9.]+", "(a|b): ([0-9]+)", "accuracy: ("])
def test_metric_needs_one_group(pattern):
    with pytest.raises(UsageError):
        Metric(pattern)


GOOD = """
schema = "hqtool.study/1"
command = ["s.py", "{seed}"]
metric = 'accuracy: ([0-9.]+)'
seeds = [0, 1]
recipes = ["paper-w8a8g8", {name = "int4", output = "hindsight@int4"}, "none"]
"""


def study_of(folder, text):
    (folder / "s.py").touch()
    (folder / "study.toml").write_text(text)
    return read_study(folder / "study.toml")


def test_file_of_a_study(tmp_path):
    study = study_of(tmp_path, GOOD)
    assert [each.name for each in study.recipes] == ["paper-w8a8g8", "int4", "none"]
    assert study.baseline == "none"
    assert [each.trains_plain for each in study.recipes] == [False, False, True]
    assert study_of(tmp_path, GOOD.replace(', "none"]', "]")).baseline == "paper-w8a8g8"


def test_recipes_are_told_apart_by_their_rules(tmp_path):
    (tmp_path / "mine.toml").write_text(
        'schema = "hqtool.recipe/1"\nname = "other"\n[[rule]]\noutput = "hindsight@int4"\n'
    )
    study = study_of(tmp_path, GOOD.replace('"none"]', '"mine.toml"]'))
    _, inline, mine = study.recipes
    assert mine.name == "mine.toml"
    assert mine.key == inline.key


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("seeds = [0, 1]", "seeds = [1, 1]", "key 'seeds': 1 is given twice"),
        ("seeds = [0, 1]", "seed = [0, 1]", "key 'seed': unknown key"),
        ("seeds = [0, 1]", "seeds = []", "key 'seeds'"),
        ("([0-9.]+)", "[0-9.]+", "key 'metric'"),
        ("metric =", "baseline =", "the file, key 'metric': missing"),
        ("command =", "baseline =", "the file, key 'command': missing"),
        ('"s.py"', '"gone.py"', "key 'command': no script gone.py"),
        ('"paper-w8a8g8"', '"paper-w8a8g"', "key 'recipes': "),
        ('"paper-w8a8g8"', '"none"', "key 'recipes': two are called 'none'"),
        ('"paper-w8a8g8"', '"statquant-bhq8"', "key 'recipes': recipe statquant-bhq8: bhq8 has no"),
        ("output =", "outputs =", "recipe number 2, key 'outputs'"),
        ("hindsight@int4", "hindsigt@int4", "recipe number 2, key 'output'"),
        ("seeds = [0, 1]", 'seeds = [0]\nbaseline = "int8"', "key 'baseline'"),
        ("seeds = [0, 1]", 'seeds = [0]\ntrace = "gone.h5"', "key 'trace'"),
        ("seeds = [0, 1]", "seeds = [0]\ntimeout = -1", "key 'timeout'"),
        ("study/1", "study/2", "newer"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, old, new, told):
    assert old in GOOD
    with pytest.raises(DataError, match=r"study\.toml: the file") as error:
        study_of(tmp_path, GOOD.replace(old, new))
    assert told in error.value.cause


CLOSING = "hqtool: 2 steps, 6 sites quantized by mine\nhqtool: next: hqtool info run.h5\n"


@pytest.mark.parametrize(
    ("complaint", "reason"),
    [
        (f"Traceback (most recent call last):\n  x()\nValueError: broken\n{CLOSING}",
         "ValueError: broken"),
        (f"a warning\nhqtool: coverage 33.3 % is below --min-coverage 0.9\n{CLOSING}",
         "coverage 33.3 % is below --min-coverage 0.9"),
        ("hqtool: s.py: no such script\n  give the path of a Python file\n",
         "hqtool: s.py: no such script"),
        ("", ""),
    ],
)  # fmt: skip
def test_why_a_run_failed(tmp_path, complaint, reason):
    (tmp_path / "stderr.txt").write_text(complaint)
    run = Run(study_of(tmp_path, GOOD).recipes[0], 0, tmp_path)
    found = result_of(run, Ended(1, False, 1.0), Metric("accuracy: ([0-9.]+)"))
    assert (found.outcome, found.reason) == ("failed", f"exit status 1: {reason}".rstrip(": "))
