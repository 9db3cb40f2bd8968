"""Running the command line as a user would, in this process or another."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from hqtool.cli.main import main


class Done(NamedTuple):
    status: int
    out: str
    err: str


def hqtool(*args: object) -> Done:
    """Exit status, stdout and stderr of `hqtool ARGS`, piped."""
    out, err, old = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["hqtool", *map(str, args)]
    status = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.argv = old
    return Done(status, out.getvalue(), err.getvalue())


def start(folder: Path, *command: str | Path, **environ: str) -> subprocess.Popen[str]:
    """Start a Python program with one thread, because several run at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait for the end of a process."""
    out, err = process.communicate(timeout=180)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
