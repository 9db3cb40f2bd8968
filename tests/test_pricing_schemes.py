"""The bill of a network under quantizers and recipes: against bit-widths, and slow walks."""

from __future__ import annotations

import csv
import io
import itertools
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from command import hqtool
from hypothesis import given, settings
from hypothesis import strategies as st

from hqtool.estimators.quantizer import parse_quantizer
from hqtool.recipes.named import RECIPES, load_recipe
from hqtool.recipes.recipe_file import SCHEMA, parse_recipe
from hqtool.report.traffic_quantizers import Network
from hqtool.traffic.bill import DATA, LOOK, ON_CHIP, SCALES, Bill, Bits, total, works_bill
from hqtool.traffic.layers import Layer, layer_from_json
from hqtool.traffic.network import network_works
from hqtool.traffic.pricing.looks import looks_of
from hqtool.traffic.pricing.scheme import Scheme, scheme_of
from hqtool.traffic.pricing.store import PAPER, Chip
from hqtool.traffic.spec import load_spec
from hqtool.traffic.works import Operand, Work

SAMPLES = Path(__file__).parent.parent / "sample_data"
NETWORKS = [load_spec(SAMPLES / f"{name}.toml") for name in ("table5", "resnet18", "mobilenet_v2")]
RESNET = str(SAMPLES / "resnet18.toml")
BITS = Bits()


def under(
    scheme: Scheme | str,
    layers: tuple[Layer, ...] = NETWORKS[0].layers,
    chip: Chip = PAPER,
    pass_name: str = "both",
    wide: int = 32,
) -> Bill:
    given = scheme_of(parse_quantizer(scheme)) if isinstance(scheme, str) else scheme
    network = Network(layers, network_works(layers, pass_name))
    return total(network.bills(given, BITS, wide, chip))


def with_bits(layers: tuple[Layer, ...], pass_name: str, chip: Chip = PAPER) -> Bill:
    works = zip(layers, network_works(layers, pass_name), strict=True)
    return total(works_bill(each, BITS, layer.repeat, chip) for layer, each in works)


def recipe(*rules: dict[str, Any]) -> Scheme:
    made = parse_recipe(json.dumps({"schema": SCHEMA, "rule": list(rules)}), "r")
    return Scheme("r", made)


# --- single quantizers --------------------------------------------------------------------------


@pytest.mark.parametrize("spec", NETWORKS, ids=lambda spec: spec.path.stem)
@pytest.mark.parametrize("pass_name", ["forward", "backward", "both"])
def test_int8_is_the_papers_bill(spec, pass_name):
    """In hindsight eq. 4, current eq. 5, and DSGC its searches beside, to the bit."""
    paper = with_bits(spec.layers, pass_name)
    static = under("hindsight@int8", spec.layers, pass_name=pass_name)
    assert static.dynamic_bits == static.static_bits == paper.static_bits
    dynamic = under("current@int8", spec.layers, pass_name=pass_name)
    assert (dynamic.static_bits, dynamic.dynamic_bits) == (paper.static_bits, paper.dynamic_bits)
    searched = under("dsgc:interval=50@int8", spec.layers, pass_name=pass_name)
    evaluations = looks_of(parse_quantizer("dsgc:interval=50@int8")).evaluations
    moved_once = Fraction(paper.dynamic_bits - paper.static_bits, 2)
    assert searched.bits_for(LOOK) == (2 + evaluations) * moved_once / 50


@pytest.mark.parametrize("text", ["current@int8", "current:per=sample@int8", "dsgc@int8"])
@settings(max_examples=25, deadline=None)
@given(size=st.integers(0, 1 << 24), more=st.integers(0, 1 << 23))
def test_a_larger_buffer_never_moves_more(text, size, more):
    smaller, larger = (under(text, chip=Chip(each)) for each in (size, size + more))
    assert larger.dynamic_bits <= smaller.dynamic_bits
    assert under(text, chip=Chip(1 << 60)).dynamic_bits == smaller.static_bits


def test_blocks_never_spill_and_a_tensors_scale_does_unless_it_is_known():
    assert under("local@mxfp8").bits_for(LOOK) == 0
    assert under("hindsight@nvfp4").bits_for(LOOK) == 0
    assert under("current@nvfp4").bits_for(LOOK) == under("current@int8").bits_for(LOOK) > 0


def test_a_look_is_as_wide_as_what_shares_a_range():
    """Four samples: a buffer of one sample's accumulators serves a look at samples."""
    keys = {"name": "l", "op": "conv2d", "in_channels": 3, "out_channels": 8, "input": [6, 6]}
    layer = layer_from_json(keys | {"kernel": 3, "batch": 4})
    of_sample = 4 * 8 * 6 * 6
    for per, held in (("tensor", 4 * of_sample), ("channel", 4 * of_sample), ("sample", of_sample)):
        for size, purpose in ((held - 1, LOOK), (held, ON_CHIP)):
            found = under(f"current:per={per}@int8", (layer,), Chip(size), "forward")
            assert found.bits_for(purpose) == 2 * 8 * 4 * of_sample
    rows = under("current:per=row@int8", (layer,), Chip(4 * 8), "forward")
    assert rows.bits_for(LOOK) == 0


# --- recipes ------------------------------------------------------------------------------------


def test_operands_are_billed_by_their_own_quantizers():
    """W4 A8 and gradients in FP8, of a linear layer: every tensor by itself."""
    keys = {"name": "fc", "op": "linear", "in_channels": 6, "out_channels": 5, "batch": 7}
    layer, w, x, y = layer_from_json(keys), 30, 42, 35
    scheme = recipe(
        {"weight": "current@int4", "output": "hindsight@int8", "grad_input": "current@e4m3"}
    )
    found = under(scheme, (layer,))
    forward = 4 * w + 8 * x + 8 * y
    backward = (8 * y + 4 * w + 8 * x) + (8 * x + 8 * y + 32 * w)
    assert found.bits_for(DATA) == forward + backward
    assert found.bits_for(LOOK) == 2 * 32 * x  # at G_X alone


def test_what_is_made_is_stored_and_looked_at_as_it_is_read():
    """A recipe of operands and one of results, with the same quantizers, cost the same."""
    read = recipe({"input": "current@int8", "weight": "current@int8", "grad_output": "dsgc@int8"})
    made = recipe({"output": "current@int8", "weight": "current@int8", "grad_input": "dsgc@int8"})
    assert under(read) == under(made)


def test_what_is_left_as_it_is_has_the_width_that_was_asked_for():
    layers = NETWORKS[0].layers
    none = Scheme("none", load_recipe("none"))
    for wide in (16, 32):
        found = under(none, layers, pass_name="forward", wide=wide)
        assert found.dynamic_bits * 8 == with_bits(layers, "forward").static_bits * wide
    backward = under(none, layers, pass_name="backward", wide=16)
    gradients = sum(layer.counts().weight for layer in layers)
    static = with_bits(layers, "backward").static_bits
    assert backward.dynamic_bits == (static - 32 * gradients) * 2 + 32 * gradients


def test_rules_ask_for_names_classes_and_places():
    layers = NETWORKS[1].layers
    last = recipe({"output": "current@int8"}, {"last": True, "output": "none"})
    assert under(last, layers[:1], pass_name="forward").bits_for(LOOK) == 0
    typed = recipe({"types": ["Linear"], "output": "current@int8"})
    looks = 2 * 32 * layers[-1].counts().output
    assert under(typed, layers, pass_name="forward").bits_for(LOOK) == looks


def test_products_of_activations_follow_the_rules_for_all_unless_a_rule_names_them():
    keys = {"name": "qk", "op": "matmul", "m": 5, "k": 4, "n": 3, "batch": 2}
    layer = layer_from_json(keys)
    everything = {"input": "hindsight@int8", "output": "hindsight@int8"}
    of_all = under(recipe(everything), (layer,), pass_name="forward")
    assert of_all.dynamic_bits == 2 * 8 * (5 * 4 + 4 * 3 + 5 * 3)
    named = recipe(everything, {"types": ["matmul"], "input": "hindsight@int4"})
    assert under(named, (layer,), pass_name="forward").dynamic_bits == 2 * (
        4 * (5 * 4 + 4 * 3) + 32 * 5 * 3
    )


def test_what_is_read_has_the_format_of_what_made_it():
    """The second of three layers alone stores 4 bits: it writes them, and the third reads them."""
    recipes = [
        recipe({"output": "hindsight@int8"}, {"layers": ["b"], "output": "hindsight@int4"}),
        recipe({"input": "hindsight@int8"}, {"layers": ["c"], "input": "hindsight@int4"}),
    ]
    keys = {"op": "linear", "in_channels": 4, "out_channels": 4}
    relu = {"name": "relu", "op": "activation", "kind": "gelu", "in_channels": 4}
    layers = [layer_from_json(keys | {"name": name}) for name in "abc"]
    for between in ([], [layer_from_json(relu)]):
        network = (*layers[:2], *between, layers[2])
        works = network_works(network, "forward", frozenset())
        for each in recipes:
            found = Network(network, works).bills(each, BITS, 32, PAPER)
            weights, last = 32 * 16, {"output": 8 * 4, "input": 4 * 4}
            assert found[1].bits_for(DATA) == weights + 8 * 4 + 4 * 4
            assert found[-1].bits_for(DATA) == weights + 4 * 4 + last[each.recipe.tensors[0]]
            assert not between or found[2].bits_for(DATA) == 4 * 4 + 4 * 4


def test_gradients_have_the_format_of_what_made_them():
    """Backward the same: what c passes on in 4 bits, the operation between and b read in 4 bits."""
    recipes = [
        recipe({"grad_input": "hindsight@int8"}, {"layers": ["c"], "grad_input": "hindsight@int4"}),
        recipe(
            {"grad_output": "hindsight@int8"}, {"layers": ["b"], "grad_output": "hindsight@int4"}
        ),
    ]
    keys = {"op": "linear", "in_channels": 4, "out_channels": 4}
    gelu = {"name": "gelu", "op": "activation", "kind": "gelu", "in_channels": 4}
    a, b, c = (layer_from_json(keys | {"name": name}) for name in "abc")
    network = (a, b, layer_from_json(gelu), c)
    works = [
        tuple(w for w in each if w.made.kind == "grad_input")
        for each in network_works(network, "backward", frozenset())
    ]
    for each in recipes:
        found = Network(network, works).bills(each, BITS, 32, PAPER)
        weights, wide = 32 * 16, 32 * 4
        assert found[1].bits_for(DATA) == weights + 4 * 4 + 8 * 4
        assert found[2].bits_for(DATA) == 4 * 4 + 4 * 4 + wide  # GELU reads its input, too
        assert found[3].bits_for(DATA) - weights - 4 * 4 in (8 * 4, 4 * 4)


def test_only_layers_with_weights_are_first_or_last():
    ends = recipe({"output": "hindsight@int8"}, {"last": True, "output": "none"})
    linear = {"name": "fc", "op": "linear", "in_channels": 4, "out_channels": 3}
    after = {"name": "soft", "op": "activation", "kind": "softmax", "in_channels": 3}
    layers = tuple(map(layer_from_json, (linear, after)))
    network = Network(layers, network_works(layers, "forward", frozenset()))
    fc, soft = network.bills(ends, BITS, 32, PAPER)
    assert fc.bits_for(DATA) == 32 * (12 + 4 + 3)
    assert soft.bits_for(DATA) == 32 * (3 + 3)  # it follows the layer before


def test_a_quantizer_of_what_arrives_reads_it_once_more():
    """Where results are quantized, too, a look at an input loads what memory has: no more."""
    both = recipe({"output": "hindsight@int8", "input": "current@int4"})
    keys = {"name": "fc", "op": "linear", "in_channels": 6, "out_channels": 5, "batch": 7}
    found = under(both, (layer_from_json(keys),), pass_name="forward")
    assert found.bits_for(LOOK) == 42 * 4
    held = under(both, (layer_from_json(keys),), Chip(21), "forward")
    assert (held.bits_for(LOOK), held.bits_for(ON_CHIP)) == (0, 42 * 4)


def test_a_weight_gradient_that_is_quantized_is_looked_at():
    found = under(recipe({"grad_weight": "current@int8"}), pass_name="backward")
    weights = sum(layer.counts().weight for layer in NETWORKS[0].layers)
    assert found.bits_for(LOOK) == 2 * 32 * weights


# --- a slow walk --------------------------------------------------------------------------------


def walked_tensor(operand: Operand, bits: int, size: int, scale: int) -> tuple[int, int]:
    """Payload and scale bits, element by element: one scale for each block met."""
    assert operand.shape is not None
    axis = operand.channel_axis % len(operand.shape)
    payload, met = 0, set()
    for at in itertools.product(*map(range, operand.shape)):
        payload += bits
        met.add((at[:axis], at[axis] // size, at[axis + 1 :]))
    return payload, len(met) * scale


def walked(work: Work, bits: int, size: int, scale: int) -> tuple[int, int]:
    """Of a work under a block format; the gradient of a weight stays in 32 bits."""
    found = [0, 0]
    for operand in (*work.reads, work.made):
        kept = operand.kind == "grad_weight"
        payload, scales = walked_tensor(operand, 32 if kept else bits, size, 0 if kept else scale)
        found = [found[0] + payload, found[1] + scales]
    return found[0], found[1]


@pytest.mark.parametrize(
    ("text", "bits", "size", "scale"),
    [("local@mxfp8", 8, 32, 8), ("local@mxfp6-e2m3", 6, 32, 8), ("hindsight@nvfp4", 4, 16, 8)],
)
@pytest.mark.parametrize("channels", [1, 16, 33, 40])
def test_block_formats_against_a_walk_over_every_element(text, bits, size, scale, channels):
    """Short rows, and rows with a short block at their end, forward and backward."""
    keys = {"name": "l", "op": "conv2d", "in_channels": channels, "out_channels": 3, "kernel": 3}
    layer = layer_from_json(keys | {"input": [3, 4], "batch": 2, "padding": 1})
    (works,) = network_works((layer,), "both")
    found = under(text, (layer,))
    payload, scales = map(sum, zip(*(walked(w, bits, size, scale) for w in works), strict=True))
    assert (found.bits_for(DATA), found.bits_for(SCALES)) == (payload, scales)


# --- the command --------------------------------------------------------------------------------

ASKED = (
    "--quantizer", "hindsight@int8", "--quantizer", "current@int8", "--recipe", "mxfp8",
)  # fmt: skip


def test_every_named_recipe_has_a_bill():
    names = [name for entry in RECIPES for name in entry.members if entry.package is None]
    words = [word for name in names for word in ("--recipe", name)]
    found = json.loads(hqtool("traffic", RESNET, "--pass", "both", *words, "--json", "-").out)
    assert [row["name"] for row in found["quantizers"]] == names
    whole = {row["name"]: row["bytes"] for row in found["quantizers"]}
    assert max(whole.values()) == whole["none"]


def test_json_and_csv_say_the_same_and_layers_add_up():
    words = [*ASKED, "--energy", "horowitz-2014", "--bandwidth", "25GB/s", "--buffer", "1MiB"]
    found = json.loads(hqtool("traffic", RESNET, *words, "--json", "-").out)
    rows = list(csv.DictReader(io.StringIO(hqtool("traffic", RESNET, *words, "--csv", "-").out)))
    assert [row["name"] for row in rows] == ["hindsight@int8", "current@int8", "mxfp8"]
    for row, flat in zip(found["quantizers"], rows, strict=True):
        assert float(flat["bytes"]) == row["bytes"]
        parts = ("payload_bytes", "scale_bytes", "look_bytes", "again_bytes")
        assert row["bytes"] == sum(row[part] for part in parts)
        for name in (*parts, "bytes", "on_chip_bytes"):
            assert row[name] == sum(layer[name] for layer in row["layers"])
        assert row["seconds"] == pytest.approx(row["bytes"] / 25e9)
        sram = 100 / 64 * row["on_chip_bytes"]
        assert row["joules"] == pytest.approx(8e-12 * (20.3125 * row["bytes"] + sram))
    assert found["settings"]["buffer_bytes"] == 1 << 20
    assert {"layers", "total"} <= found.keys()


def test_another_batch_is_that_of_every_layer():
    by_word = json.loads(hqtool("traffic", RESNET, "--batch", "3", "--json", "-").out)["total"]
    thrice = with_bits(tuple(replace(each, batch=3) for each in NETWORKS[1].layers), "forward")
    assert by_word["static_bytes"] * 8 == thrice.static_bits


def test_a_batch_that_does_not_divide_is_refused(tmp_path: Path):
    """Windows of a picture are samples of their own: here four of each one, of an even number."""
    layer = {"op": "linear", "in_channels": 2, "out_channels": 2}
    layers = [layer | {"name": "a", "batch": 2}, layer | {"name": "b", "batch": 3}]
    place = tmp_path / "net.json"
    place.write_text(json.dumps({"schema": "hqtool.layers/1", "layer": layers}))
    assert hqtool("traffic", place, "--batch", "4").status == 0
    done = hqtool("traffic", place, "--batch", "3")
    assert done.status == 2
    assert "layer 'b' has a batch of 3 where the first has 2" in done.err


def test_a_sweep_ends_where_its_layers_say():
    found = json.loads(
        hqtool("traffic", RESNET, "--sweep", "buffer=64KiB..4MiB", "--json", "-").out
    )["sweep"]
    sizes = [row["buffer_bytes"] for row in found["sizes"]]
    assert sizes == [65536, 131072, 262144, 524288, 1048576, 2097152, 4194304]
    spec = NETWORKS[1]
    for row in found["sizes"]:
        bill = with_bits(spec.layers, "forward", Chip(row["buffer_bytes"]))
        assert (row["static_bytes"] * 8, row["bytes"] * 8) == (bill.static_bits, bill.dynamic_bits)
    for layer, row in zip(spec.layers, found["free_from_bytes"], strict=True):
        assert row["dynamic"] == 4 * layer.counts().output
        for size, free in ((row["dynamic"] - 1, False), (row["dynamic"], True)):
            assert (with_bits((layer,), "forward", Chip(size)).overhead == 0) == free


def test_tables_fit_a_terminal_and_say_what_they_mean():
    words = [*ASKED, "--pass", "both", "--buffer", "1MiB", "--energy", "horowitz-2014"]
    done = hqtool("traffic", RESNET, *words, "--bandwidth", "25GB/s")
    assert "MiB a step, buffer 1.0 MiB, energy horowitz-2014, 25 GB/s" in " ".join(done.out.split())
    assert "A step moves least under" in done.out
    swept = hqtool("traffic", RESNET, *ASKED, "--sweep", "buffer=1MiB..3MiB", "--tiling")
    assert "looks are free in every layer from 3.1 MiB on (conv1)" in " ".join(swept.out.split())
    plain = hqtool("traffic", RESNET, "--energy")
    assert "quantization" in plain.out
    for each in (done, swept, plain):
        assert each.status == 0
        assert all(len(line) <= 80 for line in each.out.splitlines())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--tiling"], "--tiling needs a buffer"),
        (["--tiling", "--buffer", "3B"], "does not hold one accumulator"),
        (["--sweep", "buffer=1MiB..4MiB", "--buffer", "1MiB"], "leave --buffer out"),
        (["--sweep", "buffer=4MiB..1MiB"], "ends before it begins"),
        (["--sweep", "4MiB..1MiB"], "is not a sweep of buffers"),
        (["--sweep", "buffer=0..1MiB"], "is not a sweep of buffers"),
        (["--bandwidth", "25"], "'25' is not a bandwidth"),
        (["--energy", "none"], "unknown energy table 'none'"),
        (["--quantizer", "int8"], "write hindsight@int8"),
        (["--recipe", "mxfp9"], "did you mean 'mxfp8'?"),
        (["--unquantized", "0"], "0 is not in the range"),
    ],
)
def test_wrong_words(words, told):
    done = hqtool("traffic", RESNET, *words)
    assert done.status == 2
    assert told in " ".join(done.err.split())
