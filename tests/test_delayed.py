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
from hqtool.core.formats.named import FORMATS
from hqtool.errors import UsageError
from hqtool.estimators.presets import ESTIMATORS

DIGITS = Path(__file__).parent.parent / "sample_data" / "digits.h5"
#: The largest number of each.
TOPS = {"e4m3": 448.0, "e5m2": 57344.0, "int8-symmetric": 127.0}
FLOAT32_MAX = 3.4028234663852886e38


def simulated(steps, name, window, algo, margin):
    """The range's end at each step: a history of amax begun with zeros, rolled once a step."""
    top, scale, history, ends = TOPS[name], 1.0, [0.0] * window, []
    for tensors in steps:
        ends.append(top / scale)
        amax_of_step = 0.0
        for x in tensors:
            for value in np.abs(np.ravel(x)).tolist():
                sound = math.isfinite(value) and math.isfinite(amax_of_step)
                amax_of_step = max(amax_of_step, value) if sound else math.inf
        history = [amax_of_step, *history[:-1]]
        amax = max(history) if algo == "max" else history[0]
        if math.isfinite(amax) and amax > 0:
            with np.errstate(over="ignore"):
                scale = float(np.float64(top) / amax / 2.0**margin)
            scale = min(scale, FLOAT32_MAX)
    return ends


def check_without_a_look(steps, *how):
    found = run(steps, "one", *how)
    assert not any(d.looked for d in found)
    assert [d.range.lo for d in found] == [-d.range.hi for d in found]
    assert [d.range.hi for d in found] == pytest.approx(simulated(steps, *how), rel=1e-12)


def check_with_a_look(steps, *how):
    """The scales after the look are the simulation's."""
    found = run(steps, "look", *how)
    looks = sum(d.looked for d in found)
    assert [d.looked for d in found] == [True] * looks + [False] * (len(found) - looks)
    expected = simulated(steps[looks - 1 :], *how)
    assert [d.range.hi for d in found[looks:]] == pytest.approx(expected[1:], rel=1e-12)


def run(steps, init, name, window, algo, margin):
    """The decision at the first record of each step."""
    spec = f"delayed:window={window},algo={algo},margin={margin},init={init}"
    format_ = FORMATS.parse(name).value
    seen = [[observe(x, format_=format_) for x in tensors] for tensors in steps]
    return [step[0] for step in decisions_of_steps(ESTIMATORS.parse(spec).value, seen)]


def tensors_of(trace, most):
    """The values kept of each site."""
    with TraceReader(trace) as reader:
        for site in reader.sites[:most]:
            records = reader.records(site)
            yield [record.values for record in records if record.values is not None]


@pytest.mark.parametrize(
    "how",
    [
        ("e4m3", 1024, "max", 0),
        ("e5m2", 4, "max", 0),
        ("e4m3", 3, "max", 2),
        ("e5m2", 16, "most_recent", 0),
        ("int8-symmetric", 1, "max", -3),
    ],
)
def test_real_tensors_get_the_scales_of_the_recipe(how):
    """280 tensors of a training run, of which each site's are a history."""
    sites = list(tensors_of(DIGITS, 20))
    assert sum(map(len, sites)) >= 100
    for tensors in sites:
        steps = [[x[:500]] for x in tensors]
        check_without_a_look(steps, *how)
        check_with_a_look(steps, *how)


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
    check_without_a_look(steps, "e4m3", window, algo, margin)


@given(STEPS, st.integers(1, 4), st.sampled_from(["max", "most_recent"]))
def test_after_a_look_too(steps, window, algo):
    check_with_a_look([[[1.0]], *steps], "e5m2", window, algo, 0)


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
