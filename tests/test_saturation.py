"""Ranges that follow the share of values clipped: by hand, against a slow simulation, in the long.

What holds for every estimator is in test_conformance.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from deciding import decisions, decisions_of_steps, observe

from hqtool import TraceReader
from hqtool.errors import UsageError
from hqtool.estimators.presets import ESTIMATORS

DIGITS = Path(__file__).parent.parent / "sample_data" / "digits.h5"
RNG = np.random.default_rng(29)


def run(spec, tensors, **how):
    return decisions(ESTIMATORS.parse(spec).value, [observe(x, **how) for x in tensors])


def test_by_hand():
    """Of four values one is a quarter, more than half the target: that end alone is widened."""
    found = run(
        "saturation:target=0.2,widen=2,narrow=0.5", [[-4, 8], [-1, 0, 1, 9], [-3, 0, 0, 8], [0, 1]]
    )
    assert [d.range for d in found] == [(-4, 8), (-4, 8), (-2, 16), (-4, 8)]
    assert [d.looked for d in found] == [True, False, False, False]


def test_one_reach_by_hand():
    """Both signs count towards the whole target."""
    found = run(
        "saturation:target=0.3,widen=2,narrow=0.5,one_reach=true",
        [[-4, 8], [-9, 0, 1, 9], [-3, 0, 0, 17], [0, 1]],
    )
    assert [d.range for d in found] == [(-8, 8), (-8, 8), (-16, 16), (-8, 8)]


def test_an_end_at_zero_is_widened_to_the_extreme_that_was_met():
    found = run("saturation:target=0.1,widen=2,narrow=0.5", [[0, 4], [-3, 4], [-3, 4]])
    assert [d.range for d in found] == [(0, 4), (0, 4), (-3, 2)]


def test_micro_batches_count_by_their_elements():
    """One of two clipped and none of eight are a tenth of ten."""
    steps = [[[-1.0, 1.0]], [[0.0, 2.0], [0.0] * 7 + [1.0]], [[1.0]]]
    for target, expected in ((0.19, 2.0), (0.21, 0.5)):
        spec = f"saturation:target={target},widen=2,narrow=0.5"
        seen = [[observe(x) for x in step] for step in steps]
        found = decisions_of_steps(ESTIMATORS.parse(spec).value, seen)
        assert found[2][0].range.hi == expected


def test_of_micro_batches_the_finite_elements_count():
    """One of two clipped and none of two, beside six NaN, are a quarter of four."""
    steps = [[[-1.0, 1.0]], [[0.0, 2.0], [0.0, 1.0] + [np.nan] * 6], [[1.0]]]
    for target, expected in ((0.48, 2.0), (0.52, 0.5)):
        spec = f"saturation:target={target},widen=2,narrow=0.5"
        seen = [[observe(x) for x in step] for step in steps]
        found = decisions_of_steps(ESTIMATORS.parse(spec).value, seen)
        assert found[2][0].range.hi == expected


def test_without_values_what_statistics_say():
    """None clipped is known; else the share is that of an exponential tail."""
    x, wide = np.linspace(-4, 4, 100), np.linspace(-8, 8, 100)
    for target, expected in ((0.19, 8.0), (0.21, 2.0)):  # 100^(−4/8) is a tenth, at either end
        spec = f"saturation:target={target},widen=2,narrow=0.5"
        found = run(spec, [x, wide, wide], values=False)
        assert found[2].range == (-expected, expected)
    found = run("saturation:target=0,widen=2,narrow=0.5", [x, x / 2, x], values=False)
    assert found[2].range == (-2, 2)
    assert not any(d.postponed for d in found)


def simulated(tensors, target, widen, narrow):
    lo, hi = min(tensors[0]), max(tensors[0])
    ranges = [(lo, hi)]
    for x in tensors[1:]:
        ranges.append((lo, hi))
        below = sum(v < lo for v in x) / len(x)
        above = sum(v > hi for v in x) / len(x)
        lo *= widen if below > target / 2 else narrow
        hi *= widen if above > target / 2 else narrow
    return ranges


@pytest.mark.parametrize(("target", "widen", "narrow"), [(1e-4, 1.25, 0.95), (1e-2, 2, 0.9)])
def test_real_tensors(target, widen, narrow):
    spec = f"saturation:target={target},widen={widen},narrow={narrow}"
    with TraceReader(DIGITS) as reader:
        for site in reader.sites[:10]:
            kept = [r.values for r in reader.records(site) if r.values is not None]
            tensors = [x.ravel()[:400].astype(float) for x in kept]
            found = [tuple(d.range) for d in run(spec, tensors)]
            expected = simulated([x.tolist() for x in tensors], target, widen, narrow)
            np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("target", [1e-3, 1e-2])
def test_in_the_long_run_the_target_is_clipped(target):
    """Of tensors of one distribution, whatever the first was; after a shift of scale as well."""
    scales = [50.0] + [1.0] * 150 + [8.0] * 100
    tensors = [scale * RNG.laplace(size=4000) for scale in scales]
    found = run(f"saturation:target={target}", tensors)
    for steps in (range(100, 151), range(200, 251)):
        pairs = [(tensors[t], found[t].range) for t in steps]
        shares = [np.mean((x < lo) | (x > hi)) for x, (lo, hi) in pairs]
        assert target / 3 < np.mean(shares) < 3 * target


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("saturation:target=1", "outside"),
        ("saturation:target=nan", "outside"),
        ("saturation:widen=0.5", "less than 1"),
        ("saturation:narrow=1.5", "outside"),
        ("saturation:narrow=0", "outside"),
    ],
)
def test_wrong_specs(spec, words):
    with pytest.raises(UsageError) as caught:
        ESTIMATORS.parse(spec)
    assert words in f"{caught.value.cause} {caught.value.remedy}"
