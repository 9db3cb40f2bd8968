"""What recipes give the sites of a trace, and what they cost there in total."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hqtool.compare.recipe_sites import (
    SiteQuantizer,
    class_of_op,
    layers_in_order,
    recipe_sites,
)
from hqtool.compare.recipe_totals import RecipeTotal, alike, at_shared_sites, gain_db, recipe_totals
from hqtool.compare.results import Summary
from hqtool.core.metrics import METRICS
from hqtool.estimators.quantizer import parse_quantizer
from hqtool.recipes.recipe import Recipe
from hqtool.recipes.recipe_file import SCHEMA, parse_recipe
from hqtool.report.compared.recipes import recipe_sentence, recipe_tables
from hqtool.vocab import Site

A, B, B_GRAD, A_GRAD = (
    Site("a", "output"), Site("b", "output"), Site("b", "grad_input"), Site("a", "grad_input")
)  # fmt: skip
SITES = (A, B, B_GRAD, A_GRAD)
INT8, HALF = "current@int8", "hindsight@int4"


def recipe(name: str, *rules: dict[str, Any]) -> Recipe:
    return parse_recipe(json.dumps({"schema": SCHEMA, "rule": rules}), name)


def given_by(one: Recipe, sites: tuple[Site, ...] = SITES) -> dict[Site, tuple[str | None, str]]:
    """Site → its quantizer's label and the kind that it is meant for."""
    found = recipe_sites([one], sites, lambda layer: None).of_recipe(one.name)
    return {site: (label(given), given.tensor) for site, given in found.items()}


def label(given: SiteQuantizer) -> str | None:
    return given.quantizer.label if given.quantizer else None


# --- which quantizer where ----------------------------------------------------------------------


def test_operands_stand_for_results_that_alone_were_recorded():
    """A recipe of inputs and weights, on a trace of outputs: what is made here is read there."""
    operands = recipe("operands", {"input": INT8, "weight": INT8, "grad_output": HALF})
    assert given_by(operands) == {
        A: (INT8, "input"),
        B: (INT8, "input"),
        B_GRAD: (HALF, "grad_output"),
        A_GRAD: (HALF, "grad_output"),
    }
    found = recipe_sites([operands], SITES, lambda layer: None)
    assert found.missing == {"operands": ("weight",)}


def test_no_stand_in_where_the_trace_or_the_recipe_has_the_kind_itself():
    operands = recipe("operands", {"input": INT8})
    both = (A, Site("a", "input"))
    assert given_by(operands, both) == {A: (None, "output"), both[1]: (INT8, "input")}
    mixed = recipe("mixed", {"input": INT8}, {"layers": ["b"], "output": HALF})
    assert given_by(mixed, (A, B)) == {A: (None, "output"), B: (HALF, "output")}
    assert recipe_sites([mixed], (A, B), lambda layer: None).missing == {"mixed": ("input",)}


@pytest.mark.parametrize(
    ("sites", "order"),
    [
        (SITES, ["a", "b"]),
        ((B_GRAD, A_GRAD), ["a", "b"]),
        ((B_GRAD, A_GRAD, A), ["a", "b"]),
        ((Site("w", "weight"), A), ["w", "a"]),
    ],
)
def test_layers_are_in_the_order_of_the_forward_pass(sites, order):
    assert layers_in_order(sites) == order


@pytest.mark.parametrize(
    ("op", "names"),
    [
        ("conv2d", ("Conv2d",)),
        ("conv_transpose1d", ("ConvTranspose1d",)),
        ("linear", ("Linear",)),
        ("LSTM", ("LSTM",)),
        (None, None),
    ],
)
def test_the_class_of_a_layer_is_told_by_its_op(op, names):
    assert class_of_op(None if op is None else {"op": op}) == names


def test_layers_of_unknown_class_are_told_by_recipe():
    typed = recipe("typed", {"types": ["Linear"], "output": INT8})
    known = {"a": ("Narrow", "Linear")}
    found = recipe_sites([typed, recipe("other", {"output": INT8})], SITES, known.get)
    assert found.unjudged == {"typed": ("b",)}
    assert list(map(label, found.given[A])) == [INT8, INT8]
    assert found.quantizers(A) == (parse_quantizer(INT8),)
    assert found.of_recipe("typed")[B].quantizer is None


def test_names_that_no_layer_has_are_told_by_recipe():
    rules = ({"layers": ["a", "c*"], "output": INT8}, {"types": ["Conv2d", "Linear"]})
    one = recipe("one", *rules)
    known = {"a": ("Narrow", "Linear"), "b": ("Linear",)}
    assert recipe_sites([one], SITES, known.get).unmet == {"one": ("c*", "Conv2d")}
    assert recipe_sites([one], SITES, {}.get).unmet == {"one": ("c*",)}


# --- totals -------------------------------------------------------------------------------------


def summary(site: Site, label: str | None, recipe: str | None = "r", **figures: Any) -> Summary:
    """A site's summary, twenty records of ten steps, under a quantizer or none."""
    quantizer = parse_quantizer(label) if label else None
    estimator, format_, rounding = quantizer.key if quantizer else ("none", "none", "none")
    metrics = dict.fromkeys(METRICS) | {
        k: figures.pop(k, None) for k in ("sqnr_db", "cosine", "noise")
    }
    return Summary(
        layer=site.layer, tensor=site.tensor, estimator=estimator, format=format_,
        rounding=rounding, bits=quantizer.bits if quantizer else 32, steps=4, metrics=metrics,
        records=20, replayed=20, replayed_steps=10, evaluations=0, postponed=0, sampled=0,
        recipe=recipe, **figures,
    )  # fmt: skip


SUMMARIES = [
    summary(A, INT8, sqnr_db=40.0, sqnr_db_low=30.0, cosine=0.9, looks=20,
            static_bytes=80, traffic_bytes=120),
    summary(B, INT8, sqnr_db=30.0, sqnr_db_low=None, cosine=None, looks=20,
            static_bytes=160, traffic_bytes=240),
    summary(B_GRAD, HALF, sqnr_db=None, sqnr_db_low=None, cosine=0.7, looks=2,
            static_bytes=None, traffic_bytes=None),
    summary(A_GRAD, None, cosine=1.0, looks=0, static_bytes=320, traffic_bytes=320),
    summary(A, HALF, None, sqnr_db=1.0, cosine=0.1, looks=9, static_bytes=1, traffic_bytes=1),
]  # fmt: skip


def totals(summaries: list[Summary]) -> dict[tuple[str, str | None], RecipeTotal]:
    return {(total.recipe, total.tensor): total for total in recipe_totals(summaries)}


def test_means_over_the_quantized_sites_and_sums_a_step():
    found = totals(SUMMARIES)
    assert list(found) == [("r", "output"), ("r", "grad_input"), ("r", None)]
    output = found["r", "output"]
    assert (output.sites, output.unquantized) == (2, 0)
    assert (output.sqnr_db, output.sqnr_db_low, output.cosine) == (35.0, 30.0, 0.9)
    assert (output.static_bytes, output.traffic_bytes) == (2 * (80 + 160), 2 * (120 + 240))
    assert output.looks == 4.0
    assert output.worst == B


def test_what_is_not_quantized_has_no_quality_but_moves_as_float32():
    gradient = totals(SUMMARIES)["r", "grad_input"]
    assert (gradient.sites, gradient.unquantized) == (2, 1)
    assert (gradient.sqnr_db, gradient.cosine, gradient.worst) == (None, 0.7, None)
    assert (gradient.static_bytes, gradient.traffic_bytes) == (640, 640)
    assert gradient.looks == 0.2


def test_the_total_is_over_the_sites_and_not_over_the_kinds():
    total = totals(SUMMARIES)["r", None]
    assert (total.sites, total.unquantized, total.sqnr_db) == (4, 1, 35.0)
    assert total.cosine == pytest.approx((0.9 + 0.7) / 2)
    assert (total.static_bytes, total.looks) == (480 + 640, pytest.approx(4.2))


def test_qualities_are_compared_where_both_quantize():
    """s leaves b as it is: over a alone it gains 2 dB, though its mean is 7 dB above r's."""
    other = [summary(A, INT8, "s", sqnr_db=42.0, looks=0, static_bytes=1, traffic_bytes=360),
             summary(B, None, "s", looks=0, static_bytes=1, traffic_bytes=360)]  # fmt: skip
    both = [*SUMMARIES[:2], *other]
    found = recipe_totals(both)
    assert gain_db("s", "r", both) == (2.0, 1)
    assert gain_db("r", "r", both) == (0.0, None)
    assert recipe_sentence(found, both) == (
        "In total, against r: s gains 2.00 dB at the 1 site that both quantize and moves 100 % "
        "more memory traffic."
    )


def test_no_best_quality_where_recipes_quantize_different_sites():
    other = [summary(A, INT8, "s", sqnr_db=42.0, looks=0, static_bytes=1, traffic_bytes=360),
             summary(B, None, "s", looks=0, static_bytes=1, traffic_bytes=360)]  # fmt: skip
    both = [*SUMMARIES[:2], *other]
    assert not alike(both)
    assert alike(both[:3]) is False
    (table,) = recipe_tables(recipe_totals(both), both)
    assert [c.key for c in table.columns if c.best] == ["noise", "traffic_bytes"]
    nothing = summary(A, None, "none", looks=0, static_bytes=1, traffic_bytes=1)
    assert alike([*SUMMARIES[:2], nothing])


UNBILLED = {"looks": 0, "static_bytes": None, "traffic_bytes": None}


def test_noise_adds_up_forward_and_is_a_mean_over_layers_backward():
    """Of two layers: outputs 0.1 + 0.02, gradients (0.3 + 0.1) / 2; what is exact adds nothing."""
    noises = {A: 0.1, B: 0.02, B_GRAD: 0.3, A_GRAD: 0.1}
    found = totals(
        [summary(site, INT8, "r", noise=noise, **UNBILLED) for site, noise in noises.items()]
    )
    assert found["r", "output"].noise == pytest.approx(0.12)
    assert found["r", "grad_input"].noise == pytest.approx(0.2)
    assert found["r", None].noise == pytest.approx(0.32)
    some = totals(
        [summary(A, INT8, "s", noise=0.1, **UNBILLED), summary(B, INT8, "s", **UNBILLED),
         summary(A_GRAD, None, "s", noise=0.0, **UNBILLED)]
    )  # fmt: skip
    assert found_noise(some, "s") is None  # b was not scored: a sum without it would be too low
    assert found_noise(totals([summary(A, None, "n", noise=0.0, **UNBILLED)]), "n") is None


def found_noise(of: dict[tuple[str, str | None], RecipeTotal], recipe: str) -> float | None:
    return of[recipe, None].noise


def test_means_to_compare_are_over_the_sites_that_all_quantize():
    """Without b, which s leaves as it is, s is ahead of r by 2 dB and not by 7."""
    other = [summary(A, INT8, "s", sqnr_db=42.0, looks=0, static_bytes=1, traffic_bytes=360),
             summary(B, None, "s", looks=0, static_bytes=1, traffic_bytes=360)]  # fmt: skip
    nothing = summary(A, None, "none", looks=0, static_bytes=1, traffic_bytes=1)
    found = totals(at_shared_sites([*SUMMARIES[:2], *other, nothing]))
    assert (found["r", None].sqnr_db, found["s", None].sqnr_db) == (40.0, 42.0)
    assert ("none", None) not in found
    assert at_shared_sites([nothing]) == []


def test_nothing_is_gained_where_no_site_is_shared():
    other = [
        summary(A, None, "s", looks=0, static_bytes=1, traffic_bytes=360),
        summary(B, INT8, "s", sqnr_db=9.0, looks=0, static_bytes=1, traffic_bytes=240),
    ]
    first = [SUMMARIES[0], summary(B, None, looks=0, static_bytes=1, traffic_bytes=1)]
    assert gain_db("s", "r", [*first, *other]) == (None, 0)


def test_recipes_side_by_side_in_their_order():
    other = [summary(A, None, "none", cosine=1.0, looks=0, static_bytes=None, traffic_bytes=None)]
    found = totals([*other, *SUMMARIES])
    assert list(dict.fromkeys(name for name, _ in found)) == ["none", "r"]
    nothing = found["none", None]
    assert (nothing.sqnr_db, nothing.cosine, nothing.exact, nothing.looks) == (None, None, False, 0)
    assert (nothing.static_bytes, nothing.traffic_bytes) == (None, None)


def test_what_a_layer_puts_out_moves_as_what_alike_is_read():
    """A recipe of inputs at int8: a's output of 10 elements is stored so, and so dynamic.

    320 bytes at 32 bits are 80 at 8; each look at 50 inputs moved 100 elements, so one at 10
    outputs moves 20 of 4 bytes.
    """
    output = summary(A, None, looks=0, static_bytes=320, traffic_bytes=320, elements=10)
    read = summary(
        Site("a", "input"), INT8, looks=20, static_bytes=None, traffic_bytes=None,
        elements=50, spilled=100,
    )  # fmt: skip
    alone, both = totals([output])["r", None], totals([output, read])
    assert (alone.static_bytes, alone.traffic_bytes) == (640, 640)
    total = both["r", None]
    assert (total.static_bytes, total.traffic_bytes) == (2 * 80, 2 * (80 + 80))
    assert both["r", "output"].traffic_bytes == 320
    assert both["r", "input"].traffic_bytes is None


def test_looks_within_the_buffer_are_told_of_sites_that_have_a_bill():
    """As above, but the buffer holds the looks at what is read; and one at a weight, unbilled."""
    output = summary(A, None, looks=0, static_bytes=320, traffic_bytes=320, elements=10)
    others = [
        summary(
            Site("a", kind), INT8, looks=20, static_bytes=None, traffic_bytes=None,
            elements=50, on_chip=100,
        )
        for kind in ("input", "weight")
    ]  # fmt: skip
    total = totals([output, *others])["r", None]
    assert (total.static_bytes, total.traffic_bytes) == (2 * 80, 2 * 80)
    assert total.on_chip_bytes == 2 * 80


def test_a_kind_that_a_recipe_quantizes_elsewhere_keeps_its_own_bill():
    output = summary(A, None, looks=0, static_bytes=320, traffic_bytes=320, elements=10)
    read = summary(Site("a", "input"), INT8, looks=0, static_bytes=None, traffic_bytes=None)
    other = summary(B, INT8, looks=0, static_bytes=1, traffic_bytes=1)
    assert totals([output, read, other])["r", "output"].static_bytes == 2 * 321


def test_a_recipe_without_error_is_exact():
    perfect = summary(A, INT8, exact=True, cosine=1.0, looks=1, static_bytes=1, traffic_bytes=1)
    assert totals([perfect])["r", None].exact
    assert not totals([perfect, *SUMMARIES])["r", None].exact
