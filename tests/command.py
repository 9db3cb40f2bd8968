"""Running the command line in this process, as its user would see it."""

from __future__ import annotations

import contextlib
import io
import sys
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
