"""Messages between the ranks of one training, through the store of torch.distributed.

The store is the one by which ranks meet, a table of keys and values. Reading and writing it is no
collective: it neither waits for what the script sends nor changes its order, it needs no device,
and a rank that writes nothing can be given up. (A group of our own would have to be made by all
ranks at once, in the same order as those of the script; what one rank leaves out of it blocks the
others, and a collective that is given up takes the group with it.) Whoever waits asks again and
again, for a waiting call would hold the connection, and could not be interrupted.
"""

from __future__ import annotations

import pickle
import time
from typing import Any

#: Seconds between two questions to the store: a share of the time waited so far, within bounds.
_SHORTEST, _LONGEST, _SHARE = 0.0002, 0.05, 0.05


class RankMessages:
    """Numbered messages that each rank writes, for others to read.

    Args:
        store: `torch.distributed`'s own.
        prefix: of the keys; nobody else's.
    """

    def __init__(self, store: Any, prefix: str) -> None:
        from torch.distributed.distributed_c10d import PrefixStore

        own = store.clone() if hasattr(store, "clone") else store  # a connection of its own
        self._store: Any = PrefixStore(prefix, own)

    def write(self, writer: str, number: int, message: Any) -> None:
        """Raises: RuntimeError: the store is gone."""
        self._store.set(f"{writer}/{number}", pickle.dumps(message, pickle.HIGHEST_PROTOCOL))

    def read(self, writer: str, number: int, deadline: float) -> Any | None:
        """A message; None where it has not come by then.

        Args:
            deadline: on `time.monotonic`'s clock.

        Raises:
            RuntimeError: the store is gone.
        """
        key, begin = f"{writer}/{number}", time.monotonic()
        while not self._store.check([key]):
            now = time.monotonic()
            if now > deadline:
                return None
            time.sleep(min(max(_SHORTEST, _SHARE * (now - begin)), _LONGEST))
        return pickle.loads(self._store.get(key))

    def delete(self, writer: str, number: int) -> None:
        """Free the memory of a message that all have read."""
        self._store.delete_key(f"{writer}/{number}")


def store_of_group() -> Any | None:
    """The store of the default process group; None where there is none, or it has no store."""
    from torch import distributed

    if not distributed.is_available() or not distributed.is_initialized():
        return None
    try:
        return distributed.distributed_c10d._get_default_store()
    except Exception:  # not of this version of torch, or of a backend such as MPI
        return None
