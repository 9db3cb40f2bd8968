"""A Python process that has loaded torch and is forked for each script: a start takes milliseconds.

Starting Python, importing torch and making an optimizer's first step takes three seconds of one
core, which tests of capture need not spend each time. The fixture `warm_python` (conftest.py) is
one such process for all tests of a pytest worker:

    def test_something(warm_python, tmp_path):
        (tmp_path / "train.py").write_text(...)
        done = warm_python.run(tmp_path, "-m", "hqtool", "capture", "train.py")
        assert done.returncode == 0, done.stderr

The command is what one would write after `python` (a script, or -m and a module). It runs in the
folder given, to its end, with threads, exit functions and exit status; what the script's children
print is waited for. hqtool is not loaded before the script, so a plain run does not involve it.

Unlike a new Python, the process has torch and torch._dynamo in sys.modules from the start, its
number of threads is set, and all runs share one hash seed. A test about how a program is found,
started, or imports torch uses `command.start` instead; test_warm_python.py compares the two.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import selectors
import signal
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

#: A run that prints nothing for so long is killed, so that no fault makes the whole suite hang.
MOST_SECONDS = 180


class WarmPython:
    """Controls the process that is forked, from the tests."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            text=True,
        )

    def run(
        self, folder: Path, *command: str | Path, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `python COMMAND` in a folder, with further environment variables, to its end."""
        return self._order(folder, command, environ)

    def kill(
        self, lines: int, folder: Path, *command: str | Path
    ) -> subprocess.CompletedProcess[str]:
        """Run `python COMMAND` and kill it, by SIGKILL, once it has printed so many lines."""
        return self._order(folder, command, {}, lines)

    def _order(
        self,
        folder: Path,
        command: tuple[str | Path, ...],
        environ: dict[str, str],
        kill_after: int | None = None,
    ) -> subprocess.CompletedProcess[str]:
        folder.mkdir(parents=True, exist_ok=True)
        words = list(map(str, command))
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        program = {"folder": str(folder), "command": words, "environ": environ}
        order = json.dumps({"program": program, "kill_after": kill_after})
        print(order, file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline())
        return subprocess.CompletedProcess(words, **answer)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


# --- in the process itself ------------------------------------------------------------------------


def serve() -> dict[str, Any]:
    """Fork for each order, and return its program in the child. Exit after the last order."""
    importlib.import_module("torch._dynamo")  # an optimizer's first step would import it
    gc.freeze()  # the collector would touch every object, and the system copy every page
    for line in sys.stdin:
        order = json.loads(line)
        ends = os.pipe(), os.pipe()
        if not (child := os.fork()):
            _redirect(*(writing for _, writing in ends))
            return dict(order["program"])
        print(json.dumps(_ended(child, ends, order["kill_after"])), flush=True)
    sys.exit()


def _redirect(out: int, err: int) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.closerange(3, max(out, err) + 1)


def _ended(child: int, ends: tuple[tuple[int, int], ...], kill_after: int | None) -> dict[str, Any]:
    """How a run ended, and what it and its children printed."""
    for _, writing in ends:
        os.close(writing)
    out, err = _read_to_end(child, [reading for reading, _ in ends], kill_after)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {"returncode": status, "stdout": out, "stderr": err}


def _read_to_end(child: int, readings: list[int], kill_after: int | None) -> list[str]:
    """Everything that comes through the pipes until no process has them open for writing.

    Once so many lines have come through the first pipe, the child is killed.
    """
    texts = dict.fromkeys(readings, b"")
    with selectors.DefaultSelector() as waiting:
        for reading in readings:
            waiting.register(reading, selectors.EVENT_READ)
        while waiting.get_map():
            ready = waiting.select(MOST_SECONDS)
            for key, _ in ready:
                part = os.read(key.fd, 1 << 16)
                texts[key.fd] += part
                if not part:
                    waiting.unregister(key.fd)
            if not ready or (kill_after and texts[readings[0]].count(b"\n") >= kill_after):
                os.kill(child, signal.SIGKILL)
                kill_after = None
            if not ready:
                break
    for reading in readings:
        os.close(reading)
    return [texts[reading].decode() for reading in readings]


def run_as_main(folder: str, command: list[str], environ: dict[str, str]) -> None:
    """Run a program as an interpreter that was started for it would."""
    os.environ.update(environ)
    os.chdir(folder)
    sys.orig_argv[1:] = command
    if command[0] == "-m":
        _run_module(*command[1:])
    else:
        _run_script(*command)


def _run_module(name: str, *args: str) -> None:
    """Run a module by the same function that `python -m` calls."""
    import runpy

    sys.path[0] = os.getcwd()
    sys.argv[:] = ["-m", *args]
    _new_main()
    runpy._run_module_as_main(name)  # type: ignore[attr-defined]


def _run_script(path: str, *args: str) -> None:
    sys.path[0] = os.path.dirname(os.path.realpath(path))
    sys.argv[:] = [path, *args]
    file = os.path.abspath(path)
    loader = SourceFileLoader("__main__", file)
    main = _new_main(__file__=file, __loader__=loader, __cached__=None)
    try:
        exec(compile(Path(path).read_bytes(), file, "exec", dont_inherit=True), main.__dict__)
    except Exception as error:
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next  # not this frame
        sys.excepthook(type(error), error, error.__traceback__)
        sys.exit(1)


def _new_main(**attributes: object) -> ModuleType:
    main = sys.modules["__main__"] = ModuleType("__main__")
    main.__dict__.update(attributes, __builtins__=__builtins__, __annotations__={})
    return main


if __name__ == "__main__":
    run_as_main(**serve())
