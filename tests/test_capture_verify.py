"""`--verify`: training twice, and whether capture has changed it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from capture_models import read_run  # noqa: E402
from command import finish, hqtool, start  # noqa: E402

from hqtool.trace.reader import TraceReader  # noqa: E402

#: Two models, the first with a frozen layer and buffers, the second with an optimizer of its own.
TRAINING = """
    import os, sys, torch
    from torch import nn
    {before}
    first = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, affine=False), nn.Linear(4, 2))
    first[0].requires_grad_(False)
    second = nn.Linear(2, 1)
    optimizers = [torch.optim.SGD(each.parameters(), 0.1) for each in (first, second)]
    for step in range(3):
        second(first(torch.randn(5, 3))).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    print("trained", *sys.argv[1:])
    {after}
    """

#: Changes a buffer where torch runs under capture.
MEDDLING = """if "hqtool.capture.session" in sys.modules: first[1].running_mean.add_(1)"""

SCRIPTS = {
    "sound": ("torch.manual_seed(1)", "sys.exit(2)"),
    "meddled": ("torch.manual_seed(1)", f"{MEDDLING}; print('capture' in str(sys.modules))"),
    "unseeded": ("", ""),
}

#: A compiled model, whose fused kernels would round otherwise, with a buffer that has no values.
COMPILED = """
    import torch
    from torch import nn
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 1))
    model.register_buffer("shape", torch.empty(3, device="meta"))
    compiled = torch.compile(model, backend=lambda graph, inputs: lambda *args: 1 / 0)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    compiled(torch.randn(5, 3)).square().mean().backward()
    optimizer.step()
    """

#: Parameters that are sharded by FSDP2, over one process. It prints which run it is of those that
#: have met at the same place, as torchrun keeps it.
SHARDED = """
    import os, torch
    import torch.distributed as dist
    from torch import nn
    from torch.distributed.fsdp import fully_shard
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "{port}", "RANK": "0",
                    "WORLD_SIZE": "1", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    dist.init_process_group("gloo")
    print("run", dist.distributed_c10d._get_default_store().add("runs", 1))
    torch.manual_seed(1)
    model = fully_shard(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):
        model(torch.randn(5, 3)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    print(type(model[0].weight).__name__)
    dist.destroy_process_group()
    """

FURTHER = {"compiled": COMPILED, "sharded": SHARDED}

#: Trains nothing, and does not need torch.
IDLE = "print('idle')"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("verify")
    store = torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    for name, (before, after) in SCRIPTS.items():
        source = textwrap.dedent(TRAINING).format(before=before, after=after)
        (folder / f"{name}.py").write_text(source)
    (folder / "idle.py").write_text(IDLE)
    for name, source in FURTHER.items():
        source = source.replace("{port}", str(store.port)) if name == "sharded" else source
        (folder / f"{name}.py").write_text(textwrap.dedent(source))
    yield folder
    del store


@pytest.fixture(scope="module")
def verified(folder: Path) -> Iterator[dict[str, subprocess.CompletedProcess[str]]]:
    """All of them, at the same time."""
    started = {name: _start(folder, f"{name}.py", "a") for name in (*SCRIPTS, *FURTHER, "idle")}
    try:
        yield {name: finish(process) for name, process in started.items()}
    finally:
        for process in started.values():
            process.kill()


def _start(folder: Path, *command: str) -> subprocess.Popen[str]:
    return start(folder, "-m", "hqtool", "capture", "--every", "1", "--verify", *command)


Verified = dict[str, subprocess.CompletedProcess[str]]


def test_training_is_the_same(verified: Verified) -> None:
    """Parameters 12 + 4 + 8 + 2 and 2 + 1 values, buffers 4 + 4 + 1; the script's status counts
    as part of its behaviour, not as a failure."""
    found = verified["sound"]
    assert found.returncode == 0, found.stderr
    parameters, status, printed, time = found.stdout.splitlines()
    assert parameters == "parameters: bit-identical (9 tensors, 38 values, after 6 steps)"
    assert status == "exit status: 2 without capture, 2 with it"
    assert printed == "printed: the same"
    assert re.fullmatch(r"time: [\d.]+ s without capture, .* with it: .*×; a step .*×", time)


def test_the_trace_is_kept(verified: Verified, folder: Path) -> None:
    with TraceReader(folder / "sound.h5") as trace:
        assert (trace.state, len(trace.sites)) == ("truncated", 4)
    assert read_run(folder / "sound.h5")["command"] == ["sound.py", "a"]
    lines = verified["sound"].stderr.splitlines()
    assert next(line for line in lines if "sound.h5" in line).startswith("hqtool: sound.h5 (")
    assert "hqtool: running sound.py without capture" in lines


def test_a_changed_training_fails(verified: Verified) -> None:
    found = verified["meddled"]
    assert found.returncode == 1, found.stdout
    parameters, changed, *_ = found.stdout.splitlines()
    assert parameters == "parameters: 1 of 9 tensors differ, the first is 1.running_mean"
    assert changed.startswith("capture changed this training")


def test_a_script_that_differs_from_itself_proves_nothing(verified: Verified) -> None:
    found = verified["unseeded"]
    assert found.returncode == 3, found.stdout
    parameters, told, remedy = found.stdout.splitlines()
    assert re.fullmatch(r"parameters: \d of 9 tensors differ, the first is .*", parameters)
    assert "two runs without it differ from each other, too" in told
    assert remedy.startswith("  seed the script")


def test_compiled_models_are_compared_as_they_run_under_capture(verified: Verified) -> None:
    """The compiled code would fail: no run has used it."""
    found = verified["compiled"]
    assert found.returncode == 0, found.stdout + found.stderr
    parameters, limit, compiled, *_ = found.stdout.splitlines()
    assert parameters == "parameters: bit-identical (4 tensors, 21 values, after 1 step)"
    no_values = "a tensor on the meta device has no values"
    assert limit == f"not compared: 1 tensor, first shape ({no_values})"
    assert compiled.startswith("torch.compile: both runs let what it compiles run eagerly")
    told = [line for line in found.stderr.splitlines() if "eager" in line]
    assert [line.split(" eagerly")[0] for line in told] == [
        "hqtool: what torch.compile compiles runs",
        "hqtool: what torch.compile compiled ran",
    ]


def test_sharded_parameters_are_compared(verified: Verified) -> None:
    found = verified["sharded"]
    assert found.returncode == 0, found.stdout + found.stderr
    parameters, printed, _ = found.stdout.splitlines()
    assert parameters == "parameters: bit-identical (4 tensors, 21 values, after 2 steps)"
    assert printed == "printed: the same"


def test_without_an_optimizer_there_is_nothing_to_compare(verified: Verified) -> None:
    found = verified["idle"]
    assert found.returncode == 3
    assert found.stdout.startswith("parameters: cannot be compared: no optimizer made a step")


def test_nothing_runs_that_could_not_be_recorded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.py").write_text("open('ran', 'w')")
    (tmp_path / "script.h5").write_text("mine")
    at_sigterm = signal.getsignal(signal.SIGTERM)
    for out, cause in (("script.h5", "exists"), ("none/script.h5", "folder does not exist")):
        done = hqtool("capture", "--verify", "-o", out, "script.py")
        assert (done.status, done.out) == (2, "")
        assert cause in done.err
    assert signal.getsignal(signal.SIGTERM) == at_sigterm
    assert sorted(os.listdir()) == ["script.h5", "script.py"]
