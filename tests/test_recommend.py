"""`hqtool recommend`: its choice against compare's figures, its recipe, documents and errors."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from command import hqtool

from hqtool import TraceWriter
from hqtool.compare.recommending.recipe import escaped
from hqtool.compare.recommending.recommendation import DEFAULT_CANDIDATES
from hqtool.recipes.layer_facts import LayerFacts
from hqtool.recipes.named import load_recipe
from hqtool.traffic.layers import layer_from_json

DIGITS = str(Path(__file__).parent.parent / "sample_data" / "digits.h5")
RNG = np.random.default_rng(11)

#: Layers whose names are globs, and match one another.
LAYERS = ("head", "blocks.0", "blocks.[0]", "blocks.*", "block?")

QUANTIZERS = ("hindsight@int4", "current@int4", "hindsight@int8", "current@int8", "local@mxfp8")


def given(*quantizers):
    return [word for quantizer in quantizers for word in ("--quantizer", quantizer)]


def document(*args, status=0):
    done = hqtool("recommend", *args, "--json", "-")
    assert done.status == status, done.err
    return json.loads(done.out)


def geometry(name):
    return layer_from_json(
        {"name": name, "op": "linear", "in_channels": 32, "out_channels": 16}
    ).to_json()


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    """Layers of ever heavier tails, whose scale grows from step to step."""
    path = tmp_path_factory.mktemp("recommend") / "run.h5"
    with TraceWriter(path) as writer:
        for layer in LAYERS:
            writer.describe(layer, geometry(layer))
        for step in range(6):
            for power, layer in enumerate(LAYERS, start=1):
                for kind, columns in (("output", 16), ("grad_input", 32)):
                    x = RNG.standard_normal((8, columns)) * 1.02**step
                    writer.write(layer, kind, step, (np.sign(x) * np.abs(x) ** power).astype("f4"))
            writer.commit(step)
    return str(path)


# --- the choice ---------------------------------------------------------------------------------


def rows_of_compare(trace, quantizers, *args):
    """(layer, tensor) → label → compare's row."""
    done = hqtool("compare", trace, *given(*quantizers), *args, "--json", "-")
    assert done.status == 0, done.err
    sites = {}
    for row in json.loads(done.out)["summary"]:
        label = f"{row['estimator']}@{row['format']}"
        if row["rounding"] != "nearest":
            label += f"/{row['rounding']}"
        sites.setdefault((row["layer"], row["tensor"]), {})[label] = row
    return sites


def expected(rows, bound):
    """The choice for `cosine>=bound`, by going through compare's rows one after the other."""
    best = "none"
    for label, row in rows.items():
        if row["cosine"] is None or row["cosine"] < bound:
            continue
        if best == "none" or row["traffic_bytes"] < rows[best]["traffic_bytes"]:
            best = label
        elif row["traffic_bytes"] == rows[best]["traffic_bytes"]:
            mine, theirs = (
                math.inf if rows[each]["exact"] else rows[each]["sqnr_db"] for each in (label, best)
            )
            best = label if mine > theirs else best
    return best


@pytest.mark.parametrize("bound", [0.99, 0.999, 0.9999])
def test_each_site_gets_the_cheapest_that_is_good_enough_of_compares_rows(bound):
    sites = rows_of_compare(DIGITS, DEFAULT_CANDIDATES)
    want = {site: expected(rows, bound) for site, rows in sites.items()}
    assert len(set(want.values())) > 1
    found = document(DIGITS, "--target", f"cosine>={bound}", status=int("none" in want.values()))
    assert {(row["layer"], row["tensor"]): row["quantizer"] for row in found["chosen"]} == want
    for row in found["chosen"]:
        of_compare = sites[row["layer"], row["tensor"]].get(row["quantizer"])
        if of_compare is not None:
            assert row["bytes"] == pytest.approx(of_compare["traffic_bytes"])
            for key in ("cosine", "sqnr_db", "saturation", "sqnr_db_low", "format", "estimator"):
                assert row[key] == of_compare[key]


def test_totals_counts_and_front_add_up():
    """Against sums over compare's rows, and the front against every pair."""
    sites = rows_of_compare(DIGITS, DEFAULT_CANDIDATES)
    found = document(DIGITS, "--target", "cosine>=0.99")
    mixed, *uniform, none = found["totals"]
    assert (mixed["choice"], none["choice"]) == ("mixed", "none")
    assert [row["choice"] for row in uniform] == list(DEFAULT_CANDIDATES)
    assert mixed["bytes"] == pytest.approx(sum(row["bytes"] for row in found["chosen"]))
    for total in uniform:
        rows = [rows[total["choice"]] for rows in sites.values()]
        assert total["bytes"] == pytest.approx(sum(row["traffic_bytes"] for row in rows))
        assert total["cosine"] == pytest.approx(np.mean([row["cosine"] for row in rows]))
        assert total["worst_cosine"] == min(row["cosine"] for row in rows)
        assert total["met"] == sum(row["cosine"] >= 0.99 for row in rows)
    for row in found["totals"]:
        beaten = any(
            other["bytes"] <= row["bytes"]
            and other["cosine"] >= row["cosine"]
            and (other["bytes"] < row["bytes"] or other["cosine"] > row["cosine"])
            for other in found["totals"]
        )
        assert row["on_front"] == (not beaten)
    assert [row["bytes"] for row in found["pareto"]] == sorted(
        row["bytes"] for row in found["totals"] if row["on_front"]
    )
    for kind in ("output", "grad_input"):
        counts = [row for row in found["candidates"] if row["tensor"] == kind]
        layers = sum(tensor == kind for _, tensor in sites)
        assert sum(row["chosen"] for row in counts) == layers
        for row in counts:
            assert row["chosen"] + row["dearer"] + row["missed"] == layers


def test_within_compares_with_current_at_the_same_format(trace):
    sites = rows_of_compare(trace, QUANTIZERS)
    candidates = ("hindsight@int4", "current@int8")
    found = document(trace, "--within", "1dB", *given(*candidates))
    for row in found["chosen"]:
        rows = sites[row["layer"], row["tensor"]]
        near = rows["hindsight@int4"]["sqnr_db"] >= rows["current@int4"]["sqnr_db"] - 1
        assert row["quantizer"] == ("hindsight@int4" if near else "current@int8")
    assert {row["choice"] for row in found["totals"]} == {"mixed", *candidates, "none"}
    fixed = document(trace, "--within", "1dB of current@int8", *given(*QUANTIZERS))
    for row in fixed["chosen"]:
        assert row["sqnr_db"] >= sites[row["layer"], row["tensor"]]["current@int8"]["sqnr_db"] - 1


def test_ties_go_to_the_better_and_a_site_that_nothing_suits_to_none(trace):
    """Both formats move eight bits; no site can have less than no error."""
    found = document(
        trace, "--target", "cosine>=0", *given("fixed:lo=-1,hi=1@int8", "current@int8")
    )
    assert {row["why"] for row in found["chosen"]} == {"the cheapest of 2"}
    none = document(trace, "--target", "sqnr_db>=500", *given("current@int8"), status=1)
    assert {row["quantizer"] for row in none["chosen"]} == {"none"}
    assert not any(row["met"] for row in none["chosen"])
    for row in none["chosen"]:
        assert row["rejected"] == {"current@int8": "misses sqnr_db>=500"}
    text = hqtool("recommend", trace, "--target", "sqnr_db>=500", *given("current@int8")).out
    assert "No candidate is good enough at any site" in " ".join(text.split())
    allowed = ("none", "current@int8")
    assert document(trace, "--target", "sqnr_db>=500", *given(*allowed))["chosen"][0]["met"]


def test_a_site_without_values_is_told_and_left_alone(tmp_path):
    path = tmp_path / "t.h5"
    with TraceWriter(path) as writer:
        writer.write("fc", "output", 0, np.full(64, np.nan, "f4"))
        writer.write("head", "output", 0, np.arange(64, dtype="f4"))
        writer.commit(0)
    args = (str(path), "--target", "cosine>=0.9", *given("current@int8"))
    found = document(*args, status=1)
    assert [(row["quantizer"], row["why"]) for row in found["chosen"]] == [
        ("none", "nothing was scored"), ("current@int8", "the only one that is good enough"),
    ]  # fmt: skip
    assert "at 1 site nothing was scored" in " ".join(hqtool("recommend", *args).out.split())


def test_without_geometry_the_tensor_alone_is_billed(tmp_path):
    """64 elements: at 8 bits 64 bytes; a look at each adds 2 · 32 bits an element."""
    path = tmp_path / "t.h5"
    with TraceWriter(path) as writer:
        for step in range(4):
            writer.write("fc", "weight", step, RNG.standard_normal(64).astype("f4"))
            writer.commit(step)
    candidates = ("current@int8", "hindsight@int8", "hindsight@int4")
    found = document(str(path), "--target", "cosine>=-1", *given(*candidates))
    assert {row["choice"]: row["bytes"] for row in found["totals"]} == {
        "mixed": 32 + 512 / 4, "current@int8": 64 + 512, "hindsight@int8": 64 + 512 / 4,
        "hindsight@int4": 32 + 512 / 4, "none": 256,
    }  # fmt: skip
    text = " ".join(hqtool("recommend", str(path), "--target", "cosine>=0").out.split())
    assert "1 site have no bill" not in text
    assert "bytes are those of the tensor alone" in text


def test_where_nothing_is_scored_nothing_is_recommended(trace):
    args = (trace, "--target", "cosine>=0.9", "--calibrate", "100", *given("current@int8"))
    done = hqtool("recommend", *args, "--sensitivity")
    assert done.status == 1
    assert "Nothing was scored, so nothing can be recommended." in done.out
    assert "recorded after the 100 steps of --calibrate" in " ".join(done.out.split())


def test_where_nothing_is_scored_no_recipe_is_written(trace, tmp_path):
    target = tmp_path / "none.toml"
    args = (trace, "--target", "cosine>=0.9", "--calibrate", "100", "-o", str(target))
    done = hqtool("recommend", *args)
    assert (done.status, target.exists()) == (1, False)
    assert "none.toml is not written: nothing was scored" in done.err


def test_of_several_traces_a_site_must_be_good_enough_in_each(tmp_path):
    """Uniform values lose little at four bits, those of heavy tails much."""
    paths = [str(tmp_path / name) for name in ("a.h5", "b.h5")]
    for rank, draw in enumerate((RNG.random, RNG.standard_cauchy)):
        path = paths[rank]
        with TraceWriter(path, run={"rank": rank, "world_size": 2}) as writer:
            for step in range(2):
                x = draw(512)
                for layer in ("fc", "only-" + path[-4]):
                    writer.write(layer, "output", step, x.astype("f4"))
                writer.commit(step)
    args = ("--target", "sqnr_db>=19", *given("current@int4", "current@int8"))
    first, second = (
        {row["layer"]: row for row in document(path, *args)["chosen"]} for path in paths
    )
    both = {row["layer"]: row for row in document(*paths, *args)["chosen"]}
    assert [each["fc"]["quantizer"] for each in (first, second, both)] == [
        "current@int4", "current@int8", "current@int8",
    ]  # fmt: skip
    assert set(both) == {"fc", "only-a", "only-b"}
    assert both["only-a"] == first["only-a"]
    together = document(*paths, *args, "--reduce-ranks", "--layers", "fc")["chosen"]
    assert [row["layer"] for row in together] == ["fc"]


# --- the recipe ---------------------------------------------------------------------------------


def test_the_recipe_gives_each_site_its_quantizer_again(trace, tmp_path):
    """Though the layers' names are globs that match one another."""
    path = tmp_path / "mine.toml"
    args = (trace, "--target", "cosine>=0.99", *given("hindsight@int4,int5,int6,int7", "none"))
    done = hqtool("recommend", *args, "-o", path, "--json", tmp_path / "r.json")
    chosen = {
        (row["layer"], row["tensor"]): row["quantizer"]
        for row in json.loads((tmp_path / "r.json").read_text())["chosen"]
    }
    assert len(set(chosen.values())) > 2
    assert f"next: hqtool compare {trace} --recipe {path}" in done.err
    recipe = load_recipe(path)
    for (layer, tensor), label in chosen.items():
        quantizer = recipe.quantizer(LayerFacts(layer), tensor)
        assert (quantizer.label if quantizer else "none") == label
    unseen = recipe.quantizer(LayerFacts("unseen"), "output")
    outputs = [label for (_, tensor), label in chosen.items() if tensor == "output"]
    assert outputs.count(unseen.label if unseen else "none") == max(map(outputs.count, outputs))
    assert recipe.quantizer(LayerFacts("head"), "weight") is None


def test_a_recipe_of_some_layers_leaves_the_others_alone(trace):
    args = ("--target", "cosine>=0.5", "--layers", "block*", *given("current@int8"))
    done = hqtool("recommend", trace, *args, "-o", "-")
    assert 'layers = ["block*"]' in done.out
    assert '"*"' not in done.out


def test_a_recipe_whose_name_ends_in_json_is_json(trace, tmp_path):
    args = ("recommend", trace, "--target", "cosine>=0.5", *given("current@int8"))
    for name in ("mine.toml", "mine.json"):
        hqtool(*args, "-o", tmp_path / name)
    assert load_recipe(tmp_path / "mine.json").rules == load_recipe(tmp_path / "mine.toml").rules


def test_compare_runs_the_recipe_as_recommended(tmp_path):
    """The same quantizers and figures at every site, and the same total."""
    path, figures = tmp_path / "mine.toml", tmp_path / "r.json"
    hqtool("recommend", DIGITS, "--target", "sqnr_db>=19", "-o", path, "--json", figures)
    found = json.loads(figures.read_text())
    done = hqtool("compare", DIGITS, "--recipe", path, "--json", "-")
    assert done.status == 0, done.err
    compared = json.loads(done.out)
    rows = {(r["layer"], r["tensor"]): r for r in compared["summary"]}
    assert len(rows) == len(found["chosen"])
    assert len({row["quantizer"] for row in found["chosen"]}) > 2
    for want in found["chosen"]:
        row = rows[want["layer"], want["tensor"]]
        for key in ("estimator", "format", "rounding", "cosine", "sqnr_db"):
            assert row[key] == want[key]
        assert row["traffic_bytes"] == pytest.approx(want["bytes"])
    (total,) = (row for row in compared["recipes"] if row["tensor"] is None)
    assert total["traffic_bytes"] == pytest.approx(found["totals"][0]["bytes"])
    assert total["sqnr_db"] == pytest.approx(found["totals"][0]["sqnr_db"])


@pytest.mark.parametrize("name", LAYERS)
def test_an_escaped_name_matches_itself_alone(name):
    from fnmatch import fnmatchcase

    assert [other for other in LAYERS if fnmatchcase(other, escaped(name))] == [name]


# --- sensitivity --------------------------------------------------------------------------------


def test_sites_are_ranked_at_a_quantizer_with_or_without_a_target(trace):
    rows = rows_of_compare(trace, ["hindsight@int4"])
    errors = {site: 10 ** (-row["hindsight@int4"]["sqnr_db"] / 10) for site, row in rows.items()}
    want = sorted(errors, key=errors.__getitem__, reverse=True)
    for args in ((), ("--target", "cosine>=0.9", *given("local@mxfp8"))):
        found = document(trace, "--sensitivity", "hindsight@int4", *args)
        ranked = found["sensitivity"]
        assert [(row["layer"], row["tensor"]) for row in ranked] == want
        shares = [errors[site] / sum(errors.values()) for site in want]
        assert [row["share"] for row in ranked] == pytest.approx(shares)
        assert ranked[-1]["up_to_here"] == pytest.approx(1)
        assert bool(found["chosen"]) == bool(args)
    text = hqtool("recommend", trace, "--sensitivity").out
    assert "what hindsight@int4 costs each site" in text
    assert "of the error at hindsight@int4." in text


# --- what it prints -----------------------------------------------------------------------------


def test_tables_fit_eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = hqtool(
        "recommend", DIGITS, "--target", "cosine>=0.999", "--sensitivity", "--by", "layer"
    )
    assert max(map(len, done.out.splitlines())) <= 80
    text = " ".join(done.out.split())
    assert "output (11 layers): the cheapest with cosine>=0.999" in text
    assert "21 sites: each its own quantizer (mixed), or one for all" in text
    assert "With each site its own," in text


def test_a_mean_that_hides_a_bad_start_is_told(tmp_path):
    """One record in eleven is clipped to a hundredth of its range."""
    path = tmp_path / "t.h5"
    with TraceWriter(path) as writer:
        for step in range(11):
            x = RNG.uniform(-1, 1, 256).astype("f4")
            writer.write("fc", "output", step, 100 * x if step == 5 else x)
            writer.commit(step)
    args = (str(path), *given("fixed:lo=-1,hi=1@int8"))
    done = hqtool("recommend", *args, "--target", "sqnr_db>=30")
    assert done.status == 0
    told = "at 1 site the worst tenth of the records is more than 3 dB below 30 dB"
    assert told in " ".join(done.out.split())
    low = hqtool("recommend", *args, "--target", "sqnr_db>=30", "--target", "sqnr_db_low>=30")
    assert low.status == 1


def test_csv_has_a_row_for_each_site(trace):
    args = (trace, "--target", "cosine>=0.9", *given(*QUANTIZERS))
    rows = list(csv.DictReader(io.StringIO(hqtool("recommend", *args, "--csv", "-").out)))
    found = document(*args)["chosen"]
    assert [row["quantizer"] for row in rows] == [row["quantizer"] for row in found]
    assert set(rows[0]) == set(found[0]) - {"rejected"}


def test_several_conditions_must_all_hold(trace):
    args = (trace, "--target", "cosine>=0.9", "--target", "underflow<=50%", *given(*QUANTIZERS))
    text = hqtool("recommend", *args).out
    assert "the cheapest with cosine>=0.9 and underflow<=0.5" in text
    found = document(*args)
    assert found["settings"]["targets"] == ["cosine>=0.9", "underflow<=0.5"]
    for row in found["chosen"]:
        assert row["cosine"] >= 0.9
        assert row["underflow"] <= 0.5


@pytest.mark.parametrize(
    ("args", "cause", "remedy"),
    [
        ((), "nothing says what is good enough", "--target"),
        (("--target", "cosin>=0.9"), "unknown metric 'cosin'", "did you mean 'cosine'"),
        (("--target", "cosine"), "is not METRIC>=VALUE", "quotes"),
        (("--target", "cosine>=2"), "nothing can meet 'cosine>=2'", "never above 1"),
        (("--target", "cosine>=0", "--quantizer", "none"), "no quantizer to choose from", "beside"),
        (("--target", "cosine>=0", "--quantizer", "hindsigt@int8"), "hindsigt", "hindsight"),
        (("--within", "1dB of int8"), "'int8' is not a quantizer", "hindsight@int8"),
        (("--sensitivity", "mxfp4"), "'mxfp4' is not a quantizer", "local@mxfp4"),
        (("--sensitivity", "current@int4", "-o", "x.toml"), "-o has no choice", "--target"),
        (("--target", "cosine>=0", "--layers", "nope"), "no layer matches", "layers in the trace"),
    ],
)
def test_errors_are_two_lines(trace, args, cause, remedy):
    done = hqtool("recommend", trace, *args)
    assert (done.status, done.out) == (2, "")
    lines = done.err.splitlines()
    assert len(lines) == 2
    assert cause in lines[0]
    assert remedy in lines[1]


def test_a_recipe_is_not_overwritten_and_goes_to_stdout_on_request(trace, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("mine")
    args = (trace, "--target", "cosine>=0.5", *given("current@int8"))
    assert hqtool("recommend", *args, "-o", path).status == 2
    assert path.read_text() == "mine"
    assert hqtool("recommend", *args, "-o", path, "-f", "-q").err == ""
    done = hqtool("recommend", *args, "-o", "-")
    assert done.out.startswith('schema = "hqtool.recipe/1"')
    assert "─" not in done.out
