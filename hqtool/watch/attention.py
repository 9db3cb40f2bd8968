"""The products inside attention, which are not calls of modules.

The forward pass of `nn.MultiheadAttention` calls `F.linear` one to three times for the input
projections (once for query, key and value together where they are the same tensor), and then once
for the output projection. In between it multiplies queries with keys, and the attention weights
with values, by functions of torch, or by `F.scaled_dot_product_attention`.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hqtool.patch import replaced

#: Multiplies two tensors by the function given.
Multiply = Callable[[Callable[..., Tensor], Tensor, Tensor], Tensor]

#: The names of the two products of attention: queries with keys, attention weights with values.
PRODUCTS_OF_ATTENTION = ("qk", "av")


class Attention:
    """One running forward pass of an attention module."""

    def __init__(self, module: nn.MultiheadAttention) -> None:
        self.module = module
        self._unprojected = "qkv"
        self._products = iter(PRODUCTS_OF_ATTENTION)

    def next_part(self, rows: int) -> str:
        """The name of the next projection within the attention, by its weight's number of rows.

        It is `in_proj` where one product projects all of the input, else `in_proj_q`,
        `in_proj_kv` and so on; and at last `out_proj`.
        """
        if not self._unprojected:
            return "out_proj"
        count = rows // self.module.embed_dim
        part, self._unprojected = self._unprojected[:count], self._unprojected[count:]
        return "in_proj" + ("" if part == "qkv" else f"_{part}")

    def next_product(self) -> str | None:
        """The name of the next product of two activations; None: there should be no more."""
        return next(self._products, None)


class AttentionSwitch:
    """Replaces functions of torch while at least one attention runs in any thread.

    At other times they stay torch's own, on which torch.jit, for one, relies.

    Args:
        wraps: (module, name) → what makes the replacement of the original.
    """

    def __init__(self, wraps: Mapping[tuple[Any, str], Callable[[Any], Any]]) -> None:
        self._wraps = wraps
        self._lock = threading.Lock()
        self._running = 0
        self._replacement = contextlib.ExitStack()

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Replace them for the time of a `with` block."""
        self._count(+1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            before, self._running = self._running, self._running + change
            if before == 0:
                for (owner, name), wrap in self._wraps.items():
                    self._replacement.enter_context(replaced(owner, name, wrap))
            elif self._running == 0:
                self._replacement.close()


def attend_by_products(
    multiply_qk: Multiply,
    multiply_av: Multiply,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """What `F.scaled_dot_product_attention` computes, as its documentation writes it out.

    Args:
        multiply_qk, multiply_av: compute the two products.
        query, key, value: (…, L, E), (…, S, E) and (…, S, V); all others as in that function.

    Returns:
        (…, L, V).
    """
    if enable_gqa:
        key, value = (
            each.repeat_interleave(query.size(-3) // each.size(-3), -3) for each in (key, value)
        )
    scale = 1 / math.sqrt(query.size(-1)) if scale is None else scale
    scores = multiply_qk(scores_of, query, key) * scale
    if is_causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~seen, -math.inf)
    if attn_mask is not None:
        masks = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -math.inf) if masks else scores + attn_mask
    weights = torch._safe_softmax(scores, -1)  # 0 where a query sees no key
    if dropout_p:
        weights = F.dropout(weights, dropout_p)
    return multiply_av(torch.matmul, weights, value)


def scores_of(query: Tensor, key: Tensor) -> Tensor:
    """Each query times each key: (…, L, E) and (…, S, E) → (…, L, S)."""
    return torch.matmul(query, key.transpose(-2, -1))


def multiplications_of_attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """How often the two products multiply, of tensors as `attend_by_products` takes them."""
    if not all(isinstance(each, Tensor) and each.dim() > 1 for each in (query, key, value)):
        return 0
    rows = query.numel() // max(1, query.shape[-1])
    return int(rows * key.shape[-2] * (query.shape[-1] + value.shape[-1]))
