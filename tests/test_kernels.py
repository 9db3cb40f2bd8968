"""The kernels' forms against each other and against slow, exact sums."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hqtool.errors import UsageError
from hqtool.kernels import ArraySums, array_sums, form_in_use
from hqtool.kernels.dispatch import nearest_in_form, sums_in_form
from hqtool.kernels.form import choose, why_not_compiled

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


# --- quantizing to nearest ----------------------------------------------------------------------


def nearest(form: str, values: np.ndarray, bounds: tuple[float, ...], masked: bool) -> Any:
    out = np.full(values.shape, 7.0, np.float32)
    clipped = np.full(values.shape, True) if masked else None
    found = nearest_in_form(form)(values, out, clipped, *bounds)
    return out, clipped, found


BOUNDS = [(0.03, -100.0, 155.0), (1e-30, -128.0, 127.0), (2.0, 0.0, 3.0), (0.7, -32767.0, 32767.0)]


@each_form
@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
@pytest.mark.parametrize("name", CASES)
@np.errstate(all="ignore")
def test_nearest(form: str, name: str, bounds: tuple[float, ...]) -> None:
    values = as_kind(CASES[name], "float32")
    scale, first, last = map(np.float32, bounds)
    lo, hi = (first - np.float32(0.5)) * scale, (last + np.float32(0.5)) * scale
    expected = np.array([nearest_of(x, scale, first, last) for x in values], np.float32)
    out, clipped, found = nearest(form, values, (*bounds, float(lo), float(hi)), True)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(np.signbit(out), np.signbit(expected))
    assert clipped.tolist() == [bool(x < lo or x > hi) for x in values]
    assert found == int(clipped.sum())
    unmasked, _, none = nearest(form, values, (*bounds, float(lo), float(hi)), False)
    assert (unmasked.tobytes(), none) == (out.tobytes(), 0)


def nearest_of(x: np.float32, scale: np.float32, first: np.float32, last: np.float32) -> np.float32:
    level = np.rint(x / scale)
    return (first if level < first else last if level > last else level) * scale


@each_form
def test_ties_go_to_even(form: str) -> None:
    values = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], np.float32)
    out, _, _ = nearest(form, values, (1.0, -9.0, 9.0, -9.5, 9.5), False)
    assert out.tolist() == [-2.0, -2.0, -0.0, 0.0, 2.0, 2.0]


@compiled_only
@pytest.mark.parametrize("wrong", ["values", "out", "mask", "size"])
def test_what_does_not_go_together_is_refused(wrong: str) -> None:
    values, out = np.zeros(4, np.float32), np.zeros(4, np.float32)
    mask = np.zeros(3 if wrong == "mask" else 4, bool)
    values = values.astype(np.float64) if wrong == "values" else values
    out = out.view(np.int32) if wrong == "out" else out[:2] if wrong == "size" else out
    with pytest.raises(TypeError):
        nearest_in_form("compiled")(values, out, mask, 1.0, 0.0, 1.0, 0.0, 1.0)


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
