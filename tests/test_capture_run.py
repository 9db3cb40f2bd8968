"""A script under capture behaves as under `python`, and its trace is closed however it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from capture_models import read_records, read_run  # noqa: E402
from warm_python import WarmPython  # noqa: E402

import hqtool  # noqa: E402
from hqtool.capture.run import run_script  # noqa: E402
from hqtool.capture.settings import CaptureSettings  # noqa: E402
from hqtool.errors import DataError, HqtoolError, UsageError  # noqa: E402
from hqtool.trace.reader import TraceReader  # noqa: E402

DIGITS = Path(__file__).resolve().parents[1] / "sample_data" / "train_digits.py"

DRIVER = """
import sys
import hqtool  # noqa: E402
from hqtool.capture.run import run_script
from hqtool.capture.settings import CaptureSettings
argv = sys.argv[1:]
module = argv[0] == "-m"
target, *rest = argv[module:]
sys.exit(run_script(target, rest, out="trace.h5", settings=CaptureSettings(every=1), module=module))
"""

#: Prints what a program can know of itself.
INTROSPECTION = """
import json, sys
own = {name: str(value) for name, value in globals().items() if name not in ("json", "sys")}
own["__loader__"] = type(__loader__).__name__
own["__spec__"] = __spec__ and (__spec__.name, __spec__.origin, __spec__.parent)
own["main"] = sys.modules["__main__"].__dict__ is globals()
print(json.dumps([own, sys.argv, sys.path[0], sys.path.count(sys.path[0])]))
"""

Finished = subprocess.CompletedProcess[str]


def write(path: Path, source: str) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(textwrap.dedent(source))
    return path


def python(folder: Path, *command: str) -> Finished:
    return subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False
    )


def capture(folder: Path, *command: str) -> Finished:
    (folder / "trace.h5").unlink(missing_ok=True)
    return python(folder, "-c", DRIVER, *command)


def state(folder: Path) -> str:
    with TraceReader(folder / "trace.h5") as trace:
        return str(trace.state)


# --- as python would ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [("script.py", "-x", "1"), ("sub/link.py",), ("-m", "pack.module", "a"), ("-m", "pack")],
    ids=" ".join,
)
def test_a_program_finds_what_it_would_find_under_python(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    for name in ("script.py", "pack/module.py", "pack/__main__.py"):
        write(tmp_path / name, INTROSPECTION)
    write(tmp_path / "pack" / "__init__.py", "")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "link.py").symlink_to("../script.py")
    plain, captured = python(tmp_path, *command), capture(tmp_path, *command)
    assert json.loads(captured.stdout) == json.loads(plain.stdout)
    assert (captured.returncode, state(tmp_path)) == (0, "complete")


ENDINGS = {
    "import sys; sys.exit()": 0,
    "import sys; sys.exit(7)": 7,
    "import sys; sys.exit('a message')": 1,
    "raise SystemExit(True)": 1,
    "def f():\n    raise ValueError('deep')\ntry:\n    f()\nexcept ValueError as e:\n"
    "    raise KeyError('outer') from e": 1,
    "class Own(Exception): pass\nraise Own('text')": 1,
    "if:": 1,
    "import sys; sys.excepthook = lambda *args: print('hooked')\nraise ValueError": 1,
}


@pytest.mark.parametrize("source", ENDINGS, ids=range(len(ENDINGS)))
def test_a_program_ends_as_under_python(source: str, tmp_path: Path) -> None:
    write(tmp_path / "script.py", source)
    plain, captured = python(tmp_path, "script.py"), capture(tmp_path, "script.py")
    assert captured.returncode == plain.returncode == ENDINGS[source]
    assert captured.stdout == plain.stdout
    assert captured.stderr.startswith(plain.stderr)
    assert state(tmp_path) == ("truncated" if ENDINGS[source] else "complete")


def test_threads_and_exit_functions_run_as_under_python(tmp_path: Path) -> None:
    """Also a pool nobody shut down, whose idle threads end only with the interpreter."""
    source = """
        import atexit, threading, time
        from concurrent.futures import ThreadPoolExecutor
        atexit.register(print, "exit function")
        main_ended = threading.Event()
        def late():
            threading.main_thread().join()
            print("late thread", __name__, Thing().__class__.__module__)
        class Thing: pass
        threading.Thread(target=late).start()
        print(ThreadPoolExecutor(1).submit(len, "abc").result())
        print("main ends")
        """
    write(tmp_path / "script.py", source)
    plain, captured = python(tmp_path, "script.py"), capture(tmp_path, "script.py")
    assert captured.stdout == plain.stdout
    assert captured.stdout.endswith("exit function\n")
    assert (captured.returncode, state(tmp_path)) == (0, "complete")


def test_what_a_script_defines_can_be_pickled(tmp_path: Path) -> None:
    source = """
        import multiprocessing, pickle, sys
        class Thing: pass
        def square(x): return x * x
        if __name__ == "__main__":
            print(type(pickle.loads(pickle.dumps(Thing()))))
            for method in ("fork", "spawn"):
                with multiprocessing.get_context(method).Pool(1) as pool:
                    print(pool.map(square, [1, 2]))
        """
    write(tmp_path / "script.py", source)
    plain, captured = python(tmp_path, "script.py"), capture(tmp_path, "script.py")
    assert captured.stdout == plain.stdout
    assert captured.stderr.count("hqtool:") == 3
    assert (captured.returncode, state(tmp_path)) == (0, "complete")


def test_a_keyboard_interrupt_gives_status_130(tmp_path: Path) -> None:
    write(tmp_path / "script.py", "raise KeyboardInterrupt")
    captured = capture(tmp_path, "script.py")
    assert captured.returncode == 130
    assert captured.stderr.startswith("Traceback (most recent call last):\n  File")
    assert "hqtool/capture" not in captured.stderr
    assert state(tmp_path) == "truncated"


def test_sigterm_closes_the_trace_and_kills(tmp_path: Path) -> None:
    source = """
        import atexit, os, signal
        atexit.register(print, "never")
        os.kill(os.getpid(), signal.SIGTERM)
        print("never")
        """
    write(tmp_path / "script.py", source)
    captured = capture(tmp_path, "script.py")
    assert (captured.returncode, captured.stdout) == (-15, "")
    assert state(tmp_path) == "truncated"


def test_a_forked_child_does_not_close_the_trace(tmp_path: Path) -> None:
    source = """
        import os, sys
        if os.fork() == 0:
            sys.exit(3)
        print(os.waitstatus_to_exitcode(os.wait()[1]))
        """
    write(tmp_path / "script.py", source)
    captured = capture(tmp_path, "script.py")
    assert captured.stdout == "3\n"
    assert captured.stderr.count("trace.h5") == 1
    assert state(tmp_path) == "complete"


# --- before it starts -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "module"), [("none.py", False), (".", False), ("no_such_module", True)]
)
def test_a_missing_program_creates_nothing(
    target: str, module: bool, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    with pytest.raises(DataError) as caught:
        run_script(target, [], out="trace.h5", settings=CaptureSettings(), module=module)
    assert caught.value.exit_status == 3
    assert os.listdir() == []


def test_a_missing_submodule_ends_as_under_python(tmp_path: Path) -> None:
    write(tmp_path / "pack" / "__init__.py", "")
    plain = python(tmp_path, "-m", "pack.none")
    captured = capture(tmp_path, "-m", "pack.none")
    assert captured.returncode == plain.returncode == 1
    assert captured.stderr.startswith(plain.stderr)


def test_without_torch_nothing_is_run(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    script = write(tmp_path / "script.py", "raise AssertionError")
    with pytest.raises(HqtoolError, match="capture needs PyTorch"):
        run_script(str(script), [], out=tmp_path / "trace.h5", settings=CaptureSettings())
    with pytest.raises(HqtoolError, match="capture needs PyTorch"):
        hqtool.capture(None, tmp_path / "trace.h5")
    assert os.listdir(tmp_path) == ["script.py"]


def test_an_existing_trace_is_kept(tmp_path: Path) -> None:
    script = write(tmp_path / "script.py", "raise AssertionError")
    trace = write(tmp_path / "trace.h5", "mine")
    with pytest.raises(UsageError):
        run_script(str(script), [], out=trace, settings=CaptureSettings())
    assert trace.read_text() == "mine"


# --- recording ------------------------------------------------------------------------------------

#: What precedes a script's import of torch may change what it does.
IMPORT = """
    import os
    os.environ["OMP_NUM_THREADS"] = "1"
    import sys
    assert "torch" not in sys.modules
    import torch
    print(torch.get_num_threads())
    """

TRAINING = """
    import os, torch

    class Data(torch.utils.data.Dataset):
        def __len__(self): return 6
        def __getitem__(self, index):
            return layer(torch.full((3,), float(index))).detach()

    def train(steps):
        workers = {"num_workers": 1, "multiprocessing_context": "fork"}
        for _, x in zip(range(steps), torch.utils.data.DataLoader(Data(), 2, **workers)):
            layer(x).sum().backward()
            optimizer.step()

    layer = torch.nn.Linear(3, 3)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    """


def test_a_script_is_recorded_from_its_import_of_torch_on(tmp_path: Path) -> None:
    """Workers of a DataLoader record nothing, and print nothing."""
    write(tmp_path / "script.py", IMPORT + TRAINING + "\n    train(3)")
    captured = capture(tmp_path, "script.py")
    assert (captured.returncode, captured.stdout) == (0, "1\n"), captured.stderr
    steps = [key[2:] for key in read_records(tmp_path / "trace.h5")]
    assert steps == [(step, 0, 0) for step in range(3)]
    first, second, third = captured.stderr.splitlines()
    assert first.startswith("hqtool: trace.h5 (")
    assert second == "hqtool: 3 steps (3 with values), 1 site"
    assert third == "hqtool: next: hqtool compare trace.h5"
    run = read_run(tmp_path / "trace.h5")
    assert run["command"] == ["script.py"]
    assert run["settings"]["every"] == 1
    assert run["torch"]["devices"] == ["cpu"]
    assert state(tmp_path) == "complete"


@pytest.mark.parametrize(
    ("end", "status"), [("layer(torch.zeros(1, 4))", 1), ("os.kill(os.getpid(), 15)", -15)]
)
def test_a_failing_script_leaves_the_steps_it_made(
    end: str, status: int, tmp_path: Path, warm_python: WarmPython
) -> None:
    write(tmp_path / "script.py", TRAINING + f"\n    train(2)\n    {end}")
    captured = warm_python.run(tmp_path, "-m", "hqtool", "capture", "-o", "trace.h5", "script.py")
    assert captured.returncode == status
    assert ("RuntimeError" in captured.stderr) == (status == 1)
    assert "hqtool/capture" not in captured.stderr
    assert state(tmp_path) == "truncated"
    assert {key[2] for key in read_records(tmp_path / "trace.h5")} == {0, 1}


def test_threads_that_outlive_the_script_are_recorded(tmp_path: Path) -> None:
    source = """
        import threading, torch
        def late():
            threading.main_thread().join()
            layer = torch.nn.Linear(2, 2)
            layer(torch.ones(1, 2)).sum().backward()
            torch.optim.SGD(layer.parameters(), 0.1).step()
        threading.Thread(target=late).start()
        """
    write(tmp_path / "pack" / "__init__.py", "import torch")
    write(tmp_path / "pack" / "late.py", source)
    captured = capture(tmp_path, "-m", "pack.late")
    assert "1 step (1 with values), 1 site" in captured.stderr
    assert state(tmp_path) == "complete"


def test_the_sample_script_trains_the_same_under_capture(tmp_path: Path) -> None:
    command = (str(DIGITS), "--steps", "3", "--batch-size", "32")
    plain, captured = python(tmp_path, *command), capture(tmp_path, *command)
    assert captured.stdout == plain.stdout
    assert "test accuracy" in captured.stdout
    assert (captured.returncode, state(tmp_path)) == (0, "complete")
    layers = {key[0] for key in read_records(tmp_path / "trace.h5")}
    assert {"stem", "layer2.0.downsample.0", "head"} < layers
    assert len(layers) == 11
