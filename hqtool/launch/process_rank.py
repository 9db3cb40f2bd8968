"""Processes that train one model together: the rank of this one, and the name of its trace."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def rank_of_process() -> dict[str, int]:
    """`rank` and `world_size` as torchrun sets them; empty where there is only one process."""
    try:
        rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    except (KeyError, ValueError):
        return {}
    return {"rank": rank, "world_size": world_size} if world_size > 1 else {}


def rank_of_group() -> dict[str, int]:
    """`rank` and `world_size` in torch.distributed's default group; empty where there is none."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return {}
    return {"rank": distributed.get_rank(), "world_size": distributed.get_world_size()}


def path_of_rank(path: str | os.PathLike[str], rank: dict[str, int]) -> str:
    """T.rank0.h5 for T.h5: each process writes a trace of its own."""
    return _with(path, f".rank{rank['rank']}") if rank else os.fspath(path)


def path_of_process(path: str | os.PathLike[str], pid: int) -> str:
    """T.pid1234.h5 for T.h5: the trace of a process that the recorded one started."""
    return _with(path, f".pid{pid}")


def _with(path: str | os.PathLike[str], mark: str) -> str:
    whole = Path(path)
    return str(whole.with_name(f"{whole.stem}{mark}{whole.suffix}"))
