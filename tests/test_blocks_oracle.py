"""Block formats value by value, a million values each, against gfloat's block quantization."""

from __future__ import annotations

import gfloat
import gfloat.formats
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hqtool.core.formats.block import SCALE_RULES
from hqtool.core.formats.named import FORMATS
from hqtool.core.quantize import quantize
from hqtool.vocab import Range

RNG = np.random.default_rng(5)

#: Values of a format: blocks are columns.
VALUES, SIZE = 1 << 20, 32

NO_RANGE = Range(0.0, 0.0)

KNOWN = {
    "mxfp8": gfloat.formats.format_info_mxfp8_e4m3,
    "mxfp8-e5m2": gfloat.formats.format_info_mxfp8_e5m2,
    "mxfp6-e3m2": gfloat.formats.format_info_mxfp6_e3m2,
    "mxfp6-e2m3": gfloat.formats.format_info_mxfp6_e2m3,
    "mxfp4": gfloat.formats.format_info_mxfp4_e2m1,
    "mxint8": gfloat.formats.format_info_mxint8,
}


def blocks(size=SIZE, values=VALUES):
    """Columns of many magnitudes, ties among their values, one of them zero, one beyond E8M0."""
    x = RNG.standard_normal((size, values // size)) * np.exp2(RNG.integers(-40, 40, values // size))
    x[:, : values // size // 4] = np.ldexp(RNG.integers(-300, 300, (size, values // size // 4)), -7)
    x[:, -1], x[:, -2], x[:, -3] = 0.0, x[:, -2] * 2.0**-160, x[:, -3] * 2.0**140
    return x


def quantized(x, spec, wanted=NO_RANGE):
    """By hqtool, each column a block."""
    return quantize(x, FORMATS.parse(spec).value.levels(np.abs(x).max(axis=0), wanted))


def exponents(amax, rule, info):
    """Written with other functions than hqtool's: logarithms, exact beside powers of two."""
    log2 = np.log2(np.where(amax > 0, amax, 1.0))
    floor = np.floor(log2)
    if rule == "rceil":
        found = np.ceil(np.log2(np.where(amax > 0, amax, 1.0) / info.max))
    elif rule == "ceil":
        found = np.ceil(log2) - info.emax
    elif rule == "even":
        mantissa_bits = 6 if info.name == "ocp_int8" else info.precision - 1
        rounds_up = amax / np.exp2(floor) >= 2 - 0.5**mantissa_bits / 2
        found = floor + rounds_up - info.emax
    else:
        found = floor - info.emax
    return np.where(amax > 0, np.clip(found, -127, 127), -127)


@pytest.mark.parametrize("rule", SCALE_RULES)
@pytest.mark.parametrize("name", KNOWN)
def test_microscaling_is_gfloats(name, rule):
    info, x = KNOWN[name].etype, blocks(values=VALUES if rule == "floor" else VALUES // 8)
    scale = np.exp2(exponents(np.abs(x).max(axis=0), rule, info))
    wanted = gfloat.round_ndarray(info, x / scale, gfloat.RoundMode.TiesToEven, True) * scale
    assert np.array_equal(quantized(x, f"{name}:scale={rule}"), wanted)


@pytest.mark.parametrize("name", KNOWN)
def test_blocks_one_by_one_are_gfloats(name):
    """Its own block function, which has the rule 'floor', on blocks as a user has them."""
    for x in blocks(values=SIZE * 40).T:
        wanted = gfloat.quantize_block(KNOWN[name], x, gfloat.compute_scale_amax)
        assert quantized(x, name).tolist() == np.array(wanted).tolist()


@pytest.mark.parametrize("share", [1.0, 0.1, 20.0])
def test_nvfp4_is_two_casts(share):
    """The block's scale is a cast to e4m3, saturated; the elements are one to e2m1."""
    x = RNG.laplace(size=(16, VALUES // 16)) * np.exp2(RNG.integers(-8, 1, VALUES // 16))
    m = share * np.abs(x).max()
    whole = float(np.float32(448 * 6 / m))
    amax = np.abs(x).max(axis=0)
    scale = np.minimum(amax * whole / 6, 448.0).astype(ml_dtypes.float8_e4m3fn).astype("f8")
    with np.errstate(invalid="ignore", divide="ignore"):
        inside = np.clip(x * whole / scale, -6, 6).astype(ml_dtypes.float4_e2m1fn).astype("f8")
    wanted = np.where(scale > 0, inside * scale / whole, 0.0)
    found = quantized(x, "nvfp4", Range(-m, m / 3))
    differ = ~np.isclose(found, wanted, rtol=1e-12, atol=0)
    assert differ.mean() < 1e-5  # ties that another order of multiplications tells otherwise


def test_real_scales_put_the_maximum_on_the_largest_level():
    x = RNG.laplace(size=(128, VALUES // 128)).astype("f4").astype("f8")
    amax = np.abs(x).max(axis=0)
    wanted = (x / (amax / 448)).astype(ml_dtypes.float8_e4m3fn).astype("f8") * (amax / 448)
    assert (quantized(x, "e4m3-block128") != wanted).mean() < 1e-5  # it casts by way of float32
    found = quantized(x, "e4m3-block128:scale=pow2")
    scale = np.exp2(np.ceil(np.log2(amax / 448)))
    assert np.array_equal(found, (x / scale).astype(ml_dtypes.float8_e4m3fn).astype("f8") * scale)


FINITE = st.floats(-(2.0**100), 2.0**100, allow_subnormal=True)
SPECS = [*KNOWN, *(f"mxfp4:scale={rule}" for rule in SCALE_RULES), "nvfp4", "e4m3-block128"]


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, 16, elements=FINITE), st.sampled_from(SPECS))
def test_of_any_block(x, spec):
    """It keeps signs and order, and its error is below half a gap wherever nothing saturates."""
    wanted = Range(-np.abs(x).max(), 0.0)
    levels = FORMATS.parse(spec).value.levels(np.abs(x).max(keepdims=True), wanted)
    q = quantize(x, levels)
    assert (q * x >= 0).all()
    assert (np.diff(q[np.argsort(x)]) >= 0).all()
    inside = np.abs(x) <= levels.highest * levels.scale
    below, above = levels.neighbours(x / np.where(levels.scale == 0, 1, levels.scale))
    half = (above - below) / 2 * levels.scale
    assert (np.abs(q - x)[inside] <= half[inside] * (1 + 1e-9)).all()


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, 32, elements=FINITE), st.sampled_from([*KNOWN]))
def test_what_is_quantized_stays_so(x, spec):
    q = quantized(x, f"{spec}:scale=rceil")
    assert np.array_equal(quantized(q, f"{spec}:scale=rceil"), q)
