"""The bill: Table 5, every formula against a walk over the elements, and the bit-widths."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from hqtool.errors import UsageError
from hqtool.traffic import bill
from hqtool.traffic.bill import LOOK, Bill, Bits, Transfer, parse_bits
from hqtool.traffic.layers import Counts, Layer, layer_from_json
from hqtool.traffic.network import network_works
from hqtool.traffic.spec import load_spec
from hqtool.traffic.works import PASSES, counted_tensors, product_works

TABLE5 = load_spec(Path(__file__).parent.parent / "sample_data" / "table5.toml")

#: Static bytes, dynamic bytes (by hand, eq. 4 and 5) and the KB and percent the paper prints.
ROWS = {
    1: (36_864 + 2 * 200_704, 36_864 + 10 * 200_704, 428, 1996, 366),
    2: (589_824 + 2 * 50_176, 589_824 + 10 * 50_176, 674, 1066, 58),
    3: (1_536 + 200_704 + 1_204_224, 1_536 + 200_704 + 9 * 1_204_224, 1374, 10782, 685),
    5: (8_640 + 2 * 47_040, 8_640 + 10 * 47_040, 100, 468, 366),
}

COUNTS = Counts(weight=6, input=10, output=14)
BITS = Bits(w=3, a=5, g=7, acc=11, gw=13)


def made(tensor: str, counts: Counts, bits: Bits) -> Bill:
    """The bill of the work of a product that makes one tensor."""
    works = {work.made.name: work for work in product_works(counted_tensors(counts))}
    return bill.price(works[tensor], bits)


def layer_bill(layer: Layer, bits: Bits, pass_name: str = "forward") -> Bill:
    (works,) = network_works([layer], pass_name)
    return bill.works_bill(works, bits, layer.repeat)


def billed(row: int) -> Bill:
    return layer_bill(TABLE5.layers[row - 1], TABLE5.bits)


def walked(counts: Counts, widths: dict[str, list[int]]) -> int:
    """Slow oracle: visits each element and pays for each of its trips, one bit at a time."""
    paid = 0
    for tensor, trips in widths.items():
        for _element, width in itertools.product(range(getattr(counts, tensor)), trips):
            paid += sum(1 for _bit in range(width))
    return paid


# --- Table 5 ------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS)
def test_table5_to_the_byte_and_as_printed(row: int) -> None:
    static, dynamic, static_kb, dynamic_kb, percent = ROWS[row]
    found = billed(row)
    assert bill.as_bytes(found.static_bits) == static
    assert bill.as_bytes(found.dynamic_bits) == dynamic
    assert (round(static / 1024), round(dynamic / 1024)) == (static_kb, dynamic_kb)
    assert round(100 * found.overhead) == percent


def test_table5_row_4_follows_its_shape_not_its_print() -> None:
    found = billed(4)
    static, dynamic = bill.as_bytes(found.static_bits), bill.as_bytes(found.dynamic_bits)
    assert static == 864 + 2 * 96 * 112 * 112
    assert dynamic == 864 + 10 * 96 * 112 * 112
    assert (round(static / 1024), round(dynamic / 1024)) == (2353, 11761)
    assert round(100 * found.overhead) == 400


def test_table5_row_4_print_fits_another_shape_without_weights() -> None:
    elements = 144 * 56 * 56
    found = made("output", Counts(0, elements, elements), TABLE5.bits)
    assert bill.as_bytes(found.static_bits) == 882 * 1024
    assert bill.as_bytes(found.dynamic_bits) == 4410 * 1024


# --- formulas -----------------------------------------------------------------------------------


def test_forward_equals_a_walk() -> None:
    static = walked(COUNTS, {"weight": [3], "input": [5], "output": [5]})
    found = made("output", COUNTS, BITS)
    assert found.static_bits == static == 138
    assert found.dynamic_bits == static + walked(COUNTS, {"output": [11, 11]}) == 446
    assert found.overhead == 308 / 138


def test_grad_input_equals_a_walk() -> None:
    static = walked(COUNTS, {"output": [7], "weight": [3], "input": [7]})
    found = made("grad_input", COUNTS, BITS)
    assert found.static_bits == static == 186
    assert found.dynamic_bits == static + walked(COUNTS, {"input": [11, 11]}) == 406


def test_grad_weight_equals_a_walk_and_is_never_dynamic() -> None:
    static = walked(COUNTS, {"input": [5], "output": [7], "weight": [13]})
    found = made("grad_weight", COUNTS, BITS)
    assert found.static_bits == found.dynamic_bits == static == 226
    assert found.overhead == 0.0


@pytest.mark.parametrize(
    ("pass_name", "parts"),
    [
        ("forward", ["output"]),
        ("backward", ["grad_input", "grad_weight"]),
        ("both", ["output", "grad_input", "grad_weight"]),
    ],
)
@pytest.mark.parametrize("reads_the_networks_input", [False, True])
def test_passes_are_sums_of_their_parts(
    pass_name: str, parts: list[str], reads_the_networks_input: bool
) -> None:
    """What needs no gradient gets none: then G_X is part of no pass."""
    keys = {"name": "fc", "op": "linear", "in_channels": 3, "out_channels": 2}
    layer = layer_from_json(keys | {"grad_input": not reads_the_networks_input})
    assert layer_from_json(layer.to_json()) == layer
    found = layer_bill(layer, BITS, pass_name)
    tensors = [p for p in parts if p != "grad_input" or not reads_the_networks_input]
    each = [made(tensor, layer.counts(), BITS) for tensor in tensors]
    assert found == bill.total(each)


def test_transfers_are_named_and_exact() -> None:
    assert made("output", COUNTS, BITS).transfers == (
        Transfer("load weight", 18),
        Transfer("load input", 50),
        Transfer("save output", 70),
        Transfer("save accumulator output", 154, LOOK),
        Transfer("load accumulator output", 154, LOOK),
    )


@pytest.mark.parametrize("pass_name", PASSES)
def test_repeat_multiplies(pass_name: str) -> None:
    keys = {"name": "fc", "op": "linear", "in_channels": 3, "out_channels": 2}
    once = layer_bill(layer_from_json(keys), BITS, pass_name)
    thrice = layer_bill(layer_from_json(keys | {"repeat": 3}), BITS, pass_name)
    assert thrice.static_bits == 3 * once.static_bits
    assert thrice.dynamic_bits == 3 * once.dynamic_bits
    assert thrice.overhead == once.overhead


def test_total_is_the_sum_over_layers() -> None:
    bills = [billed(row) for row in range(1, 6)]
    found = bill.total(bills)
    assert found.static_bits == sum(one.static_bits for one in bills)
    assert found.dynamic_bits == sum(one.dynamic_bits for one in bills)


def test_huge_bills_stay_exact() -> None:
    counts = Counts(2**60 + 1, 2**60 + 1, 2**60 + 1)
    assert made("output", counts, Bits()).static_bits == 24 * (2**60 + 1)


# --- what an estimator costs --------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "numel"), [("output", 14), ("grad_input", 10)])
def test_a_site_is_billed_by_the_work_that_makes_it(kind: str, numel: int) -> None:
    """A look moves the accumulator's output twice, which makes the step dynamic."""
    found = bill.site_bill(kind, COUNTS, BITS, numel)
    assert found is not None
    assert found == made(kind, COUNTS, BITS)
    assert found.static_bits + 2 * 11 * numel == found.dynamic_bits


def test_activations_scale_with_a_smaller_last_batch() -> None:
    """Half the output: half of X and Y, the same weights."""
    found = bill.site_bill("output", COUNTS, BITS, 7)
    assert found is not None
    assert found.static_bits == 6 * 3 + 5 * 5 + 7 * 5


@pytest.mark.parametrize("kind", ["input", "grad_output", "weight", "grad_weight"])
def test_other_kinds_have_no_bill(kind: str) -> None:
    assert bill.site_bill(kind, COUNTS, BITS, 10) is None


# --- bits and bytes -----------------------------------------------------------------------------


def test_bytes_are_whole_where_they_can_be() -> None:
    assert [bill.as_bytes(bits) for bits in (16, 12, 16.0, 10.5)] == [2, 1.5, 2, 1.3125]
    assert [type(bill.as_bytes(bits)) for bits in (16, 12, 16.0)] == [int, float, int]
    assert bill.as_bytes(8 * (2**60 + 1)) == 2**60 + 1


def test_bits_are_parsed_over_a_base() -> None:
    assert parse_bits("w=8,a=8,g=8,acc=32") == Bits()
    assert parse_bits(" w = 1 , gw=64") == Bits(w=1, gw=64)
    assert parse_bits("a=4", base=BITS) == Bits(w=3, a=4, g=7, acc=11, gw=13)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("x=8", "unknown key 'x'"),
        ("W=8", "unknown key 'W'"),
        ("", "unknown key ''"),
        ("a", "'' is not a bit-width"),
        ("a=", "'' is not a bit-width"),
        ("a=0", "'0' is not a bit-width"),
        ("a=65", "'65' is not a bit-width"),
        ("a=-8", "'-8' is not a bit-width"),
        ("a=8.0", "'8.0' is not a bit-width"),
        ("a=1_6", "'1_6' is not a bit-width"),
        ("a=8=8", "'8=8' is not a bit-width"),
    ],
)
def test_wrong_bits_name_the_part(part: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_bits(f"w=8,{part}")
    assert f"bits part {part!r}: " in caught.value.cause
    assert said in caught.value.cause
    assert caught.value.remedy


def test_a_width_given_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="given twice"):
        parse_bits("w=8,w=4")
