"""Ranks that run steps aside part together."""

from __future__ import annotations

import time
from contextlib import suppress

from hqtool.launch.process_rank import rank_of_group
from hqtool.training.ranks.messages import RankMessages, store_of_group

#: Seconds to wait for the other ranks at the end.
_WAIT_SECONDS = 30.0


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
