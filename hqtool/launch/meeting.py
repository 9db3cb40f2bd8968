"""Where the ranks of a program meet: each of several runs of it under keys of its own.

All runs meet at the same address. torchrun keeps the store there from one run to the next: a run
that found what another one has left in it would connect to processes that have ended.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from hqtool.launch.importing import after_import
from hqtool.patch import replace


def meet_apart(run: str) -> None:
    """Let the groups that this process makes meet where those of this run do.

    Args:
        run: its name, the same on all ranks.
    """

    def patch() -> None:
        from torch import distributed

        if distributed.is_available():
            replace(distributed.distributed_c10d, "rendezvous", lambda made: _apart(made, run))

    after_import("torch", patch)


def _apart(original: Callable[..., Iterator[Any]], run: str) -> Callable[..., Iterator[Any]]:
    @functools.wraps(original)
    def rendezvous(*args: Any, **kwargs: Any) -> Iterator[Any]:
        from torch.distributed.distributed_c10d import PrefixStore

        for store, *rank in original(*args, **kwargs):
            yield (PrefixStore(f"hqtool {run}", store), *rank)

    return rendezvous
