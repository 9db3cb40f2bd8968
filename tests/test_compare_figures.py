"""What compare reports besides means: non-finite values, exact results, the worst records."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command import hqtool

from hqtool import TraceWriter

RNG = np.random.default_rng(3)


def written(path, tensors, layer="fc"):
    """A trace of one site."""
    with TraceWriter(path) as writer:
        for step, x in enumerate(tensors):
            writer.write(layer, "output", step, x)
            writer.commit(step)
    return str(path)


@pytest.fixture(scope="module")
def diverged(tmp_path_factory):
    """Good for two steps of five, nothing but NaN from then on."""
    good = [RNG.standard_normal(100).astype("f4") for _ in range(2)]
    nan = np.full(100, np.nan, "f4")
    return written(tmp_path_factory.mktemp("diverged") / "t.h5", [*good, nan, nan, nan])


def test_a_run_that_diverged_is_told_as_such(diverged):
    done = hqtool("compare", diverged, "--estimator", "current")
    text = " ".join(done.out.split())
    assert "NaN or infinities were recorded, first at step 2, at 1 site" in text
    assert "fc/output 60 %" in text
    assert "60 % of the records with values could not be scored" in text
    (row,) = json.loads(hqtool("compare", diverged, "--json", "-", "--estimator", "current").out)[
        "summary"
    ]
    assert (row["steps"], row["unscored"], row["replayed"], row["nonfinite"]) == (2, 3, 5, 0.6)
    assert (row["nonfinite_records"], row["nonfinite_step"]) == (3, 2)


def test_exact_is_null_and_true_in_json(tmp_path):
    trace = written(tmp_path / "t.h5", [np.arange(256, dtype="f4")])
    args = ("--estimator", "fixed:lo=0,hi=255", "--estimator", "fixed:lo=0,hi=250")
    ranked = ("--best", "--rank-by", "sqnr_db")
    found = json.loads(hqtool("compare", trace, "--json", "-", "--per-step", *ranked, *args).out)
    for rows in (found["summary"], found["steps"]):
        assert [row["exact"] for row in rows] == [True, False]
        assert rows[0]["sqnr_db"] is None
    (row,) = found["best"]["rows"]
    assert (row["estimator"], row["sqnr_db"], row["exact"]) == ("fixed:lo=0,hi=255", None, True)
    assert "exact *" in hqtool("compare", trace, *args).out


# --- several traces -----------------------------------------------------------------------------


def test_several_traces_are_several_blocks(tmp_path, monkeypatch):
    """The second one has a site of its own, which counts in its block alone."""
    monkeypatch.chdir(tmp_path)
    x = [RNG.standard_normal(50).astype("f4") for _ in range(3)]
    written("a.h5", x)
    with TraceWriter("b.h5") as writer:
        for step, values in enumerate(x):
            writer.write("fc", "output", step, 2 * values * (1 + step))
            writer.write("head", "output", step, values)
            writer.commit(step)
    lanes = ("--estimator", "current", "--estimator", "hindsight")
    found = json.loads(hqtool("compare", "a.h5", "b.h5", "--json", "-", *lanes).out)
    of = {(r["trace"], r["layer"], r["estimator"]): r["sqnr_db"] for r in found["summary"]}
    beside = found["side_by_side"]
    assert [(r["estimator"], r["trace"]) for r in beside] == [
        ("current", "a.h5"), ("current", "b.h5"), ("hindsight", "a.h5"), ("hindsight", "b.h5")
    ]  # fmt: skip
    for row in beside:
        mine, first = (of[trace, "fc", row["estimator"]] for trace in (row["trace"], "a.h5"))
        assert (row["sqnr_db"], row["sqnr_db_difference"]) == (mine, mine - first)
    text = hqtool("compare", "a.h5", "b.h5", *lanes).out
    assert "a.h5: output (1 layer; " in text
    assert "b.h5: output (2 layers; " in text
    assert "output, side by side (1 layer that all traces have)" in text
    assert [line[:15] for line in text.splitlines() if "Against" in line] == [
        "a.h5: Against c", "b.h5: Against c"
    ]  # fmt: skip


def test_the_same_file_twice_is_refused(tmp_path, diverged):
    links = [tmp_path / "soft.h5", tmp_path / "hard.h5"]
    links[0].symlink_to(diverged)
    links[1].hardlink_to(diverged)
    for other in (diverged, *links):
        done = hqtool("compare", diverged, other)
        assert (done.status, done.out) == (2, "")
        assert "the same file" in done.err


def test_steps_without_an_output_are_refused(diverged):
    done = hqtool("compare", diverged, "--per-step")
    assert (done.status, done.out) == (2, "")
    assert "--csv" in done.err


def test_info_tells_what_is_not_finite(diverged):
    (row,) = json.loads(hqtool("info", diverged, "--json", "-").out)["sites"]
    assert (row["nonfinite"], row["nonfinite_records"], row["nonfinite_step"]) == (300, 3, 2)
    text = " ".join(hqtool("info", diverged).out.split())
    assert "first at step 2, at 1 site: fc/output in 3 of 5 records" in text


# --- where it is worst --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Three layers; the later one leaves the range of hindsight further behind at step 2."""
    path = tmp_path_factory.mktemp("uneven") / "t.h5"
    with TraceWriter(path) as writer:
        for step in range(4):
            for factor, layer in enumerate(("a", "b", "c"), start=1):
                x = RNG.standard_normal(60).astype("f4") * (10**factor if step == 2 else 1)
                writer.write(layer, "output", step, x)
            writer.commit(step)
    return str(path)


def test_the_worst_records_are_those_of_lowest_sqnr(uneven):
    args = ("--estimator", "hindsight", "--estimator", "current", "--per-step", "--worst", 3)
    found = json.loads(hqtool("compare", uneven, "--json", "-", *args).out)
    rows = sorted(found["steps"], key=lambda row: row["sqnr_db"])[:3]
    assert found["worst"] == rows
    assert {row["step"] for row in rows} == {2}
    out = hqtool("compare", uneven, *args[:4], "--worst", 3).out
    assert "the 3 records of lowest SQNR" in out
    first = rows[0]
    for lo, hi in ((first["lo"], first["hi"]), (first["min"], first["max"])):
        assert f"{lo:.3g}…{hi:.3g}" in out
    assert max(map(len, out.splitlines())) <= 80


def test_rows_are_sorted_the_worst_first_and_layers_kept_together(uneven):
    args = ("--estimator", "hindsight", "--estimator", "current", "--by", "layer")
    out = hqtool("compare", uneven, *args, "--sort", "sqnr_db", "--top", 2).out
    lines = [line.split()[0] for line in out.splitlines()[3:9]]
    assert lines == ["c", "hindsight", "current", "b", "hindsight", "current"]
    done = hqtool("compare", uneven, "--top", 2)
    assert (done.status, done.out) == (2, "")
    assert "--by layer" in done.err
