"""Failures of a capture: training ends as without it, and committed steps stay readable."""

from __future__ import annotations

import random
import signal
import textwrap
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from capture_models import read_records, read_run  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from warm_python import WarmPython  # noqa: E402

from hqtool.capture import recorder as recorder_module  # noqa: E402
from hqtool.capture.session import Session  # noqa: E402
from hqtool.capture.settings import CaptureSettings  # noqa: E402
from hqtool.trace.reader import TraceReader  # noqa: E402
from hqtool.trace.writer import TraceWriter  # noqa: E402

#: Trains, prints each step when it is made, and at last the parameters' fingerprint. Two processes
#: may print into one pipe: short lines, each written at once, which `print` does not promise.
SCRIPT = """
    import hashlib, os, resource, signal, sys, torch
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    for step in range(STEPS):
        if step == STEPS // 2:
            AT_HALF
        optimizer.zero_grad()
        model(torch.randn(32, 8)).square().mean().backward()
        optimizer.step()
        sys.stdout.write(f"{step}\\n")
        sys.stdout.flush()
    bits = b"".join(p.detach().numpy().tobytes() for p in model.parameters())
    sys.stdout.write(hashlib.sha256(bits).hexdigest() + "\\n")
    """


def command(folder: Path, at_half: str, steps: int = 100, *, capture: bool = True) -> list[str]:
    """Write the script; what runs it, after `python`."""
    source = textwrap.dedent(SCRIPT).replace("STEPS", str(steps)).replace("AT_HALF", at_half)
    (folder / "script.py").write_text(source)
    options = ["-m", "hqtool", "capture", "-o", "trace.h5", "--every", "1"] if capture else []
    return [*options, "script.py"]


def steps_of(path: Path) -> set[int]:
    """The steps of a trace; each record's values are read, and checked against its statistics."""
    records = read_records(path)
    for record in records.values():
        assert record.values is None or record.values.max() == record.stats.max
    return {key[2] for key in records}


def train(path: Path | None, steps: int = 10, **options: Any) -> list[Tensor]:
    """The parameters after training in this process, captured or not."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    session = None
    if path is not None:
        session = Session(TraceWriter(path, **options), CaptureSettings(every=1))
        session.attach()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    for _ in range(steps):
        model(torch.randn(4, 8)).square().mean().backward()
        optimizer.step()
    if session is not None:
        session.detach()
        session.close("complete")
    return list(model.parameters())


def same_bits(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    pairs = zip(ours, theirs, strict=True)
    return all(torch.equal(a.view(torch.int32), b.view(torch.int32)) for a, b in pairs)


def test_a_failing_hook_costs_its_site_alone(tmp_path: Path, monkeypatch: Any) -> None:
    original = recorder_module.stats_of_tensor

    def stats(tensor: Tensor) -> Any:
        if tensor.shape == (4, 1):  # the last layer's output
            raise RuntimeError("planted")
        return original(tensor)

    plain = train(None)
    monkeypatch.setattr(recorder_module, "stats_of_tensor", stats)
    assert same_bits(plain, train(tmp_path / "t.h5"))
    assert steps_of(tmp_path / "t.h5") == set(range(10))
    assert read_run(tmp_path / "t.h5")["failed"] == {"2/output": "RuntimeError: planted"}
    assert {key[:2] for key in read_records(tmp_path / "t.h5")} == {
        ("0", "output"),
        ("2", "grad_input"),
    }


def test_a_disk_that_gets_full(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    plain, calls = train(None), []
    original = TraceWriter._require_space

    def require_space(writer: TraceWriter, coming_bytes: int) -> None:
        calls.append(coming_bytes)
        writer._reserve_bytes = 1 << 60 if writer.steps_committed == 4 else 0
        original(writer, coming_bytes)

    monkeypatch.setattr(TraceWriter, "_require_space", require_space)
    assert same_bits(plain, train(tmp_path / "t.h5"))
    assert calls
    assert steps_of(tmp_path / "t.h5") == set(range(4))
    assert "training goes on" in capsys.readouterr().err
    with TraceReader(tmp_path / "t.h5") as trace:
        assert trace.state == "truncated"


@pytest.fixture(scope="module")
def plain_end(tmp_path_factory: pytest.TempPathFactory, warm_python: WarmPython) -> str:
    """The parameters' fingerprint after plain training."""
    folder = tmp_path_factory.mktemp("plain")
    done = warm_python.run(folder, *command(folder, "pass", capture=False))
    return done.stdout.splitlines()[-1]


#: What happens to the process in the middle of training, after which it goes on.
SURVIVED = {
    "fork": "os.fork() or signal.alarm(60)",
    "file_size": "limit = os.path.getsize('trace.h5') + 1000; "
    "resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))",
}


@pytest.mark.parametrize("fault", SURVIVED)
def test_training_goes_on_to_the_same_end(
    fault: str, tmp_path: Path, plain_end: str, warm_python: WarmPython
) -> None:
    done = warm_python.run(tmp_path, *command(tmp_path, SURVIVED[fault]))
    assert done.returncode == 0, done.stderr
    ends = [line for line in done.stdout.splitlines() if len(line) > 9]
    assert ends == [plain_end] * (2 if fault == "fork" else 1)
    steps = steps_of(tmp_path / "trace.h5")
    assert steps == set(range(len(steps)))
    assert len(steps) == 100 if fault == "fork" else 50 <= len(steps) < 100


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -15)])
def test_a_signal_in_mid_training(
    number: int, status: int, tmp_path: Path, warm_python: WarmPython
) -> None:
    signalled = command(tmp_path, f"os.kill(os.getpid(), {int(number)})")
    done = warm_python.run(tmp_path, *signalled)
    assert done.returncode == status
    assert steps_of(tmp_path / "trace.h5") == set(range(50))
    with TraceReader(tmp_path / "trace.h5") as trace:
        assert trace.state == "truncated"


@pytest.mark.parametrize("seed", range(3))
def test_a_kill_at_any_instant(seed: int, tmp_path: Path, warm_python: WarmPython) -> None:
    """Every step that the script has seen end is there."""
    lines = random.Random(seed).randrange(1, 200)
    done = warm_python.kill(lines, tmp_path, *command(tmp_path, "pass", 10**6))
    assert done.returncode == -signal.SIGKILL
    seen = int(done.stdout.splitlines()[lines - 1])
    seen = max([seen, *map(int, done.stdout.splitlines()[:-1])])
    steps = steps_of(tmp_path / "trace.h5")
    assert steps == set(range(len(steps)))
    assert len(steps) > seen


#: What a script may do to its trace and its streams, and what capture says of that.
MEDDLING = {
    "deletes its trace": (
        "os.unlink('trace.h5')",
        "trace.h5 was deleted or replaced while it was written: nothing of it is left",
    ),
    "moves its trace": ("os.rename('trace.h5', 'moved.h5')", "trace.h5 was moved"),
    "closes all descriptors": (
        "os.closerange(3, 256); mine = open('mine', 'w'); print('mine', file=mine, flush=True)",
        "trace.h5: the program has closed its file descriptor",
    ),
    "closes stdout": ("os.write(1, b'x' * 64); os.write(1, b'\\n'); sys.stdout.close()", ""),
    "replaces stdout": (  # by one that Python cannot flush: status 120
        "named = {'__repr__': lambda self: 'Out', 'write': print_to_stderr}; "
        "sys.stdout = type('Out', (), named)()",
        "",
    ),
    "replaces stderr": (
        "import io; sys.stderr = io.StringIO(); "
        "import atexit; atexit.register(lambda: print(repr(sys.stderr.getvalue())))",
        "next: hqtool compare trace.h5",
    ),
}


@pytest.mark.parametrize("what", MEDDLING)
def test_a_script_may_do_as_it_likes(what: str, tmp_path: Path, warm_python: WarmPython) -> None:
    """Its output and status are its own, a last error included; capture says what it can."""
    meddling, said = MEDDLING[what]
    source = f"""
        import os, sys, torch
        def print_to_stderr(self, text):
            os.write(2, text.encode())
        torch.manual_seed(0)
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), 1e-3)
        for step in range(4):
            if step == 2:
                {meddling}
            model(torch.randn(3, 2)).square().mean().backward()
            optimizer.step()
        if sys.stdout is not None and not getattr(sys.stdout, "closed", False):
            print(model.weight.tolist())
        sys.exit("the end")
        """
    (tmp_path / "script.py").write_text(textwrap.dedent(source))
    (tmp_path / "trace.h5").write_text("for the plain run")
    plain = warm_python.run(tmp_path, "script.py")
    options = ("-m", "hqtool", "capture", "-f", "-o", "trace.h5", "--every", "1")
    done = warm_python.run(tmp_path, *options, "script.py")
    lines = done.stderr.splitlines(keepends=True)
    own = "".join(line for line in lines if not line.startswith("hqtool: "))
    assert (done.returncode, done.stdout, own) == (plain.returncode, plain.stdout, plain.stderr)
    assert plain.returncode == (120 if what == "replaces stdout" else 1)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    trace = tmp_path / ("moved.h5" if "moves" in what else "trace.h5")
    if "deletes" in what:
        assert not trace.exists()
    else:
        assert steps_of(trace) == set(range(2 if "all descriptors" in what else 4))
    if "all descriptors" in what:
        assert (tmp_path / "mine").read_text() == "mine\n"
