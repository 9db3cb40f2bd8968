"""What observations answer, what they refuse, and what looks cost in the ledger."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from deciding import observe
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hqtool import TraceWriter
from hqtool.core.formats.lanes import levels_over
from hqtool.core.formats.named import FORMATS
from hqtool.core.questions import QUESTION_OF, QUESTIONS, Asked, UndeclaredQuestionError
from hqtool.core.recorded import range_at_scale_one
from hqtool.estimators.ledger import Ledger
from hqtool.vocab import Decision, Look, Range, Stats

RNG = np.random.default_rng(41)

#: A question → how it is asked.
WAYS = {
    "format": lambda obs: (obs.format, obs.formats, obs.range_at_scale_one),
    "extremes": lambda obs: (obs.extremes(), obs.stats.min, obs.stats.max, obs.stats.absmax),
    "spread": lambda obs: (obs.stats.mean, obs.stats.std, obs.stats.l2),
    "zeros": lambda obs: (obs.stats.nzero, obs.stats.min_nonzero),
    "nonfinite": lambda obs: (obs.stats.nnan, obs.stats.ninf),
    "quantiles": lambda obs: obs.quantiles([0.1, 0.9]),
    "clipped": lambda obs: obs.clipped(Range(-1, 1)),
    "magnitude": lambda obs: obs.magnitude(),
    "moments": lambda obs: obs.moments([Range(-1, 1)], [FORMATS.parse("int8").value]).err[0],
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_answered_where_it_is_declared_alone(question):
    obs = observe(RNG.laplace(size=50))
    assert WAYS[question](Asked(obs, frozenset({question}), "it")) == WAYS[question](obs)
    others = Asked(obs, frozenset(QUESTIONS) - {question}, "a statistic of mine")
    with pytest.raises(UndeclaredQuestionError) as caught:
        WAYS[question](others)
    assert f"a statistic of mine asks a tensor for '{question}'" in caught.value.cause
    assert caught.value.remedy == f"add '{question}' to its `asks`"


def test_every_statistic_belongs_to_a_question():
    assert {*Stats._fields, "range"} == QUESTION_OF.keys()
    assert set(QUESTION_OF.values()) <= QUESTIONS.keys()
    obs = Asked(observe([1.0]), frozenset(QUESTIONS), "it")
    with pytest.raises(AttributeError, match="no statistic 'median'"):
        assert obs.stats.median


def test_what_needs_no_declaration():
    obs = Asked(observe([[1.0, 2.0]]), frozenset(), "it")
    assert (obs.shape, obs.step, obs.held) == ((1, 2), 0, 2)
    assert (obs.teaches, obs.all_zero) == (True, False)
    assert obs.once("key", lambda: 1) == obs.once("key", lambda: 2) == 1


VALUES = arrays("f8", st.integers(1, 60), elements=st.floats(-100, 100))


@given(VALUES, st.floats(-50, 50), st.floats(0, 50))
def test_the_share_clipped(x, lo, width):
    within = Range(lo, lo + width)
    expected = np.mean((x < within.lo) | (x > within.hi))
    assert observe(x).clipped(within) == pytest.approx(expected)
    holds_all = lo <= x.min() and x.max() <= within.hi
    assert observe(x, values=False).clipped(within) == (0.0 if holds_all else None)


@given(VALUES, st.lists(st.floats(0, 1), min_size=1, max_size=3))
def test_quantiles_of_whole_tensors_are_numpys(x, shares):
    np.testing.assert_allclose(observe(x).quantiles(shares), np.quantile(x, shares), atol=1e-9)
    assert observe(x, values=False).quantiles(shares) is None


def test_of_no_finite_value_nothing_is_known():
    obs = observe([math.nan, math.inf])
    assert (obs.extremes(), obs.quantiles([0.5])) == (None, None)
    assert math.isnan(obs.clipped(Range(-1, 1)))


@pytest.mark.parametrize(
    ("name", "reach"),
    [("int8", 128), ("int4-symmetric", 7), ("int8-fullrange", 127.5), ("int8-midrise", 127.5),
     ("e4m3", 448), ("e5m2", 57344), ("e2m1:scale=pow2", 6), ("e4m3:scale=one", 448),
     ("fp4-radix4", 4096)],
)  # fmt: skip
def test_at_scale_one_levels_are_the_formats_own(name, reach):
    format_ = FORMATS.parse(name).value
    found = range_at_scale_one(format_)
    assert -found.lo == reach
    assert levels_over(format_, found).scale == 1


def test_scale_one_of_a_tensor_of_blocks():
    assert range_at_scale_one(FORMATS.parse("nvfp4").value) == Range(-448 * 6, 448 * 6)


# --- the ledger ---------------------------------------------------------------------------------


def ledger(*decisions, numels=(100,)):
    found = Ledger()
    for each in decisions:
        found.count(each, numels)
    return found


ANY = Range(-1, 1)


def test_a_look_moves_a_tensor_twice_and_each_evaluation_once_more():
    found = ledger(Decision(ANY, Look("tensor", 100)), Decision(ANY, Look("tensor", 100, 7)))
    assert (found.looks, found.evaluations, found.moved()) == (2, 7, 200 + 900)


def test_without_a_look_nothing_moves():
    found = ledger(Decision(ANY), Decision(None), Decision(ANY, postponed=True))
    assert (found.looks, found.postponed, found.moved()) == (0, 1, 0)


def test_a_block_reads_itself_on_chip():
    decision = Decision(ANY, Look("block", 32))
    assert not decision.looked
    assert ledger(decision) == Ledger()


def test_each_device_moves_its_own():
    found = ledger(Decision(ANY, Look("tensor", 100)), numels=(60, 40))
    assert (found.looks, found.moved()) == (1, 200)
    assert (found.moved(40), found.moved(60)) == (120, 0)


def test_what_the_chip_holds_is_not_moved():
    """A sample of 10 elements is looked at on chip where a tensor of 100 would spill."""
    found = ledger(Decision(ANY, Look("sample", 10)), Decision(ANY, Look("tensor", 100)))
    assert [found.moved(held) for held in (0, 9, 10, 99, 100)] == [400, 400, 200, 200, 0]


def test_looks_counted_at_once():
    found, same = Ledger(), ledger(*[Decision(ANY, Look("tensor", 100))] * 3)
    found.count_plain(3, [100, 100, 100])
    assert found == same


# --- an outside package -------------------------------------------------------------------------

STATISTIC = '''
from dataclasses import dataclass
from hqtool.estimators.composed import Composed
from hqtool.estimators.protocol import Reading
from hqtool.estimators.schedule import EveryStep
from hqtool.estimators.smoothing import Latest
from hqtool.vocab import Range

@dataclass(frozen=True, slots=True)
class Middle:
    {asks}
    def __call__(self, obs):
        return Reading(Range(*obs.quantiles([0.25, 0.75])))

def middle():
    """the middle half"""
    return Composed(Middle(), Latest(), EveryStep())
'''


@pytest.mark.parametrize(
    ("asks", "words"),
    [
        ('asks = frozenset({"quantiles"})', None),
        ('asks = frozenset({"extremes"})', "asks a tensor for 'quantiles', but declares extremes"),
        ("", "gives what has no 'asks'"),
        ("asks = frozenset({'quantiles'}); lo = 1/0", "does not load: division by zero"),
        (
            "asks = frozenset({'quantiles'})\n    def __call__(self, obs): return obs.values\n"
            "class Other:",
            "of middle fails: AttributeError: 'Asked' object has no attribute 'values' (middle.py",
        ),
        (
            "asks = frozenset({'quantiles'})\n    def __call__(self, obs): return 0.5\n"
            "class Other:",
            "of middle fails: TypeError: 0.5 is read, and is no Reading",
        ),
    ],
)
def test_an_outside_statistic_must_declare_what_it_asks(tmp_path, asks, words):
    (tmp_path / "middle.py").write_text(STATISTIC.format(asks=asks))
    info = tmp_path / "middle-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: middle\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hqtool.estimators]\nmiddle = middle:middle\n")
    with TraceWriter(tmp_path / "t.h5") as writer:
        writer.write("fc", "output", 0, np.arange(5.0))
        writer.commit(0)
    command = ["compare", "t.h5", "--estimator", "middle", "--json", "-", "--per-step"]
    done = subprocess.run(
        [sys.executable, "-m", "hqtool", *command],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": f"{tmp_path}:{':'.join(sys.path)}"},
    )  # fmt: skip
    if words is None:
        (row,) = json.loads(done.stdout)["steps"]
        assert (row["lo"], row["hi"]) == (1, 3)
    else:
        assert done.returncode == 2
        assert words in done.stderr
        assert "middle" in done.stderr
        assert len(done.stderr.splitlines()) <= 2
