"""Block formats against the slow oracle, other packages, and the figures of others."""

from __future__ import annotations

import math

import numpy as np
import oracle_blocks
import pytest

from hqtool.core.arrangement import Arrangement
from hqtool.core.formats.block import SCALE_RULES
from hqtool.core.formats.named import FORMATS
from hqtool.core.metrics import measure
from hqtool.core.moments.blocks import Blocks
from hqtool.core.quantize import quantize_in_blocks
from hqtool.errors import UsageError
from hqtool.vocab import Range

RNG = np.random.default_rng(1207)


def laplace(shape, scale=1.0):
    return (RNG.laplace(size=shape) * scale).astype("f4")


def with_zero_blocks(x):
    x[:, :32] = 0
    return x


def with_nonfinite(x):
    x.reshape(-1)[[0, 5, 77]] = np.nan, np.inf, -np.inf
    x[-1] = np.nan
    return x


#: Name → (tensor, its channel axis).
TENSORS = {
    "matrix": (laplace((5, 64)), 1),
    "short tail": (laplace((7, 147)), 1),
    "convolution": (laplace((2, 40, 3, 3)), 1),
    "image": (laplace((2, 3, 5, 5)), 1),
    "vector": (laplace(150), 0),
    "sequence": (laplace((2, 3, 70)), 2),
    "zero blocks": (with_zero_blocks(laplace((4, 100))), 1),
    "all zero": (np.zeros((3, 33), "f4"), 1),
    "tiny": (laplace((3, 64), 1e-42), 1),
    "small": (laplace((3, 64), 1e-7), 1),
    "huge": (laplace((3, 64), 1e37), 1),
    "whole numbers": (RNG.integers(-20, 20, (6, 64)).astype("f4"), 1),
    "powers of two": (np.exp2(RNG.integers(-12, 12, (6, 64))).astype("f4"), 1),
    "uneven rows": (laplace((9, 64)) * np.exp2(RNG.integers(-20, 9, (9, 1))), 1),
    "not finite": (with_nonfinite(laplace((4, 50))), 1),
    "scalar": (np.array(1.5, "f4"), 0),
    "float64": (RNG.standard_normal((3, 50)), 1),
    "float16": (RNG.standard_normal((3, 50)).astype("f2"), 1),
}

#: Spec → (name in the oracle, its settings).
SPECS = {
    f"{name}:scale={rule}": (name, {"rule": rule})
    for name, (_, _, kind) in oracle_blocks.FORMATS.items()
    for rule in (SCALE_RULES if kind == "mx" else ("free", "pow2") if kind == "real" else ())
} | {"nvfp4": ("nvfp4", {})}


def measured(x, axis, spec, wanted=None, rounding="nearest", noise=None):
    finite = np.isfinite(x)
    format_ = FORMATS.parse(spec).value
    mask = None if finite.all() else finite
    blocks = Blocks(x, mask, Arrangement(x.shape, axis), format_.rows, format_.size)
    moments = blocks.moments(format_, wanted or Range(0.0, 0.0), rounding, noise)
    return {name: figures.item() for name, figures in measure(moments).items()}


def assert_same(found, wanted):
    for name, want in wanted.items():
        got = found[name]
        assert math.isnan(got) == (want is None), (name, got, want)
        if want is not None:
            assert got == pytest.approx(want, rel=1e-6, abs=0), name


@pytest.mark.parametrize("rounding", oracle_blocks.ROUNDINGS)
@pytest.mark.parametrize("spec", SPECS)
def test_equals_the_oracle(spec, rounding):
    name, settings = SPECS[spec]
    for label, (x, axis) in TENSORS.items():
        m = max((abs(v) for v in x.reshape(-1).tolist() if math.isfinite(v)), default=0.0)
        for share in (1.0, 0.1, 30.0) if name == "nvfp4" else (1.0,):
            truth = oracle_blocks.metrics(x, axis, name, rounding=rounding, m=share * m, **settings)
            truth.pop("nonfinite")  # of what is left
            found = measured(x, axis, spec, Range(-share * m, share * m / 2), rounding)
            try:
                assert_same(found, truth)
            except AssertionError as error:
                raise AssertionError(label) from error


@pytest.mark.parametrize("spec", SPECS)
def test_moments_are_those_of_the_quantized_values(spec):
    """`quantize_in_blocks` is what training does to a tensor."""
    format_ = FORMATS.parse(spec).value
    for x, axis in TENSORS.values():
        wide, wanted = x.astype("f8").reshape(x.shape or (1,)), Range(-1.0, 2.0)
        q = quantize_in_blocks(wide, format_, wanted, axis)
        kept = np.isfinite(wide)
        found = measured(x, axis, spec, wanted)
        if kept.any() and wide[kept].any():
            assert found["mse"] == pytest.approx(np.mean((q - wide)[kept] ** 2), rel=1e-9)
            lost = (q == 0) & (wide != 0)
            assert found["underflow"] == pytest.approx(np.sum(lost[kept]) / np.sum(wide[kept] != 0))


@pytest.mark.parametrize(("name", "rows"), [("nvfp4:tile=16", 16), ("e4m3-block128:tile=1", 128)])
def test_tiles_share_their_scale(name, rows):
    for shape, axis in (((40, 50), 1), ((20, 18, 3, 3), 1), ((2, 9, 20), 2), ((130, 130), 1)):
        x = laplace(shape)
        truth = oracle_blocks.metrics(x, axis, name.partition(":")[0], m=4.0, rows=rows)
        truth.pop("nonfinite")
        assert_same(measured(x, axis, name, Range(-1.0, 4.0)), truth)


def test_a_draw_has_the_expected_error():
    """Many draws of the same blocks, short ones and tiles among them, against the expectation."""
    x = laplace((3, 50))
    for spec in ("mxfp4", "nvfp4", "nvfp4:tile=16", "mxint8"):
        mean = measured(x, 1, spec, Range(-6.0, 6.0), "stochastic")
        draws = [
            measured(x, 1, spec, Range(-6.0, 6.0), "stochastic-sampled", RNG.random(x.shape))
            for _ in range(300)
        ]
        for metric in ("mse", "gain", "saturation", "underflow"):
            found = np.array([draw[metric] for draw in draws])
            error = found.std() / math.sqrt(found.size) + 1e-9
            assert abs(found.mean() - mean[metric]) < 5 * error, (spec, metric)


def test_microscaling_vectors():
    """FIELD section 1: floor saturates a block's maximum where rceil does not; two scale codes."""
    block = np.full(32, 957.0, "f4")
    block[7] = 959.56
    quantized = {rule: _only(block, f"mxfp8:scale={rule}") for rule in SCALE_RULES}
    assert quantized["floor"] == (2.0, 448 * 2.0)
    assert quantized["rceil"] == (4.0, 960.0)
    block = np.full(32, 150.0, "f4")
    codes = {rule: math.log2(_only(block, f"mxfp8:scale={rule}")[0]) + 127 for rule in SCALE_RULES}
    assert (codes["rceil"], codes["ceil"]) == (126, 127)


def _only(block, spec):
    """The scale of one block, and what its first element becomes."""
    levels = FORMATS.parse(spec).value.levels(np.abs(block).max(), Range(0.0, 0.0))
    return float(levels.scale), float(
        levels.nearest(np.float64(block[0]) / levels.scale) * levels.scale
    )


@pytest.mark.parametrize(
    ("draw", "share"), [(RNG.standard_normal, 0.30), (RNG.laplace, 0.43)], ids=["normal", "laplace"]
)
def test_floor_clips_the_maximum_of_many_blocks(draw, share):
    """FIELD section 1, of MXFP4."""
    amax = np.abs(draw(size=(32, 20000))).max(axis=0)
    levels = FORMATS.parse("mxfp4").value.levels(amax, Range(0.0, 0.0))
    assert np.mean(amax > levels.highest * levels.scale) == pytest.approx(share, abs=0.015)


def test_e2m1_shrinks():
    """FIELD section 1: of Gaussian values norm_ratio is 1.0002, but gain 0.9957."""
    found = measured(RNG.standard_normal((1024, 512)).astype("f4"), 1, "nvfp4", Range(-5.0, 5.0))
    assert found["norm_ratio"] == pytest.approx(1.0002, abs=3e-3)
    assert found["gain"] == pytest.approx(0.9957, abs=2e-3)


def test_nvfp4_without_the_scale_of_the_tensor():
    """FIELD section 1: 20.4 dB with both scales; 0 dB where S is 1 and all blocks underflow."""
    x = RNG.standard_normal((512, 512))
    for size, wanted, decibels in (
        (1.0, Range(-5.0, 5.0), 20.4),
        (1e-3, Range(-5e-3, 5e-3), 20.4),
        (1e-4, Range(0.0, 0.0), 0.0),
    ):
        found = measured((x * size).astype("f4"), 1, "nvfp4", wanted)
        assert found["sqnr_db"] == pytest.approx(decibels, abs=0.5)


def test_a_hindsight_range_that_is_too_small_saturates():
    """The block's scale ends at 448, so its elements end at 6 · 448 / S = m."""
    x = np.linspace(-9, 9, 64).reshape(4, 16).astype("f4")
    found = measured(x, 1, "nvfp4", Range(-1.0, 3.0))
    assert found["saturation"] == np.mean(np.abs(x) > 3.0 + 0.5 * 3 / 6 * 2)
    levels = FORMATS.parse("nvfp4").value.levels(np.array([9.0]), Range(-1.0, 3.0))
    assert levels.highest * levels.scale == pytest.approx(3.0, rel=1e-7)


@pytest.mark.parametrize(
    ("name", "bits"),
    [("mxfp8", 8.25), ("mxfp8-e5m2", 8.25), ("mxfp6-e3m2", 6.25), ("mxfp6-e2m3", 6.25),
     ("mxfp4", 4.25), ("mxint8", 8.25), ("nvfp4", 4.5), ("nvfp4:tile=16", 4 + 8 / 256),
     ("e4m3-block128", 8.25), ("e4m3-block128:tile=1", 8 + 32 / 128**2), ("int8-block32", 9)],
)  # fmt: skip
def test_bits_count_the_scales(name, bits):
    assert FORMATS.parse(name).value.bits == bits
    assert FORMATS.parse(name).value.needs_range == name.startswith("nvfp4")


def test_a_tile_of_another_size_is_refused():
    with pytest.raises(UsageError, match="write tile=16"):
        FORMATS.parse("nvfp4:tile=8")
