"""The command line: documents as contracted, tables that fit, errors of two lines."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import oracle
import pytest
from command import hqtool

from hqtool import TraceReader, TraceWriter, __version__
from hqtool.cli.choice import NamedChoice
from hqtool.cli.main import COMMANDS, cli
from hqtool.core.metrics import METRICS
from hqtool.sizes import counted
from hqtool.traffic.layers import layer_from_json

SAMPLES = Path(__file__).parent.parent / "sample_data"
LAYERS = ["stem", "block.0.conv1"]
STEPS = 5


def geometry(name):
    return layer_from_json(
        {"name": name, "op": "conv2d", "in_channels": 2, "out_channels": 4, "input": [5, 5],
         "kernel": 3, "padding": 1}
    ).to_json()  # fmt: skip


def tensor(layer, kind, step):
    rng = np.random.default_rng([LAYERS.index(layer), kind == "output", step])
    shape = (1, 4, 5, 5) if kind == "output" else (1, 2, 5, 5)
    return (rng.standard_normal(shape) * (1 + step)).astype("f4")


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    path = tmp_path_factory.mktemp("trace") / "run.h5"
    with TraceWriter(path) as writer:
        for layer in LAYERS:
            writer.describe(layer, geometry(layer))
        for step in range(STEPS):
            for layer in LAYERS:
                for kind in ("output", "grad_input"):
                    writer.write(layer, kind, step, tensor(layer, kind, step))
            writer.commit(step)
    return str(path)


def compare(trace, *args):
    done = hqtool("compare", trace, "--json", "-", *args)
    assert done.status == 0, done.err
    return json.loads(done.out)


# --- compare ------------------------------------------------------------------------------------

SUMMARY_KEYS = [
    "layer", "tensor", "estimator", "format", "rounding", "bits", "steps", "mse", "sqnr_db",
    "cosine", "norm_ratio", "gain", "saturation", "underflow", "nonfinite", "looks", "evaluations",
    "static_bytes", "traffic_bytes",
]  # fmt: skip
STEP_KEYS = [
    "layer", "tensor", "step", "micro", "call", "estimator", "format", "rounding", "bits", "lo",
    "hi", "looked",
]  # fmt: skip


def test_compare_json_is_as_contracted(trace):
    found = compare(trace)
    assert found["schema"] == "hqtool.compare/1"
    assert found["trace"][0]["path"] == trace
    own = found["settings"]
    assert (own["bits"], own["scheme"], own["rounding"]) == ([8], "asymmetric", "nearest")
    assert own["quantizers"] == [f"{e}@int8" for e in ("current", "running", "hindsight", "dsgc")]
    assert found["steps"] == []
    assert len(found["summary"]) == 2 * 2 * 4
    for row in found["summary"]:
        assert set(SUMMARY_KEYS) <= set(row)
        assert row["steps"] == STEPS
    names = [row["estimator"] for row in found["summary"][:4]]
    assert names == ["current", "running", "hindsight", "dsgc"]


def test_compare_figures_by_the_oracle(trace):
    found = compare(trace, "--per-step", "--bits", 4, "--estimator", "current")
    assert len(found["steps"]) == 2 * 2 * STEPS
    for row in found["steps"]:
        assert set(STEP_KEYS) <= set(row)
        x = tensor(row["layer"], row["tensor"], row["step"])
        assert (row["lo"], row["hi"], row["looked"]) == (x.min(), x.max(), True)
        truth = oracle.metrics(x.ravel(), row["lo"], row["hi"], 4)
        assert {name: row[name] for name in METRICS} == pytest.approx(truth, rel=1e-9)


def test_compare_bill_by_hand(trace):
    """conv 2→4, 3×3, 5×5: W 72, X 50, Y 100 bytes at 8 bits; the accumulator has 4 bytes."""
    rows = compare(trace, "--estimator", "current", "--estimator", "hindsight")["summary"]
    found = {(r["tensor"], r["estimator"]): r for r in rows}
    assert {r["static_bytes"] for r in rows} == {222}
    assert found["output", "current"]["traffic_bytes"] == 222 + 2 * 100 * 4
    assert found["grad_input", "current"]["traffic_bytes"] == 222 + 2 * 50 * 4
    assert found["output", "hindsight"]["traffic_bytes"] == 222 + 2 * 100 * 4 / STEPS
    assert found["output", "hindsight"]["looks"] == 1


def test_the_spec_is_echoed_as_given(trace):
    rows = compare(trace, "--estimator", "hindsight:momentum=0.50", "--bits", "2..4")["summary"]
    assert {r["estimator"] for r in rows} == {"hindsight:momentum=0.50"}
    assert [r["bits"] for r in rows[:3]] == [2, 3, 4]


def test_selection(trace):
    rows = compare(trace, "--layers", "block.*", "--tensors", "grad_input")["summary"]
    assert {(r["layer"], r["tensor"]) for r in rows} == {("block.0.conv1", "grad_input")}


def test_several_traces_are_read_in_turn(trace, tmp_path, monkeypatch):
    other = tmp_path / "other.h5"
    with TraceWriter(other) as writer:
        writer.write("head", "output", 0, np.ones((3, 3), "f4"))
        writer.commit(0)
    done = hqtool("compare", trace, other, "--json", "-", "--estimator", "current")
    found = json.loads(done.out)
    assert [t["path"] for t in found["trace"]] == [trace, str(other)]
    assert (found["summary"][-1]["layer"], found["summary"][-1]["trace"]) == ("head", str(other))
    assert found["summary"][0]["trace"] == trace
    monkeypatch.chdir(tmp_path)  # a short name: tables of 80 columns fold long ones
    assert "other.h5" in hqtool("compare", trace, "other.h5", "--by", "layer").out
    assert found["summary"][-1]["static_bytes"] is None


def test_csv_has_the_summary_or_the_steps(trace):
    plain = list(csv.DictReader(io.StringIO(hqtool("compare", trace, "--csv", "-").out)))
    assert len(plain) == 16
    assert set(SUMMARY_KEYS) <= set(plain[0])
    steps = hqtool("compare", trace, "--csv", "-", "--per-step").out
    assert len(list(csv.DictReader(io.StringIO(steps)))) == 16 * STEPS


def test_a_missing_figure_is_null_and_an_empty_cell(tmp_path):
    path = tmp_path / "zero.h5"
    with TraceWriter(path) as writer:
        writer.write("fc", "output", 0, np.zeros(4, "f4"))
        writer.commit(0)
    (row,) = compare(path, "--estimator", "current")["summary"]
    assert (row["mse"], row["sqnr_db"], row["cosine"], row["underflow"]) == (0, None, 1, None)
    done = hqtool("compare", path, "--csv", "-", "--estimator", "current")
    (cells,) = csv.DictReader(io.StringIO(done.out))
    assert (cells["mse"], cells["sqnr_db"], cells["static_bytes"]) == ("0.0", "", "")
    assert "exact" in hqtool("compare", path, "--estimator", "current").out


@pytest.mark.parametrize(
    "args", [[], ["--by", "layer"], ["--bits", "2..8"], ["--tensors", "output"]]
)
def test_tables_fit_80_columns_and_mark_the_best(trace, args):
    done = hqtool("compare", trace, *args)
    assert done.status == 0
    assert max(map(len, done.out.splitlines())) <= 80
    assert "*" in done.out
    assert "Against current at" in done.out
    assert "\x1b" not in done.out


def test_the_closing_sentence_says_what_the_table_says(trace):
    rows = compare(trace, "--estimator", "current", "--estimator", "hindsight")["summary"]
    mean = {
        (name, kind): np.mean(
            [r["sqnr_db"] for r in rows if (r["estimator"], r["tensor"]) == (name, kind)]
        )
        for name in ("current", "hindsight")
        for kind in ("output", "grad_input")
    }
    text = " ".join(hqtool("compare", trace).out.split())
    for kind in ("output", "grad_input"):
        lost = mean["current", kind] - mean["hindsight", kind]
        assert f"{lost:.2f} dB on {kind}" in text


# --- where results go ---------------------------------------------------------------------------


def test_files_are_written_and_never_overwritten_unasked(trace, tmp_path):
    out = tmp_path / "r.json"
    assert hqtool("compare", trace, "--json", out).status == 0
    first = out.read_text()
    assert json.loads(first)["schema"] == "hqtool.compare/1"
    done = hqtool("compare", trace, "--json", out, "--bits", 4)
    assert (done.status, out.read_text()) == (2, first)
    assert "-f" in done.err
    assert hqtool("compare", trace, "--json", out, "--bits", 4, "-f").status == 0
    assert out.read_text() != first
    assert list(tmp_path.iterdir()) == [out]


def test_quiet_says_nothing_on_stderr(trace, tmp_path):
    assert "wrote" in hqtool("compare", trace, "--json", tmp_path / "a.json").err
    assert hqtool("compare", trace, "-q", "--json", tmp_path / "b.json").err == ""


def test_a_closed_pipe_is_no_error(trace):
    command = f"{sys.executable} -m hqtool compare {trace} --by layer | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


# --- traffic, info, list, convert ---------------------------------------------------------------


def test_traffic_sorts_and_cuts_its_table_and_keeps_all_in_json():
    spec = SAMPLES / "resnet18.toml"
    done = hqtool("traffic", spec, "--sort", "overhead", "--top", "2", "--fuse", "none")
    assert "19 other layers" in done.out
    assert "by operation" in done.out
    found = json.loads(hqtool("traffic", spec, "--sort", "overhead", "--json", "-").out)
    overheads = [layer["overhead"] for layer in found["layers"]]
    assert overheads == sorted(overheads, reverse=True)
    assert len(overheads) == 21


def test_traffic_json_reproduces_table_5():
    found = json.loads(hqtool("traffic", SAMPLES / "table5.toml", "--json", "-").out)
    assert found["schema"] == "hqtool.traffic/1"
    kib = [
        (round(r["static_bytes"] / 1024), round(r["dynamic_bytes"] / 1024)) for r in found["layers"]
    ]
    assert kib == [(428, 1996), (674, 1066), (1374, 10782), (2353, 11761), (100, 468)]
    percent = [round(100 * r["overhead"]) for r in found["layers"]]
    assert percent == [366, 58, 685, 400, 366]
    assert found["total"]["static_bytes"] == sum(r["static_bytes"] for r in found["layers"])


def test_traffic_bits_and_pass():
    table5 = SAMPLES / "table5.toml"
    plain = json.loads(hqtool("traffic", table5, "--json", "-").out)["total"]
    wide = hqtool("traffic", table5, "--bits", "a=16,w=16", "--json", "-").out
    assert json.loads(wide)["total"]["static_bytes"] == 2 * plain["static_bytes"]
    both = json.loads(hqtool("traffic", table5, "--pass", "both", "--json", "-").out)["total"]
    assert both["static_bytes"] > 2 * plain["static_bytes"]


@pytest.mark.parametrize("name", ["table5", "resnet18", "mobilenet_v2", "vgg16"])
def test_traffic_tables_fit_80_columns(name):
    done = hqtool("traffic", SAMPLES / f"{name}.toml")
    assert done.status == 0
    assert max(map(len, done.out.splitlines())) <= 80
    assert "total" in done.out


def test_info_tells_what_was_written(trace):
    found = json.loads(hqtool("info", trace, "--json", "-").out)
    assert (found["state"], found["steps"]) == ("complete", {"count": 5, "first": 0, "last": 4})
    assert [(r["layer"], r["records"], r["shapes"]) for r in found["sites"]][:2] == [
        ("stem", 5, [[1, 4, 5, 5]]),
        ("stem", 5, [[1, 2, 5, 5]]),
    ]
    assert found["layers"]["stem"]["kernel"] == [3, 3]
    text = hqtool("info", trace).out
    assert max(map(len, text.splitlines())) <= 80
    assert "1×4×5×5" in text


def test_list_names_everything_registered():
    text = hqtool("list").out
    for word in (
        "hindsight:momentum=0.9",
        "dsgc:interval=100,tol=0.001",
        "norm_ratio",
        "grad_input",
    ):
        assert word in text
    found = json.loads(hqtool("list", "--json", "-").out)
    assert found["estimators"][2]["parameters"] == {"momentum": 0.9, "per": "tensor"}


def test_list_knows_the_members_of_a_family():
    (row,) = json.loads(hqtool("list", "formats", "e4m3", "--json", "-").out)["formats"]
    assert (row["name"], row["parameters"]) == ("e4m3", {"scale": "free"})
    assert "int8-symmetric" in hqtool("list", "formats", "int8-symmetric").out
    for name, words in (("int99", "99 bits is out of bounds"), ("int8x", "did you mean 'int8'?")):
        done = hqtool("list", "formats", name)
        assert done.status == 2
        assert words in done.err


def test_convert_then_compare(tmp_path):
    x = {f"a/b/output/{t}": tensor("stem", "output", t) for t in range(3)}
    np.savez(tmp_path / "in.npz", **x)
    out = tmp_path / "out.h5"
    assert hqtool("convert", tmp_path / "in.npz", "-o", out).status == 0
    with TraceReader(out) as reader:
        (site,) = reader.sites
        assert (site.layer, site.tensor) == ("a/b", "output")
        values = [record.values for record in reader.records(site)]
    assert all((v == x[f"a/b/output/{t}"]).all() for t, v in enumerate(values))
    assert len(compare(out)["summary"]) == 4


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        (["compare", "missing.h5"], 3, ["missing.h5", "no such file"]),
        (["compare", SAMPLES / "table5.toml"], 3, ["table5.toml", "HDF5"]),
        (["compare", SAMPLES], 3, ["not a file"]),
        (["compare", "TRACE", "--layers", "nope.*"], 2, ["nope.*", "stem"]),
        (["compare", "TRACE", "--tensors", "outputs"], 2, ["outputs", "grad_input"]),
        (["compare", "TRACE", "--estimator", "hindsite"], 2, ["hindsite", "hindsight"]),
        (["compare", "TRACE", "--bits", "0"], 2, ["0 bits", "2 to 16"]),
        (["compare", "TRACE", "--bits", "eight"], 2, ["eight", "2..8"]),
        (["compare", "TRACE", "--bits", "8..2"], 2, ["8..2"]),
        (["compare", "TRACE", "--calibrate", "-1"], 2, ["-1"]),
        (["compare", "TRACE", "--rounding", "up"], 2, ["up", "nearest"]),
        (["compare", "TRACE", "--json", "-", "--csv", "-"], 2, ["stdout"]),
        (["compare", "TRACE", "--json", "no/such/folder/x.json"], 3, ["no/such/folder/x.json"]),
        (["compare", "TRACE", "--worst", "x"], 2, ["'x' is not a valid whole number"]),
        (["compare"], 2, ["TRACE"]),
        (["compare", "TRACE", "--colour"], 2, ["--colour"]),
        (["traffic", "missing.toml"], 3, ["missing.toml"]),
        (["traffic", SAMPLES / "table5.toml", "--bits", "q=8"], 2, ["q"]),
        (["info", "missing.h5"], 3, ["missing.h5"]),
        (["convert", "missing.npz", "-o", "NEW"], 3, ["missing.npz"]),
        (["convert", "missing.npz"], 2, ["-o"]),
        (["capture", "missing.py", "-o", "NEW"], 3, ["missing.py"]),
        (["capture", "-o", "NEW", "--", "missing.py"], 3, ["missing.py"]),
        (["capture", "-o", "NEW", "--every", "0", "x.py"], 2, ["every"]),
        (["capture", "-o", "NEW", "--steps", "5", "x.py"], 2, ["--steps 5", "100:200"]),
        (["frobnicate"], 2, ["frobnicate", "known: capture, compare"]),
        (["comapre", "TRACE"], 2, ["comapre", "did you mean 'compare'?"]),
        (["compare", "TRACE", "--jsom", "x"], 2, ["--jsom", "--json"]),
        (["compare", "TRACE", "--rounding", "stochastc"], 2, ["did you mean 'stochastic'?"]),
        (["compare", "TRACE", "--tensors", "outptu"], 2, ["did you mean 'output'?"]),
        (["compare", "TRACE", "--estimator", "hindsite"], 2, ["did you mean 'hindsight'?"]),
        (["traffic", SAMPLES / "table5.toml", "--pass", "forwrd"], 2, ["mean 'forward'?"]),
        (["traffic", SAMPLES / "table5.toml", "--bits", "ac=8"], 2, ["did you mean 'acc'?"]),
        (["traffic", SAMPLES / "table5.toml", "--fuse", "nrom"], 2, ["did you mean 'norm'?"]),
        (["traffic", SAMPLES / "table5.toml", "--sort", "dynmic"], 2, ["mean 'dynamic'?"]),
        (["traffic", SAMPLES / "table5.toml", "--top", "0"], 2, ["--top"]),
        (
            ["traffic", SAMPLES / "table5.toml", "--top", "2", "--quantizer", "current@int8"],
            2,
            ["--top", "--quantizer"],
        ),
        (["capture", "-o", "NEW", "--tensors", "outputs", "x.py"], 2, ["mean 'output'?"]),
        (["capture", "-o", "NEW", "--steps", "5:1", "x.py"], 2, ["5:1 holds no step", "A below B"]),
        (["capture", "-o", "NEW", "--steps", "5:5", "x.py"], 2, ["5:5 holds no step"]),
        (["capture", "-o", "NEW", "--steps=-2:5", "x.py"], 2, ["negative"]),
    ],
)
def test_errors_are_two_lines_with_cause_and_remedy(trace, tmp_path, args, status, words):
    places = {"TRACE": trace, "NEW": str(tmp_path / "new.h5")}
    done = hqtool(*(places.get(str(a), a) for a in args))
    assert done.status == status
    assert done.out == ""
    assert 1 <= len(done.err.splitlines()) <= 2
    assert done.err.startswith("hqtool: ")
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err
    assert list(tmp_path.iterdir()) == []


def test_without_torch_capture_says_how_to_install_it(tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None; import importlib.util as u; f = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n == 'torch' else f(n, *a)\n"
        "from hqtool.cli.main import main; sys.argv = ['hqtool', 'capture', 'x.py']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 3
    assert "pip install 'hqtool[capture]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_bare_hqtool_shows_its_help_as_help():
    """On stderr, status 2, as click does: nothing was asked for."""
    bare, asked = hqtool(), hqtool("--help")
    assert (bare.status, bare.out, asked.status) == (2, "", 0)
    assert bare.err == asked.out
    assert len(asked.out.splitlines()) > 10


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_version(option):
    assert hqtool(option) == (0, f"hqtool, version {__version__}\n", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_choice_answers_a_near_miss(name):
    for param in cli.get_command(click.Context(cli), name).params:
        assert isinstance(param.type, NamedChoice) or not isinstance(param.type, click.Choice)


def completed(words: str) -> list[str]:
    """What the shell would offer for the last word of a command line."""
    environ = {"_HQTOOL_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "1"}
    environ["COMP_CWORD"] = str(len(words.split()) - 1)
    code = "from hqtool.cli.main import main; import sys; sys.argv = ['hqtool']; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environ,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.split()


def test_the_shell_completes_commands_options_choices_and_files():
    assert completed("hqtool co") == ["plain,compare", "plain,convert"]
    assert "plain,--rounding" in completed("hqtool compare --ro")
    assert completed("hqtool compare --rounding stochastic-") == ["plain,stochastic-sampled"]
    assert completed("hqtool compare --format int8,fp4") == ["plain,int8,fp4-radix4"]
    assert completed("hqtool compare ru") == ["file,ru"]


def test_counts_are_words_of_one_number():
    words = [counted(n, "step") for n in (0, 1, 2, 2000)]
    assert words == ["0 steps", "1 step", "2 steps", "2,000 steps"]
    assert counted(2, "pass", "passes") == "2 passes"


def test_one_of_a_thing_is_one_thing(tmp_path, monkeypatch):
    """Whatever a command prints of a trace of one step of one layer."""
    monkeypatch.chdir(tmp_path)
    with TraceWriter("one.h5") as writer:
        writer.write("head", "output", 0, np.arange(8, dtype="f4"))
        writer.name_optimizers(0, ["SGD"])
        writer.commit(0)
    np.savez("one.npz", **{"head/output/0": np.ones(3)})
    for args in (
        ("info", "one.h5"),
        ("info", "one.h5", "--follow"),
        ("compare", "one.h5"),
        ("compare", "one.h5", "--by", "layer", "--bits", "2,3"),
        ("repair", "one.h5", "-o", "clean.h5"),
        ("convert", "one.npz", "-o", "new.h5"),
    ):
        done = hqtool(*args)
        assert done.status == 0, done.err
        assert not re.search(r"\b1 \w*[a-rt-z]s\b", done.out + done.err), done.out + done.err


# --- estimators of other packages ---------------------------------------------------------------


def test_an_outside_package_adds_an_estimator(trace, tmp_path):
    """Installed the way pip leaves it: a module, and entry points in its metadata."""
    (tmp_path / "half_range.py").write_text(
        "from hqtool.estimators.composed import Fixed\n"
        "from hqtool.vocab import Range\n\n"
        "def half(width: float = 1.0):\n"
        '    """half of a width either side of zero"""\n'
        "    return Fixed(Range(-width / 2, width / 2))\n"
    )
    info = tmp_path / "half_range-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: half-range\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[hqtool.estimators]\ngone = half_range:gone\nhalf = half_range:half\n"
    )

    def run(*args):
        return subprocess.run(
            [sys.executable, "-m", "hqtool", *args],
            capture_output=True, text=True, check=True, env={"PYTHONPATH": str(tmp_path)},
        )  # fmt: skip

    listed = run("list")
    assert "half of a width" in listed.stdout
    assert listed.stderr.startswith("hqtool: estimator 'gone' of half-range does not load: ")
    assert listed.stderr.count("\n") == 1
    spec = "half:width=4"
    done = run("compare", trace, "--json", "-", "--per-step", "--estimator", spec)
    rows = json.loads(done.stdout)
    assert {(r["estimator"], r["lo"], r["hi"]) for r in rows["steps"]} == {(spec, -2, 2)}


def test_info_names_the_recipe_and_leaves_its_file_to_json(tmp_path):
    path = tmp_path / "run.h5"
    with TraceWriter(str(path), run={"recipe": "mine", "rules": "[[rule]]\nweight = 'x'\n"}) as out:
        out.write("head", "output", 0, np.ones(4, np.float32))
        out.commit(0)
    shown = hqtool("info", path).out
    assert "mine" in shown
    assert "rule" not in shown
    assert json.loads(hqtool("info", path, "--json", "-").out)["run"]["rules"].startswith(
        "[[rule]]"
    )
