"""Every element format value by value: against gfloat, ml_dtypes, and lists of levels."""

from __future__ import annotations

from typing import Any

import gfloat
import gfloat.formats
import ml_dtypes
import numpy as np
import pytest

from hqtool.core.formats.lanes import levels_over
from hqtool.core.formats.named import FORMATS
from hqtool.core.quantize import quantize
from hqtool.vocab import Range

RNG = np.random.default_rng(8)

#: Name → gfloat's definition; those that it does not name are defined as DESIGN section 3 says.
KNOWN = {
    "e4m3": gfloat.formats.format_info_ocp_e4m3,
    "e5m2": gfloat.formats.format_info_ocp_e5m2,
    "e3m2": gfloat.formats.format_info_ocp_e3m2,
    "e2m3": gfloat.formats.format_info_ocp_e2m3,
    "e2m1": gfloat.formats.format_info_ocp_e2m1,
}
OTHERS = ["e1m1", "e1m2", "e1m6", "e2m0", "e3m0", "e3m3", "e3m4", "e4m2", "e5m10", "e6m9", "e8m7"]

ML_DTYPES = {
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "e3m2": ml_dtypes.float6_e3m2fn,
    "e2m3": ml_dtypes.float6_e2m3fn,
    "e2m1": ml_dtypes.float4_e2m1fn,
}

MAXIMA = {"e4m3": 448, "e5m2": 57344, "e3m2": 28, "e2m3": 7.5, "e2m1": 6, "e3m0": 16, "e1m2": 3.5}

VALUES = 1_000_000


def info_of(name: str) -> gfloat.FormatInfo:
    if name in KNOWN:
        return KNOWN[name]
    x, y = map(int, name[1:].split("m"))
    finite = gfloat.Domain.Finite
    return gfloat.FormatInfo(
        name, 1 + x + y, 1 + y, bias=2 ** (x - 1) - 1, domain=finite, has_nz=True,
        num_high_nans=0, has_subnormals=True, is_signed=True, is_twos_complement=False,
    )  # fmt: skip


def levels_by_gfloat(info: gfloat.FormatInfo) -> np.ndarray:
    decoded = (gfloat.decode_float(info, code).fval for code in range(2**info.k))
    return np.unique([v + 0.0 for v in decoded if np.isfinite(v)])


def hard_values(levels: np.ndarray) -> np.ndarray:
    """Levels, ties and their neighbours, and values of every magnitude."""
    ties = (levels[1:] + levels[:-1]) / 2
    exact = np.concatenate([levels, ties])
    near = [exact, np.nextafter(exact, np.inf), np.nextafter(exact, -np.inf)]
    smallest = levels[levels > 0][0]
    reach = np.log2(levels[-1] / smallest)
    spread = smallest * 2 ** RNG.uniform(-3, reach + 2, VALUES) * RNG.choice([-1.0, 1.0], VALUES)
    return np.concatenate([*near, spread, [0.0, -0.0]])


def quantized(name: str, x: np.ndarray, largest: float, **parameters: Any) -> np.ndarray:
    return quantize(x, levels_over(FORMATS.parse(name).value, Range(-largest, largest / 2)))


@pytest.mark.parametrize("name", [*KNOWN, *OTHERS])
def test_a_floating_point_format_is_gfloats(name: str) -> None:
    info = info_of(name)
    levels = levels_by_gfloat(info)
    x = hard_values(levels)
    wanted = gfloat.round_ndarray(info, x, gfloat.RoundMode.TiesToEven, sat=True)
    assert quantized(f"{name}:scale=one", x, 1.0).tolist() == wanted.tolist()
    for factor in (2.0**-70, 8.0):  # scaled by a power of two, which is exact
        for scale in ("free", "pow2"):
            found = quantized(f"{name}:scale={scale}", factor * x, factor * levels[-1])
            assert (found == factor * wanted).all()


@pytest.mark.parametrize("name", ML_DTYPES)
def test_a_floating_point_format_is_ml_dtypes(name: str) -> None:
    dtype = ML_DTYPES[name]
    largest = float(ml_dtypes.finfo(dtype).max)
    assert largest == MAXIMA[name]
    x = hard_values(levels_by_gfloat(info_of(name))).astype(np.float32)
    wanted = np.clip(x, -largest, largest).astype(dtype).astype(np.float64)
    assert (quantized(f"{name}:scale=one", x.astype(np.float64), 1.0) == wanted).all()
    assert (quantized(f"{name}:scale=one", x, 1.0) == wanted).all()


@pytest.mark.parametrize("name", MAXIMA)
def test_the_largest_level_is_at_the_larger_end_of_the_range(name: str) -> None:
    levels = levels_over(FORMATS.parse(name).value, Range(-1.0, 3.0))
    assert levels.highest == MAXIMA[name]
    assert levels.highest * levels.scale == 3.0


@pytest.mark.parametrize("name", MAXIMA)
def test_a_power_of_two_is_the_next_scale_up(name: str) -> None:
    for m in [1.0, 447.9, 448.0, 448.1, 57344.0, *RNG.uniform(1e-9, 1e9, 50)]:
        free, pow2 = (
            levels_over(FORMATS.parse(f"{name}:scale={scale}").value, Range(0.0, m)).scale
            for scale in ("free", "pow2")
        )
        assert np.log2(pow2) == np.ceil(np.log2(free))


# --- uniform formats ----------------------------------------------------------------------------


def near_ties(step: float, levels: int) -> np.ndarray:
    """A million values about the levels and beyond, and what lies next to ties."""
    ties = (np.arange(-2 * levels, 2 * levels) + 0.5) * step
    near = [ties, np.nextafter(ties, np.inf), np.nextafter(ties, -np.inf), ties - step / 2]
    return np.concatenate([*near, RNG.uniform(-1.2, 1.2, VALUES) * levels * step])


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 12, 16])
def test_an_asymmetric_format_is_designs_formula(bits: int) -> None:
    for lo, hi in ((-1.3, 2.0), (0.0, 5e-7), (-4.0, -1.0)):
        lo_, hi_, top = min(lo, 0.0), max(hi, 0.0), 2**bits - 1
        step = (hi_ - lo_) / top
        z = np.clip(np.rint(-lo_ / step), 0, top)
        x = near_ties(step, 2**bits)
        wanted = (np.clip(np.rint(x / step) + z, 0, top) - z) * step
        found = quantize(x, levels_over(FORMATS.parse(f"int{bits}").value, Range(lo, hi)))
        assert (found == wanted).all()


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 12, 16])
def test_symmetric_formats_are_their_formulas(bits: int) -> None:
    m, half = 1.7, 2 ** (bits - 1)
    for name, step, low in (
        ("symmetric", m / (half - 1), 1 - half),
        ("fullrange", m / (half - 0.5), -half),
    ):
        x = near_ties(step, 2**bits)
        wanted = np.clip(np.rint(x / step), low, half - 1) * step
        found = quantize(x, levels_over(FORMATS.parse(f"int{bits}-{name}").value, Range(-m, 1.0)))
        np.testing.assert_array_equal(found, wanted)


def test_fullrange_has_the_scale_and_codes_of_torch_ao() -> None:
    torch = pytest.importorskip("torch")
    observers = pytest.importorskip("torch.ao.quantization")
    observer = observers.MinMaxObserver(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric)
    x = torch.asarray(RNG.standard_normal(100_000), dtype=torch.float32)
    observer(x)
    scale, zero_point = observer.calculate_qparams()
    made = levels_over(FORMATS.parse("int8-fullrange").value, Range(float(x.min()), float(x.max())))
    assert made.scale == pytest.approx(scale.item(), rel=1e-6)
    theirs = torch.fake_quantize_per_tensor_affine(x, scale.item(), int(zero_point), -128, 127)
    ours = quantize(x.numpy().astype(np.float64), made)
    differs = np.abs(ours - theirs.numpy()) > 1e-5 * np.abs(ours)
    assert differs.mean() < 6e-5  # its float32


def test_radix_4_is_the_nearest_power_of_four_by_its_threshold() -> None:
    """Sun et al. [19]: the threshold between 4^(n−1) and 4^n is 4^n/1.6, which is halfway."""
    x = 4.0 ** RNG.uniform(-3, 7, VALUES) * RNG.choice([-1.0, 1.0], VALUES)
    made = levels_over(FORMATS.parse("fp4-radix4:scale=one").value, Range(0.0, 1.0))
    n = np.ceil(np.log(np.abs(x) * 1.6) / np.log(4.0)) - 1
    wanted = np.where(np.abs(x) < 0.5, 0.0, np.sign(x) * 4.0 ** np.clip(n, 0, 6))
    assert (quantize(x, made) == wanted).all()
