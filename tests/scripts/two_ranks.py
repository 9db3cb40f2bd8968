"""Starts a module twice, as the two ranks of torchrun, without importing torch anew."""

from __future__ import annotations

import os
import runpy
import socket
import sys


def main() -> None:
    """Rank 0 and rank 1 of `python -m MODULE ARGS…`."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    children = []
    for rank in range(2):
        if not (child := os.fork()):
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            module, *sys.argv[1:] = sys.argv[1:]
            runpy._run_module_as_main(module)  # type: ignore[attr-defined]
        children.append(child)
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(each, 0)[1]) for each in children))


if __name__ == "__main__":
    main()
