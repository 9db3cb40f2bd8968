"""Statistics of torch tensors against plain numpy in float64; values kept are copies."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from hqtool.capture import tensors as tensors_module  # noqa: E402
from hqtool.capture.sampling import _gathered_on_device, sample_bytes, sampled_values  # noqa: E402
from hqtool.capture.tensors import (  # noqa: E402
    all_values,
    deferred_stats,
    stats_of_tensor,
    stats_of_vector,
)
from hqtool.core.samples import places_of  # noqa: E402
from hqtool.core.stats import stats_of  # noqa: E402
from hqtool.kernels import plain  # noqa: E402
from hqtool.trace.sample_layout import layout_bytes  # noqa: E402
from hqtool.vocab import SampleLayout, Stats  # noqa: E402

FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
RNG = np.random.default_rng(0)
NORMAL = RNG.standard_normal(1 << 14)

#: Whole rows of 256 take the quick way, unless the values forbid it; any other size does not.
HARD = {
    "normal": NORMAL,
    "odd size": NORMAL[:9001],
    "relu": np.maximum(NORMAL, 0),
    "all positive": np.abs(NORMAL) + 0.1,
    "all negative": -np.abs(NORMAL) - 0.1,
    "no positive": np.minimum(NORMAL, 0),
    "signed zeros": np.where(NORMAL > 1, -0.0, np.where(NORMAL < 0, 0.0, NORMAL)),
    "negative zero alone": np.where(NORMAL > 1, -0.0, NORMAL),
    "sparse": np.where(NORMAL > 3.5, NORMAL, 0),
    "zeros": np.zeros(512),
    "negative zeros": np.full(512, -0.0),
    "constant": np.full(512, 1.1),
    "two values": np.where(NORMAL > 0.5, 0.7, 0.0),
    "plus and minus": np.where(NORMAL > 0, 1.1, -1.1),
    "large offset": 1e4 + NORMAL * 1e-2,
    "mild offset": 1.5 + NORMAL,
    "uniform": RNG.uniform(size=4096),
    "one outlier": np.concatenate([NORMAL * 1e-6, np.full(256, 0.0), [1e6]]),
    "outlier in whole rows": np.concatenate([NORMAL[:-1] * 1e-6, [1e6]]),
    "huge": NORMAL * 1e30,
    "larger than its squares' sum": NORMAL * 1e17,
    "tiny": NORMAL * 1e-30,
    "denormal": NORMAL * 1e-41,
    "all magnitudes": NORMAL * 10.0 ** RNG.integers(-40, 30, NORMAL.size),
    "nan": np.where(np.arange(512) == 7, np.nan, NORMAL[:512]),
    "infinities": np.where(NORMAL > 3, np.inf, np.where(NORMAL < -3, -np.inf, NORMAL)),
    "nan beside zeros and offset": np.where(NORMAL > 1, np.nan, np.where(NORMAL < -2, 0, 50.0)),
    "nothing finite": np.array([np.nan, np.inf, -np.inf, np.inf]),
    "one": np.array([-3.0]),
    "none": np.zeros(0),
}


def deferred(tensor: Tensor) -> Stats:
    return stats_of_vector(deferred_stats(tensor).tolist())


def oracle(tensor: Tensor) -> Stats:
    return stats_of(tensor.double().numpy())


def assert_agrees(found: Stats, expected: Stats) -> None:
    """Extremes and counts are the same, moments to 1e-7 of the tensor's own scale."""
    for name in ("min", "max", "absmax", "nzero", "nnan", "ninf", "min_nonzero"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
    scale = 1e-7 * math.hypot(expected.mean, expected.std)
    rounding = 1e-15 * expected.absmax  # of the oracle's mean
    assert found.mean == pytest.approx(expected.mean, abs=scale, rel=0, nan_ok=True)
    assert found.std == pytest.approx(expected.std, rel=1e-7, abs=rounding, nan_ok=True)
    assert found.l2 == pytest.approx(expected.l2, rel=1e-7, abs=0, nan_ok=True)
    assert all(type(getattr(found, name)) is int for name in ("nzero", "nnan", "ninf"))


def cast(values: np.ndarray, dtype: torch.dtype) -> Tensor:
    with np.errstate(over="ignore"):
        return torch.from_numpy(values).to(dtype)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks so small that a tensor has many, the last one with fewer elements."""
    monkeypatch.setattr(plain, "CHUNK_ELEMENTS", 1 << 10)
    for name, size in {"_CAREFUL": 1 << 9, "_DEVICE": 1000}.items():
        monkeypatch.setattr(tensors_module, f"{name}_ELEMENTS", size)


# --- statistics ---------------------------------------------------------------------------------

both_ways = pytest.mark.parametrize("how", [stats_of_tensor, deferred])


@both_ways
@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_statistics(how: Callable[[Tensor], Stats], dtype: torch.dtype, name: str) -> None:
    tensor = cast(HARD[name], dtype)
    assert_agrees(how(tensor), oracle(tensor))


@both_ways
@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_statistics_in_chunks(
    small: None, how: Callable[[Tensor], Stats], dtype: torch.dtype, name: str
) -> None:
    tensor = cast(HARD[name], dtype)
    assert_agrees(how(tensor), oracle(tensor))


@both_ways
@pytest.mark.parametrize("factor", [1e200, 1e-200, 1e300, 5e-324])
def test_statistics_near_the_ends_of_float64(how: Callable[[Tensor], Stats], factor: float) -> None:
    tensor = torch.from_numpy(NORMAL * factor)
    assert_agrees(how(tensor), oracle(tensor))


BITS = st.integers(0, 2**32 - 1) | st.sampled_from(
    [0, 1 << 31, 0x7F800000, 0x7FC00000, 1, 0x3F800000]
)


@both_ways
@settings(max_examples=300, deadline=None)
@given(bits=arrays.arrays(np.uint32, st.sampled_from([1, 2, 7, 32, 64, 96, 512]), elements=BITS))
def test_statistics_of_any_bits(how: Callable[[Tensor], Stats], bits: np.ndarray) -> None:
    tensor = torch.from_numpy(bits.view(np.float32))
    assert_agrees(how(tensor), oracle(tensor))


@both_ways
@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(3, 8, 5, 6).to(memory_format=torch.channels_last),
        torch.randn(64, 32).T,
        torch.randn(64, 64)[::2, ::2],
        torch.randn(4, 1).expand(4, 64),
        torch.randn(8, 64, requires_grad=True),
        torch.randn(512, dtype=torch.complex64).conj().imag,
        torch.tensor(3.0),
    ],
    ids=["channels_last", "transposed", "strided", "expanded", "leaf", "negative", "scalar"],
)
def test_statistics_of_any_layout(how: Callable[[Tensor], Stats], tensor: Tensor) -> None:
    expected = stats_of(tensor.detach().resolve_neg().double().numpy())
    assert_agrees(how(tensor), expected)


@both_ways
@pytest.mark.parametrize("repeats", [64, 2048, 16384])
def test_statistics_of_few_different_values(how: Callable[[Tensor], Stats], repeats: int) -> None:
    """Rows are rounded alike then, and their errors add up."""
    generator = torch.Generator().manual_seed(repeats)
    for _ in range(100):
        tensor = torch.randn(4, 1, generator=generator).expand(4, repeats).contiguous()
        assert_agrees(how(tensor), oracle(tensor))


@both_ways
def test_statistics_of_a_large_tensor(how: Callable[[Tensor], Stats]) -> None:
    """Several full chunks and a rest; the figures of repeated values follow from those of one."""
    tensor = torch.from_numpy(NORMAL.astype(np.float32)).repeat(300)
    once = oracle(tensor[: NORMAL.size])
    expected = once._replace(l2=once.l2 * math.sqrt(300), nzero=once.nzero * 300)
    assert_agrees(how(tensor), expected)


@pytest.mark.parametrize("name", ["denormal", "tiny", "huge", "nan", "relu", "all magnitudes"])
def test_numpy_may_be_told_to_raise(name: str) -> None:
    tensor = cast(HARD[name], torch.float32)
    with np.errstate(all="raise"):
        found = stats_of_tensor(tensor)
    assert_agrees(found, oracle(tensor))


# --- deferred statistics ------------------------------------------------------------------------


class OnOneDevice(TorchDispatchMode):
    """Refuses a tensor of another device, which would have to be copied, and notes the calls."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.calls: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [part for arg in args for part in (arg if isinstance(arg, list) else [arg])]
        assert all(a.device.type == self.device for a in given if isinstance(a, Tensor)), func
        self.calls.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_deferred_statistics_wait_for_nothing(small: None, dtype: torch.dtype) -> None:
    """A meta tensor has no values: whatever depended on one would fail."""
    with OnOneDevice("meta") as watch:
        vector = deferred_stats(torch.empty(50, 100, dtype=dtype, device="meta"))
    assert watch.calls
    assert (vector.shape, vector.device.type) == ((len(Stats._fields),), "meta")


def test_a_steps_vectors_are_fetched_at_once() -> None:
    tensors = [cast(values, torch.float32) for values in HARD.values()]
    rows = torch.stack([deferred_stats(tensor) for tensor in tensors]).tolist()
    for row, tensor in zip(rows, tensors, strict=True):
        assert_agrees(stats_of_vector(row), oracle(tensor))


@pytest.mark.parametrize("name", ["normal", "relu", "large offset", "huge", "nan", "none"])
def test_deferred_statistics_without_float64(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(tensors_module, "_sum_dtype", lambda device: torch.float32)
    tensor = cast(HARD[name], torch.float32)
    vector = deferred_stats(tensor)
    assert vector.dtype == torch.float32
    scale = 0.0 if name == "none" else 1e-6 * float(tensor.nan_to_num().abs().max())
    found, expected = stats_of_vector(vector.tolist()), oracle(tensor)
    assert found == pytest.approx(expected, rel=1e-4, abs=scale, nan_ok=True)


# --- values -------------------------------------------------------------------------------------

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "strided": lambda x: x[:, ::2],
    "transposed": lambda x: x.transpose(0, 3),
    "leaf": lambda x: x.requires_grad_(),
}


def bits_of(tensor: Tensor) -> bytes:
    kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return tensor.detach().contiguous().view(kind).numpy().tobytes()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_values_are_a_copy(dtype: torch.dtype, layout: str) -> None:
    tensor = LAYOUTS[layout](torch.randn(4, 6, 5, 3).to(dtype))
    before = bits_of(tensor)
    values = all_values(tensor)
    with torch.no_grad():
        tensor.fill_(7)
    assert values.array is not None
    assert (values.array.shape, values.layout) == (tuple(tensor.shape), None)
    assert np.ascontiguousarray(values.array).tobytes() == before
    assert values.dtype == ("bfloat16" if dtype == torch.bfloat16 else None)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_sample_is_a_copy(dtype: torch.dtype, layout: str) -> None:
    tensor = LAYOUTS[layout](torch.arange(360.0).view(4, 6, 5, 3).to(dtype))
    values = sampled_values(tensor, 50, 0, "0/1")
    assert values.array is not None
    assert values.layout is not None
    assert values.dtype == ("bfloat16" if dtype == torch.bfloat16 else None)
    parts = [
        part.view(f"i{tensor.element_size()}") for part in (values.array, values.layout.extremes)
    ]
    before = [part.tolist() for part in parts]
    with torch.no_grad():
        tensor.fill_(7)
    assert [part.tolist() for part in parts] == before


def sample_of(
    tensor: Tensor, count: int, axis: int, key: str = "0/1"
) -> tuple[Tensor, SampleLayout, Tensor]:
    """Values and layout of a sample, and its extremes, as tensors of the type sampled."""
    values = sampled_values(tensor, count, 0, key, axis)
    assert values.array is not None
    assert values.layout is not None
    kind = f"i{tensor.element_size()}"
    drawn, ends = (torch.from_numpy(a.view(kind)) for a in (values.array, values.layout.extremes))
    return drawn.view(tensor.dtype), values.layout, ends.view(tensor.dtype)


@pytest.mark.parametrize("axis", [-3, -1])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_each_value_of_a_sample_is_at_its_place(dtype: torch.dtype, layout: str, axis: int) -> None:
    tensor = LAYOUTS[layout](torch.randn(40, 16, 6, 10).to(dtype))
    drawn, where, ends = sample_of(tensor, 4000, axis)
    flat = tensor.detach().reshape(-1)
    assert torch.equal(flat[torch.from_numpy(places_of(where))], drawn)
    assert torch.equal(flat[torch.from_numpy(where.extreme_places)], ends)
    assert drawn.numel() + ends.numel() <= 4000
    assert drawn.numel() + ends.numel() > 3900
    ascending = flat.sort().values
    assert torch.equal(ends.sort().values, torch.cat((ascending[:256], ascending[-256:])))
    whole = torch.movedim(tensor.detach(), axis, -1).reshape(-1, tensor.shape[axis])
    assert where.length == tensor.shape[axis]
    assert torch.equal(whole[torch.from_numpy(where.fibres)], drawn.view(-1, where.length))


@pytest.mark.parametrize(
    ("shape", "axis", "count", "length"),
    [
        ((64, 16, 8, 8), -3, 2048, 16),
        ((64, 128, 8, 8), -3, 2048, 32),
        ((7, 50257), -1, 1 << 18, 1733),
        ((40, 97), -1, 800, 1),
        ((16, 20, 20), -3, 2000, 16),
        ((600,), -3, 512, 8),
        ((50, 2), -1, 1, 1),
        ((1 << 22,), -1, 1 << 12, 64),
    ],
    ids=["whole", "in four", "odd", "prime", "no batch", "vector", "one value", "long vector"],
)
def test_fibres_too_long_are_cut(
    shape: tuple[int, ...], axis: int, count: int, length: int
) -> None:
    tensor = torch.arange(float(math.prod(shape))).view(shape)
    drawn, where, ends = sample_of(tensor, count, axis)
    assert where.length == length
    assert drawn.tolist() == places_of(where).tolist()
    assert 0.85 * count < drawn.numel() + ends.numel() <= count
    stored = layout_bytes(where, drawn.numel(), tensor.numel())
    assert sample_bytes(tensor, count, axis) == 4 * drawn.numel() + len(stored)


HARD_TO_SORT = {
    "few values": torch.arange(5000.0) % 3,
    "constant": torch.full((5000,), 1.5),
    "relu": torch.arange(-4000.0, 1000.0).relu(),
    "nan": torch.where(torch.arange(5001) % 7 == 0, math.nan, torch.arange(5001.0)),
    "infinities": torch.where(torch.arange(5001.0) % 5 < 2, math.inf, -torch.arange(5001.0)),
    "negative infinities": torch.where(torch.arange(5001) > 4900, -math.inf, torch.arange(5001.0)),
    "few finite": torch.where(torch.arange(5001) > 100, math.nan, torch.arange(5001.0)),
    "none finite": torch.full((5000,), math.nan),
}


@pytest.mark.parametrize("name", HARD_TO_SORT)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_extremes_are_those_of_a_sort(dtype: torch.dtype, name: str) -> None:
    tensor = HARD_TO_SORT[name].to(dtype)
    _, where, ends = sample_of(tensor, 1000, -1)
    finite = tensor[tensor.isfinite()].sort().values
    both = torch.cat((finite[:125], finite[-125:])) if finite.numel() > 250 else finite
    found = ends.sort().values
    assert np.unique(where.extreme_places).size == found.numel()
    assert torch.equal(tensor[torch.from_numpy(where.extreme_places)], ends)
    if name == "constant":
        assert 125 <= found.numel() <= 250
    else:
        assert torch.equal(found.unique(), both.unique())
        assert found.numel() == both.numel()


def test_fibres_are_spread_and_each_is_as_likely() -> None:
    tensor = torch.arange(160.0 * 2).reshape(160, 2)
    counts = np.zeros(160)
    for key in range(2000):
        values = sampled_values(tensor, 128, 0, str(key))
        assert values.layout is not None
        fibres = values.layout.fibres
        assert np.diff(fibres).min() > 0
        assert np.diff(fibres).max() <= 7  # of 160 fibres 48, one from each 3 or 4
        counts[fibres] += 1
    expected = 2000 * 48 / 160
    assert np.abs(counts - expected).max() < 5 * math.sqrt(expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_devices_gather_the_same(layout: str) -> None:
    tensor = LAYOUTS[layout](torch.randn(4, 6, 5, 3)).detach()
    index = np.unravel_index(np.array([0, 7, 7, 29]), tensor.shape[:-1])
    found = _gathered_on_device(tensor, index)
    assert found.tolist() == tensor.numpy()[index].ravel().tolist()


@pytest.mark.parametrize(
    ("channels", "length"),
    [(96, 96), (3072, 512), (11008, 256), (1504, 32), (2021, 47), (1490, 298)],
)
def test_long_fibres_are_cut_into_whole_blocks_where_possible(channels: int, length: int) -> None:
    """At most 700 values fit; 11008 is 16 × 688, but 688 is no multiple of 32."""
    tensor = torch.zeros(2 * 48 * 700 // channels + 48, channels)
    kept = sampled_values(tensor, 48 * 700 + 512, 0, "key")
    assert kept.layout is not None
    assert kept.layout.length == length
