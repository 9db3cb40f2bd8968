"""Running a script in a process of its own, to its end, to see what it ends with."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from hqtool.launch.stderr_lines import say

#: What a child runs.
_CHILD = "from hqtool.trial.fingerprint import main; main()"

_MESSAGE_START = b"hqtool: "


class FinishedRun(NamedTuple):
    """A run of the script.

    Args:
        how: told beside its name: 'under capture'.
        status: its exit status.
        seconds: how long it took, the start of Python included.
        out, err: what it printed, less what hqtool said.
        messages: what hqtool said.
        report: as `Fingerprint` writes it; empty where the process was cut short.
    """

    how: str
    status: int
    seconds: float
    out: bytes
    err: bytes
    messages: list[str]
    report: dict[str, Any]


def finished_run(job: dict[str, Any], how: str, quiet: bool) -> FinishedRun:
    """Run a script to its end.

    Args:
        job: as `hqtool.trial.fingerprint.main` takes it, but for `report` and `how`.
        how: told beside its name.
    """
    if not quiet:
        say(f"running {job['target']} {how}")
    with tempfile.TemporaryDirectory(prefix="hqtool-") as folder:
        out, err, report = (Path(folder, name) for name in ("out", "err", "report"))
        described = json.dumps(job | {"report": str(report), "how": how})
        command = [sys.executable, "-c", _CHILD, described]
        began = time.perf_counter()
        status = _wait_for(command, out, err)
        seconds = time.perf_counter() - began
        own, messages = _separated(err.read_bytes())
        found = json.loads(report.read_text()) if report.exists() else {}
        return FinishedRun(how, status, seconds, out.read_bytes(), own, messages, found)


def _wait_for(command: list[str], out: Path, err: Path) -> int:
    """Run a command to its end; if this process is ended, the command is, too."""
    with out.open("wb") as to_out, err.open("wb") as to_err:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=to_out, stderr=to_err)
        try:
            return child.wait()
        except BaseException:
            child.terminate()
            child.wait()
            raise


def _separated(err: bytes) -> tuple[bytes, list[str]]:
    """What the script printed to stderr, and what hqtool said there."""
    lines = err.splitlines(keepends=True)
    own = [line for line in lines if not line.startswith(_MESSAGE_START)]
    ours = [line.removeprefix(_MESSAGE_START) for line in lines if line.startswith(_MESSAGE_START)]
    return b"".join(own), [line.decode(errors="replace").rstrip() for line in ours]
