"""The products inside `nn.MultiheadAttention`, which are not calls of modules.

Its forward pass calls `F.linear` one to three times for the input projections (once for query, key
and value together where they are the same tensor), and then once for the output projection.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn
from torch.nn import functional as F

from hqtool.patch import replaced


class Attention:
    """One running forward pass of an attention module."""

    def __init__(self, module: nn.MultiheadAttention) -> None:
        self.module = module
        self._unprojected = "qkv"

    def next_part(self, rows: int) -> str:
        """The name of the next product within the attention, by its weight's number of rows.

        It is `in_proj` where one product projects all of the input, else `in_proj_q`,
        `in_proj_kv` and so on; and at last `out_proj`.
        """
        if not self._unprojected:
            return "out_proj"
        count = rows // self.module.embed_dim
        part, self._unprojected = self._unprojected[:count], self._unprojected[count:]
        return "in_proj" + ("" if part == "qkv" else f"_{part}")


class LinearSwitch:
    """Replaces `F.linear` while at least one attention runs in any thread.

    At other times it stays torch's own function, on which torch.jit, for one, relies.

    Args:
        wrap: makes the replacement of the original.
    """

    def __init__(self, wrap: Callable[[Any], Any]) -> None:
        self._wrap = wrap
        self._lock = threading.Lock()
        self._running = 0
        self._replacement = contextlib.ExitStack()

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Replace it for the time of a `with` block."""
        self._count(+1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            before, self._running = self._running, self._running + change
            if before == 0:
                self._replacement.enter_context(replaced(F, "linear", self._wrap))
            elif self._running == 0:
                self._replacement.close()
