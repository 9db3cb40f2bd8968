"""Training quantizes with the same bits by the compiled kernels and by torch."""

from __future__ import annotations

import functools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts  # noqa: E402

import hqtool  # noqa: E402
from hqtool.capture.memory import array_over  # noqa: E402
from hqtool.capture.tensors import stats_of_tensor  # noqa: E402
from hqtool.core.formats.named import FORMATS  # noqa: E402
from hqtool.core.noise import Noise, noise_key  # noqa: E402
from hqtool.kernels import NoiseKey, form_in_use, uniform  # noqa: E402
from hqtool.kernels.noise import noise_bits  # noqa: E402
from hqtool.recipes.recipe_file import parse_recipe  # noqa: E402
from hqtool.training.tensors import quantizing  # noqa: E402
from hqtool.training.tensors.memory import LastMemory  # noqa: E402
from hqtool.training.tensors.noise import dense, noise_like, uniform_in_torch  # noqa: E402
from hqtool.vocab import EntryRanges, Range, Site  # noqa: E402

FORM = form_in_use()
compiled_only = pytest.mark.skipif(FORM.name != "compiled", reason=FORM.reason)

RANGES = [Range(-1.0, 1.0), Range(-3.0, 0.5), Range(0.0, 9.0), Range(-1e-8, 2e-8)]
FLOATS = ["e4m3", "e5m2", "e4m3:scale=one", "e2m3", "e3m2:scale=pow2", "e2m1", "e5m10"]
NAMES = ["int8", "int4", "int8-symmetric", "int8-midrise", "int16", *FLOATS]
NONE, ONE_NAN, ONE_INFINITY = (), (float("nan"),), (float("inf"),)
KEY = NoiseKey(5, 6)
each_rounding = pytest.mark.parametrize("key", [None, KEY], ids=["nearest", "stochastic"])


def values(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def steps_of(x: Tensor) -> list[int]:
    """The strides that matter."""
    return [step for step, size in zip(x.stride(), x.shape, strict=True) if size > 1]


def assert_the_same_bits(monkeypatch: pytest.MonkeyPatch, x: Tensor, name: str, *given) -> None:
    """By whatever kernel there is, and by torch alone."""
    how = (x, FORMATS.parse(name).value, *given)
    found = quantizing.quantized(*how)
    with monkeypatch.context() as patch:
        patch.setattr(quantizing, "can_be_read", lambda x: False)
        expected = quantizing.quantized(*how)
    assert found.values.dtype == expected.values.dtype == x.dtype
    assert steps_of(found.values) == steps_of(expected.values)
    bits = torch.int32 if x.element_size() == 4 else torch.int16
    assert torch.equal(found.values.view(bits), expected.values.view(bits))
    assert (found.clipped is None) == (expected.clipped is None)
    assert found.clipped is None or torch.equal(found.clipped, expected.clipped)
    assert found.share_clipped == expected.share_clipped


@compiled_only
@each_rounding
@pytest.mark.parametrize("extra", [NONE, ONE_NAN, ONE_INFINITY], ids=str)
@pytest.mark.parametrize("wanted", RANGES, ids=str)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("known", [True, False], ids=["with statistics", "without"])
def test_the_same_bits(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    wanted: Range,
    extra: tuple,
    known: bool,
    key: NoiseKey | None,
) -> None:
    x = values(3001)
    x[: len(extra)] = torch.tensor(extra)
    stats = stats_of_tensor(x) if known else None
    assert_the_same_bits(monkeypatch, x, name, wanted, quantizing.Axes(-1), key, stats)


@compiled_only
@each_rounding
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["int8", "e4m3"])
def test_the_same_bits_in_16(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, name: str, key: NoiseKey | None
) -> None:
    x = values(2, 3, 5, 5).to(dtype).contiguous(memory_format=torch.channels_last)
    x[0, 0, 0, :2] = torch.tensor([float("inf"), float("nan")])
    assert_the_same_bits(monkeypatch, x, name, Range(-1.0, 2.0), quantizing.Axes(-3), key, None)


LAYOUTS = {
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "permuted": lambda x: x.permute(2, 0, 3, 1),
    "of one channel": lambda x: x[:, :1].contiguous(memory_format=torch.channels_last),
    "with gaps": lambda x: x[:, :, ::2],
    "expanded": lambda x: x[:1].expand(4, -1, -1, -1),
    "a view in the middle": lambda x: x[1:3],
    "one number": lambda x: x[0, 0, 0, 0],
    "read by columns": lambda x: x.flatten(1).T,
}


@compiled_only
@each_rounding
@pytest.mark.parametrize("name", ["int8", "e5m2", "fp4-radix4"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout(
    monkeypatch: pytest.MonkeyPatch, layout: str, name: str, key: NoiseKey | None
) -> None:
    x = LAYOUTS[layout](values(4, 3, 6, 5))
    before = x.clone()
    assert_the_same_bits(monkeypatch, x, name, Range(-1.0, 1.5), quantizing.Axes(-3), key, None)
    assert torch.equal(x, before)
    if key is None:
        plain = quantizing.quantized(
            x.contiguous(), FORMATS.parse(name).value, Range(-1.0, 1.5), quantizing.Axes(-3)
        )
        found = quantizing.quantized(
            x, FORMATS.parse(name).value, Range(-1.0, 1.5), quantizing.Axes(-3)
        )
        assert torch.equal(found.values, plain.values)


@compiled_only
@pytest.mark.parametrize("layout", LAYOUTS)
def test_statistics_read_on_the_way_are_those_read_alone(layout: str) -> None:
    x = LAYOUTS[layout](values(4, 3, 6, 5))
    done = quantizing.quantized_by_kernel(x, FORMATS.parse("int8").value, Range(-1.0, 1.0))
    assert done is not None
    assert done.stats == stats_of_tensor(dense(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_reading_leaves_no_mark_on_a_tensor(layout: str, dtype: torch.dtype) -> None:
    """Its memory can be given up afterwards, as `Tensor.numpy` would forbid."""
    x = LAYOUTS[layout](values(4, 3, 6, 5).to(dtype))
    array = array_over(x).copy()
    bits = array.view(np.int16) if dtype == torch.bfloat16 else array
    assert torch.equal(torch.from_numpy(bits).view(dtype), x)
    stats_of_tensor(x)
    quantizing.quantized(x, FORMATS.parse("int8").value, Range(-1.0, 1.5), quantizing.Axes(-3))
    assert x.untyped_storage().resizable()


def test_parameters_that_fsdp_frees_between_passes() -> None:
    """Over one process; their memory is taken and given up in each pass."""
    from torch.distributed.fsdp import fully_shard

    found = []
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    try:
        for sharded in (False, True):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
            if sharded:
                fully_shard(model[0])
                fully_shard(model)
            optimizer = torch.optim.SGD(model.parameters(), 0.1)
            with hqtool.train(model, "paper-w8a8g8"):
                for _ in range(3):
                    optimizer.zero_grad()
                    loss = model(values(5, 4)).square().sum()
                    loss.backward()
                    optimizer.step()
            found.append(loss.item())
    finally:
        torch.distributed.destroy_process_group()
    assert found[0] == found[1]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_noise_is_counted_in_the_order_of_memory(layout: str) -> None:
    x = dense(LAYOUTS[layout](values(4, 3, 6, 5)))
    found = noise_like(x, KEY)
    assert (found.shape, found.dtype) == (x.shape, x.dtype)
    expected = torch.from_numpy(uniform(KEY, x.numel()))
    in_memory = torch.empty_like(x).copy_(found).as_strided((x.numel(),), (1,))
    assert torch.equal(in_memory, expected)


@pytest.mark.parametrize("key", [KEY, NoiseKey(0xFFFFFFFF, 0xFFFFFFFF), NoiseKey(1 << 31, 0)])
def test_the_form_for_accelerators_gives_the_same_noise(key: NoiseKey) -> None:
    """On a CPU; on an accelerator it was not tried."""
    found = uniform_in_torch(key, 70_000, torch.device("cpu"))
    assert found.numpy().tobytes() == uniform(key, 70_000).tobytes()


@pytest.mark.parametrize("name", ["int8", "e4m3"])
def test_float64_takes_the_same_noise(name: str) -> None:
    x = values(500).double()
    found = quantizing.quantized(
        x, FORMATS.parse(name).value, Range(-1.0, 1.0), quantizing.Axes(-1), KEY
    )
    again = quantizing.quantized(
        x.float(), FORMATS.parse(name).value, Range(-1.0, 1.0), quantizing.Axes(-1), KEY
    )
    assert found.values.dtype == torch.float64
    np.testing.assert_allclose(found.values.numpy(), again.values.double().numpy(), rtol=1e-6)


def test_training_and_replay_draw_the_same_noise() -> None:
    key = noise_key(7, Site("conv1", "grad_input"), 3, 1, 0)
    drawn = Noise(key)
    found = np.concatenate([drawn.random(100), drawn.random(50)])
    assert found.tolist() == noise_like(torch.zeros(150), key).tolist()
    assert key != noise_key(7, Site("conv1", "grad_input"), 3, 0, 1)


def test_stochastic_rounding_by_its_definition() -> None:
    """⌊x/Δ + noise⌋, value by value, in float32."""
    x, step = values(200), np.float32(2.0 / 254)
    done = quantizing.quantized(
        x, FORMATS.parse("int8-symmetric").value, Range(-1.0, 1.0), quantizing.Axes(-1), KEY
    )
    for i, value in enumerate(x.numpy()):
        level = np.floor(value / step + np.float32((noise_bits(KEY, i) >> 8) / 2**24))
        assert done.values[i].item() == min(max(level, -127), 127) * step
        assert bool(done.clipped[i]) == (abs(level) > 127)


BLOCKS = ["mxfp8:scale=rceil", "mxfp4:scale=ceil", "mxint8:scale=even", "e4m3-block16"]


@each_rounding
@pytest.mark.parametrize("reaches", [(1.0, 1e-35, 0.0), (2e-38, 0.1), (1e-41, 1.0), (1.0, 3e38)])
@pytest.mark.parametrize(
    "name", ["e8m7", "e8m3:scale=one", "e8m7-block16", "int8", "e4m3", *BLOCKS]
)
def test_what_float32_cannot_hold_is_worked_with_in_float64(
    name: str, reaches: tuple[float, ...], key: NoiseKey | None
) -> None:
    """Levels beyond it, ranges of channels, and scales of blocks: each channel has one."""
    drawn, format_ = values(40, len(reaches)) / 5, FORMATS.parse(name).value
    x = (drawn * torch.tensor(reaches)).T.contiguous()
    in_float64 = quantizing.quantized(x.double(), format_, *(how := channels_of(x, name)), key)
    found = quantizing.quantized(x, format_, *how, key)
    assert torch.equal(found.values, in_float64.values.float())
    assert found.share_clipped == in_float64.share_clipped


def channels_of(x: Tensor, name: str) -> tuple[EntryRanges | None, quantizing.Axes]:
    """Half the range of each channel, the first axis, if the format needs one."""
    lo, hi = (ends.double().numpy() / 2 for ends in (x.amin(1), x.amax(1)))
    in_blocks = "mx" in name or "block" in name
    return None if in_blocks else EntryRanges("channel", lo, hi), quantizing.Axes(-1, -2)


@pytest.mark.parametrize("name", ["int2-symmetric", "mxint8"])
def test_stochastic_rounding_clips_what_is_drawn_beyond_the_ends(name: str) -> None:
    """A quarter of a gap beyond the highest level it is one value in four, in channels and blocks.

    Of mxint8 the block's scale is 1, by the value 1.9922 = 127.5/64 half a gap beyond the highest.
    """
    in_blocks, x = name == "mxint8", torch.full((10_000, 32), 1.25)
    if in_blocks:
        x = torch.full((10_000, 32), 127.5 / 64)
    ranges = None if in_blocks else EntryRanges("sample", -np.ones(10_000), np.ones(10_000))
    done = quantizing.quantized(
        x, FORMATS.parse(name).value, ranges, quantizing.Axes(-1), NoiseKey(1, 2)
    )
    assert done.share_clipped == pytest.approx(0.5 if in_blocks else 0.25, abs=0.005)


@compiled_only
def test_a_training_ends_with_the_same_bits_in_both_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = [parameters_after_training()]
    monkeypatch.setattr(quantizing, "can_be_read", lambda x: False)
    ends.append(parameters_after_training())
    assert ends[0] == ends[1]


def parameters_after_training() -> list[bytes]:
    recipe = parse_recipe(
        'schema = "hqtool.recipe/1"\n[[rule]]\nlayers = ["*"]\nweight = "current@int8"\n'
        'input = "delayed@e4m3"\noutput = "hindsight@int8/stochastic"\n'
        'grad_input = "hindsight@e5m2/stochastic"',
        "mine",
    )
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)).to(
        memory_format=torch.channels_last
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with hqtool.train(model, recipe):
        for step in range(4):
            optimizer.zero_grad()
            x = values(5, 3, 9, 9).contiguous(memory_format=torch.channels_last) * (1 + step)
            model(x).square().mean().backward()
            optimizer.step()
    return [each.detach().numpy().tobytes() for each in model.parameters()]


class Keeping(TorchDispatchMode):
    """Keeps what operators of a name compute, as selective checkpointing does."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self.kept: list[Tensor] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if self._name in str(func):
            self.kept.append(result)
        return result


def test_products_that_somebody_keeps_are_not_overwritten() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(4, 3, bias=False), torch.randn(5, 4)
    recipe = parse_recipe(
        'schema = "hqtool.recipe/1"\n[[rule]]\nlayers = ["*"]\noutput = "current@int2"', "mine"
    )
    expected = model(x).detach()
    with hqtool.train(model, recipe), Keeping("aten.mm") as mode:
        y = model(x)
    (kept,) = mode.kept
    assert torch.equal(kept, expected)
    assert not torch.equal(y, expected)


def test_operations_in_place_may_follow() -> None:
    """A quantized output lies in the memory of the product, but is no view of it for autograd."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 2))
    x = torch.randn(5, 4)
    gradients = []
    for inplace in (True, False):
        model[1].inplace = inplace
        model.zero_grad()
        with hqtool.train(model, "paper-w8a8g8"):
            model(x).square().sum().backward()
        gradients.append([each.grad.clone() for each in model.parameters()])
    assert all(map(torch.equal, *gradients))


@pytest.mark.parametrize("how", ["paper-w8a8g8", "te-delayed", "mxfp8"])
def test_activations_that_are_computed_again(how: str) -> None:
    """Of a layer that runs twice, by a function that was imported before quantizing began.

    Selective checkpointing counts the operators of the script, not those that quantize.
    """
    products = [torch.ops.aten.mm.default, torch.ops.aten.addmm.default]
    select = functools.partial(create_selective_checkpoint_contexts, products)
    again = functools.partial(checkpoint, use_reentrant=False)
    found = []
    for run in (lambda model, x: model(x), again, functools.partial(again, context_fn=select)):
        torch.manual_seed(0)
        layer = nn.Linear(4, 4)
        model = nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(4, 2, bias=False))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with hqtool.train(model, how):
            for _ in range(3):
                optimizer.zero_grad()
                run(model, values(5, 4).requires_grad_()).square().sum().backward()
                optimizer.step()
        found.append([each.detach() for each in model.parameters()])
    assert all(map(torch.equal, found[0], found[1]))
    assert all(map(torch.equal, found[0], found[2]))


def test_memory_is_taken_again_once_nobody_uses_it() -> None:
    memory, x = LastMemory(), torch.zeros(3, 4)
    first = memory(x)
    place = first.data_ptr()
    assert memory(x).data_ptr() != place  # the first is in use
    second = memory(x)
    row, place = second[0], second.data_ptr()
    del second
    assert memory(x).data_ptr() != place  # a part of it is
    third = memory(x)
    place = third.data_ptr()
    del third
    assert memory(x).data_ptr() == place
    assert memory(x.T).stride() == x.T.stride()
    assert row.data_ptr() != place


@pytest.mark.parametrize("how", ["paper-w8a8g8", "te-delayed", "mxfp8"])
def test_training_goes_on_after_an_evaluation_in_inference_mode(how: str) -> None:
    """Also where the first pass evaluates, as a check before training does."""
    x, found = torch.randn(5, 4, generator=torch.Generator().manual_seed(1)), []
    for evaluating in (torch.inference_mode, torch.no_grad):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with hqtool.train(model, how):
            for _ in range(3):
                with evaluating():
                    model.eval()(2 * x)
                optimizer.zero_grad()
                model.train()(x).square().sum().backward()
                optimizer.step()
        found.append([each.detach() for each in model.parameters()])
    assert all(map(torch.equal, *found))


def test_passes_that_share_a_backward_pass_keep_their_weights() -> None:
    """A weight that changes between two forward passes, before either has its backward pass."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3, bias=False)
    x = torch.randn(5, 4, requires_grad=True)
    before = model.weight.detach().clone()
    with hqtool.train(model, "paper-w8a8g8"):
        first = model(x)
        with torch.no_grad():
            model.weight.mul_(-3)
        model(x).sum().backward()
        x.grad = None
        first.sum().backward()
    expected = torch.ones(5, 3) @ before
    torch.testing.assert_close(x.grad, expected, atol=0.1, rtol=0.1)
