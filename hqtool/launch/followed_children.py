"""Letting the child processes that multiprocessing starts be followed as their parent is.

Unlike forked ones they inherit no hooks: the program that they run is given another beginning.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from hqtool.launch.importing import after_import
from hqtool.patch import replace

#: How the programs begin that multiprocessing runs as a child, and as the server of its forks.
_STARTS = ("from multiprocessing.spawn import", "from multiprocessing.forkserver import")


def follow_children(beginning: str) -> None:
    """Let the children that multiprocessing starts from now on begin with a statement of Python."""

    def wrap(original: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(original)
        def spawnv_passfds(path: Any, args: Sequence[Any], passfds: Any) -> int:
            return original(path, [_begun(word, beginning) for word in args], passfds)

        return spawnv_passfds

    def patch() -> None:
        from multiprocessing import util

        replace(util, "spawnv_passfds", wrap)

    after_import("multiprocessing.util", patch)


def _begun(word: Any, beginning: str) -> Any:
    """A word of a child's command line; if it is the program, the statement goes before it."""
    if not isinstance(word, str) or not word.startswith(_STARTS):
        return word
    return f"{beginning}; {word}"
