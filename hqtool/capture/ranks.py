"""Several processes that train one model: which of them this is, and where it records."""

from __future__ import annotations

import os
from pathlib import Path


def rank_of_process() -> dict[str, int]:
    """`rank` and `world_size` as torchrun and its like tell them; empty where there is only one."""
    try:
        rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    except (KeyError, ValueError):
        return {}
    return {"rank": rank, "world_size": world_size} if world_size > 1 else {}


def path_of_rank(path: str | os.PathLike[str], rank: dict[str, int]) -> str:
    """T.rank0.h5 for T.h5: each process writes a trace of its own."""
    if not rank:
        return os.fspath(path)
    whole = Path(path)
    return str(whole.with_name(f"{whole.stem}.rank{rank['rank']}{whole.suffix}"))
