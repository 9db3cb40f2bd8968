"""Recurrent layers: what they read and return, among nested arguments and packed sequences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence


def is_recurrent(module: nn.Module) -> bool:
    """Whether a layer multiplies within functions of its own, step by step."""
    return isinstance(module, (nn.RNNBase, nn.RNNCellBase))


def with_first_tensor(given: Any, change: Callable[[Tensor], Tensor]) -> tuple[Any, Tensor | None]:
    """The same with its first tensor changed, and that tensor; a packed sequence's data count.

    Args:
        given: a tensor, or any nesting of tuples, lists and dictionaries.
    """
    if isinstance(given, Tensor):
        return change(given), given
    if isinstance(given, PackedSequence):
        return given._replace(data=change(given.data)), given.data
    if isinstance(given, dict):
        values, found = with_first_tensor(list(given.values()), change)
        return dict(zip(given, values, strict=True)), found
    if isinstance(given, (tuple, list)):
        parts = list(given)
        for place, part in enumerate(parts):
            changed, found = with_first_tensor(part, change)
            if found is not None:
                parts[place] = changed
                return type(given)(parts), found
    return given, None
