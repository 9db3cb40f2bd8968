"""Digests: equal for equal bits, and different for any other, whatever the kind of tensor."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from hqtool.trial.tensor_bits import Digest, Unreadable, digest_of  # noqa: E402


class Subclass(Tensor):
    """A tensor type of a script's own."""


def quantized(values: Tensor, *, per_channel: bool = False) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is about to remove these
        if per_channel:
            scales, zeros = torch.full((3,), 0.25), torch.zeros(3, dtype=torch.int64)
            return torch.quantize_per_channel(values, scales, zeros, 0, torch.qint8)
        return torch.quantize_per_tensor(values, 0.25, 0, torch.qint8)


#: Each makes a tensor of one kind from three values that every type holds exactly.
KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "float32": lambda x: x,
    "transposed": lambda x: x.expand(2, 3).t(),
    "expanded": lambda x: x[:, None].expand(3, 4),
    "bfloat16": lambda x: x.bfloat16(),
    "float8": lambda x: x.to(torch.float8_e4m3fn),
    "complex64": lambda x: x.to(torch.complex64) * 1j,
    "complex32": lambda x: x.to(torch.complex32),
    "conjugate": lambda x: torch.complex(x, x).conj(),
    "negative": lambda x: torch.complex(x, x).conj().imag,
    "bool": lambda x: x > 1,
    "parameter": torch.nn.Parameter,
    "subclass": lambda x: x.as_subclass(Subclass),
    "coo": lambda x: torch.diag(x).to_sparse(),
    "csr": lambda x: torch.diag(x).to_sparse_csr(),
    "quantized": quantized,
    "quantized per channel": lambda x: quantized(x, per_channel=True),
    "nested": lambda x: torch.nested.nested_tensor([x, x[:2]], layout=torch.jagged),
}


@pytest.mark.filterwarnings("ignore:.*(Sparse|ComplexHalf|nested).*")
@pytest.mark.parametrize("kind", KINDS)
def test_equal_bits_and_no_others_have_equal_digests(kind: str) -> None:
    make = KINDS[kind]
    one, same, other = (
        make(torch.tensor(each)) for each in ([1, 0.5, 2], [1, 0.5, 2], [1, 4, 2.0])
    )
    assert digest_of(one) == digest_of(same)
    assert digest_of(one).sha256 != digest_of(other).sha256


def test_the_bits_are_those_in_the_order_of_indices() -> None:
    tensor = torch.arange(6.0).reshape(2, 3).t()
    head = b"torch.float32 (3, 2)"
    expected = hashlib.sha256(head + tensor.numpy().tobytes()).hexdigest()
    assert digest_of(tensor) == Digest(6, expected)


def test_minus_zero_and_shapes_count() -> None:
    digests = {
        digest_of(each).sha256
        for each in (torch.zeros(4), -torch.zeros(4), torch.zeros(2, 2), torch.zeros(4).int())
    }
    assert len(digests) == 4


def test_what_has_no_values_is_unreadable() -> None:
    with pytest.raises(Unreadable, match="meta device has no values"):
        digest_of(torch.empty(3, device="meta"))
    with pytest.raises(Unreadable, match="UninitializedParameter"):
        digest_of(torch.nn.UninitializedParameter())
