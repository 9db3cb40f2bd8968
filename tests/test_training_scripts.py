"""`hqtool train` with unmodified scripts: bits, exit status, coverage, and what it says."""

from __future__ import annotations

import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("torch")

from command import hqtool
from warm_python import WarmPython

from hqtool.trace.reader import TraceReader

SCRIPTS = Path(__file__).parent / "scripts"

TRAIN = ("-m", "hqtool", "train")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for script in SCRIPTS.glob("*.py"):
        shutil.copy(script, tmp_path)
    return tmp_path


def train(
    python: WarmPython, folder: Path, recipe: str, *command: str
) -> subprocess.CompletedProcess[str]:
    return python.run(folder, *TRAIN, "--recipe", recipe, *command)


@pytest.mark.parametrize("script", ["ddp", "forks", "stubborn"])
def test_none_ends_with_the_bits_of_plain_training(
    script: str, folder: Path, warm_python: WarmPython
) -> None:
    """Of scripts that start processes or let nothing stop them; of others test_capture_scripts."""
    environ = dict.fromkeys(("RANK", "LOCAL_RANK", "MASTER_PORT"), "0")
    environ |= {"WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "RESULTS": "."}
    found = []
    for before in ((), (*TRAIN, "--recipe", "none", "-q", "--")):
        given = environ if script == "ddp" else {}
        done = warm_python.run(folder, *before, f"{script}.py", **given)
        assert done.returncode == 0, done.stderr
        result = folder / "rank0.txt"
        found.append((sorted(done.stdout.splitlines()), result.exists() and result.read_text()))
    assert found[0] == found[1]


@pytest.mark.parametrize("script", ["checkpointing", "gan", "grad_scaler", "tied_lm"])
def test_the_same_command_twice_ends_with_the_same_bits(
    script: str, folder: Path, warm_python: WarmPython
) -> None:
    runs = [
        train(warm_python, folder, "paper-w8a8g8", *options, f"{script}.py")
        for options in (("-o", "run.h5", "--"), ("--",))
    ]
    assert [each.returncode for each in runs] == [0, 0], runs[0].stderr
    assert runs[0].stdout == runs[1].stdout
    assert runs[0].stdout != warm_python.run(folder, f"{script}.py").stdout
    with TraceReader(folder / "run.h5") as trace:
        assert trace.run["recipe"] == "paper-w8a8g8"
        assert {site.tensor for site in trace.sites} == {"output", "weight", "grad_input"}
        records = [each for site in trace.sites for each in trace.records(site)]
    assert all(each.looked is not None for each in records)


def test_what_is_said_at_the_end(folder: Path, warm_python: WarmPython) -> None:
    done = train(warm_python, folder, "paper-w8a8g8", "-o", "run.h5", "direct_forward.py")
    said = done.stderr
    assert "3 steps, 15 sites quantized by paper-w8a8g8" in said
    assert "coverage: 80.6 % of all multiplications quantized, 19.4 % excluded" in said
    assert "  excluded: 19.4 % products of two activations, which no rule names" in said
    assert "looks: 24 at 42 tensors" in said
    assert "next: hqtool info run.h5; hqtool compare run.h5" in said
    assert hqtool("compare", folder / "run.h5").status == 0
    assert hqtool("info", folder / "run.h5").status == 0
    assert hqtool("repair", folder / "run.h5", "-o", folder / "again.h5").status == 0
    with TraceReader(folder / "run.h5") as trace, TraceReader(folder / "again.h5") as again:
        for site in trace.sites:
            used = [each.used for each in trace.records(site)]
            assert used == [each.used for each in again.records(site)]


def test_the_sites_are_listed_without_a_trace(folder: Path, warm_python: WarmPython) -> None:
    (folder / "r.toml").write_text(
        'schema = "hqtool.recipe/1"\n[[rule]]\nlayers = ["*", "haed"]\nweight = "current@int8"\n'
        'output = "hindsight@int8"\ngrad_input = "hindsight@int8/stochastic"\n'
    )
    done = train(warm_python, folder, "r.toml", "-o", "run.h5", "--list-sites", "gan.py")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "hqtool: rule number 1 of r.toml names what did not run: haed\n"
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["0/grad_input", "hindsight@int8/stochastic"] in lines
    assert len(lines) == 12
    assert not (folder / "run.h5").exists()


def test_calibration_sets_ranges_up_and_training_begins_anew(
    folder: Path, warm_python: WarmPython
) -> None:
    command = ("--calibrate", "3", "-o", "run.h5", "grad_scaler.py")
    done = train(warm_python, folder, "paper-activations", *command)
    assert "ranges calibrated on 3 steps" in done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[:-1]] == ["0", "1", "2", "3"]
    with TraceReader(folder / "run.h5") as trace:
        assert trace.run["calibrated"] is True
        assert trace.run["began_with"].keys() == set(map(str, trace.sites))
        for site in trace.sites:
            if site.tensor == "output":
                assert not any(each.looked for each in trace.records(site))


def test_a_recipe_of_nothing_records_what_it_sees(folder: Path, warm_python: WarmPython) -> None:
    done = train(warm_python, folder, "none", "-o", "run.h5", "gan.py")
    assert done.stdout == warm_python.run(folder, "gan.py").stdout
    with TraceReader(folder / "run.h5") as trace:
        assert {site.tensor for site in trace.sites} == {"output", "grad_input"}
        records = [each for site in trace.sites for each in trace.records(site)]
    assert all(each.range is None and each.looked is None for each in records)


COPIES = """
import copy, torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.0))
by_hand = copy.deepcopy(model).requires_grad_(False)
other = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
optimizer = torch.optim.SGD(model.parameters(), 0.1)
x = torch.randn(8, 3)
for _ in range(3):
    model(x).square().sum().backward()
    optimizer.step()
    average.update_parameters(model)
    for mean, value in zip(by_hand.parameters(), model.parameters()):
        mean.copy_(value.detach())
    found = by_hand(3 * x)  # gradients are enabled
    with torch.no_grad():
        wanted = model(3 * x)
        print(torch.equal(average(3 * x), wanted), torch.equal(found, wanted))
        plain = [torch.tensor(each.tolist()) for each in model.parameters()]
        y = torch.relu(3 * x @ plain[0].T + plain[1]) @ plain[2].T + plain[3]
        print(torch.equal(y, wanted))
        other(x)
"""


def test_copies_are_evaluated_with_the_ranges_of_their_model(
    tmp_path: Path, warm_python: WarmPython
) -> None:
    (tmp_path / "copies.py").write_text(COPIES)
    done = train(warm_python, tmp_path, "paper-w8a8g8", "copies.py")
    assert done.stdout.split() == ["True", "True", "False"] * 3, done.stdout + done.stderr
    assert "6 sites quantized" in done.stderr
    assert "of a model that no optimizer updates" in done.stderr


def test_too_little_coverage(folder: Path, warm_python: WarmPython) -> None:
    command = ("--min-coverage", "0.9", "direct_forward.py")
    done = train(warm_python, folder, "paper-w8a8g8", *command)
    assert done.returncode == 1
    assert "coverage 80.6 % is below --min-coverage 0.9" in done.stderr
    command = ("--min-coverage", "0.9", "gan.py")
    assert train(warm_python, folder, "paper-w8a8g8", *command).returncode == 0


def test_the_exit_status_is_the_scripts(folder: Path, warm_python: WarmPython) -> None:
    assert train(warm_python, folder, "paper-w8a8g8", "exits_three.py").returncode == 3
    done = train(warm_python, folder, "none", "raises.py")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "hqtool/" not in done.stderr


def test_a_script_sees_its_own_arguments(tmp_path: Path, warm_python: WarmPython) -> None:
    (tmp_path / "own.py").write_text("import sys\nprint(sys.argv, __name__)\n")
    done = train(warm_python, tmp_path, "none", "own.py", "--seed", "3")
    assert done.stdout == "['own.py', '--seed', '3'] __main__\n"


def test_a_tensor_that_is_not_finite_can_stop_it(folder: Path, warm_python: WarmPython) -> None:
    (folder / "nan.py").write_text(
        "import torch\nmodel = torch.nn.Linear(2, 2)\n"
        "model(torch.full((1, 2), float('nan'))).sum().backward()\nprint('went on')\n"
    )
    command = ("--on-nonfinite", "stop", "nan.py")
    done = train(warm_python, folder, "paper-w8a8g8", *command)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "hqtool: linear/output is not finite at step 0: 2 NaN and 0 infinities\n"
        "  train with a wider recipe, or with --on-nonfinite keep\n"
    )
    assert "Traceback" not in done.stderr
    done = train(warm_python, folder, "paper-w8a8g8", "nan.py")
    assert (done.returncode, done.stdout) == (0, "went on\n")


#: The gradient is infinite at every step, whatever the scale: 1/√0.
PERSISTING = """
    import torch
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for step in range(9):
        optimizer.zero_grad()
        scaler.scale(model(torch.ones(1, 1)).sqrt().sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        print(step, scaler.get_scale(), flush=True)
    """


def test_what_overflows_under_a_loss_scale_is_no_divergence_until_it_is_1(
    folder: Path, warm_python: WarmPython
) -> None:
    (folder / "persisting.py").write_text(textwrap.dedent(PERSISTING))
    (folder / "r.toml").write_text(
        'schema = "hqtool.recipe/1"\n[[rule]]\nlayers = ["*"]\ngrad_output = "current@int8"\n'
    )
    stop = ("--on-nonfinite", "stop")
    done = train(warm_python, folder, "r.toml", *stop, "persisting.py")
    assert (done.returncode, done.stdout) == (1, "0 2.0\n1 1.0\n")
    assert "linear/grad_output is not finite at step 2: 0 NaN and 1 infinities" in done.stderr
    assert "2 updates skipped by the loss scaler, 2 gradient tensors overflowed" in done.stderr
    done = train(warm_python, folder, "r.toml", "persisting.py")
    assert done.returncode == 0
    assert "9 updates skipped by the loss scaler, 2 gradient tensors overflowed" in done.stderr
    assert "not finite: linear/grad_output at 7 tensors, first at step 2" in done.stderr
    done = train(warm_python, folder, "paper-w8a8g8", *stop, "grad_scaler.py")
    assert done.returncode == 0, done.stderr
    assert "1 update skipped by the loss scaler, 1 gradient tensor overflowed" in done.stderr
    assert "not finite" not in done.stderr


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (["--recipe", "paper-w8a8", "gan.py"], 2, "did you mean 'paper-w8a8g8'?"),
        (["--recipe", "statquant-bhq8", "gan.py"], 2, "bhq8 has no levels to train with"),
        (["--recipe", "none", "missing.py"], 3, "missing.py"),
        (["--recipe", "none", "--min-coverage", "2", "gan.py"], 2, "0…1"),
        (["--recipe", "none", "--on-nonfinite", "stay", "gan.py"], 2, "keep"),
    ],
)
def test_errors_before_anything_runs(
    args: list[str], status: int, said: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    done = hqtool("train", *args)
    assert done.status == status
    assert said in done.err
