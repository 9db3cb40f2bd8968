"""Checksums of tensors of any kind: tensors with the same bits have the same digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

#: Layout → the methods that give the parts of a sparse tensor.
_SPARSE = {
    torch.sparse_coo: ("_indices", "_values"),
    torch.sparse_csr: ("crow_indices", "col_indices", "values"),
    torch.sparse_csc: ("ccol_indices", "row_indices", "values"),
    torch.sparse_bsr: ("crow_indices", "col_indices", "values"),
    torch.sparse_bsc: ("ccol_indices", "row_indices", "values"),
}


class Unreadable(Exception):
    """The tensor has no bits that could be read; the message says why."""


class Digest(NamedTuple):
    """A checksum of a tensor's bits.

    Args:
        values: how many values this process holds.
        sha256: of type, shape and bits, in hexadecimal.
    """

    values: int
    sha256: str


def digest_of(tensor: Tensor) -> Digest:
    """The digest of a tensor; of one that is spread over processes, that of this process's shard.

    Raises:
        Unreadable: it has no values, or torch cannot hand them out.
    """
    digest, values = hashlib.sha256(), 0
    try:
        for part in _parts(tensor.detach()):
            digest.update(f"{part.dtype} {tuple(part.shape)}".encode())
            digest.update(_bytes(part))
            values += part.numel()
    except Unreadable:
        raise
    except Exception as error:  # a tensor type of the script's own may do anything
        raise Unreadable(f"{type(tensor).__name__}: {error}".splitlines()[0]) from error
    return Digest(values, digest.hexdigest())


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    """The dense tensors that a tensor consists of."""
    if _is_wrapper(tensor):  # such as a DTensor, which wraps its shard
        for part in _wrapped(tensor):
            yield from _parts(part.detach())
    elif tensor.device.type == "meta":
        raise Unreadable("a tensor on the meta device has no values")
    elif tensor.layout in _SPARSE:
        for name in _SPARSE[tensor.layout]:
            yield getattr(tensor, name)()
    elif tensor.is_nested:
        yield from tensor.unbind()
    elif tensor.is_quantized:
        yield from _quantized_parts(tensor)
    else:
        yield tensor


def _is_wrapper(tensor: object) -> bool:
    return is_traceable_wrapper_subclass(tensor)


def _wrapped(tensor: Any) -> list[Tensor]:
    parts = [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]
    return [part for part in parts if isinstance(part, Tensor)]


def _quantized_parts(tensor: Tensor) -> Iterator[Tensor]:
    yield tensor.int_repr()
    if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        yield torch.tensor([tensor.q_scale(), tensor.q_zero_point()], dtype=torch.float64)
    else:
        yield tensor.q_per_channel_scales()
        yield tensor.q_per_channel_zero_points()


def _bytes(part: Tensor) -> bytes:
    """The values as they lie in memory, in the order of their indices."""
    plain = part.as_subclass(Tensor).cpu().resolve_conj().resolve_neg()
    flat = plain.contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()
