"""Child processes that multiprocessing starts anew record themselves: they inherit no hooks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from hqtool.capture.recording import Plan, Recording
from hqtool.launch.importing import after_import
from hqtool.patch import replace

#: How multiprocessing begins the program of a child, and that of the server that forks children.
_STARTS = ("from multiprocessing.spawn import", "from multiprocessing.forkserver import")


def follow(plan: Plan) -> None:
    """Let the children that multiprocessing starts from now on record themselves."""

    def wrap(original: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(original)
        def spawnv_passfds(path: Any, args: Sequence[Any], passfds: Any) -> int:
            return original(path, [_entered(word, plan) for word in args], passfds)

        return spawnv_passfds

    def patch() -> None:
        from multiprocessing import util

        replace(util, "spawnv_passfds", wrap)

    after_import("multiprocessing.util", patch)


def enter(plan: str) -> None:
    """What a child calls before anything else."""
    followed = Plan.from_json(plan)
    follow(followed)
    Recording.of_child(followed).begin()


def _entered(word: Any, plan: Plan) -> Any:
    """A word of a child's command line; if it is its program, with a call of `enter` before it."""
    if not isinstance(word, str) or not word.startswith(_STARTS):
        return word
    return f"from {__name__} import enter; enter({plan.to_json()!r}); {word}"
