"""Which records a capture makes, and what is in them."""

from __future__ import annotations

import copy
import gc
import math
import os
import pickle
import weakref
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from capture_models import (  # noqa: E402
    TRAININGS,
    Key,
    Recurrent,
    Residual,
    Tiny,
    captured,
    fit,
    images,
    read_records,
    read_run,
    sgd,
    square,
    train_autocast,
)
from torch import Tensor, nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import hqtool  # noqa: E402
from hqtool.capture import recorder as recorder_module  # noqa: E402
from hqtool.capture.messages import closing_lines  # noqa: E402
from hqtool.capture.sampling import sampled_values  # noqa: E402
from hqtool.capture.settings import CaptureSettings, settings_of  # noqa: E402
from hqtool.capture.tensors import stats_of_tensor, widened  # noqa: E402
from hqtool.core.samples import places_of  # noqa: E402
from hqtool.core.stats import stats_of  # noqa: E402
from hqtool.errors import UsageError  # noqa: E402
from hqtool.trace.reader import TraceReader  # noqa: E402
from hqtool.trace.writer import TraceFull, TraceWriter  # noqa: E402
from hqtool.traffic.layers import layer_from_json  # noqa: E402
from hqtool.vocab import TENSOR_KINDS  # noqa: E402


def places(records: dict[Key, Any], layer: str, kind: str = "output") -> list[tuple[int, ...]]:
    """The (step, micro, call) of a site's records."""
    return [key[2:] for key in records if key[:2] == (layer, kind)]


def layers(records: dict[Key, Any]) -> set[str]:
    return {key[0] for key in records}


# --- statistics and values ----------------------------------------------------------------------

RNG = np.random.default_rng(0)
ORDINARY = RNG.standard_normal(1000)


@pytest.mark.parametrize(
    "values",
    [
        ORDINARY,
        RNG.standard_normal(300_001),
        np.where(ORDINARY > 0, ORDINARY, 0.0),
        ORDINARY * 1e-30,
        ORDINARY * 1e30,
        1e4 + ORDINARY * 1e-2,
        np.full(7, 3.5),
        np.zeros(5),
        np.array([np.nan, np.inf, -np.inf, 2.0, 0.0, -3.0]),
        np.array([np.nan, np.inf]),
        np.concatenate([RNG.standard_normal(300_000), [np.nan, 0.0]]),
        np.array([-0.0]),
    ],
    ids=lambda values: f"{values.size}",
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_statistics_are_exact(values: np.ndarray, dtype: torch.dtype) -> None:
    with np.errstate(over="ignore"):
        tensor = torch.from_numpy(values).to(dtype)
    expected = stats_of(tensor.double().numpy())
    assert stats_of_tensor(tensor) == pytest.approx(expected, rel=1e-9, abs=0, nan_ok=True)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(3, 4, 5, 6).to(memory_format=torch.channels_last),
        torch.randn(6, 7).T,
        torch.randn(8, 8)[::2, ::3],
        torch.randn(4, 1).expand(4, 5),
        torch.tensor(3.0),
    ],
    ids=["channels_last", "transposed", "strided", "expanded", "scalar"],
)
def test_statistics_of_any_layout(tensor: Tensor) -> None:
    expected = stats_of(tensor.numpy())
    assert stats_of_tensor(tensor) == pytest.approx(expected, rel=1e-9, nan_ok=True)


def test_a_sample_is_uniform_without_replacement() -> None:
    tensor = torch.arange(40.0).reshape(8, 5).T
    counts: Counter[float] = Counter()
    for key in range(2000):
        values = sampled_values(tensor, 12, 0, str(key)).array
        assert values is not None
        assert len(set(values.tolist())) == 10  # besides an extreme at either end
        counts.update(values.tolist())
    assert set(counts) == set(range(40))
    assert max(abs(count - 500) for count in counts.values()) < 5 * math.sqrt(500)


def test_a_sample_depends_on_seed_and_key_alone() -> None:
    tensor = torch.randn(1000)
    first, again = (sampled_values(tensor, 50, 1, "a/output/0/0/0").array for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, sampled_values(tensor, 50, 1, "b/output/0/0/0").array)
    assert not np.array_equal(first, sampled_values(tensor, 50, 2, "a/output/0/0/0").array)


def test_values_are_kept_every_so_many_steps_within_bounds(tmp_path: Path) -> None:
    model = nn.Linear(4, 2)
    optimizer = sgd(model)
    with captured(tmp_path / "t.h5", every=2, steps=(1, 6)) as session:
        for _ in range(8):
            square(model(torch.randn(3, 4))).backward()
            optimizer.step()
    records = read_records(tmp_path / "t.h5")
    kept = [key[2] for key, record in records.items() if record.values is not None]
    assert kept == [2, 4]
    assert session.recorder.steps_with_values == 2
    assert places(records, "linear") == [(step, 0, 0) for step in range(8)]


@pytest.mark.parametrize("make", ["conv1d", "conv2d", "conv_transpose2d", "linear", "unbatched"])
def test_samples_keep_fibres_along_the_channel_axis(make: str, tmp_path: Path) -> None:
    """Axis 1 of a convolution's tensors, 0 where they have no batch; the last of all others."""
    model, x, axis = {
        "conv1d": (nn.Conv1d(16, 24, 3), torch.randn(4, 16, 40), 1),
        "conv2d": (nn.Conv2d(16, 24, 3), torch.randn(4, 16, 8, 12), 1),
        "conv_transpose2d": (nn.ConvTranspose2d(16, 24, 3), torch.randn(4, 16, 8, 12), 1),
        "linear": (nn.Linear(16, 24), torch.randn(8, 20, 16), 2),
        "unbatched": (nn.Conv2d(16, 24, 3), torch.randn(16, 20, 22), 0),
    }[make]
    optimizer = sgd(model)
    with captured(tmp_path / "t.h5", max_elements=1536, tensors=tuple(TENSOR_KINDS)):
        square(model(x.requires_grad_())).backward()
        optimizer.step()
    records = {key[1]: record for key, record in read_records(tmp_path / "t.h5").items()}
    found = {kind: record for kind, record in records.items() if record.sampled}
    assert len(found) >= 4
    for kind, record in found.items():
        at = axis if kind not in ("weight", "grad_weight") else 1
        channels, stride = record.shape[at], math.prod(record.shape[at + 1 :])
        assert (record.layout.length, record.layout.stride) == (channels, stride), kind
    read = found["input"]
    assert np.array_equal(read.values, x.detach().numpy().ravel()[places_of(read.layout)])


@pytest.mark.parametrize(("full", "sampled"), [(False, True), (True, False)])
def test_large_tensors_are_sampled(full: bool, sampled: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 20)
    with captured(tmp_path / "t.h5", max_elements=16, full=full):
        y = model(torch.randn(3, 4))
        y.sum().backward()
    (record,) = read_records(tmp_path / "t.h5").values()
    assert record.sampled == sampled
    assert record.shape == (3, 20)
    assert record.values.shape == ((12,) if sampled else (3, 20))
    assert (record.layout is not None) == sampled
    if record.layout is not None:
        flat = y.detach().numpy().ravel()
        assert np.array_equal(record.values, flat[places_of(record.layout)])
        assert sorted(record.layout.extremes) == sorted(flat)[:2] + sorted(flat)[-2:]
    assert np.isin(record.values, y.detach().numpy()).all()
    assert record.stats == pytest.approx(stats_of(y.detach().numpy()), rel=1e-9)


def test_values_are_copied_before_they_change(tmp_path: Path) -> None:
    model = nn.Linear(4, 20)
    with captured(tmp_path / "t.h5"):
        y = model(torch.randn(3, 4))
        before = y.detach().clone()
        y.detach().zero_()
        y.sum().backward()
    (record,) = read_records(tmp_path / "t.h5").values()
    assert np.array_equal(record.values, before.numpy())


def test_autocast_values_are_bfloat16(tmp_path: Path) -> None:
    with captured(tmp_path / "t.h5"):
        train_autocast()
    record = read_records(tmp_path / "t.h5")["conv2", "output", 0, 0, 0]
    rounded = torch.tensor(record.values).bfloat16().float().numpy()
    assert np.array_equal(record.values, rounded)
    assert record.stats == pytest.approx(stats_of(record.values), rel=1e-9)


@pytest.mark.parametrize("name", ["cnn", "gan"])
def test_statistics_left_on_their_device_until_the_step_ends(
    name: str, tmp_path: Path, monkeypatch: Any
) -> None:
    """As on an accelerator; the tensors change meanwhile."""
    found = []
    for at_hand in (True, False):
        monkeypatch.setattr(recorder_module, "_is_on_cpu", lambda tensor, near=at_hand: near)
        torch.manual_seed(0)
        with captured(tmp_path / f"{at_hand}.h5"):
            TRAININGS[name]()
        found.append(read_records(tmp_path / f"{at_hand}.h5"))
    near, far = found
    assert near.keys() == far.keys()
    for key, record in near.items():
        assert far[key].stats == pytest.approx(record.stats, rel=1e-6, abs=1e-7, nan_ok=True), key
        assert np.array_equal(far[key].values, record.values), key


# --- steps, micro-batches, calls ----------------------------------------------------------------


def test_gradient_accumulation_counts_micro_batches(tmp_path: Path) -> None:
    with captured(tmp_path / "t.h5"):
        TRAININGS["accumulating"]()
    records = read_records(tmp_path / "t.h5")
    two = [(step, micro, 0) for step in range(3) for micro in range(2)]
    assert places(records, "head") == places(records, "head", "grad_input") == two


def test_a_shared_layer_counts_calls(tmp_path: Path) -> None:
    with captured(tmp_path / "t.h5"):
        TRAININGS["cnn"]()
    records = read_records(tmp_path / "t.h5")
    two = [(step, 0, call) for step in range(3) for call in range(2)]
    assert places(records, "conv1") == places(records, "conv1", "grad_input") == two


def test_each_of_two_optimizers_has_its_steps(tmp_path: Path) -> None:
    """The generator's gradient comes in the step after that of its forward pass."""
    with captured(tmp_path / "t.h5"):
        TRAININGS["gan"]()
    records = read_records(tmp_path / "t.h5")
    assert places(records, "g") == [(step, 0, 0) for step in (0, 2, 4)]
    assert places(records, "d") == [
        place for step in (0, 2, 4) for place in ((step, 0, 0), (step, 1, 0), (step + 1, 0, 0))
    ]
    assert places(records, "d", "grad_input") == [(step, 0, 0) for step in (1, 3, 5)]
    with TraceReader(tmp_path / "t.h5") as trace:
        by = [trace.optimizers(step) for step in range(6)]
    assert by == [("sgd2",), ("sgd",)] * 3


def test_optimizers_that_step_together_end_one_step(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    first, second = torch.optim.SGD(model[0].parameters(), 0.1), torch.optim.Adam([model[1].weight])
    with captured(tmp_path / "t.h5", tensors=["output", "grad_weight"]) as session:
        for _ in range(3):
            square(model(torch.randn(1, 2))).backward()
            first.step()
            second.step()
    assert session.recorder.steps == 3
    records = read_records(tmp_path / "t.h5")
    steps = [(step, 0, 0) for step in range(3)]
    for layer in ("0", "1"):
        assert places(records, layer) == places(records, layer, "grad_weight") == steps
    with TraceReader(tmp_path / "t.h5") as trace:
        assert {trace.optimizers(step) for step in trace.steps} == {("sgd", "adam")}


def test_a_critic_trained_more_often(tmp_path: Path) -> None:
    critic, actor = nn.Linear(2, 2), nn.Linear(2, 2)
    often, rarely = sgd(critic), sgd(actor)
    with captured(tmp_path / "t.h5") as session:
        for round_ in range(6):
            square(critic(torch.randn(1, 2))).backward()
            often.step()
            if round_ % 3 == 2:
                rarely.step()
    assert session.recorder.steps == 6
    with TraceReader(tmp_path / "t.h5") as trace:
        counts = [len(trace.optimizers(step)) for step in trace.steps]
    assert counts == [1, 1, 2] * 2


def test_an_optimizer_of_a_later_phase(tmp_path: Path) -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizers = {first: sgd(first), second: sgd(second)}
    with captured(tmp_path / "t.h5"):
        for model in (first, second):
            for _ in range(4):
                square(model(torch.randn(1, 2))).backward()
                optimizers[model].step()
    records = read_records(tmp_path / "t.h5")
    assert places(records, "linear") == [(step, 0, 0) for step in range(4)]
    assert places(records, "linear2") == [(step, 0, 0) for step in range(4, 8)]


def test_updates_by_hand_step_on_forward(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    loss_of = nn.MSELoss()
    with captured(tmp_path / "t.h5", step_on="forward"):
        for _ in range(3):
            loss_of(model(torch.randn(1, 2, requires_grad=True)), torch.zeros(1, 2)).backward()
            with torch.no_grad():
                model.weight -= 0.1 * model.weight.grad
    records = read_records(tmp_path / "t.h5")
    steps = [(step, 0, 0) for step in range(3)]
    assert places(records, "linear") == places(records, "linear", "grad_input") == steps


def test_updates_by_hand_are_found_without_an_optimizer(tmp_path: Path) -> None:
    """A step may take several forward passes: it ends with the first one after a backward pass."""
    model = nn.Linear(2, 2)
    with hqtool.capture(model, tmp_path / "t.h5") as session:
        for _ in range(3):
            (square(model(torch.randn(1, 2))) + square(model(torch.randn(1, 2)))).backward()
            with torch.no_grad():
                model.weight -= 0.1 * model.weight.grad
    two = [(step, micro, 0) for step in range(3) for micro in range(2)]
    assert places(read_records(tmp_path / "t.h5"), "linear") == two
    assert session.recorder.steps == 3
    assert read_run(tmp_path / "t.h5")["steps_by_forward"] is True


def test_a_scaled_gradient_tells_its_scale(tmp_path: Path) -> None:
    with captured(tmp_path / "t.h5", tensors=["grad_input", "grad_weight"]):
        TRAININGS["scaled"]()
    records = read_records(tmp_path / "t.h5")
    assert [records["2", "grad_input", step, 0, 0].loss_scale for step in range(3)] == [
        1024.0,
        1024.0,
        512.0,
    ]
    assert records["2", "grad_input", 1, 0, 0].stats.nnan > 0
    assert records["2", "grad_weight", 0, 0, 0].loss_scale == 1.0
    assert read_run(tmp_path / "t.h5")["skipped_steps"] == [1]


def test_each_backward_pass_is_a_further_call(tmp_path: Path) -> None:
    """Of a gradient penalty: its own backward pass goes through the first layer, not the last."""
    with captured(tmp_path / "t.h5", tensors=["output", "grad_output"]):
        TRAININGS["penalty"]()
    records = read_records(tmp_path / "t.h5")
    two = [(step, 0, call) for step in range(3) for call in range(2)]
    assert places(records, "0", "grad_output") == two
    assert places(records, "2", "grad_output") == places(records, "0") == two[::2]


def test_two_losses_of_one_graph(tmp_path: Path) -> None:
    model = nn.Linear(2, 2, bias=False)
    x = torch.randn(3, 2, requires_grad=True)
    with captured(tmp_path / "t.h5", tensors=["grad_output", "grad_input"]):
        y = model(x)
        (2 * y).sum().backward(retain_graph=True)
        (3 * y).sum().backward()
    records = read_records(tmp_path / "t.h5")
    for call, factor in enumerate([2.0, 3.0]):
        arriving = torch.full((3, 2), factor)
        passed_on = arriving @ model.weight.detach()
        assert np.array_equal(records["linear", "grad_output", 0, 0, call].values, arriving)
        assert np.array_equal(records["linear", "grad_input", 0, 0, call].values, passed_on)


def test_a_late_gradient_is_of_the_step_it_comes_in(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    with captured(tmp_path / "t.h5"):
        loss = square(model(torch.randn(1, 2)))
        optimizer.step()
        (square(model(torch.randn(1, 2))) + loss).backward()
        optimizer.step()
    records = read_records(tmp_path / "t.h5")
    assert places(records, "1") == [(0, 0, 0), (1, 0, 0)]
    assert sorted(places(records, "1", "grad_input")) == [(1, 0, 0), (1, 1, 0)]


# --- which passes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("eval_", [False, True])
def test_eval_passes(eval_: bool, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    with captured(tmp_path / "t.h5", eval=eval_):
        square(model(torch.randn(1, 2))).backward()
        model.eval()
        with torch.no_grad():
            model(torch.randn(1, 2))
    expected = [(0, 0, 0), (0, 1, 0)] if eval_ else [(0, 0, 0)]
    assert places(read_records(tmp_path / "t.h5"), "1") == expected
    assert read_run(tmp_path / "t.h5")["passes_without_gradients"] == 1


@pytest.mark.parametrize("whole_run", [False, True])
def test_training_in_eval_mode_is_training(whole_run: bool, tmp_path: Path) -> None:
    """Frozen norms, or a script that evaluates once and forgets to go back to training mode."""
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    optimizer = sgd(model)
    with captured(tmp_path / "t.h5") as session:
        for step in range(4):
            if step == 2 or whole_run:
                model.eval()
                with torch.no_grad():
                    model(torch.randn(3, 2))
            optimizer.zero_grad()
            square(model(torch.randn(3, 2))).backward()
            optimizer.step()
    records = read_records(tmp_path / "t.h5")
    assert session.recorder.steps == 4
    assert places(records, "0") == places(records, "3", "grad_input")
    assert places(records, "0") == [(step, 0, 0) for step in range(4)]
    assert read_run(tmp_path / "t.h5")["passes_without_gradients"] == (4 if whole_run else 1)


class Keeper(nn.Module):
    """Keeps its own output, as models keep features or attention maps."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.kept = self.inner(x)
        return self.kept


@pytest.mark.parametrize("trains", [False, True])
def test_no_model_is_kept_alive(trains: bool, tmp_path: Path) -> None:
    with captured(tmp_path / "t.h5"):
        model = Keeper()
        y = model(torch.randn(1, 2))
        gone = weakref.ref(model)
        del model
        if trains:
            square(y).backward()
        del y
        gc.collect()
        assert gone() is None
    assert layers(read_records(tmp_path / "t.h5")) == ({"inner"} if trains else set())


@pytest.mark.parametrize("training", [False, True])
def test_a_pass_that_no_backward_pass_reaches_is_none_of_training(
    training: bool, tmp_path: Path
) -> None:
    """Validation with gradients enabled: between steps, within one, and after the last."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    optimizer = sgd(model)

    def validate() -> None:
        model.train(training)
        model(torch.randn(5, 2))
        model.train()

    with captured(tmp_path / "t.h5") as session:
        for _ in range(3):
            validate()
            optimizer.zero_grad()
            square(model(torch.randn(3, 2))).backward()
            validate()
            optimizer.step()
        validate()
    records = read_records(tmp_path / "t.h5")
    assert session.recorder.steps == 3
    assert places(records, "0") == places(records, "1") == [(step, 0, 0) for step in range(3)]
    assert {each.shape[0] for each in records.values()} == {3}
    run = read_run(tmp_path / "t.h5")
    assert run["passes_without_backward"] == 7
    assert "unfinished_step" not in run


def test_a_checkpoint_around_the_whole_model_has_its_steps(tmp_path: Path) -> None:
    """It runs without gradients first: what counts is the pass within the backward pass."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1))
    optimizer = sgd(model)
    with captured(tmp_path / "t.h5") as session:
        for _ in range(4):
            x = torch.randn(3, 2, requires_grad=True)
            square(checkpoint(model, x, use_reentrant=True)).backward()
            optimizer.step()
    records = read_records(tmp_path / "t.h5")
    assert session.recorder.steps == 4
    steps = [(step, 0, 0) for step in range(4)]
    assert places(records, "0") == places(records, "0", "grad_input") == steps
    assert "passes_without_gradients" not in read_run(tmp_path / "t.h5")


def test_functional_calls_with_copied_parameters_train(tmp_path: Path) -> None:
    """Beside a model whose own parameters an optimizer updates."""
    model, other = nn.Sequential(nn.Linear(2, 2)), nn.Linear(2, 2)
    copies = {
        name: each.detach().clone().requires_grad_() for name, each in model.named_parameters()
    }
    first, second = torch.optim.SGD(copies.values(), 0.1), sgd(other)
    with captured(tmp_path / "t.h5") as session:
        for _ in range(3):
            y = torch.func.functional_call(model, copies, (torch.randn(1, 2),))
            (square(y) + square(other(torch.randn(1, 2)))).backward()
            first.step()
            second.step()
    records = read_records(tmp_path / "t.h5")
    assert session.recorder.steps == 3
    assert places(records, "0") == places(records, "linear") == [(step, 0, 0) for step in range(3)]
    assert "unrecorded_layers" not in read_run(tmp_path / "t.h5")


def test_inner_steps_on_copies_end_no_step(tmp_path: Path) -> None:
    """MAML: the inner weights are computed from the parameters that the optimizer updates."""
    model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
    fast_model = copy.deepcopy(model)
    optimizer = sgd(model)
    with captured(tmp_path / "t.h5") as session:
        for _ in range(3):
            optimizer.zero_grad()
            fast = {name: each.clone() for name, each in model.named_parameters()}
            for _ in range(2):
                loss = square(torch.func.functional_call(fast_model, fast, torch.randn(3, 2)))
                gradients = torch.autograd.grad(loss, list(fast.values()), create_graph=True)
                pairs = zip(fast.items(), gradients, strict=True)
                fast = {name: each - 0.1 * gradient for (name, each), gradient in pairs}
            square(torch.func.functional_call(fast_model, fast, torch.randn(3, 2))).backward()
            optimizer.step()
    assert session.recorder.steps == 3
    assert places(read_records(tmp_path / "t.h5"), "0") == [
        (step, micro, 0) for step in range(3) for micro in range(3)
    ]
    assert "unrecorded_layers" not in read_run(tmp_path / "t.h5")


def test_updates_by_hand_beside_an_optimizer(tmp_path: Path) -> None:
    """Which steps something else, every fifth iteration."""
    model, scale = nn.Linear(2, 2), nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([scale], 0.1)
    with captured(tmp_path / "t.h5") as session:
        nn.Linear(1, 1)  # an optimizer of some model's parameters, so that it is known whose
        head = nn.Linear(2, 1)
        heads = sgd(head)
        for iteration in range(20):
            square(model(torch.randn(1, 2)) * scale).backward()
            with torch.no_grad():
                for each in model.parameters():
                    each -= 0.1 * each.grad
                    each.grad = None
            if iteration % 5 == 4:
                optimizer.step()
                heads.step()
    assert session.recorder.steps == 20
    assert places(read_records(tmp_path / "t.h5"), "linear") == [(i, 0, 0) for i in range(20)]


def test_each_backward_pass_has_the_scale_of_its_own_loss(tmp_path: Path) -> None:
    """Several losses scaled before any goes back, and one that is not scaled at all."""
    models = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    optimizer = sgd(models)
    scalers = [torch.amp.GradScaler("cpu", init_scale=scale) for scale in (1024.0, 256.0)]
    inputs = [torch.randn(1, 2, requires_grad=True) for _ in models]
    with captured(tmp_path / "t.h5"):
        losses = [square(model(x)) for model, x in zip(models, inputs, strict=True)]
        scaled = [each.scale(loss) for each, loss in zip(scalers, losses, strict=False)]
        for loss in (scaled[1], losses[2], scaled[0]):
            loss.backward()
        optimizer.step()
    records = read_records(tmp_path / "t.h5")
    found = [records[str(i), "grad_input", 0, 0, 0] for i in range(3)]
    assert [record.loss_scale for record in found] == [1024.0, 256.0, 1.0]
    for record, x, scale in zip(found, inputs, (1024, 256, 1), strict=True):
        assert np.array_equal(record.values, x.grad.numpy() / scale)


def test_passes_without_gradients_are_skipped(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    with captured(tmp_path / "t.h5"), torch.no_grad():
        model(torch.randn(1, 2))
    assert read_records(tmp_path / "t.h5") == {}


def test_replicas_for_one_pass_are_skipped(tmp_path: Path) -> None:
    """As DataParallel makes them."""
    replica = nn.Linear(2, 2)._replicate_for_data_parallel()
    replica.weight, replica.bias = torch.ones(2, 2, requires_grad=True), torch.ones(2)
    with captured(tmp_path / "t.h5"):
        replica(torch.randn(1, 2))
    assert read_records(tmp_path / "t.h5") == {}
    assert read_run(tmp_path / "t.h5")["skipped_replica_calls"] == 1


def test_a_forward_pass_alone_is_counted(tmp_path: Path) -> None:
    with captured(tmp_path / "t.h5"):
        Residual()(images())
    assert read_records(tmp_path / "t.h5") == {}
    run = read_run(tmp_path / "t.h5")
    assert run["passes_without_backward"] == 1
    assert set(run["unrecorded_layers"].values()) == {"no backward pass reached it"}


def test_a_failing_forward_pass_leaves_no_trace_behind(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(3, 1))
    with captured(tmp_path / "t.h5"):
        with pytest.raises(RuntimeError):
            model(torch.randn(1, 2))
        square(Recurrent()(torch.randn(1, 2, 3))).backward()
    assert layers(read_records(tmp_path / "t.h5")) == {"lstm", "head"}


# --- names and geometry ---------------------------------------------------------------------------


def test_attention_projections_are_layers(tmp_path: Path) -> None:
    with captured(tmp_path / "t.h5"):
        TRAININGS["transformer"]()
    assert layers(read_records(tmp_path / "t.h5")) == {
        *(f"encoder.{name}" for name in ("self_attn.in_proj", "self_attn.out_proj")),
        *(f"encoder.{name}" for name in ("linear1", "linear2")),
        *(f"cross.{name}" for name in ("in_proj_q", "in_proj_k", "in_proj_v", "out_proj")),
        "decoder",
    }
    with TraceReader(tmp_path / "t.h5") as trace:
        geometry = trace.geometry("encoder.self_attn.in_proj")
        assert geometry["op"] == "linear"
        assert (geometry["in_channels"], geometry["out_channels"]) == (8, 24)


def test_packed_keys_and_values(tmp_path: Path) -> None:
    attention = nn.MultiheadAttention(4, 2)
    x, memory = torch.randn(3, 2, 4), torch.randn(5, 2, 4)
    with captured(tmp_path / "t.h5"):
        square(attention(x, memory, memory)[0]).backward()
    names = {"in_proj_q", "in_proj_kv", "out_proj"}
    names = {f"multiheadattention.{name}" for name in names}
    assert layers(read_records(tmp_path / "t.h5")) == names


class Derived(nn.Linear):
    """A layer of somebody's own."""


def test_the_class_of_a_layer_and_those_it_derives_from_are_told(tmp_path: Path) -> None:
    model = nn.Sequential(
        OrderedDict(own=Derived(4, 4), attention=nn.TransformerEncoderLayer(4, 1))
    )
    with captured(tmp_path / "t.h5"):
        square(model(torch.randn(3, 2, 4))).backward()
    with TraceReader(tmp_path / "t.h5") as trace:
        assert trace.classes("own") == ("Derived", "Linear")
        assert trace.classes("attention.self_attn.in_proj") == ("MultiheadAttention",)


def test_geometry_explains_the_shapes(tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.Conv1d(4, 6, 3, stride=2, padding="valid", dilation=2, groups=2),
        nn.Unflatten(2, (3, 4)),
        nn.Conv2d(6, 4, (1, 3), padding="same", padding_mode="circular"),
        nn.ConvTranspose2d(4, 2, 3, stride=2, output_padding=1),
        nn.Unflatten(3, (10, 1)),
        nn.Conv3d(2, 1, 1),
        nn.Linear(1, 5),
    )
    with captured(tmp_path / "t.h5"):
        square(model(torch.randn(2, 4, 27))).backward()
    records = read_records(tmp_path / "t.h5")
    with TraceReader(tmp_path / "t.h5") as trace:
        for layer in layers(records):
            record = records[layer, "output", 0, 0, 0]
            assert layer_from_json(trace.geometry(layer)).counts().output == record.numel, layer


class Wrapper(nn.Module):
    """As DistributedDataParallel holds its model."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any) -> Any:
        return self.module(*args)


def test_wrappers_leave_no_name(tmp_path: Path) -> None:
    with captured(tmp_path / "t.h5"):
        square(Wrapper(Wrapper(Recurrent()))(torch.randn(1, 2, 3))).backward()
    assert layers(read_records(tmp_path / "t.h5")) == {"lstm", "head"}


def test_parts_called_on_their_own_keep_their_names(tmp_path: Path) -> None:
    with captured(tmp_path / "t.h5"):
        model = nn.ModuleDict({"actor": nn.Sequential(nn.Linear(2, 2)), "critic": nn.Linear(2, 1)})
        square(model["actor"](torch.randn(1, 2))).backward()
        square(model["critic"](torch.randn(1, 2))).backward()
    assert layers(read_records(tmp_path / "t.h5")) == {"actor.0", "critic"}


def test_roots_with_equal_names_do_not_collide(tmp_path: Path) -> None:
    models = [nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2)), nn.Linear(2, 2)]
    teacher = nn.Sequential(nn.Linear(2, 2)).eval()
    with captured(tmp_path / "t.h5"):
        teacher(torch.randn(1, 2))
        for model in models:
            nn.MSELoss()(model(torch.randn(1, 2)), torch.zeros(1, 2)).backward()
    assert layers(read_records(tmp_path / "t.h5")) == {"0", "sequential2.0", "linear"}


class Keywords(nn.Module):
    """A layer that takes its input by name and gives a tuple."""

    class Pair(nn.Linear):
        def forward(self, input: Tensor) -> tuple[Tensor, int]:
            return super().forward(input), 1

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.pair = self.Pair(2, 3)

    def forward(self, *, x: Tensor) -> Tensor:
        y, _ = self.pair(input=self.first(input=x))
        return y


def test_keywords_and_tuples(tmp_path: Path) -> None:
    with captured(tmp_path / "t.h5"):
        square(Keywords()(x=torch.randn(1, 2))).backward()
    records = read_records(tmp_path / "t.h5")
    assert records["pair", "output", 0, 0, 0].shape == (1, 3)
    assert records["pair", "grad_input", 0, 0, 0].shape == (1, 2)


def test_globs_choose_layers(tmp_path: Path) -> None:
    with captured(tmp_path / "t.h5", layers=["conv*", "head"], exclude=["*2"]):
        fit(Residual(), lambda model: square(model(images())))
    assert layers(read_records(tmp_path / "t.h5")) == {"conv1", "head"}
    assert set(read_run(tmp_path / "t.h5")["unrecorded_layers"]) == {"stem", "conv2"}


def test_recurrent_layers_are_recorded_by_input_and_output(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = nn.LSTM(3, 5)
    x = nn.utils.rnn.pack_sequence([torch.randn(4, 3), torch.randn(2, 3)]).to(torch.float32)
    x = x._replace(data=x.data.requires_grad_())
    with captured(tmp_path / "t.h5", tensors=["input", "output", "grad_input", "grad_output"]):
        y, _ = model(x)
        square(y.data).backward()
    records = read_records(tmp_path / "t.h5")
    expected = {"input": x.data, "output": y.data, "grad_input": x.data.grad}
    for kind, tensor in expected.items():
        found = records["lstm", kind, 0, 0, 0].values
        assert np.array_equal(found, tensor.detach().numpy()), kind
    assert records["lstm", "grad_output", 0, 0, 0].shape == (6, 5)
    with TraceReader(tmp_path / "t.h5") as trace:
        assert trace.geometry("lstm") == {"name": "lstm", "op": "LSTM"}


class Block(nn.Module):
    """A layer between two norms."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(self.norm(x))


@pytest.mark.parametrize(
    ("types", "names"),
    [
        (["LayerNorm"], {"0.norm", "1.norm"}),
        (["Block", "Linear"], {"0", "0.linear", "1", "1.linear"}),
        (["Module"], {"0", "0.linear", "0.norm", "1", "1.linear", "1.norm", "sequential"}),
    ],
)
def test_any_class_of_modules_can_be_recorded(
    types: list[str], names: set[str], tmp_path: Path
) -> None:
    model = nn.Sequential(Block(), Block())
    with captured(tmp_path / "t.h5", module_types=types):
        fit(model, lambda model: square(model(torch.randn(2, 4))))
    assert layers(read_records(tmp_path / "t.h5")) == names
    assert "unrecorded_layers" not in read_run(tmp_path / "t.h5")


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_scripted_models_are_listed(tmp_path: Path) -> None:
    with captured(tmp_path / "t.h5"):
        model = torch.jit.script(nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU(), nn.Linear(4, 1)))
        fit(model, lambda model: square(model(torch.randn(1, 1, 6))))
    expected = dict.fromkeys(["0", "2"], "compiled by torch.jit")
    assert read_run(tmp_path / "t.h5")["unrecorded_layers"] == expected


def test_models_that_do_not_train_are_left_out(tmp_path: Path) -> None:
    """Where gradients pass through them they do: a perceptual loss is part of the training."""
    model, loss_net = nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Conv1d(1, 1, 1))
    blur = nn.Sequential(nn.Conv1d(1, 1, 1), nn.Conv1d(1, 1, 1))
    with captured(tmp_path / "t.h5"):
        optimizer = sgd(model)
        for _ in range(2):
            x = torch.stack([blur(torch.randn(1, 2)) for _ in range(3)]).detach()
            square(loss_net(model(x))).backward()
            optimizer.step()
    assert layers(read_records(tmp_path / "t.h5")) == {"0", "sequential2.0"}
    reason = "no backward pass reached it"
    expected = dict.fromkeys(["sequential.0", "sequential.1"], reason)
    assert read_run(tmp_path / "t.h5")["unrecorded_layers"] == expected


def test_optimizers_of_copies_tell_nothing(tmp_path: Path) -> None:
    """As with master weights in another precision: all models count as trained."""
    model = nn.Linear(2, 2)
    with captured(tmp_path / "t.h5"):
        masters = [p.detach().clone().double() for p in model.parameters()]
        optimizer = torch.optim.SGD(masters, 0.1)
        model(torch.randn(1, 2)).sum().backward()
        optimizer.step()
    assert layers(read_records(tmp_path / "t.h5")) == {"linear"}


class Maker(nn.Module):
    """Makes two layers in each pass: gone before the next, the first even before the second."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(2, 2)
        self.kept = [nn.Linear(2, 2)]  # no part of the model

    def forward(self, x: Tensor) -> Tensor:
        x = nn.Linear(2, 2)(self.kept[0](self.stem(x)))
        return nn.Linear(2, 2)(x)


@pytest.mark.parametrize("alone", [False, True])
def test_layers_made_in_passing_are_named_from_there(alone: bool, tmp_path: Path) -> None:
    model = nn.Sequential(Maker())
    path = tmp_path / "t.h5"
    with hqtool.capture(model, path) if alone else captured(path):
        fit(model, lambda model: square(model(torch.randn(1, 2))))
    names = {"0.stem", "0.linear", "0.linear2", "0.linear3"}
    assert layers(read_records(tmp_path / "t.h5")) == names
    assert places(read_records(tmp_path / "t.h5"), "0.linear3") == [
        (step, 0, 0) for step in range(3)
    ]


# --- the context manager --------------------------------------------------------------------------


def test_the_package_is_the_call(tmp_path: Path) -> None:
    model, other = Recurrent(), nn.Linear(2, 2)
    with hqtool.capture(model, tmp_path / "t.h5", every=1) as session:
        optimizer, foreign = sgd(model), sgd(other)
        for _ in range(2):
            square(other(torch.randn(1, 2))).backward()
            foreign.step()
            square(model(torch.randn(1, 2, 3))).backward()
            optimizer.step()
    model(torch.randn(1, 2, 3))
    assert places(read_records(tmp_path / "t.h5"), "head") == [(0, 0, 0), (1, 0, 0)]
    assert layers(read_records(tmp_path / "t.h5")) == {"lstm", "head"}
    assert session.recorder.steps == 2
    with TraceReader(tmp_path / "t.h5") as trace:
        assert trace.state == "complete"


def test_an_exception_leaves_a_truncated_trace(tmp_path: Path) -> None:
    with pytest.raises(KeyError), hqtool.capture(nn.Linear(2, 2), tmp_path / "t.h5"):
        raise KeyError
    with TraceReader(tmp_path / "t.h5") as trace:
        assert trace.state == "truncated"


def test_torch_is_left_as_it_was(tmp_path: Path) -> None:
    before = nn.Module.__call__, nn.functional.linear, torch.compile
    with hqtool.capture(Tiny(), tmp_path / "t.h5"):
        assert nn.Module.__call__ is not before[0]
        assert nn.functional.linear is before[1]
    assert (nn.Module.__call__, nn.functional.linear, torch.compile) == before


def test_models_can_be_saved_meanwhile(tmp_path: Path) -> None:
    model = Recurrent()
    with hqtool.capture(model, tmp_path / "t.h5"):
        square(model(torch.randn(1, 2, 3))).backward()
        again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again.head.weight, model.head.weight)


def test_an_existing_trace_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "t.h5").write_text("mine")
    with pytest.raises(UsageError), hqtool.capture(nn.Linear(2, 2), tmp_path / "t.h5"):
        pass
    with hqtool.capture(nn.Linear(2, 2), tmp_path / "t.h5", force=True):
        pass
    assert read_records(tmp_path / "t.h5") == {}


@pytest.mark.parametrize(
    "options",
    [
        {"evry": 1},
        {"every": 0},
        {"max_elements": 0},
        {"tensors": ["activation"]},
        {"tensors": "output"},
        {"step_on": "loss"},
        {"steps": (-1, None)},
        {"steps": range(3)},
        {"steps": (1,)},
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        hqtool.capture(nn.Linear(2, 2), tmp_path / "t.h5", **options)


def test_settings_are_json_safe() -> None:
    settings = settings_of({"layers": ["a*"], "steps": (3, None)})
    assert settings == CaptureSettings(layers=("a*",), steps=(3, None))
    assert settings.to_json()["steps"] == [3, None]


# --- failures -------------------------------------------------------------------------------------


def test_a_failure_of_ours_disturbs_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    def broken(tensor: Tensor) -> None:
        raise ValueError("no statistics today")

    monkeypatch.setattr(recorder_module, "stats_of_tensor", broken)
    with captured(tmp_path / "t.h5", may_fail=True):
        TRAININGS["cnn"]()
    failed = read_run(tmp_path / "t.h5")["failed"]
    assert failed["head/output"] == "ValueError: no statistics today"


def test_a_full_disk_stops_recording_not_training(
    tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise TraceFull("the disk is full", "free some space")

    with hqtool.capture(model := Residual(), tmp_path / "t.h5"):
        monkeypatch.setattr(TraceWriter, "write", full)
        fit(model, lambda m: square(m(images())))
    said = capsys.readouterr().err
    assert said == "hqtool: recording stopped, training goes on: the disk is full\n"
    with TraceReader(tmp_path / "t.h5") as trace:
        assert trace.state == "truncated"


def test_a_forked_child_records_nothing(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    with hqtool.capture(model, tmp_path / "t.h5"):
        child = os.fork()
        if child == 0:
            square(model(torch.randn(1, 2))).backward()
            os._exit(0)
        os.waitpid(child, 0)
        square(model(torch.randn(1, 2))).backward()
    assert places(read_records(tmp_path / "t.h5"), "linear") == [(0, 0, 0)]


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("how", ["torch.compile", "module.compile"])
def test_compiled_models_run_eagerly(before: bool, how: str, tmp_path: Path, capsys: Any) -> None:
    """Compiled before capture begins or afterwards, and told once."""

    def compiled() -> nn.Module:
        model = Recurrent()
        if how == "torch.compile":
            return torch.compile(model, backend="eager")
        model.compile(backend="eager")
        return model

    model = compiled() if before else None
    with captured(tmp_path / "t.h5"):
        model = compiled() if model is None else model
        square(model(torch.randn(1, 2, 3))).backward()
    assert layers(read_records(tmp_path / "t.h5")) == {"lstm", "head"}
    assert read_run(tmp_path / "t.h5")["torch_compile"] == "run eagerly"
    told = capsys.readouterr().err
    assert told.startswith("hqtool: what torch.compile compiles runs eagerly under capture")
    assert told.count("\n") == 1


# --- scripts of unusual kinds ---------------------------------------------------------------------


class Nested(nn.Module):
    """A layer, and within it the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: Tensor, depth: int) -> Tensor:
        return self(self.linear(x), depth - 1) if depth else x


def test_modules_may_nest_as_deep_as_without(tmp_path: Path) -> None:
    model = Nested()
    with captured(tmp_path / "t.h5"):
        square(model(torch.randn(1, 2), 200)).backward()
    assert len(places(read_records(tmp_path / "t.h5"), "linear")) == 200
    assert read_run(tmp_path / "t.h5").get("failed") is None


class Odd(nn.Linear):
    """Its input is not its first argument, and its output may be no tensor."""

    def forward(self, count: int, *, x: Tensor) -> Any:
        y = super().forward(x)
        return y if count else iter([y])


def test_the_first_tensor_among_arguments_is_the_input(tmp_path: Path) -> None:
    model = nn.ModuleDict({"odd": Odd(2, 3), "iterator": Odd(2, 3)})
    x = torch.randn(4, 2, requires_grad=True)
    with captured(tmp_path / "t.h5", tensors=["input", "grad_input"]):
        square(model["odd"](1, x=x)).backward()
        next(model["iterator"](0, x=x))
    records = read_records(tmp_path / "t.h5")
    assert np.array_equal(records["odd", "input", 0, 0, 0].values, x.detach().numpy())
    assert records["odd", "grad_input", 0, 0, 0].shape == (4, 2)
    listed = read_run(tmp_path / "t.h5")["unrecorded_layers"]
    assert listed == {"iterator": "its output is not a tensor"}


# --- tensors of unusual types ---------------------------------------------------------------------


def test_sizes_of_numpy_are_plain_in_a_geometry(tmp_path: Path) -> None:
    """As scripts write them that ask an environment for its shapes."""
    model = nn.Sequential(
        nn.Conv1d(np.int64(2), np.int64(2), np.int64(3)),
        nn.Flatten(),
        nn.Linear(np.prod((2, 2)), np.int32(3)),
    )
    with captured(tmp_path / "t.h5") as session:
        square(model(torch.randn(5, 2, 4))).backward()
    with TraceReader(tmp_path / "t.h5") as trace:
        conv, linear = (layer_from_json(trace.geometry(name)).counts() for name in "02")
    assert (conv.weight, conv.input, conv.output) == (12, 40, 20)
    assert (linear.weight, linear.input, linear.output) == (12, 20, 15)
    assert session.outcome is not None
    assert not session.outcome.without_geometry


class Unbounded(nn.Linear):
    """A layer whose sizes are no numbers."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        self.out_features = object()
        return y


def test_an_unknown_geometry_is_no_unrecorded_site(tmp_path: Path) -> None:
    with captured(tmp_path / "t.h5") as session:
        square(nn.Sequential(Unbounded(2, 2))(torch.randn(1, 2))).backward()
    assert layers(read_records(tmp_path / "t.h5")) == {"0"}
    why = "TypeError: 'object' object cannot be interpreted as an integer"
    assert read_run(tmp_path / "t.h5")["without_geometry"] == {"0": why}
    assert session.outcome is not None
    assert "of unknown geometry, and in no bill: 0" in closing_lines("t.h5", session.outcome)


class Narrow(nn.Linear):
    """Its output has 8 bits, or any other type."""

    dtype = torch.float8_e4m3fn

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).to(self.dtype)


@pytest.mark.parametrize(
    "dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz]
)
def test_eight_bits_are_widened_exactly(dtype: torch.dtype, tmp_path: Path) -> None:
    everything = torch.arange(256, dtype=torch.uint8).view(dtype)
    assert torch.equal(widened(everything).float().nan_to_num(), everything.float().nan_to_num())
    model = Narrow(4, 3)
    model.dtype = dtype
    with captured(tmp_path / "t.h5"):
        y = model(torch.randn(5, 4))
        y.float().sum().backward()
    record = read_records(tmp_path / "t.h5")["narrow", "output", 0, 0, 0]
    assert np.array_equal(record.values, y.detach().float().numpy())
    assert record.stats == pytest.approx(stats_of(y.detach().double().numpy()), rel=1e-9)


def test_a_tensor_that_cannot_be_read_ends_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    """It is told, and what follows is recorded."""
    read = recorder_module.stats_of_tensor
    readings = iter(range(100))

    def stats(tensor: Tensor) -> Any:
        if next(readings) < 2:
            raise TypeError(f"reading {tensor.dim()} dimensions fails")
        return read(tensor)

    monkeypatch.setattr(recorder_module, "stats_of_tensor", stats)
    with captured(tmp_path / "t.h5", may_fail=True):
        fit(nn.Linear(2, 1), lambda model: square(model(torch.randn(3, 2))))
    assert places(read_records(tmp_path / "t.h5"), "linear") == [(2, 0, 0)]
    failed = {"linear/output": "TypeError: reading 2 dimensions fails"}
    assert read_run(tmp_path / "t.h5")["failed"] == failed


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors_are_the_values_of_their_parts(layout: Any, tmp_path: Path) -> None:
    model, parts = nn.Linear(3, 2), [torch.randn(2, 3), torch.randn(4, 3)]
    x = torch.nested.nested_tensor(parts, layout=layout, requires_grad=True)
    with captured(tmp_path / "t.h5", tensors=["input", "output", "grad_input"]):
        y = model(x)
        (torch.cat(y.unbind()) * torch.arange(12.0).view(6, 2)).sum().backward()
    records = read_records(tmp_path / "t.h5")
    dense = torch.cat(parts)
    expected = {
        "input": dense,
        "output": model(dense).detach(),
        "grad_input": torch.arange(12.0).view(6, 2) @ model.weight.detach(),
    }
    for kind, tensor in expected.items():
        record = records["linear", kind, 0, 0, 0]
        assert record.shape == (
            tuple(tensor.shape) if layout == torch.jagged else (tensor.numel(),)
        )
        assert record.values.ravel() == pytest.approx(tensor.numpy().ravel(), rel=1e-6), kind
    with TraceReader(tmp_path / "t.h5") as trace:
        assert layer_from_json(trace.geometry("linear")).counts() == (6, 18, 12)


def test_complex_layers_are_told(tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.Linear(2, 3, dtype=torch.cfloat), nn.Conv1d(3, 1, 1, dtype=torch.cfloat)
    )
    with captured(tmp_path / "t.h5") as session:
        x = torch.randn(4, 2, dtype=torch.cfloat)
        fit(model, lambda model: square(model[1](model[0](x).mT[None]).abs()))
    why = "its output is of type complex64"
    assert read_run(tmp_path / "t.h5")["unrecorded_layers"] == {"0": why, "1": why}
    assert session.outcome is not None
    assert closing_lines("t.h5", session.outcome)[0] == f"not recorded: 2 layers ({why}): 0, 1"


def test_transforms_of_functions_are_told(tmp_path: Path) -> None:
    """Per-sample gradients, as private training takes them."""
    model = nn.Sequential(nn.Linear(2, 1))
    optimizer = sgd(model)
    parameters = {name: each.detach() for name, each in model.named_parameters()}

    def loss_of(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return square(torch.func.functional_call(model, parameters, (x,)))

    with captured(tmp_path / "t.h5"):
        each = torch.func.vmap(torch.func.grad(loss_of), (None, 0))(parameters, torch.randn(3, 2))
        for name, parameter in model.named_parameters():
            parameter.grad = each[name].mean(0)
        optimizer.step()
    expected = {"0": "it ran within a transform of torch.func"}
    assert read_run(tmp_path / "t.h5")["unrecorded_layers"] == expected
