"""The kernels' forms against each other and against slow, exact sums."""

from __future__ import annotations

import functools
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hqtool.errors import UsageError
from hqtool.kernels import ArraySums, Grid, NoiseKey, array_sums, form_in_use, quantized, uniform
from hqtool.kernels.dispatch import sums_in_form, uniform_in_form
from hqtool.kernels.form import choose, why_not_compiled
from hqtool.kernels.noise import mixed, noise_bits

NOT_COMPILED = why_not_compiled()
compiled_only = pytest.mark.skipif(NOT_COMPILED is not None, reason=str(NOT_COMPILED))
FORMS = ["plain", pytest.param("compiled", marks=compiled_only)]
each_form = pytest.mark.parametrize("form", FORMS)

#: Kinds of values, "bfloat16" as their bits; and the unsigned integers of their size.
KINDS = {"float32": np.uint32, "float64": np.uint64, "float16": np.uint16, "bfloat16": np.uint16}
each_kind = pytest.mark.parametrize("kind", KINDS)

RNG = np.random.default_rng(0)
NORMAL = RNG.standard_normal(3 * 2048 + 37)

CASES = {
    "normal": NORMAL,
    "whole blocks": NORMAL[:4096],
    "relu": np.maximum(NORMAL, 0),
    "relu of the negative": np.minimum(NORMAL, 0),
    "positive": np.abs(NORMAL) + 0.1,
    "negative": -np.abs(NORMAL) - 0.1,
    "negative zeros": np.where(NORMAL > 1, -0.0, np.abs(NORMAL)),
    "all zero": np.zeros(100),
    "all negative zero": np.full(100, -0.0),
    "zeros of both signs": np.array([0.0, -0.0] * 40),
    "a nan at the end": np.append(NORMAL, np.nan),
    "infinities in one block": np.where(np.arange(NORMAL.size) // 512 == 5, -np.inf, NORMAL),
    "nothing finite": np.array([np.nan, np.inf, -np.inf, -np.nan] * 9),
    "large": NORMAL * 1e30,
    "subnormal": NORMAL * 1e-41,
    "all magnitudes": NORMAL * 10.0 ** RNG.integers(-40, 30, NORMAL.size),
    "empty": np.zeros(0),
    "one": np.array([-2.5]),
    "one zero": np.array([-0.0]),
    "one subnormal": np.array([6e-8]),
    "one infinity": np.array([np.inf]),
}


@np.errstate(over="ignore")
def as_kind(values: np.ndarray, kind: str) -> np.ndarray:
    if kind != "bfloat16":
        return values.astype(kind)
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


@np.errstate(invalid="ignore")  # signaling NaNs
def exact_values(values: np.ndarray) -> np.ndarray:
    """The values in float64."""
    if values.dtype != np.uint16:
        return values.astype(np.float64)
    return (values.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def assert_right(found: ArraySums, values: np.ndarray) -> None:
    """Extremes and counts are exact; sums, where given, good to 1e-6 of what they are made of."""
    x = exact_values(values)
    finite = [float(v) for v in x if math.isfinite(v)]
    nonzero = [abs(v) for v in finite if v]
    assert found.lo == min(finite, default=math.inf)
    assert found.hi == max(finite, default=-math.inf)
    assert found.smallest == min(nonzero, default=math.inf)
    assert (found.size, found.nzero) == (len(finite), len(finite) - len(nonzero))
    assert (found.nnan, found.ninf) == (int(np.isnan(x).sum()), int(np.isinf(x).sum()))
    assert math.copysign(1, found.lo) == 1 or found.lo < 0
    total = sum(map(Fraction, finite))
    magnitude, squares = sum(map(Fraction, nonzero)), sum(Fraction(v) ** 2 for v in nonzero)
    if math.isfinite(found.total):
        assert abs(Fraction(found.total) - total) <= magnitude / 10**6
    if math.isfinite(found.squares) and squares > Fraction(1, 10**30) * len(finite):
        assert abs(Fraction(found.squares) - squares) <= squares / 10**6


@each_form
@each_kind
@pytest.mark.parametrize("name", CASES)
def test_sums(form: str, kind: str, name: str) -> None:
    values = as_kind(CASES[name], kind)
    assert_right(sums_in_form(form)(values), values)


@each_form
@each_kind
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_sums_of_any_bits(form: str, kind: str, data: st.DataObject) -> None:
    unsigned = KINDS[kind]
    top = np.iinfo(unsigned).max
    special = as_kind(np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0]), kind).view(unsigned)
    elements = st.integers(0, int(top)) | st.sampled_from([*map(int, special), 1, int(top)])
    bits = data.draw(arrays.arrays(unsigned, st.integers(0, 70), elements=elements))
    values = bits if kind == "bfloat16" else bits.view(kind)
    assert_right(sums_in_form(form)(values), values)


@compiled_only
@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_every_value_of_16_bits(kind: str) -> None:
    """One by one, so that each is widened right."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    values = bits if kind == "bfloat16" else bits.view(np.float16)
    read, expected = sums_in_form("compiled"), exact_values(values)
    for one, x in zip(values.reshape(-1, 1), expected.tolist(), strict=True):
        if math.isfinite(x):
            found = read(one)
            assert (found.lo, found.total, found.squares) == (x, x, x * x)


@compiled_only
@each_kind
@pytest.mark.parametrize("name", CASES)
def test_both_forms_give_the_same_extremes_and_counts(kind: str, name: str) -> None:
    values = as_kind(CASES[name], kind)
    plain, compiled = (sums_in_form(form)(values) for form in ("plain", "compiled"))
    unsummed = {"total": 0.0, "squares": 0.0, "least_spread": 0.0}
    assert plain._replace(**unsummed) == compiled._replace(**unsummed)


@compiled_only
@pytest.mark.parametrize("size", [1, 15, 16, 17, 2047, 2048, 2049, 6000])
def test_the_compiled_sums_are_made_in_16_lanes(size: int) -> None:
    """The order is fixed, so that the bits do not depend on the width of the machine's vectors."""
    values = NORMAL[:size].astype(np.float32)
    found = sums_in_form("compiled")(values)
    x = values.astype(np.float64)
    assert (found.total, found.squares) == (in_lanes(x), in_lanes(x * x))


def in_lanes(x: np.ndarray) -> float:
    total = 0.0
    for start in range(0, x.size, 2048):
        lanes = [0.0] * 16
        for i, value in enumerate(x[start : start + 2048].tolist()):
            lanes[i % 16] += value
        for half in (8, 4, 2, 1):
            lanes = [lanes[i] + lanes[i + half] for i in range(half)]
        total += lanes[0]
    return total


@each_form
def test_threads_change_nothing(form: str) -> None:
    read, values = sums_in_form(form), NORMAL.repeat(20).astype(np.float32)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(read, [values] * 8)) == {read(values)}


@each_form
def test_arrays_of_any_shape_that_are_contiguous(form: str) -> None:
    values = NORMAL[:60].astype(np.float32)
    values.flags.writeable = False
    read = sums_in_form(form)
    assert read(values.reshape(3, 4, 5)) == read(values)


@each_form
@pytest.mark.parametrize(
    "values", [np.arange(5), np.zeros(3, ">f4"), np.zeros(2, complex)], ids=str
)
def test_other_types_are_refused(form: str, values: np.ndarray) -> None:
    with pytest.raises(TypeError):
        sums_in_form(form)(values)


# --- noise --------------------------------------------------------------------------------------

KEY = NoiseKey(0x12345678, 0x9ABCDEF0)
STARTS = [0, 1, 2047, (1 << 14) - 3, (1 << 32) - 5, (1 << 32) + 7, (1 << 40) - 20]
MANY = 1 << 20


def noise_in(form: str, key: NoiseKey, size: int, first: int = 0) -> np.ndarray:
    out = np.empty(size, np.float32)
    uniform_in_form(form)(out, key, first)
    return out


@each_form
@pytest.mark.parametrize("first", STARTS)
@pytest.mark.parametrize("key", [KEY, NoiseKey(0, 0), NoiseKey(0xFFFFFFFF, 0xFFFFFFFF)], ids=str)
def test_noise_is_what_its_definition_says(form: str, key: NoiseKey, first: int) -> None:
    expected = [(noise_bits(key, first + i) >> 8) / 2**24 for i in range(40)]
    assert noise_in(form, key, 40, first).tolist() == expected


@compiled_only
def test_both_forms_give_the_same_noise_across_blocks() -> None:
    for size in (1, 2049, 40_000):
        a, b = (noise_in(form, KEY, size, (1 << 32) - 20_000) for form in ("plain", "compiled"))
        assert a.tobytes() == b.tobytes()


def test_a_hash_worked_out_by_hand() -> None:
    """Of 1 by the definition: 1 → 1·F → F ^ F>>15 → …"""
    x = 0x21F0AAAD  # 1 ^ 1>>16 is 1
    x ^= 0x43E1  # x >> 15
    assert x == 0x21F0E94C
    x = x * 0xD35A2D97 % 2**32
    assert mixed(1) == x ^ x >> 15
    assert mixed(0) == 0
    assert noise_bits(NoiseKey(1, mixed(0)), 1) == 0


def test_noise_is_uniform() -> None:
    """Mean, variance, and how many of a million fall into each of 4096 buckets, five sigma each."""
    for key in KEYS:
        u = uniform(key, MANY).astype(np.float64)
        assert 0 <= u.min() < 1e-4
        assert 1 - 1e-4 < u.max() < 1
        assert abs(u.mean() - 0.5) < 5 * math.sqrt(1 / 12 / MANY)
        assert abs(u.var() - 1 / 12) < 5 * math.sqrt(1 / 180 / MANY)
        for shift in (0, 12):  # the upper and the lower 12 bits
            buckets = np.bincount((u * 2**24).astype(np.int64) >> (12 - shift) & 4095)
            chi_square = ((buckets - MANY / 4096) ** 2 / (MANY / 4096)).sum()
            assert abs(chi_square - 4095) < 5 * math.sqrt(2 * 4095)


KEYS = [KEY, NoiseKey(0, 0), NoiseKey(1, 0), NoiseKey(0, 1), NoiseKey(0xDEADBEEF, 0xFFFFFFFF)]


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(12 * ((a - 0.5) * (b - 0.5)).mean())


def test_values_near_each_other_have_unrelated_noise() -> None:
    """In sigmas of the correlation of independent values, over many distances in memory."""
    for key in KEYS:
        u = uniform(key, MANY).astype(np.float64)
        for distance in (1, 2, 3, 4, 7, 8, 16, 32, 64, 100, 128, 256, 1000, 1024, 4096, 1 << 16):
            found = correlation(u[:-distance], u[distance:])
            assert abs(found) * math.sqrt(MANY - distance) < 5


def test_keys_that_differ_in_one_bit_have_unrelated_noise() -> None:
    """Nor is the noise of one that of the other, value by value, at indices changed alike."""
    size = 1 << 16
    u = uniform(KEY, size).astype(np.float64)
    place = np.arange(size)
    for bit in range(64):
        first, second = KEY.first ^ (1 << bit if bit < 32 else 0), KEY.second ^ (1 << bit >> 32)
        other = uniform(NoiseKey(first, second), size).astype(np.float64)
        assert abs(correlation(u, other)) * math.sqrt(size) < 5
        for moved in (place ^ 1 << bit % 16, (place + 1) % size):
            if bit < 16 and moved[0] == 1 << bit:
                continue  # the first word of the key and the index are exclusive-ored
            assert abs(correlation(u, other[moved])) * math.sqrt(size) < 5


def test_each_bit_of_the_hash_depends_on_each_bit_of_what_is_hashed() -> None:
    """Flipping one bit of the index or of the key flips each other with a chance of about ½."""
    rng, trials = np.random.default_rng(0), 200
    for bit in range(96):
        flips = np.zeros(32)
        for words in rng.integers(0, 1 << 32, (trials, 3)).tolist():
            before = noise_bits(NoiseKey(*words[:2]), words[2])
            words[bit // 32] ^= 1 << bit % 32
            changed = before ^ noise_bits(NoiseKey(*words[:2]), words[2])
            flips += [(changed >> i) & 1 for i in range(32)]
        assert np.abs(flips / trials - 0.5).max() < 5.5 * 0.5 / math.sqrt(trials)


# --- quantizing ---------------------------------------------------------------------------------


def uniform_grid(scale: float, first: float, last: float, key: NoiseKey | None) -> Grid:
    half = 0.5 if key is None else 0.0
    step = np.float32(scale)
    return Grid(scale, first, last, float((first - half) * step), float((last + half) * step))


def e4m3_grid(scale: float, key: NoiseKey | None) -> Grid:
    """448 is the largest, 480 would follow; the gap at y is an eighth of its power of two."""
    end = float(np.float32(464 if key is None else 448) * np.float32(scale))
    return Grid(scale, -448, 448, -end, end, 1 / 8, 2.0**-6, 256, -480, 480)


def quantized_in_c(values: np.ndarray, grid: Grid, key: NoiseKey | None, **how: Any) -> Any:
    out = np.full(values.shape, 7, values.dtype)
    clipped = np.full(values.shape, True) if how.get("masked", True) else None
    found, sums = quantized(values, out, clipped, grid, key, how.get("with_sums", False))
    return out, clipped, found, sums


def level_of(x: np.float32, grid: Grid, u: np.float32 | None) -> np.float32:
    """The level of one value, before it is clamped and scaled, by frexp."""
    y, gap = x / np.float32(grid.scale), np.float32(1)
    if grid.relative_gap:
        low, high = (grid.lowest, grid.highest) if u is None else (grid.below, grid.above)
        y = np.float32(low) if y < low else np.float32(high) if y > high else y
        power = 2.0 ** (math.frexp(y)[1] - 1) if y and math.isfinite(y) else 0.0
        gap = np.float32(grid.relative_gap * min(max(power, grid.least_power), grid.greatest_power))
    if u is None:
        return np.rint(y / gap) * gap
    if not grid.relative_gap:
        return np.floor(y + u)
    below = np.floor(y / gap)
    return (below + np.floor(y / gap - below + u)) * gap


def expected_of(values: np.ndarray, grid: Grid, key: NoiseKey | None) -> tuple[Any, Any]:
    """What quantizing gives, and what is clipped, value by value."""
    out, clipped = [], []
    for i, x in enumerate(values):
        u = None if key is None else np.float32((noise_bits(key, i) >> 8) / 2**24)
        level = level_of(x, grid, u)
        lowest, highest = np.float32(grid.lowest), np.float32(grid.highest)
        at, lo, hi = (x, grid.lo, grid.hi) if u is None else (level, lowest, highest)
        clipped.append(bool(at < np.float32(lo) or at > np.float32(hi)))
        level = lowest if level < lowest else highest if level > highest else level
        out.append(x if np.isinf(x) else level * np.float32(grid.scale))
    return np.array(out, np.float32), clipped


UNIFORM = [(0.03, -100, 155), (1e-30, -128, 127), (2.0, 0, 3), (0.7, -32767, 32767)]
FLOATING = [0.01, 1e-30, 2.0**-9]
GRIDS = {
    **{f"uniform {each}": functools.partial(uniform_grid, *each) for each in UNIFORM},
    **{f"e4m3 {scale}": functools.partial(e4m3_grid, scale) for scale in FLOATING},
}


@compiled_only
@pytest.mark.parametrize("key", [None, KEY], ids=["nearest", "stochastic"])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", CASES)
@np.errstate(all="ignore")
def test_quantized(name: str, grid: str, key: NoiseKey | None) -> None:
    values, to = as_kind(CASES[name], "float32")[-800:], GRIDS[grid](key)
    expected, beyond = expected_of(values, to, key)
    out, clipped, found, sums = quantized_in_c(values, to, key)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(np.signbit(out), np.signbit(expected))
    assert (found, sums) == (sum(beyond), None)
    assert not found or clipped.tolist() == beyond
    again, _, none, _ = quantized_in_c(values, to, key, masked=False)
    assert (again.tobytes(), none) == (out.tobytes(), 0)


@compiled_only
@pytest.mark.parametrize("key", [None, KEY], ids=["nearest", "stochastic"])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", CASES)
@np.errstate(all="ignore")
def test_sums_and_mask_in_the_same_pass(name: str, grid: str, key: NoiseKey | None) -> None:
    """Over several blocks, of which some hold nothing that is clipped."""
    values = np.concatenate([np.zeros(3000), CASES[name], np.zeros(5000)]).astype(np.float32)
    to = GRIDS[grid](key)
    out, clipped, found, _ = quantized_in_c(values, to, key)
    fused, mask, as_many, sums = quantized_in_c(values, to, key, with_sums=True)
    assert (fused.tobytes(), as_many) == (out.tobytes(), found)
    assert not found or mask.tobytes() == clipped.tobytes()
    read = sums_in_form("compiled")(values)
    assert repr(sums) == repr(read)
    same = values.copy()
    mask = np.empty(same.shape, bool)
    assert quantized(same, same, mask, to, key, True)[0] == found
    assert same.tobytes() == out.tobytes()
    assert not found or mask.tobytes() == clipped.tobytes()


@compiled_only
@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("key", [None, KEY], ids=["nearest", "stochastic"])
@pytest.mark.parametrize(
    "to", [(0.0625, -1000, 1000), (1e-7, -128, 127), (3000.0, -20, 30)], ids=str
)
@np.errstate(all="ignore")
def test_quantized_in_16_bits(kind: str, key: NoiseKey | None, to: tuple) -> None:
    """Each value there is: as in float32, and rounded to the type as numpy and ml_dtypes do."""
    bits, grid = np.arange(1 << 16, dtype=np.uint16), uniform_grid(*to, key)
    values = bits if kind == "bfloat16" else bits.view(np.float16)
    wide = exact_values(values).astype(np.float32)
    expected, beyond, found, sums = quantized_in_c(wide, grid, key, with_sums=True)
    out, clipped, as_many, of_narrow = quantized_in_c(values, grid, key, with_sums=True)
    assert (clipped.tobytes(), as_many, of_narrow) == (beyond.tobytes(), found, sums)
    finite = np.isfinite(wide)
    narrow = expected.astype(np.float16 if kind == "float16" else ml_dtypes.bfloat16)
    assert out.view(np.uint16)[finite].tobytes() == narrow.view(np.uint16)[finite].tobytes()
    assert np.isnan(exact_values(out)[np.isnan(wide)]).all()


@compiled_only
@pytest.mark.parametrize("values", [NORMAL * 2.0**-20, NORMAL * 2.0**-25, NORMAL * 3e4], ids=str)
def test_any_float32_rounds_to_float16(values: np.ndarray) -> None:
    """On levels far closer to each other than those of float16: halves of those, for its ties."""
    with np.errstate(over="ignore"):
        values = np.append(values, (np.arange(300) + 0.5) * 2.0**-24).astype(np.float16)
    grid = uniform_grid(1.5 * 2.0**-25, -(2.0**24), 2.0**24, None)
    wide = values.astype(np.float32)
    out, *_ = quantized_in_c(values, grid, None)
    expected, *_ = quantized_in_c(wide, grid, None)
    assert out.tobytes() == expected.astype(np.float16).tobytes()


@compiled_only
def test_ties_go_to_even() -> None:
    values = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], np.float32)
    out, *_ = quantized_in_c(values, uniform_grid(1.0, -9, 9, None), None)
    assert out.tolist() == [-2.0, -2.0, -0.0, 0.0, 2.0, 2.0]
    values = np.array([17, 19, 464, 465, 2.0**-10, 3 * 2.0**-10], np.float32)
    out, clipped, *_ = quantized_in_c(values, e4m3_grid(1.0, None), None)
    assert out.tolist() == [16, 20, 448, 448, 0, 2.0**-8]
    assert clipped.tolist() == [False, False, False, True, False, False]


@compiled_only
@pytest.mark.parametrize("x", [0.3, -0.7, 100.001, 3e-5])
@pytest.mark.parametrize("grid", ["uniform", "e4m3"])
def test_stochastic_rounding_has_no_bias(x: float, grid: str) -> None:
    """The mean of a million draws is x, to five sigma of a gap's worth."""
    to = uniform_grid(1.0, -128, 127, KEY) if grid == "uniform" else e4m3_grid(1.0, KEY)
    out, _, found, _ = quantized_in_c(np.full(MANY, x, np.float32), to, KEY)
    levels = np.unique(out)
    assert (found, len(levels)) == (0, 2)
    gap = float(levels[1] - levels[0])
    assert levels[0] < x < levels[1]
    chance = (x - levels[0]) / gap
    sigma = gap * math.sqrt(max(chance * (1 - chance), 1 / MANY) / MANY)
    assert abs(out.mean(dtype=np.float64) - np.float32(x)) < 5 * sigma


@compiled_only
@pytest.mark.parametrize("wrong", ["values", "out", "mask", "size"])
def test_what_does_not_go_together_is_refused(wrong: str) -> None:
    values, out = np.zeros(4, np.float32), np.zeros(4, np.float32)
    mask = np.zeros(3 if wrong == "mask" else 4, bool)
    values = values.astype(np.float64) if wrong == "values" else values
    out = out.view(np.int32) if wrong == "out" else out[:2] if wrong == "size" else out
    with pytest.raises(TypeError):
        quantized(values, out, mask, uniform_grid(1.0, 0, 1, None), None, False)


# --- which form ---------------------------------------------------------------------------------


def said(wish: str, code: str = "") -> subprocess.CompletedProcess[str]:
    """`python -m hqtool.kernels`, or some code, where the environment asks for a form."""
    how: dict[str, Any] = {"env": os.environ | {"HQTOOL_KERNELS": wish}, "text": True}
    words = ["-c", code] if code else ["-m", "hqtool.kernels"]
    return subprocess.run([sys.executable, *words], capture_output=True, check=False, **how)


def test_the_plain_form_can_be_asked_for() -> None:
    done = said("plain")
    assert (done.stdout, done.returncode) == ("plain: HQTOOL_KERNELS=plain asks for it\n", 0)


def test_the_form_in_use_is_the_fastest_there_is() -> None:
    if "HQTOOL_KERNELS" not in os.environ:
        assert form_in_use().name == ("plain" if NOT_COMPILED else "compiled")
    values = NORMAL.astype(np.float32)
    assert array_sums(values) == sums_in_form(form_in_use().name)(values)


def test_everything_works_where_nothing_was_compiled() -> None:
    code = """
import sys
sys.modules["hqtool.kernels._compiled"] = None  # as if it had not been built
import numpy as np
from hqtool.kernels import array_sums, form_in_use
print(form_in_use().name, array_sums(np.arange(4.0)).hi)
"""
    assert said("", code).stdout == "plain 3.0\n"


def test_a_form_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hqtool.kernels._compiled", None)
    with pytest.raises(UsageError, match="cannot be loaded"):
        choose("compiled")
    assert choose("").name == "plain"


def test_a_form_unheard_of() -> None:
    with pytest.raises(UsageError, match="HQTOOL_KERNELS is 'fast'"):
        choose("fast")


def test_one_built_from_older_source_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hqtool.kernels.form._VERSION", -1)
    assert choose("").name == "plain"
