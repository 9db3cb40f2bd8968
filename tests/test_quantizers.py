"""Quantizers as typed: estimator @ format / rounding, swept, multiplied, united, or refused."""

from __future__ import annotations

import json
import re
from itertools import product as combinations

import numpy as np
import pytest
from command import hqtool
from quantizing import quantizers, settings

from hqtool import TraceWriter
from hqtool.compare.replay import replay
from hqtool.core.formats.named import FORMATS
from hqtool.core.stats import stats_of
from hqtool.errors import UsageError
from hqtool.estimators.quantizer import (
    from_json,
    parse_quantizer,
    product,
    sweep_formats,
    sweep_quantizers,
)
from hqtool.trace.history import history_of
from hqtool.traffic.layers import Counts
from hqtool.vocab import Record, Site

RNG = np.random.default_rng(5)


def labels(found):
    return [quantizer.label for quantizer in found]


# --- parsing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hindsight@int8", ("hindsight", "int8", "nearest")),
        ("std:k=4.0@int4/stochastic", ("std:k=4.0", "int4", "stochastic")),
        (" current @ int8-symmetric / nearest ", ("current", "int8-symmetric", "nearest")),
        ("delayed@e4m3:scale=pow2/nearest", ("delayed", "e4m3:scale=pow2", "nearest")),
    ],
)  # fmt: skip
def test_a_quantizer_is_its_three_parts(text, parts):
    found = parse_quantizer(text)
    assert (found.estimator.label, found.format.label, found.rounding) == parts
    assert parse_quantizer(found.label) == found
    assert from_json(json.loads(json.dumps(found.to_json()))) == found


def test_lists_and_ranges_sweep_every_part():
    found = sweep_quantizers(
        "hindsight:momentum=0,0.9@int4,e4m3:scale=free,pow2/nearest,stochastic"
    )
    estimators = ("hindsight:momentum=0", "hindsight:momentum=0.9")
    formats = ("int4", "e4m3:scale=free", "e4m3:scale=pow2")
    assert labels(found) == [
        f"{e}@{f}{r}" for e, f, r in combinations(estimators, formats, ("", "/stochastic"))
    ]
    assert len(sweep_quantizers("dsgc:interval=10..50/10@int8/stochastic")) == 5


@pytest.mark.parametrize(
    ("text", "formats"),
    [
        ("int2..4", ["int2", "int3", "int4"]),
        ("int4..8/2-symmetric", ["int4-symmetric", "int6-symmetric", "int8-symmetric"]),
        ("e4m2..3:scale=pow2", ["e4m2:scale=pow2", "e4m3:scale=pow2"]),
        ("e4m3:scale=free,int7..8", ["e4m3:scale=free", "int7", "int8"]),
    ],
)
def test_a_number_in_a_formats_name_may_be_a_range(text, formats):
    assert [choice.label for choice in sweep_formats(text)] == formats
    assert labels(sweep_quantizers(f"current@{text}")) == [f"current@{each}" for each in formats]
    rounded = sweep_quantizers(f"current@{text}/stochastic")
    assert labels(rounded) == [f"current@{each}/stochastic" for each in formats]


def test_a_list_of_formats_splits_where_a_name_begins():
    found = sweep_formats("int8, e4m3:scale=pow2,e5m2")
    assert [choice.label for choice in found] == ["int8", "e4m3:scale=pow2", "e5m2"]
    assert [choice.label for choice in sweep_formats("int8,int8")] == ["int8"]


@pytest.mark.parametrize(
    ("text", "cause", "remedy"),
    [
        ("hindsight", "not a quantizer", "ESTIMATOR@FORMAT"),
        ("int8", "not a quantizer", "hindsight@int8"),
        ("@int8", "not a quantizer", "hindsight@int8"),
        ("hindsight@", "not a quantizer", "ESTIMATOR@FORMAT"),
        ("hindsite@int8", "hindsite", "did you mean 'hindsight'"),
        ("hindsight@itn8", "itn8", "did you mean 'int8'"),
        ("hindsight@int8/stochastik", "stochastik", "did you mean 'stochastic'"),
        ("hindsight@int8/", "rounding ''", "known"),
        ("hindsight:tempo=1@int8", "tempo", "momentum"),
        ("hindsight@int17", "17 bits", "2 to 16"),
        ("hindsight@int15..17", "17 bits", "2 to 16"),
        ("hindsight@int8..4", "'8..4' is not a rising range", "FIRST..LAST"),
        ("int4..8", "not a quantizer", "write hindsight@int4..8"),
        ("mxfp8", "not a quantizer", "write local@mxfp8"),
        ("hindsight@mxfp8", "mxfp8 scales its own blocks", "write local@mxfp8"),
        ("local@int8", "int8 needs a range", "hindsight@int8"),
        ("local@nvfp4", "nvfp4 needs a range", "hindsight@nvfp4"),
    ],
)
def test_what_is_mistyped_is_named_with_its_remedy(text, cause, remedy):
    with pytest.raises(UsageError) as raised:
        sweep_quantizers(text)
    assert cause in raised.value.cause
    assert remedy in (raised.value.remedy or "")


def test_one_is_asked_for():
    with pytest.raises(UsageError, match="3 quantizers"):
        parse_quantizer("hindsight:momentum=0,0.5,0.9@int8")


# --- on the command line ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    path = tmp_path_factory.mktemp("trace") / "t.h5"
    with TraceWriter(path) as writer:
        for step in range(4):
            for layer in ("a", "b"):
                x = RNG.standard_normal(70).astype("f4") * (1 + step)
                writer.write(layer, "output", step, x)
            writer.commit(step)
    return str(path)


def compared(trace, *args):
    done = hqtool("compare", trace, "--json", "-", "-q", *args)
    assert done.status == 0, done.err
    return json.loads(done.out)


def ran(trace, *args):
    return compared(trace, *args)["settings"]["quantizers"]


def test_what_is_run(trace):
    four = ["current", "running", "hindsight", "dsgc"]
    assert ran(trace) == [f"{e}@int8" for e in four]
    assert ran(trace, "--bits", "4,8", "--scheme", "symmetric", "--estimator", "current") == [
        "current@int4-symmetric", "current@int8-symmetric"
    ]  # fmt: skip
    assert ran(trace, "--format", "int4", "--bits", 8, "--estimator", "current") == [
        "current@int4", "current@int8"
    ]  # fmt: skip
    assert ran(trace, "--format", "int4,int8", "--estimator", "current", "--rounding",
               "nearest,stochastic") == [
        "current@int4", "current@int4/stochastic", "current@int8", "current@int8/stochastic"
    ]  # fmt: skip
    assert ran(trace, "--quantizer", "current@int4/stochastic") == ["current@int4/stochastic"]
    some = ("--estimator", "current", "--estimator", "hindsight")
    assert ran(trace, *some, "--format", "int8,mxfp8:scale=ceil,nvfp4") == [
        "current@int8", "current@nvfp4", "hindsight@int8", "hindsight@nvfp4",
        "local@mxfp8:scale=ceil"
    ]  # fmt: skip
    assert ran(trace, "--estimator", "local", "--format", "mxfp8,mxfp4") == [
        "local@mxfp8", "local@mxfp4"
    ]  # fmt: skip
    assert ran(trace, *some[:2], "--estimator", "local", "--format", "int8,mxfp8") == [
        "current@int8", "local@mxfp8"
    ]  # fmt: skip


def test_quantizers_and_a_product_are_united_each_once(trace):
    both = ("--quantizer", "hindsight@int4", "--quantizer", "current@int8,int4")
    assert ran(trace, *both, "--estimator", "current", "--estimator", "running") == [
        "hindsight@int4", "current@int8", "current@int4", "running@int8"
    ]  # fmt: skip
    assert ran(trace, *both, *both) == ran(trace, *both)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--quantizer", "hindsight"], ["'hindsight' is not a quantizer"]),
        (["--quantizer", "current@int8", "--rounding", "up"], ["ESTIMATOR@FORMAT/up"]),
        (["--quantizer", "current@int8", "--scheme", "symmetric"], ["int8-symmetric"]),
        (["--format", "int8", "--scheme", "symmetric"], ["--format int8-symmetric"]),
        (["--format", "int88"], ["88 bits"]),
        (["--format", ","], ["names no format"]),
        (["--format", "e4m3:scale=pow2", "--format", "itn8"], ["unknown format 'itn8'"]),
        (["--rounding", "up"], ["unknown rounding 'up'", "known: nearest"]),
        (["--estimator", "local"], ["int8 needs a range", "hindsight@int8"]),
        (["--estimator", "local", "--format", "nvfp4"], ["nvfp4 needs a range"]),
        (["--quantizer", "hindsight@mxfp8"], ["write local@mxfp8"]),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(trace, args, said):
    done = hqtool("compare", trace, *args)
    assert (done.status, done.out) == (2, "")
    assert len(done.err.splitlines()) <= 2
    for words in said:
        assert words in done.err


# --- results ------------------------------------------------------------------------------------

SUMMARY_KEYS = [
    "layer", "tensor", "estimator", "format", "rounding", "bits", "steps", "mse", "sqnr_db",
    "cosine", "norm_ratio", "gain", "saturation", "underflow", "nonfinite", "looks", "evaluations",
    "static_bytes", "traffic_bytes",
]  # fmt: skip
STEP_KEYS = [
    "layer", "tensor", "step", "micro", "call", "estimator", "format", "rounding", "bits", "lo",
    "hi", "looked",
]  # fmt: skip


def test_rows_name_their_quantizer(trace):
    found = compared(trace, "--per-step", "--quantizer", "hindsight:momentum=0.50@int4/stochastic")
    for row in found["summary"] + found["steps"]:
        parts = (row["estimator"], row["format"], row["rounding"], row["bits"])
        assert parts == ("hindsight:momentum=0.50", "int4", "stochastic", 4)
    assert list(found["summary"][0])[: len(SUMMARY_KEYS)] == SUMMARY_KEYS
    assert list(found["steps"][0])[: len(STEP_KEYS)] == STEP_KEYS
    assert found["settings"]["bits"] == [4]
    assert (found["settings"]["scheme"], found["settings"]["rounding"]) == (
        "asymmetric", "stochastic"
    )  # fmt: skip


SITE = Site("conv1", "output")
RECORDS = [
    Record(t, 0, 0, x.shape, stats_of(x), x)
    for t, x in enumerate(
        [
            *(RNG.standard_normal((4, n)).astype("f4") for n in (16, 16, 700)),
            np.zeros((2, 16), "f4"),
        ]
    )
]


def rows_of(how):
    rows = []
    summaries = replay(SITE, history_of(RECORDS), how, on_row=rows.append)
    return {(s.estimator, s.format, s.rounding): s for s in summaries}, {
        (r.estimator, r.format, r.rounding, r.step): r for r in rows
    }


def test_a_mixture_is_each_quantizer_alone_to_the_last_bit():
    """Formats and roundings freely mixed, under estimators that ask for the format and others."""
    how = settings(
        "current", "hindsight:per=channel", "dsgc:interval=2",
        formats="int8,int3,int4-symmetric,e4m3,e2m1:scale=pow2,nvfp4,mxfp8,mxfp4:scale=even",
        rounding="nearest,stochastic,stochastic-sampled",
    )  # fmt: skip
    summaries, rows = rows_of(how)
    lanes = (3 * 6 + 2) * 3
    assert (len(summaries), len(rows)) == (lanes, lanes * len(RECORDS))
    for quantizer in how.quantizers:
        alone, own_rows = rows_of(settings(
            quantizer.estimator, formats=quantizer.format.label, rounding=quantizer.rounding
        ))  # fmt: skip
        assert alone.items() <= summaries.items()
        assert own_rows.items() <= rows.items()


def test_a_quantizer_twice_is_refused():
    with pytest.raises(UsageError, match="twice"):
        type(settings())(quantizers() + quantizers("current"))


def test_the_product_has_estimators_outermost():
    found = product(
        [q.estimator for q in quantizers("running", "current")], sweep_formats("int8,int4")
    )
    assert labels(found) == ["running@int8", "running@int4", "current@int8", "current@int4"]


def test_a_format_that_scales_its_own_blocks_has_no_range_and_no_look():
    """mxfp8 stores 8.25 bits: W 30, X 50, Y 64 elements."""
    counts = Counts(weight=30, input=50, output=64)
    rows = []
    how = settings("current", formats="mxfp8,mxfp4")
    summaries = replay(SITE, history_of(RECORDS[:2]), how, counts, rows.append)
    assert [(s.estimator, s.bits, s.looks) for s in summaries] == [
        ("local", 8.25, 0), ("local", 4.25, 0)
    ]  # fmt: skip
    assert [s.traffic_bytes for s in summaries] == [144 * 8.25 / 8, 144 * 4.25 / 8]
    assert {(r.lo, r.hi, r.looked) for r in rows} == {(None, None, False)}
    assert all(r.metrics["mse"] > 0 for r in rows)
    assert summaries[0].steps == 2


def test_bits_are_numbers_in_json_whole_where_they_are(trace):
    found = compared(trace, "--format", "int8,mxfp8,nvfp4", "--estimator", "current")
    assert [row["bits"] for row in found["summary"][:3]] == [8, 4.5, 8.25]
    assert found["settings"]["bits"] == [8, 4.5, 8.25]
    assert found["settings"]["scheme"] is None
    assert isinstance(found["summary"][0]["bits"], int)


def test_every_listed_format_is_compared(trace):
    """Of a family one that its name stands for."""
    names = [re.sub("[XN]", "4", each.name).replace("Y", "3") for each in FORMATS]
    names = [name.replace("B-block", "8-block") for name in names]
    found = compared(trace, "--format", ",".join(names), "--estimator", "current")
    assert sorted({row["format"] for row in found["summary"]}) == sorted(names)
    for row in found["summary"]:
        assert row["steps"] == 4
        assert row["cosine"] > 0.5


def test_the_same_bytes_whatever_the_jobs(trace, monkeypatch):
    monkeypatch.setattr("hqtool.compare.execute.WORTH_PROCESSES", 0.0)
    args = ("compare", trace, "--json", "-", "--per-step", "--format", "int4,e4m3,mxfp8,nvfp4",
            "--rounding", "nearest,stochastic-sampled")  # fmt: skip
    alone = hqtool(*args, "--jobs", 1)
    assert alone.status == 0, alone.err
    assert hqtool(*args, "--jobs", 2) == alone
