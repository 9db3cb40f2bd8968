"""What compare tells beside means: what is not finite, what is exact, how bad the worst is."""

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
