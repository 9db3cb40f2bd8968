"""Twenty steps of W8A8G8 equal an independent implementation; ranges equal those of replay."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from training_by_hand import KINDS, Layer, asymmetric  # noqa: E402

import hqtool  # noqa: E402
from hqtool.core.recorded import RecordedObservation  # noqa: E402
from hqtool.estimators.protocol import advance, decide, widest  # noqa: E402
from hqtool.estimators.quantizer import parse_quantizer  # noqa: E402
from hqtool.recipes.recipe import Recipe  # noqa: E402
from hqtool.recipes.recipe_file import parse_recipe  # noqa: E402
from hqtool.vocab import Record, Site  # noqa: E402

STEPS = 20


def recipe(**quantizers: str) -> Recipe:
    lines = [f'{kind} = "{text}"' for kind, text in quantizers.items()]
    return parse_recipe(
        'schema = "hqtool.recipe/1"\n[[rule]]\nlayers = ["*"]\n' + "\n".join(lines), "mine"
    )


W8A8G8 = recipe(
    weight="current@int8",
    output="hindsight:momentum=0.9@int8",
    grad_input="hindsight:momentum=0.9@int8",
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, stride=2, padding=1)
        self.mid = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.head = nn.Linear(48, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        return self.head(F.relu(self.mid(x)).flatten(1))


def batches(steps: int = STEPS, size: int = 8) -> list[tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(size, 1, 8, 8, generator=random, dtype=torch.float64),
            torch.randint(5, (size,), generator=random),
        )
        for _ in range(steps)
    ]


def network() -> Net:
    torch.manual_seed(0)
    return Net().double()


class Hindsight:
    """Eq. 2 and 3, a look at step 0."""

    def __init__(self) -> None:
        self.known: tuple[float, float] | None = None

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        lo, hi = float(x.min()), float(x.max())
        used = self.known or (lo, hi)
        if self.known is None:
            self.known = (lo, hi)
        else:
            self.known = (0.1 * lo + 0.9 * used[0], 0.1 * hi + 0.9 * used[1])
        return asymmetric(x, *used)


def current(x: Tensor) -> tuple[Tensor, Tensor]:
    return asymmetric(x, float(x.min()), float(x.max()))


def losses_by_hand() -> list[float]:
    model, found = network(), []
    rounds = [
        {"weight": current, "output": Hindsight(), "grad_input": Hindsight()} for _ in range(3)
    ]
    for x, target in batches():
        layers = [
            Layer(each, its)
            for each, its in zip((model.conv, model.mid, model.head), rounds, strict=True)
        ]
        first, second, third = layers
        a = first.forward(x)
        b = second.forward(a.clamp(min=0))
        logits = third.forward(b.clamp(min=0).flatten(1))
        found.append(float(F.cross_entropy(logits, target)))
        g = (logits.softmax(1) - F.one_hot(target, 5)) / len(target)
        g, *of_third = third.backward(g)
        g, *of_second = second.backward(g.reshape(b.shape) * (b > 0))
        first.rounds["grad_input"] = lambda gradient: (gradient, gradient != gradient)
        _, *of_first = first.backward(g * (a > 0))
        gradients = [*of_first, of_second[0], *of_third]
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient
    return found


def trained(
    how: Recipe,
    path: Path | None = None,
    parts: int = 1,
    checkpoints: bool | None = None,
    evaluates: bool = False,
    seed: int = 0,
) -> tuple[list[float], Net]:
    """Train the network, each batch in so many parts; with activations computed again or not."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    found = []

    def forward(x: Tensor) -> Tensor:
        if checkpoints is None:
            return model(x)
        x.requires_grad_()
        return torch.utils.checkpoint.checkpoint(model, x, use_reentrant=checkpoints)

    with hqtool.train(model, how, path, seed=seed):
        for x, target in batches():
            optimizer.zero_grad()
            total = 0.0
            for part, its in zip(x.chunk(parts), target.chunk(parts), strict=True):
                loss = F.cross_entropy(forward(part), its) / parts
                loss.backward()
                total += loss.item()
            optimizer.step()
            found.append(total)
            if evaluates:
                with torch.no_grad():
                    model.eval()(10 * x)
                model.train()(10 * x)  # no backward pass comes
    return found, model


def test_twenty_steps_equal_an_independent_implementation() -> None:
    found, _ = trained(W8A8G8)
    assert found == pytest.approx(losses_by_hand(), rel=1e-9)
    assert found[-1] != pytest.approx(trained(recipe(weight="current@int4"))[0][-1], rel=1e-6)


ESTIMATORS = {
    "output": ["current", "running", "hindsight", "maxabs", "delayed"],
    "grad_input": ["hindsight", "delayed:window=4", "running:momentum=0.5", "current", "maxabs"],
}


def records_of(path: Path) -> dict[Site, list[Record]]:
    with hqtool.TraceReader(path) as trace:
        return {site: list(trace.records(site)) for site in trace.sites}


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("parts", [1, 2])
def test_the_ranges_are_those_of_replay(number: int, parts: int, tmp_path: Path) -> None:
    """Step by step, by the functions that replay runs, from the statistics recorded."""
    labels = {kind: f"{names[number]}@int8" for kind, names in ESTIMATORS.items()}
    trained(recipe(**labels), tmp_path / "run.h5", parts)
    found = records_of(tmp_path / "run.h5")
    assert len(found) == 5  # the network's input needs no gradient
    for site, records in found.items():
        quantizer = parse_quantizer(labels[site.tensor])
        estimator = quantizer.estimator.value
        state = estimator.start()
        for step in range(STEPS):
            of_step = [each for each in records if each.step == step]
            assert len(of_step) == parts
            made = [
                decide(estimator, state, RecordedObservation(each.stats, quantizer.format.value))
                for each in of_step
            ]
            for each, (decision, _) in zip(of_step, made, strict=True):
                assert each.range == decision.range
                assert each.looked == decision.looked
            used = widest([decision.range for decision, _ in made if decision.range])
            state = advance(estimator, state, [reading for _, reading in made], used)


def test_a_batch_in_two_parts_gives_the_ranges_of_the_whole(tmp_path: Path) -> None:
    trained(recipe(output="hindsight@int16"), tmp_path / "whole.h5")
    trained(recipe(output="hindsight@int16"), tmp_path / "parts.h5", 2)
    whole, parts = (records_of(tmp_path / f"{name}.h5") for name in ("whole", "parts"))
    for site, records in whole.items():
        for one, other in zip(records[1:], parts[site][2::2], strict=True):
            assert one.range == pytest.approx(other.range, rel=1e-3)


def test_passes_that_evaluate_teach_nothing(tmp_path: Path) -> None:
    plain, _ = trained(W8A8G8, tmp_path / "a.h5")
    evaluated, _ = trained(W8A8G8, tmp_path / "b.h5", evaluates=True)
    assert plain == evaluated
    a, b = (records_of(tmp_path / name) for name in ("a.h5", "b.h5"))
    assert {site: [r.range for r in each] for site, each in a.items()} == {
        site: [r.range for r in each] for site, each in b.items()
    }


STOCHASTIC = recipe(
    weight="current@int8",
    output="hindsight@int8/stochastic",
    grad_input="hindsight@int8/stochastic",
)


@pytest.mark.parametrize("reentrant", [True, False])
def test_activations_computed_again_use_the_same_range_and_noise(
    reentrant: bool, tmp_path: Path
) -> None:
    plain, model = trained(STOCHASTIC, tmp_path / "a.h5")
    again, other = trained(STOCHASTIC, tmp_path / "b.h5", checkpoints=reentrant)
    assert plain == again
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
    a, b = (records_of(tmp_path / name) for name in ("a.h5", "b.h5"))
    for site, records in a.items():
        assert [each.range for each in records] == [each.range for each in b[site]]


def test_the_same_seed_gives_the_same_bits_and_torchs_numbers_stay() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    network_state = None
    found = []
    for seed in (1, 1, 2):
        found.append(trained(STOCHASTIC, seed=seed)[0])
        state = torch.get_rng_state()
        assert network_state is None or torch.equal(state, network_state)
        network_state = state
    trained(recipe())
    assert torch.equal(torch.get_rng_state(), network_state)
    assert not torch.equal(before, network_state)  # the network was initialized
    assert found[0] == found[1] != found[2]


def test_one_thread_and_two_give_the_same_bits() -> None:
    """Of layers that torch itself multiplies alike; tensors are large enough to be divided."""
    everywhere = recipe(**dict.fromkeys(KINDS, "hindsight@int8/stochastic"))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
            x = torch.randn(2048, 64)
            with hqtool.train(model, everywhere):
                for _ in range(2):
                    model(x).square().mean().backward()
            found.append([each.grad for each in model.parameters()])
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *found))


def test_what_a_record_tells(tmp_path: Path) -> None:
    trained(recipe(output="hindsight:momentum=1@int8"), tmp_path / "run.h5")
    for site, records in records_of(tmp_path / "run.h5").items():
        assert site.tensor == "output"
        assert [each.looked for each in records] == [True, *[False] * (STEPS - 1)]
        assert all(each.range == records[0].range for each in records)
        assert records[0].clipped == 0
        beyond = [r.stats.max > 1.1 * r.range.hi for r in records if r.range is not None]
        for each, is_beyond in zip(records, beyond, strict=True):
            assert each.clipped is not None
            assert not is_beyond or each.clipped > 0


def test_a_plain_trace_tells_nothing_of_ranges(tmp_path: Path) -> None:
    with hqtool.TraceWriter(tmp_path / "t.h5") as writer:
        writer.write("a", "output", 0, torch.ones(3).numpy())
    (records,) = records_of(tmp_path / "t.h5").values()
    assert (records[0].range, records[0].looked, records[0].clipped) == (None, None, None)
