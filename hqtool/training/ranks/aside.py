"""Ranks that run steps aside: they meet apart from the training that follows, and part together.

Both meet at the same address. A training that found what the steps aside have left in the store
there would connect to processes that have ended.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from hqtool.launch.importing import after_import
from hqtool.launch.process_rank import rank_of_group
from hqtool.patch import replace
from hqtool.training.ranks.messages import RankMessages, store_of_group

#: Seconds to wait for the other ranks at the end.
_WAIT_SECONDS = 30.0


def meet_apart() -> None:
    """Let the groups that this process makes meet under keys of their own."""

    def patch() -> None:
        from torch import distributed

        if distributed.is_available():
            replace(distributed.distributed_c10d, "rendezvous", _wrap)

    after_import("torch", patch)


def _wrap(original: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    @functools.wraps(original)
    def rendezvous(*args: Any, **kwargs: Any) -> Iterator[Any]:
        from torch.distributed.distributed_c10d import PrefixStore

        for store, *rank in original(*args, **kwargs):
            yield (PrefixStore("hqtool-aside", store), *rank)

    return rendezvous


def part() -> None:
    """Wait until all ranks have made their steps, so that none loses a peer while it needs it."""
    store = store_of_group()
    if store is None:
        return
    rank, ranks = (rank_of_group()[key] for key in ("rank", "world_size"))
    deadline = time.monotonic() + _WAIT_SECONDS
    with suppress(RuntimeError):  # rank 0, which may hold the store, has ended
        messages = RankMessages(store, "hqtool/part")
        messages.write(str(rank), 0, None)
        for other in range(ranks) if rank == 0 else ():
            messages.read(str(other), 0, deadline)
        if rank == 0:
            messages.write("all", 0, None)
        messages.read("all", 0, deadline)
