"""How compare's tables name quantizers: by what differs, in 80 columns; and its sentence."""

from __future__ import annotations

import json

import pytest
from command import hqtool

from hqtool import TraceWriter


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    import numpy as np

    rng = np.random.default_rng(2)
    path = tmp_path_factory.mktemp("tables") / "t.h5"
    with TraceWriter(path) as writer:
        writer.describe("fc", {"name": "fc", "op": "linear", "in_channels": 6, "out_channels": 9,
                               "input": [1], "batch": 7})  # fmt: skip
        for step in range(12):
            for tensor, size in (("output", 9), ("grad_input", 6)):
                x = rng.standard_normal((7, size)).astype("f4") * (1 + step)
                writer.write("fc", tensor, step, x)
            writer.commit(step)
    return str(path)


def drawn(trace, monkeypatch, *args):
    monkeypatch.setenv("COLUMNS", "80")
    done = hqtool("compare", trace, *args)
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= 80
    return lines


EACH = ("--estimator", "current", "--estimator", "hindsight:momentum=0.5")


@pytest.mark.parametrize(
    ("args", "title", "columns"),
    [
        ([], "8 bits, asymmetric, nearest rounding", ["estimator"]),
        (["--scheme", "symmetric"], "8 bits, symmetric, nearest rounding", ["estimator"]),
        (["--format", "e4m3", "--rounding", "stochastic"], "e4m3, stochastic rounding",
         ["estimator"]),
        (["--format", "int8,e4m3"], "nearest rounding", ["estimator", "format"]),
        (["--format", "int8,int8-symmetric"], "nearest rounding", ["quantizer"]),
        (["--rounding", "nearest,stochastic"], "8 bits, asymmetric", ["quantizer"]),
        (["--format", "int4,int8", "--rounding", "nearest,stochastic"], "", ["quantizer"]),
    ],
)  # fmt: skip
def test_columns_name_what_differs_and_the_title_the_rest(trace, monkeypatch, args, title, columns):
    lines = drawn(trace, monkeypatch, *EACH, *args)
    assert lines[0] == f"output (1 layer{'; ' * bool(title)}{title})"
    assert lines[1].split()[: len(columns) + 1] == [*columns, "SQNR"]


def test_one_estimator_is_named_in_the_title(trace, monkeypatch):
    lines = drawn(trace, monkeypatch, "--quantizer", "current@int8,int4,e4m3")
    assert lines[0] == "output (1 layer; current, nearest rounding)"
    assert [line.split()[0] for line in lines[1:6]][2:] == ["int8", "int4", "e4m3"]
    assert "KiB" in lines[1]


def test_formats_compete_unless_all_have_the_same_estimators(trace, monkeypatch):
    """A mark in each format under the same estimators; else one for all."""
    apart = drawn(trace, monkeypatch, *EACH, "--format", "int4,int8")
    assert sum(line.count("100 %") for line in apart) == 4
    assert "KiB" in apart[1]
    assert [line.split()[-1] for line in apart[3:8] if "hindsight" in line].count("*") == 2
    together = ("--quantizer", "hindsight@int4", "--quantizer", "current@int8")
    lines = drawn(trace, monkeypatch, *together)
    assert [line.count("*") for line in lines[3:5]] == [2, 3]  # looked, KiB; the qualities


def sentence(lines):
    start = next(i for i, line in enumerate(lines) if line.startswith("Against"))
    return " ".join(lines[start:])


def test_the_sentence_names_format_and_rounding_where_they_differ(trace, monkeypatch):
    assert sentence(drawn(trace, monkeypatch, *EACH)).startswith("Against current at 8 bits: ")
    both = drawn(trace, monkeypatch, *EACH, "--format", "e4m3,int8")
    assert sentence(both).startswith("Against current at e4m3: hindsight:momentum=0.5 ")
    mixed = drawn(trace, monkeypatch, "--quantizer", "current@e4m3",
                  "--quantizer", "hindsight@int4/stochastic",
                  "--quantizer", "delayed@int8")  # fmt: skip
    assert sentence(mixed).startswith("Against current@e4m3: hindsight@int4/stochastic loses ")
    assert "delayed@int8 " in sentence(mixed)


def test_quantizers_that_shrink_gradients_are_told(trace):
    few = ("--quantizer", "fixed:lo=-1e-9,hi=1e-9@int8", "--quantizer", "current@int8")
    rows = json.loads(hqtool("compare", trace, *few, "--json", "-").out)["summary"]
    gains = {r["estimator"]: r["gain"] for r in rows if r["tensor"] == "grad_input"}
    assert gains["fixed:lo=-1e-9,hi=1e-9"] < 0.8 < gains["current"]
    told = " ".join(hqtool("compare", trace, *few).out.split())
    assert "hi=1e-9@int8 shrinks gradients (gain below 0.8), which adds up" in told
    assert "shrink" not in hqtool("compare", trace, *few, "--tensors", "output").out


def test_best_is_chosen_at_each_format_and_rounding(trace, monkeypatch):
    sweep = ("--estimator", "hindsight:momentum=0,0.5,0.9", "--estimator", "current")
    lines = drawn(trace, monkeypatch, *sweep, "--format", "int3,int8", "--best")
    rows = [line for line in lines if line.lstrip().startswith(("hindsight", "current"))]
    assert len(rows) == 2 * 2 * 2


@pytest.mark.parametrize(
    ("args", "first"),
    [(["formats"], "formats"), (["tensors", "weight"], "tensor kinds"), (["metrics"], "metrics")],
)
def test_a_section_of_the_list(args, first):
    done = hqtool("list", *args)
    assert done.status == 0
    assert done.out.splitlines()[0] == first
    assert sum(not line for line in done.out.splitlines()) <= 1, "no other section"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["format"], "did you mean 'formats'"),
        (["estimators", "hindsite"], "did you mean 'hindsight'"),
        (["formats", "itnN"], "did you mean 'intN'"),
    ],
)
def test_what_is_not_listed_is_answered_with_the_nearest(args, said):
    done = hqtool("list", *args)
    assert (done.status, done.out) == (2, "")
    assert said in done.err
