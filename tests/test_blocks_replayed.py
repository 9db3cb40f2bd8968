"""Block formats through the door of all engines: mixed with others, of samples, in replay."""

from __future__ import annotations

import math

import numpy as np
import oracle_blocks
import pytest

from hqtool.core.formats.named import FORMATS
from hqtool.core.metrics import measure
from hqtool.core.moments.batch import moments_of_each
from hqtool.core.observation import values_of
from hqtool.core.samples import places_of
from hqtool.core.stats import stats_of
from hqtool.vocab import Range, Record, SampleLayout

RNG = np.random.default_rng(90)
SPECS = ["int8", "mxfp8", "nvfp4", "e4m3", "mxfp4:scale=rceil", "nvfp4", "int4"]
RANGES = [Range(-3.0, 4.0), None, Range(-4.0, 2.0), Range(-3.0, 3.0), None, Range(0.0, 1.0), None]
RANGES[-1] = Range(-1.0, 1.0)


def record_of(x, layout=None, sampled=False):
    kept = x if layout is None else x.reshape(-1)[places_of(layout)]
    return Record(0, 0, 0, x.shape, stats_of(x), kept, sampled or layout is not None, layout=layout)


def formats(specs=SPECS):
    return [FORMATS.parse(spec).value for spec in specs]


def figures(moments, lane):
    return {name: float(found[..., lane]) for name, found in measure(moments).items()}


def truth_of(x, axis, lane):
    name, _, rule = SPECS[lane].partition(":scale=")
    settings = (
        {"rule": rule or "floor"} if RANGES[lane] is None else {"m": max(map(abs, RANGES[lane]))}
    )
    return oracle_blocks.metrics(x, axis, name, **settings)


def assert_close(found, wanted):
    for name, want in wanted.items():
        assert found[name] == pytest.approx(
            math.nan if want is None else want, rel=1e-6, nan_ok=True
        ), name


@pytest.mark.parametrize("shape", [(9, 40), (2, 40, 3, 2), (3, 100, 60)])
def test_lanes_of_all_kinds_side_by_side(shape):
    x = RNG.laplace(size=shape).astype("f4")
    x.reshape(-1)[[3, 8]] = np.nan, np.inf
    values = values_of(record_of(x))
    together = values.moments(RANGES, formats())
    for lane, one in enumerate(formats()):
        alone = values.moments([RANGES[lane]], [one])
        assert_close(figures(together, lane), figures(alone, 0))
    for lane in (1, 2, 4, 5):
        assert_close(
            figures(together, lane), truth_of(x, 1 if len(shape) == 4 else -1 % len(shape), lane)
        )


def test_records_together_as_one_by_one():
    records = [
        record_of(RNG.laplace(size=shape).astype("f4")) for shape in ((3, 40), (3, 40), (64,))
    ]
    prepared = [values_of(record) for record in records]
    together = measure(moments_of_each(prepared, [RANGES] * 3, formats()))
    for i, values in enumerate(prepared):
        alone = values.moments(RANGES, formats())
        for name, found in measure(alone).items():
            assert together[name][i] == pytest.approx(found, nan_ok=True)


def test_the_axis_comes_from_the_layer():
    x = RNG.laplace(size=(2, 40, 3, 40)).astype("f4")
    for axis in (1, 3):
        found = values_of(record_of(x), axis - 4).moments([None], formats(["mxfp8"]))
        assert_close(figures(found, 0), oracle_blocks.metrics(x, axis, "mxfp8"))


def test_values_near_the_ends_of_float64():
    """A real scale follows them; E8M0, and e4m3 under a float32, end long before."""
    x = RNG.laplace(size=(4, 50)) * 2.0**700
    found = values_of(record_of(x)).moments(
        [None, None, Range(-1e200, 0.0)], formats(["e4m3-block128", "mxfp8", "nvfp4"])
    )
    truth = oracle_blocks.metrics(x * 2.0**-700, 1, "e4m3-block128")
    truth.pop("mse")
    assert_close({**figures(found, 0)}, truth)
    assert [figures(found, lane)["saturation"] for lane in (1, 2)] == [1.0, 1.0]


def layout_of(shape, axis, length, count):
    stride = math.prod(shape[axis + 1 :])
    fibres = np.sort(RNG.choice(math.prod(shape) // length, count, replace=False))
    extremes = np.empty(0, "f4")
    return SampleLayout(fibres, length, stride, extremes, np.empty(0, np.int64))


@pytest.mark.parametrize(("shape", "axis"), [((40, 80), 1), ((8, 80, 5, 3), 1)])
def test_of_a_sample_the_fibres_count(shape, axis):
    x = RNG.laplace(size=shape).astype("f4")
    layout = layout_of(shape, axis, shape[axis], 12)
    found = values_of(record_of(x, layout)).moments([None], formats(["mxfp8"]))
    kept = x.reshape(-1)[places_of(layout)].reshape(12, -1)
    assert_close(figures(found, 0), oracle_blocks.metrics(kept, 1, "mxfp8"))
    assert found.count == pytest.approx(x.size)


@pytest.mark.parametrize(("length", "blocks"), [(64, 32), (48, 32), (40, 32), (20, 20), (8, None)])
def test_pieces_of_rows_are_blocked_from_their_own_beginning(length, blocks):
    """What is left over counts for nothing, and pieces far shorter than a block say nothing."""
    x = RNG.laplace(size=(30, 960)).astype("f4")
    layout = layout_of(x.shape, 1, length, 40)
    found = figures(values_of(record_of(x, layout)).moments([None], formats(["mxfp8"])), 0)
    if blocks is None:
        assert all(math.isnan(figure) for name, figure in found.items() if name != "nonfinite")
        return
    kept = x.reshape(-1)[places_of(layout)].reshape(40, -1)[:, : length // blocks * blocks]
    assert_close(found, oracle_blocks.metrics(kept, 1, "mxfp8"))


def test_blocks_of_a_sample_without_layout_are_unknown():
    x = RNG.laplace(size=200).astype("f4")
    record = Record(0, 0, 0, (50, 40), stats_of(x), x, sampled=True)
    found = values_of(record).moments([None, Range(-1.0, 1.0)], formats(["mxfp8", "int8"]))
    assert math.isnan(figures(found, 0)["cosine"])
    assert figures(found, 1)["cosine"] > 0.5


def test_a_draw_is_the_same_for_the_same_noise():
    x = RNG.laplace(size=(7, 50)).astype("f4")
    x[2, 3] = np.nan
    draws = [
        values_of(record_of(x)).moments([None], formats(["mxfp4"]), "stochastic-sampled", noise)
        for noise in map(np.random.default_rng, (1, 1, 2))
    ]
    assert draws[0].err == draws[1].err != draws[2].err
    expected = values_of(record_of(x)).moments([None], formats(["mxfp4"]), "stochastic")
    assert draws[0].err == pytest.approx(expected.err, rel=0.2)
