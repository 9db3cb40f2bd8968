"""Recurrent layers: what they read, multiply with and return, and where it stands.

A layer is run by one function of torch, which is given all its weights. So these can be replaced;
what passes from one step of the sequence to the next, and between layers, cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

#: The functions that run recurrent layers, and cells.
KERNELS = frozenset(
    getattr(torch, f"{kind}{ending}")
    for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu")
    for ending in ("", "_cell")
)


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


def matrices_of(module: nn.Module, args: Sequence[Any]) -> Iterator[tuple[str, Tensor]]:
    """The matrices that a recurrent layer multiplies with, by the names of its parameters.

    Args:
        args: those of the function of KERNELS that it calls.
    """
    if isinstance(module, nn.RNNBase):
        names = module._flat_weights_names
        lists = [each for each in args if isinstance(each, (list, tuple))]
        found = zip(names, lists[-1], strict=True)
    else:
        found = zip(("weight_ih", "weight_hh"), args[2:4], strict=True)
    return (each for each in found if each[1].dim() > 1)
