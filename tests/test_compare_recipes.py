"""Whole recipes in compare: lanes beside others, computed once, summed up, `none` told."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command import hqtool

from hqtool import TraceWriter

RNG = np.random.default_rng(7)

RECIPE = """
schema = "hqtool.recipe/1"
[[rule]]
layers = ["*"]
output = "hindsight@int8"
grad_input = "current@e4m3/stochastic"
[[rule]]
layers = ["head"]
output = "none"
"""

GEOMETRY = {"op": "linear", "in_channels": 5, "out_channels": 10, "input": [1], "batch": 8}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Two layers, four steps, and a recipe's file."""
    folder = tmp_path_factory.mktemp("recipes")
    with TraceWriter(folder / "t.h5") as writer:
        for layer in ("body", "head"):
            writer.describe(layer, GEOMETRY | {"name": layer})
        for step in range(4):
            for layer in ("body", "head"):
                writer.write(layer, "output", step, RNG.standard_normal((8, 10)).astype("f4"))
                writer.write(layer, "grad_input", step, RNG.standard_normal((8, 5)).astype("f4"))
            writer.commit(step)
    (folder / "mine.toml").write_text(RECIPE)
    return folder


def compared(here, *args):
    done = hqtool("compare", here / "t.h5", "--json", "-", "-q", *args)
    assert done.status == 0, done.err
    return json.loads(done.out)


def named(row):
    return row["layer"], row["tensor"], row["estimator"], row["format"], row["rounding"]


def test_a_recipe_is_the_quantizers_that_it_gives(here):
    found = compared(here, "--recipe", here / "mine.toml", "--per-step")
    assert found["settings"]["quantizers"] == []
    assert [named(row) for row in found["summary"]] == [
        ("body", "output", "hindsight", "int8", "nearest"),
        ("body", "grad_input", "current", "e4m3", "stochastic"),
        ("head", "output", "none", "none", "none"),
        ("head", "grad_input", "current", "e4m3", "stochastic"),
    ]
    assert {row["recipe"] for row in found["summary"]} == {str(here / "mine.toml")}
    assert len(found["steps"]) == 3 * 4
    alone = compared(here, "--quantizer", "hindsight@int8", "--tensors", "output")["summary"][0]
    assert alone["recipe"] is None
    assert found["summary"][0] == alone | {"recipe": str(here / "mine.toml")}


def test_what_several_ask_for_is_computed_once(here):
    both = ("--recipe", here / "mine.toml", "--quantizer", "hindsight@int8", "--per-step")
    found = compared(here, *both)
    outputs = [row for row in found["summary"] if row["tensor"] == "output"]
    assert [(row["layer"], row["recipe"] is None) for row in outputs] == [
        ("body", True), ("body", False), ("head", True), ("head", False)
    ]  # fmt: skip
    assert outputs[0] == outputs[1] | {"recipe": None}
    rows = [(row["step"], *named(row)) for row in found["steps"]]
    assert len(rows) == len(set(rows)) == 4 * (2 + 4)  # one lane at outputs, two at gradients


def test_what_stays_as_it_is_is_exact_and_billed_as_float32(here):
    """W 50, X 40, Y 80 elements: 170 · 4 bytes."""
    found = compared(here, "--recipe", "none")
    for row in found["summary"]:
        assert (row["estimator"], row["bits"], row["looks"], row["exact"]) == ("none", 32, 0, True)
        assert (row["mse"], row["cosine"], row["sqnr_db"], row["steps"]) == (0, 1, None, 4)
        assert row["static_bytes"] == row["traffic_bytes"] == 170 * 4
    assert "none" in hqtool("compare", here / "t.h5", "--recipe", "none").out


def test_totals_are_sums_and_means_of_rows(here):
    found = compared(here, "--recipe", here / "mine.toml", "--recipe", "none")
    mine = [row for row in found["recipes"] if row["recipe"] == str(here / "mine.toml")]
    assert [row["tensor"] for row in mine] == ["output", "grad_input", None]
    rows = [row for row in found["summary"] if row["recipe"] == str(here / "mine.toml")]
    whole = mine[-1]
    assert (whole["sites"], whole["unquantized"]) == (4, 1)
    quantized = [row for row in rows if row["estimator"] != "none"]
    for figure in ("sqnr_db", "sqnr_db_low", "cosine"):
        assert whole[figure] == pytest.approx(np.mean([row[figure] for row in quantized]))
    assert whole["traffic_bytes"] == pytest.approx(sum(row["traffic_bytes"] for row in rows))
    assert whole["looks"] == pytest.approx(sum(row["looks"] for row in rows) / 4)


def test_several_traces_each_have_their_recipes(here, tmp_path):
    """What limits the figures of all is said once."""
    other = tmp_path / "other.h5"
    other.write_bytes((here / "t.h5").read_bytes())
    recipes = ("--recipe", "te-delayed", "--recipe", here / "mine.toml")
    done = hqtool("compare", here / "t.h5", other, *recipes)
    assert " ".join(done.out.split()).count("in total (4 sites") == 2
    _, *notes = " ".join(done.out.split()).split("note: ")
    assert len(notes) == len(set(notes)) > 0
    found = compared(here, *recipes, other)
    whole = [row for row in found["recipes"] if row["tensor"] is None]
    assert [row["trace"] for row in whole] == [str(here / "t.h5")] * 2 + [str(other)] * 2
    assert whole[0] == whole[2] | {"trace": str(here / "t.h5")}


def test_an_unknown_recipe_is_answered_with_the_nearest(here):
    done = hqtool("compare", here / "t.h5", "--recipe", "paper-w8a8g9")
    assert (done.status, done.out) == (2, "")
    assert "did you mean 'paper-w8a8g8'" in done.err


def without_spaces(text):
    return "".join(text.split())


def test_what_does_not_differ_is_told_as_the_same(here, tmp_path):
    copy = tmp_path / "copy.toml"
    copy.write_text(RECIPE + '[[rule]]\nlayers = ["nowhere*", "gate"]\noutput = "none"\n')
    args = ("--recipe", here / "mine.toml", "--recipe", copy)
    done = hqtool("compare", here / "t.h5", *args, *("--quantizer", "hindsight@int8"))
    told = without_spaces(done.out)  # a long path is folded
    assert without_spaces(f"{copy} has the same SQNR and moves as much memory traffic.") in told
    unmet = f"no layer of the trace matches nowhere* or gate, which {copy} names"
    assert without_spaces(unmet) in told
    twice = [word for m in ("", ":momentum=0.9") for word in ("--quantizer", f"hindsight{m}@int8")]
    twice += ["--quantizer", "current@int4"]
    told = " ".join(hqtool("compare", here / "t.h5", *twice).out.split())
    assert "has the same SQNR on output and on grad_input and moves as much" in told


def test_by_layer_shows_what_a_recipe_gives_each(here):
    done = hqtool("compare", here / "t.h5", "--recipe", here / "mine.toml", "--by", "layer")
    assert done.status == 0, done.err
    table = done.out.partition("output, recipes by layer")[2].partition("\n\n")[0]
    body, head = table.partition("body\n")[2].split("head\n")
    assert "hindsight@int8" in body
    assert ("none" in head, head.count("–")) == (True, 4)


def test_a_recipe_is_never_overwritten(here):
    mine = here / "mine.toml"
    before = mine.read_text()
    done = hqtool("compare", here / "t.h5", "--recipe", mine, "--json", mine, "-f")
    assert (done.status, done.out, mine.read_text()) == (2, "", before)
    assert "is an input (NAME|FILE)" in done.err


def test_an_empty_tensor_left_as_it_is_has_no_share_of_what_is_not_finite(tmp_path):
    """Of three records one is empty, one holds a NaN among two values: the mean share is 1/4."""
    with TraceWriter(tmp_path / "t.h5") as writer:
        for step, values in enumerate(([], [1.0, np.nan], [1.0, 2.0])):
            writer.write("a", "output", step, np.array(values, np.float32))
            writer.commit(step)
    done = hqtool("compare", tmp_path / "t.h5", "--recipe", "none", "--json", "-", "-q")
    assert (done.status, done.err) == (0, "")
    (row,) = json.loads(done.out)["summary"]
    assert (row["nonfinite"], row["steps"], row["mse"]) == (0.25, 2, 0.0)
