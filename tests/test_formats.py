"""Number formats by name: families of names, what each stores, and codebooks of one's own."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

from hqtool.core.formats.codebook import Codebook, CodebookFormat
from hqtool.core.formats.lanes import levels_of, levels_over
from hqtool.core.formats.named import FORMATS
from hqtool.core.formats.uniform import UniformFormat
from hqtool.core.quantize import quantize
from hqtool.errors import UsageError
from hqtool.vocab import Range

NAMES = [
    "int2", "int8", "int16", "int2-symmetric", "int8-symmetric", "int2-fullrange",
    "int8-fullrange", "int2-midrise", "int4-midrise", "e4m3", "e4m3:scale=one", "e5m2:scale=pow2",
    "e3m2", "e2m3", "e2m1", "e3m0", "e1m2", "e5m10", "fp4-radix4", "fp4-radix4:phase=odd",
]  # fmt: skip


def levels(name: str, lo: float, hi: float) -> list[float]:
    """The representable values."""
    found = levels_of([Range(lo, hi)], [FORMATS.parse(name).value])
    return (found.extended()[1:-1] * found.scale).tolist()


@pytest.mark.parametrize("name", NAMES)
def test_a_format_survives_json_and_pickling(name: str) -> None:
    choice = FORMATS.parse(name)
    assert choice.label == name
    assert FORMATS.from_json(choice.to_json()) == choice
    assert pickle.loads(pickle.dumps(choice.value)) == choice.value
    assert hash(pickle.loads(pickle.dumps(choice.value))) == hash(choice.value)


@pytest.mark.parametrize(
    ("name", "bits"),
    [("int5", 5), ("int16-symmetric", 16), ("int3-midrise", 3), ("e4m3", 8), ("e3m2", 6),
     ("e2m1", 4), ("e5m10", 16), ("fp4-radix4", 4)],
)  # fmt: skip
def test_bits_are_those_stored(name: str, bits: int) -> None:
    assert FORMATS.parse(name).value.bits == bits


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("int8-symetric", "did you mean 'int8-symmetric'"),
        ("INT8", "did you mean 'int8'"),
        ("E5M2", "did you mean 'e5m2'"),
        ("radix4", "fp4-radix4"),
        ("bf16", "known: intN, .*eXmY"),
        ("int17", "choose 2 to 16 bits"),
        ("int1-midrise", "choose 2 to 16 bits"),
        ("e9m1", "choose 1 to 8"),
        ("e0m3", "choose 1 to 8"),
        ("e8m8", "choose fewer"),
        ("e4m3:scale=two", "scale=free"),
        ("e4m3:exponent_bits=3", "has no parameter"),
    ],
)
def test_an_unknown_format_is_answered_with_what_is_known(name: str, remedy: str) -> None:
    with pytest.raises(UsageError, match=remedy):
        FORMATS.parse(name)


def test_a_list_has_a_line_a_family() -> None:
    shown = {entry.name: entry for entry in FORMATS}
    assert {"intN", "intN-symmetric", "eXmY", "fp4-radix4"} <= {*shown}
    assert shown["eXmY"].usage == "eXmY:scale=free"
    for entry in shown.values():
        assert entry.summary
        for name in entry.members:
            assert FORMATS.parse(name).value.bits >= 2


def test_scales_sweep() -> None:
    labels = [choice.label for choice in FORMATS.sweep("e4m3:scale=free,pow2,one")]
    assert labels == ["e4m3:scale=free", "e4m3:scale=pow2", "e4m3:scale=one"]


# --- levels, by hand ----------------------------------------------------------------------------


def test_levels_by_hand() -> None:
    assert levels("e2m1", -6, 3) == [-6, -4, -3, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert levels("e2m1:scale=pow2", 0, 7)[-3:] == [6, 8, 12]
    assert levels("e2m1:scale=one", 0, 1e9)[-1] == levels("e2m1:scale=one", 0, 0)[-1] == 6
    assert levels("e3m0", -16, 16)[7:] == [0, 0.25, 0.5, 1, 2, 4, 8, 16]
    assert levels("e1m1", 0, 3) == [-3, -2, -1, 0, 1, 2, 3]
    assert levels("int2-fullrange", -3, 1) == [-4, -2, 0, 2]
    assert levels("int2-midrise", -3, 1) == [-3, -1, 1, 3]
    assert levels("fp4-radix4", 0, 4096)[7:] == [0, 1, 4, 16, 64, 256, 1024, 4096]


def test_the_phase_of_radix_4_shows_where_the_scale_is_given() -> None:
    """Scaled so that the largest is m, both phases have the same levels."""
    assert levels("fp4-radix4:phase=odd", 0, 1) == levels("fp4-radix4", 0, 1)
    odd = levels("fp4-radix4:phase=odd,scale=one", 0, 1)
    assert odd == [2 * level for level in levels("fp4-radix4:scale=one", 0, 1)]


def test_fullrange_is_torch_ao_without_its_floor() -> None:
    found = levels_over(UniformFormat(8, "fullrange"), Range(-2.0, 1.0))
    assert (found.scale, found.lowest, found.highest) == (2 / 127.5, -128, 127)


def test_midrise_is_dorefas_formula() -> None:
    """2m·(round(n·(x/2m + ½))/n − ½) with n = 2^b − 1; ties aside."""
    x, m, n = np.random.default_rng(1).uniform(-3, 3, 1000), 2.5, 2**4 - 1
    wanted = 2 * m * (np.rint(n * np.clip(x / (2 * m) + 0.5, 0, 1)) / n - 0.5)
    found = quantize(x, levels_over(FORMATS.parse("int4-midrise").value, Range(-1.0, m)))
    np.testing.assert_allclose(found, wanted, rtol=1e-14)


# --- codebooks ----------------------------------------------------------------------------------


def test_ties_go_to_the_level_an_even_number_of_places_from_zero() -> None:
    book = Codebook([-3.0, -1.0, 0.0, 2.0, 3.0, 7.0])
    assert book.nearest(np.array([-2.0, -0.5, 1.0, 2.5, 5.0])).tolist() == [-3, 0, 0, 3, 3]
    without_zero = Codebook([1.0, 2.0, 3.0, 5.0])
    assert without_zero.nearest(np.array([1.5, 2.5, 4.0, -9.0])).tolist() == [1, 3, 3, 1]


def test_not_a_number_stays_so() -> None:
    for name in ("int8", "int4-midrise", "e4m3", "e3m0"):
        found = levels_over(FORMATS.parse(name).value, Range(-1.0, 1.0))
        x = np.array([math.nan, math.inf, -math.inf])
        q = quantize(x, found)
        assert np.isnan(q[0])
        assert q[1:].tolist() == [found.highest * found.scale, found.lowest * found.scale]
        assert np.isnan(quantize(x, found, np.full(3, 0.5)))[0]


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 1.0], [2.0, 1.0], [0.0, math.inf]])
def test_levels_that_do_not_ascend_are_refused(values: list[float]) -> None:
    with pytest.raises(UsageError, match="ascend"):
        Codebook(values)


def test_a_codebook_of_ones_own_is_a_format() -> None:
    mine = CodebookFormat(Codebook([-1.0, -0.3, 0.0, 0.2, 0.5]), bits=2.33)
    found = quantize(np.array([0.65, -0.5, 9.0]), levels_over(mine, Range(-2, 2)))
    assert found.tolist() == [0.4, -0.6, 1.0]
    with pytest.raises(UsageError, match="free, pow2, one"):
        CodebookFormat(Codebook([0.0, 1.0]), 1, "none")  # type: ignore[arg-type]
    for bits in (0, -2, math.nan, math.inf):
        with pytest.raises(UsageError, match="bits is out of bounds"):
            CodebookFormat(Codebook([0.0, 1.0]), bits)
