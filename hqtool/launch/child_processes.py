"""Counting the Python processes that a program starts without forking: they inherit no hooks."""

from __future__ import annotations

import functools
import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from typing import Any

from hqtool.launch.importing import after_import
from hqtool.patch import replace
from hqtool.sizes import counted

#: The module whose function is run by the workers of data loaders.
_LOADER_MODULE = "torch.utils.data._utils.worker"


class StartedProcesses:
    """Counts the Python processes that were started, in order to say what was not recorded.

    Workers of data loaders are not counted, nor what multiprocessing starts for its own use.

    Args:
        lack: what is said of them.
        remedy: how those of multiprocessing are reached.
    """

    def __init__(self, lack: str = "not recorded", remedy: str = " (--follow-fork)") -> None:
        self._lack, self._remedy = lack, remedy
        self._by_method: Counter[str] = Counter()
        self._programs = 0

    def watch(self, *, followed: bool) -> None:
        """Begin to count.

        Args:
            followed: the children of multiprocessing are recorded, and therefore not counted.
        """
        replace(subprocess.Popen, "__init__", self._wrap_popen)
        if not followed:
            after_import("multiprocessing.process", self._watch_multiprocessing)

    def lines(self) -> list[str]:
        """Messages that tell of the processes counted."""
        lines = [
            f"{self._lack}: {counted(count, 'process', 'processes')} started by {method}, "
            f"if {_training(count)}{self._remedy}"
            for method, count in sorted(self._by_method.items())
        ]
        if self._programs:
            programs = f"{counted(self._programs, 'Python program')} started"
            lines.append(f"{self._lack}: {programs}, if {_training(self._programs)}")
        return lines

    def _watch_multiprocessing(self) -> None:
        from multiprocessing.process import BaseProcess

        replace(BaseProcess, "start", self._wrap_start)

    def _wrap_start(self, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def start(process: Any) -> None:
            loading = getattr(process._target, "__module__", "") == _LOADER_MODULE
            original(process)  # deletes process._target
            method = process._popen.method
            if method != "fork" and not loading:
                self._by_method[method] += 1

        return start

    def _wrap_popen(self, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def popen(process: Any, args: Any, *rest: Any, **kwargs: Any) -> None:
            original(process, args, *rest, **kwargs)
            self._programs += _is_python(kwargs.get("executable") or args)

        return popen


def _is_python(args: Any) -> bool:
    """Whether a command line is one of a Python interpreter."""
    words = args.split() if isinstance(args, str) else [args] if _is_path(args) else list(args)
    name = os.path.basename(os.fsdecode(words[0])) if words else ""
    return re.fullmatch(r"python[\d.]*", name) is not None


def _is_path(args: Any) -> bool:
    return isinstance(args, bytes | os.PathLike)


def _training(count: int) -> str:
    return "they train" if count > 1 else "it trains"
