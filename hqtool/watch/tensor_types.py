"""Tensors of unusual types: what can be read of them, and why others cannot be read."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

#: A context manager in which no tensor subclass and no mode sees what is called: a script may count
#: such calls, a subclass need not support every function that hqtool uses, and hqtool's own mode
#: makes reading a tensor's attribute ten times as slow.
Unseen = torch._C.DisableTorchFunction


def dense_of(tensor: Tensor) -> Tensor:
    """The tensor itself; of a nested one the values of all its parts.

    Returns:
        for the layout `torch.jagged` the parts joined along their ragged dimension, for the older
        layout one dimension of all values.
    """
    return tensor.detach().contiguous().values() if tensor.is_nested else tensor


def is_transformed(tensor: Tensor) -> bool:
    """Whether a tensor is a stand-in within a transform of torch.func, such as vmap or grad.

    Or it stands for several gradients, which one backward pass takes at once.
    """
    functions = torch._C._functorch
    return functions.is_functorch_wrapped_tensor(tensor) or functions.is_legacy_batchedtensor(
        tensor
    )


def running_transform() -> str | None:
    """What runs in this thread that derives by itself, past autograd's graph; None: nothing does.

    Any tensor may become a stand-in there, and a function of the graph may not run.
    """
    if torch._C._functorch.maybe_current_level() is not None:
        return "a transform of torch.func"
    return "forward-mode differentiation" if forward_ad._current_level >= 0 else None


def has_values(tensor: Tensor) -> bool:
    """Whether a tensor's values lie in its own memory, where they can be read.

    Not those of a subclass that computes by itself, of other tensors or of none.
    """
    own = type(tensor).__torch_dispatch__ is Tensor.__torch_dispatch__
    return own and not tensor.is_meta


def is_tracing() -> bool:
    """Whether what runs in this thread only serves to compile or trace it, without values."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return True
    keys = torch._C._TorchDispatchModeKey
    return any(torch._C._get_dispatch_mode(each) is not None for each in (keys.FAKE, keys.PROXY))


def why_unreadable(tensor: Tensor) -> str | None:
    """Why the values of a layer's output cannot be read; None where they can be."""
    if tensor.layout not in (torch.strided, torch.jagged):
        return "its output is sparse"
    if not tensor.is_floating_point():
        return f"its output is of type {str(tensor.dtype).removeprefix('torch.')}"
    return None
