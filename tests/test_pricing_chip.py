"""Buffers and re-reads: Table 5 and whole networks, between the paper's model and none at all."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hqtool.errors import UsageError
from hqtool.traffic.bill import AGAIN, LOOK, ON_CHIP, Bill, Bits, total, works_bill
from hqtool.traffic.layers import Layer, layer_from_json
from hqtool.traffic.network import network_works
from hqtool.traffic.pricing.rereads import Shares, shares_of
from hqtool.traffic.pricing.store import Chip
from hqtool.traffic.spec import load_spec
from hqtool.traffic.works import Work

SAMPLES = Path(__file__).parent.parent / "sample_data"
NETWORKS = [load_spec(SAMPLES / f"{name}.toml") for name in ("table5", "resnet18", "mobilenet_v2")]
ENDLESS = 1 << 60
BITS = Bits()


def billed(layers: tuple[Layer, ...], chip: Chip, pass_name: str = "both") -> Bill:
    works = zip(layers, network_works(layers, pass_name), strict=True)
    return total(works_bill(each, BITS, layer.repeat, chip) for layer, each in works)


@pytest.mark.parametrize("spec", NETWORKS, ids=lambda spec: spec.path.stem)
@pytest.mark.parametrize("pass_name", ["forward", "backward", "both"])
def test_no_buffer_is_the_paper_and_an_endless_one_is_static(spec, pass_name):
    paper, none = (billed(spec.layers, chip, pass_name) for chip in (Chip(), Chip(0)))
    assert paper == none
    assert paper.bits_for(ON_CHIP) == 0
    endless = billed(spec.layers, Chip(ENDLESS), pass_name)
    assert endless.dynamic_bits == endless.static_bits == paper.static_bits
    assert endless.bits_for(ON_CHIP) == paper.bits_for(LOOK)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 1 << 24), st.integers(0, 1 << 20), st.booleans())
def test_a_larger_buffer_never_moves_more(size, more, tiled):
    layers = NETWORKS[0].layers
    smaller, larger = (billed(layers, Chip(2 + each, tiled)) for each in (size, size + more))
    assert larger.static_bits <= smaller.static_bits
    assert larger.dynamic_bits <= smaller.dynamic_bits
    spilled = [bill.bits_for(LOOK) + bill.bits_for(ON_CHIP) for bill in (smaller, larger)]
    assert spilled[0] == spilled[1]


def test_a_look_stays_on_the_chip_from_its_accumulators_size_on():
    """Table 5, row 5: 960 channels at 7×7, in 32 bits."""
    row = NETWORKS[0].layers[4:5]
    size = 4 * 960 * 7 * 7
    assert billed(row, Chip(size - 1), "forward").overhead > 3
    assert billed(row, Chip(size), "forward").overhead == 0


# --- tiling -------------------------------------------------------------------------------------


def test_tiling_is_the_papers_model_where_the_buffer_is_large():
    for spec in NETWORKS:
        tiled = billed(spec.layers, Chip(ENDLESS, tiled=True))
        assert tiled.bits_for(AGAIN) == 0
        assert tiled.static_bits == billed(spec.layers, Chip()).static_bits


def walked_shares(work: Work, layer: Layer) -> Shares:
    """Slow oracle: which multiplications of a layer need which element of its three tensors.

    Entries of an index are told by the elements of an operand that go with one of the result.
    """
    channels_in, channels_out = layer.in_channels, layer.out_channels
    kernel = list(itertools.product(*map(range, layer.kernel)))
    per_group = channels_out // layer.groups
    results: dict[str, set[tuple[object, ...]]] = {}
    for out, into, tap in itertools.product(
        range(per_group), range(channels_in // layer.groups), kernel
    ):
        results.setdefault("out", set()).add((out,))
        results.setdefault("in", set()).add((into,))
        results.setdefault("in and tap", set()).add((into, tap))
    positions_in = layer.counts().input // channels_in
    positions_out = layer.counts().output // channels_out
    of = {
        "output": {"weight": len(results["out"]), "input": positions_out},
        "grad_input": {"weight": len(results["in"]), "grad_output": positions_in},
        "grad_weight": {"input": len(results["in and tap"]), "grad_output": len(results["out"])},
    }[work.made.kind]
    first, second = (of[operand.kind] for operand in work.reads)
    return Shares(layer.groups, (first, second))


KEYS = {"name": "l", "batch": 2}
CONV = KEYS | {"in_channels": 6, "out_channels": 4, "kernel": 3, "groups": 2, "padding": 1}


@pytest.mark.parametrize(
    "keys",
    [
        CONV | {"op": "conv2d", "input": [5, 7]},
        CONV | {"op": "conv1d", "input": 9, "stride": 2},
        CONV | {"op": "conv_transpose2d", "input": [5, 7], "stride": 2},
        CONV | {"op": "conv2d", "input": [4, 4], "out_channels": 6, "groups": 6},
        KEYS | {"op": "linear", "in_channels": 6, "out_channels": 4, "input": 5},
    ],
)
def test_what_operands_share_with_the_result(keys):
    layer = layer_from_json(keys)
    (works,) = network_works([layer], "both")
    assert [shares_of(work) for work in works] == [walked_shares(work, layer) for work in works]


def test_what_products_of_activations_share_with_their_result():
    """Three of Y[2,5] = A[2,7]·B[7,5]: B has n and A has m in common with Y, and so on."""
    layer = layer_from_json({"name": "qk", "op": "matmul", "m": 2, "k": 7, "n": 5, "batch": 3})
    (works,) = network_works([layer], "both")
    assert {work.made.name: shares_of(work) for work in works} == {
        "output": Shares(3, (5, 2)),
        "grad_input": Shares(3, (2, 7)),
        "grad_other": Shares(3, (7, 5)),
    }


def test_loads_by_hand():
    """A linear layer of 8 inputs and 6 outputs at 10 positions, 8 bits, 24 bytes of buffer.

    Held weights: 3 rows of 8 bytes, so 2 tiles, and X is loaded twice: 48 + 2·80. Held inputs:
    3 rows, 4 tiles: 80 + 4·48. Held sums: 6 accumulators, the best tile 3×2: 3·80 + 4·48.
    """
    layer = layer_from_json(
        {**KEYS, "batch": 10, "op": "linear", "in_channels": 8, "out_channels": 6}
    )
    found = billed((layer,), Chip(24, tiled=True), "forward")
    assert [(t.name, t.bits) for t in found.transfers if t.purpose == AGAIN] == [
        ("load input again", 80 * 8)
    ]


def test_a_tiled_chip_needs_a_buffer():
    with pytest.raises(UsageError, match="does not hold one accumulator"):
        billed(NETWORKS[0].layers, Chip(3, tiled=True))
