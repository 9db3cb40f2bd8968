"""Training scripts of many kinds: each as under `python`, and its trace as it should be.

They lie in tests/scripts, know nothing of hqtool, and print a sha256 over their parameters' bytes.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("torch")

from capture_models import read_records, read_run
from command import hqtool
from warm_python import WarmPython

from hqtool.sizes import counted
from hqtool.trace.reader import TraceReader
from hqtool.vocab import Record

SCRIPTS_FOLDER = Path(__file__).parent / "scripts"

#: (step, micro, call) of a site's records, in order.
Places = list[tuple[int, int, int]]


class Expected(NamedTuple):
    """What a script's trace holds.

    `output` and `grad_input` give for each layer its passes in each step, or all places.
    """

    steps: int
    output: dict[str, int | Places]
    grad_input: dict[str, int | Places]
    notes: dict[str, Any] = {}  # noqa: RUF012
    options: tuple[str, ...] = ()
    status: int = 0

    def places(self) -> dict[tuple[str, str], Places]:
        """By site."""
        kinds = {"output": self.output, "grad_input": self.grad_input}
        return {
            (layer, kind): self._places(passes)
            for kind, layers in kinds.items()
            for layer, passes in layers.items()
        }

    def _places(self, passes: int | Places) -> Places:
        if not isinstance(passes, int):
            return passes
        return [(step, micro, 0) for step in range(self.steps) for micro in range(passes)]


def passes(count: int | Places, layers: str) -> dict[str, int | Places]:
    """The same for several layers, blank-separated."""
    return dict.fromkeys(layers.split(), count)


BLOCKS = "blocks.0.conv.0 blocks.0.conv.3 blocks.0.conv.6 blocks.1.conv.0 blocks.1.conv.3 "
BLOCKS += "blocks.1.conv.6 classifier.1"
SEGMENTS = "reentrant.0 reentrant.3 modern.0 modern.3 tail.0 tail.2 head"
LM = "blocks.0.qkv blocks.0.proj blocks.0.mlp.0 blocks.0.mlp.2 blocks.1.attention.in_proj "
LM += "blocks.1.attention.out_proj head"
IN_STEPS_OF_D, IN_STEPS_OF_G = (
    [(step, 0, 0) for step in steps] for steps in ((0, 2, 4), (1, 3, 5))
)
OF_D = [place for step in (0, 2, 4) for place in ((step, 0, 0), (step, 1, 0), (step + 1, 0, 0))]
OF_D_AND_G = {"0": IN_STEPS_OF_D, "3": IN_STEPS_OF_D, "sequential2.0": OF_D, "sequential2.3": OF_D}
BLUR = ["sequential.0", "sequential.1"]

SCRIPTS = {
    "depthwise_cnn": Expected(3, passes(1, f"stem.0 {BLOCKS}"), passes(1, BLOCKS)),
    "tied_lm": Expected(3, passes(2, LM), passes(2, LM)),
    "packed_lstm": Expected(
        3,
        passes(1, "lstm project head"),
        passes(1, "lstm project head"),
    ),
    "gan": Expected(  # real and detached fake images need no gradient
        6,
        OF_D_AND_G,
        {"3": IN_STEPS_OF_G, "sequential2.0": IN_STEPS_OF_G, "sequential2.3": OF_D},
    ),
    "lbfgs": Expected(3, passes(4, "0 2"), passes(4, "2")),
    "grad_scaler": Expected(4, passes(1, "0 2"), passes(1, "2"), {"skipped_steps": [1]}),
    "bf16_autocast": Expected(3, passes(1, "conv1 conv2 head"), passes(1, "conv2 head")),
    "checkpointing": Expected(3, passes(1, f"stem {SEGMENTS}"), passes(1, SEGMENTS)),
    "compiled": Expected(
        3,
        passes(1, "0 2 sequential2.0 sequential2.2"),
        passes(1, "2 sequential2.0 sequential2.2"),
        {"torch_compile": "run eagerly"},
    ),
    "workers": Expected(4, passes(1, "0 2"), passes(1, "2")),
    "ema_eval": Expected(
        3, passes(1, "features.0 head"), passes(1, "head"), {"passes_without_gradients": 12}
    ),
    "by_hand": Expected(
        3,
        passes(2, "parameter0 parameter1 parameter2"),
        passes(2, "parameter1 parameter2"),
    ),
    "manual_update": Expected(4, passes(1, "0 2"), passes(1, "2"), {"steps_by_forward": True}),
    "exits_three": Expected(2, passes(1, "linear"), {}, status=3),
    "raises": Expected(
        2, passes(1, "0 2"), passes(1, "2"), {"passes_without_backward": 1}, status=1
    ),
    "dynamic_modules": Expected(
        3,
        passes(1, "0 1.stem 1.head 1.linear"),
        passes(1, "1.stem 1.head 1.linear"),
        {
            "passes_without_backward": 1,
            "unrecorded_layers": {"linear": "no backward pass reached it"},
        },
    ),
    "direct_forward": Expected(
        3,
        passes(1, "stem mixer mixed.in_proj mixed.out_proj head"),
        passes(1, "mixer mixed.in_proj mixed.out_proj head"),
    ),
    "preprocessing": Expected(
        4,
        passes(1, "0 3"),
        passes(1, "3"),
        {
            "passes_without_backward": 24,
            "unrecorded_layers": dict.fromkeys(BLUR, "no backward pass reached it"),
        },
    ),
    "child_process": Expected(2, passes(1, "0 2"), passes(1, "2")),
}

#: What a trace may say of a run besides what is known before it starts.
NOTES = (
    "failed",
    "late_tensors",
    "passes_without_backward",
    "passes_without_gradients",
    "skipped_replica_calls",
    "skipped_steps",
    "steps_by_forward",
    "torch_compile",
    "unfinished_step",
    "unrecorded_layers",
)


class Ran(NamedTuple):
    """A script that ran plainly and under capture."""

    expected: Expected
    plain: subprocess.CompletedProcess[str]
    captured: subprocess.CompletedProcess[str]
    trace: Path


def capture(options: Sequence[str]) -> tuple[str, ...]:
    """The command line before the script."""
    return ("-m", "hqtool", "capture", "-o", "T.h5", "--every", "1", *options)


@pytest.fixture(scope="module", params=SCRIPTS)
def ran(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    warm_python: WarmPython,
) -> Ran:
    """Each script, once."""
    folder = tmp_path_factory.mktemp(request.param)
    script = SCRIPTS_FOLDER / f"{request.param}.py"
    expected = SCRIPTS[request.param]
    plain = warm_python.run(folder, script)
    captured = warm_python.run(folder, *capture(expected.options), script)
    return Ran(expected, plain, captured, folder / "T.h5")


def records(ran: Ran, layer: str, kind: str) -> list[Record]:
    """A site's records, in order."""
    found = read_records(ran.trace)
    return [found[key] for key in sorted(found) if key[:2] == (layer, kind)]


def test_it_ends_as_under_python(ran: Ran) -> None:
    """What it prints includes the fingerprint of its parameters."""
    assert ran.captured.returncode == ran.plain.returncode == ran.expected.status
    assert ran.captured.stdout == ran.plain.stdout
    assert ran.captured.stderr.startswith(ran.plain.stderr)
    assert len(ran.plain.stdout.split()[-1]) == 64


def test_training_that_quantizes_nothing_ends_as_under_python(
    ran: Ran, warm_python: WarmPython
) -> None:
    """With the same bits of parameters, and of the random numbers of torch, numpy and Python."""
    command = ("-m", "hqtool", "train", "--recipe", "none", "-q", "--", ran.plain.args[0])
    done = warm_python.run(ran.trace.parent, *command)
    assert done.returncode == ran.expected.status
    assert done.stdout == ran.plain.stdout
    assert done.stderr.startswith(ran.plain.stderr)


def test_its_sites_are_recorded_at_every_step(ran: Ran) -> None:
    places: dict[tuple[str, str], Places] = {}
    for layer, kind, *place in sorted(read_records(ran.trace)):
        places.setdefault((layer, kind), []).append(tuple(place))
    assert places == ran.expected.places()


def test_each_record_holds_all_values(ran: Ran) -> None:
    for key, record in read_records(ran.trace).items():
        assert record.values is not None, key
        assert record.values.shape == record.shape, key
        assert not record.sampled, key


def test_what_was_left_out_is_noted(ran: Ran) -> None:
    run = read_run(ran.trace)
    assert {name: run[name] for name in NOTES if name in run} == ran.expected.notes


def test_the_trace_is_closed(ran: Ran) -> None:
    with TraceReader(ran.trace) as trace:
        assert trace.state == ("truncated" if ran.expected.status else "complete")
    *_, steps, advice = ran.captured.stderr.splitlines()
    count, sites = ran.expected.steps, len(ran.expected.places())
    assert steps == f"hqtool: {count} steps ({count} with values), {counted(sites, 'site')}"
    assert advice == "hqtool: next: hqtool compare T.h5"


def test_the_trace_can_be_compared(ran: Ran) -> None:
    done = hqtool("compare", "-q", "--json", "-", ran.trace)
    assert (done.status, done.err) == (0, "")
    rows = json.loads(done.out)["summary"]
    scored = {(row["layer"], row["tensor"]) for row in rows if row["layer"] is not None}
    assert scored >= set(ran.expected.places())


@pytest.mark.parametrize("ran", ["grad_scaler"], indirect=True)
def test_gradients_carry_the_scale_of_their_step(ran: Ran) -> None:
    """It falls once gradients overflow."""
    gradients = records(ran, "2", "grad_input")
    assert [each.loss_scale for each in gradients] == [256, 256, 128, 128]
    assert [each.stats.nnan + each.stats.ninf > 0 for each in gradients] == [0, 1, 0, 0]


@pytest.mark.parametrize("ran", ["packed_lstm"], indirect=True)
def test_of_a_tuple_the_first_tensor_is_the_output(ran: Ran) -> None:
    assert {each.shape for each in records(ran, "project", "output")} == {(3, 4)}
