"""A script run by `warm_python` behaves as in a new Python, captured or not."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from capture_models import read_records
from command import finish, start
from warm_python import WarmPython

SCRIPTS = Path(__file__).parent / "scripts"
CAPTURE = ("-m", "hqtool", "capture", "--every", "1", "-o", "T.h5")

#: Everything of a program that it could know of itself; ends as the argument says.
INTROSPECTION = """
    import atexit, os, sys, threading
    print(sorted((k, str(v)) for k, v in globals().items() if k.startswith("__")))
    print(sys.argv, sys.path[0], os.getcwd(), os.environ["TOLD"], os.read(0, 1))
    print("hqtool" in sys.modules, sys.modules["__main__"].__dict__ is globals())
    def late():
        threading.main_thread().join()
        if not os.fork():
            print("by a child", flush=True)
            os._exit(0)
        os.wait()
    threading.Thread(target=late).start()
    atexit.register(print, "exit function")
    print("to stderr", file=sys.stderr)
    def end(how):
        if how == "raise":
            raise KeyError("at the end")
        if how == "kill":
            sys.stdout.flush()
            os.kill(os.getpid(), 15)
        sys.exit(int(how))
    end(sys.argv[1])
    """


@pytest.mark.parametrize("how", ["0", "7", "raise", "kill"])
def test_a_program_knows_no_difference(how: str, warm_python: WarmPython, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(INTROSPECTION))
    warm = warm_python.run(tmp_path, "script.py", how, TOLD="x")
    own = finish(start(tmp_path, "script.py", how, TOLD="x"))
    assert _seen(warm.stdout) == _seen(own.stdout)
    assert (warm.returncode, warm.stderr) == (own.returncode, own.stderr)


def _seen(text: str) -> str:
    """Less the addresses."""
    return re.sub(r"0x[0-9a-f]+", "", text)


def test_a_capture_is_the_same_as_in_a_python_of_its_own(
    warm_python: WarmPython, tmp_path: Path
) -> None:
    """What the script prints, its parameters' fingerprint included, and every recorded bit."""
    command = (*CAPTURE, str(SCRIPTS / "checkpointing.py"))
    started = start(tmp_path / "own", *command)
    warm = warm_python.run(tmp_path / "warm", *command)
    own = finish(started)
    assert (warm.returncode, warm.stdout) == (own.returncode, own.stdout) == (0, own.stdout)
    ours, theirs = (read_records(tmp_path / folder / "T.h5") for folder in ("warm", "own"))
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert ours[key].stats == theirs[key].stats
        assert np.array_equal(ours[key].values, theirs[key].values)
