"""Delayed scaling against a slow simulation of TransformerEngine's recipe, in scales."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from deciding import decisions, decisions_of_steps, observe
from hypothesis import given
from hypothesis import strategies as st

from hqtool import TraceReader
from hqtool.core.formats.uniform import UniformFormat
from hqtool.core.recorded import range_at_scale_one
from hqtool.errors import UsageError
from hqtool.estimators.presets import ESTIMATORS
from hqtool.vocab import Range

DIGITS = Path(__file__).parent.parent / "sample_data" / "digits.h5"
TOP = 127.0  # the largest number of 8 symmetric bits
FLOAT32_MAX = 3.4028234663852886e38


def simulated(steps, window, algo, margin, scale):
    """The scale at each step: a history of amax begun with zeros, rolled once a step."""
    history, scales = [0.0] * window, []
    for tensors in steps:
        scales.append(scale)
        amax_of_step = 0.0
        for x in tensors:
            for value in np.abs(np.ravel(x)).tolist():
                sound = math.isfinite(value) and math.isfinite(amax_of_step)
                amax_of_step = max(amax_of_step, value) if sound else math.inf
        history = [amax_of_step, *history[:-1]]
        amax = max(history) if algo == "max" else history[0]
        if math.isfinite(amax) and amax > 0:
            with np.errstate(over="ignore"):
                scale = float(np.float64(TOP) / amax / 2.0**margin)
            scale = min(scale, FLOAT32_MAX)
    return scales


def check_without_a_look(steps, *how):
    found = run(steps, "one", *how)
    assert not any(d.looked for d in found)
    assert [d.range.lo for d in found] == [-d.range.hi for d in found]
    expected = [TOP / scale for scale in simulated(steps, *how, scale=1.0)]
    assert [d.range.hi for d in found] == pytest.approx(expected, rel=1e-12)


def check_with_a_look(steps, *how):
    """The scales after the look are the simulation's."""
    found = run(steps, "look", *how)
    looks = sum(d.looked for d in found)
    assert [d.looked for d in found] == [True] * looks + [False] * (len(found) - looks)
    expected = [TOP / scale for scale in simulated(steps[looks - 1 :], *how, scale=1.0)]
    assert [d.range.hi for d in found[looks:]] == pytest.approx(expected[1:], rel=1e-12)


def run(steps, init, window, algo, margin):
    """The decision at the first record of each step."""
    spec = f"delayed:window={window},algo={algo},margin={margin},init={init}"
    seen = [[observe(x, scheme="symmetric") for x in tensors] for tensors in steps]
    return [step[0] for step in decisions_of_steps(ESTIMATORS.parse(spec).value, seen)]


def tensors_of(trace, most):
    """The values kept of each site."""
    with TraceReader(trace) as reader:
        for site in reader.sites[:most]:
            records = reader.records(site)
            yield [record.values for record in records if record.values is not None]


@pytest.mark.parametrize(
    ("window", "algo", "margin"),
    [(1024, "max", 0), (4, "max", 0), (3, "max", 2), (16, "most_recent", 0), (1, "max", -3)],
)
def test_real_tensors_get_the_scales_of_the_recipe(window, algo, margin):
    """280 tensors of a training run, of which each site's are a history."""
    sites = list(tensors_of(DIGITS, 20))
    assert sum(map(len, sites)) >= 100
    for tensors in sites:
        steps = [[x[:500]] for x in tensors]
        check_without_a_look(steps, window, algo, margin)
        check_with_a_look(steps, window, algo, margin)


NUMBERS = st.one_of(
    st.sampled_from([0.0, math.inf, -math.inf, math.nan, 1e-45, 1e-37, 3e38]), st.floats(-9, 9)
)
STEPS = st.lists(
    st.lists(st.lists(NUMBERS, min_size=1, max_size=3), min_size=1, max_size=2),
    min_size=1,
    max_size=9,
)


@given(STEPS, st.integers(1, 4), st.sampled_from(["max", "most_recent"]), st.integers(-2, 2))
def test_zeros_infinities_and_micro_batches_too(steps, window, algo, margin):
    check_without_a_look(steps, window, algo, margin)


@given(STEPS, st.integers(1, 4), st.sampled_from(["max", "most_recent"]))
def test_after_a_look_too(steps, window, algo):
    check_with_a_look([[[1.0]], *steps], window, algo, 0)


def ends(spec, tensors):
    found = decisions(ESTIMATORS.parse(spec).value, [observe(x) for x in tensors])
    return [None if d.range is None else d.range.hi for d in found]


def test_by_hand():
    """The ∞ keeps the old scale for as long as the window holds it, the 0 only by itself."""
    tensors = [[2.0], [math.inf, 9.0], [8.0], [4.0], [0.0], [0.0], [1.0], [1.0]]
    assert ends("delayed:window=2", tensors) == [2, 2, 2, 2, 8, 4, 4, 1]
    assert ends("delayed:algo=most_recent", tensors) == [2, 2, 2, 8, 4, 4, 4, 1]
    assert ends("delayed:window=2,margin=1", tensors) == [4, 4, 4, 4, 16, 8, 8, 2]
    assert ends("delayed:window=2,init=one", tensors) == [127, 2, 2, 2, 8, 4, 4, 1]


def test_a_look_is_repeated_until_it_gives_a_scale():
    tensors = [[0.0], [math.nan, 5.0], [3.0], [1.0]]
    found = decisions(ESTIMATORS.parse("delayed").value, [observe(x) for x in tensors])
    assert [d.looked for d in found] == [True, True, True, False]
    assert [d.range for d in found] == [(0, 0), None, (-3, 3), (-3, 3)]


def test_scale_one_is_the_format_itself():
    assert range_at_scale_one(UniformFormat(8)) == Range(-128, 127)
    assert range_at_scale_one(UniformFormat(4, "symmetric")) == Range(-7, 7)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("delayed:margin=999", "outside"),
        ("delayed:algo=mean", "max or most_recent"),
        ("delayed:init=zero", "look or one"),
    ],
)
def test_wrong_specs(spec, words):
    with pytest.raises(UsageError) as caught:
        ESTIMATORS.parse(spec)
    assert words in f"{caught.value.cause} {caught.value.remedy}"
