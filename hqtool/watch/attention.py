"""The products inside `nn.MultiheadAttention`: they are no module calls.

Its forward pass calls `F.linear` once to three times for the input projections, packed as far as
query, key and value are one tensor, and then once for the output projection.
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
        """What the next product is called within the attention, by its weight's number of rows.

        That is `in_proj` or, where it is not packed, `in_proj_q`, `in_proj_kv` and so on; then
        `out_proj`.
        """
        if not self._unprojected:
            return "out_proj"
        count = rows // self.module.embed_dim
        part, self._unprojected = self._unprojected[:count], self._unprojected[count:]
        return "in_proj" + ("" if part == "qkv" else f"_{part}")


class LinearSwitch:
    """Replaces `F.linear` while at least one attention runs, in whatever thread.

    Only then: elsewhere scripts may rely on its being torch's own, as torch.jit does.

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
