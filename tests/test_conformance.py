"""Rules for every estimator, metric and command, also for those that will be registered later.

Nothing here names one: all come from the registries. An estimator is taken at its defaults and at
the extremes of each of its parameters that it accepts.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import itertools
import json
import math
from collections.abc import Iterator
from typing import Any, get_args

import click
import numpy as np
import oracle
import pytest
from command import hqtool
from deciding import decisions, observe

from hqtool.cli.main import COMMANDS, cli
from hqtool.core.formats.lanes import levels_of
from hqtool.core.formats.uniform import SCHEMES, UniformFormat
from hqtool.core.metrics import METRICS, Metric, figure
from hqtool.core.moments.dense import dense_moments
from hqtool.core.observation import PreparedValues
from hqtool.core.questions import QUESTIONS, Asked, UndeclaredQuestionError
from hqtool.core.recorded import RecordedObservation
from hqtool.core.stats import finite_values
from hqtool.errors import UsageError
from hqtool.estimators.delayed import Delayed
from hqtool.estimators.presets import DEFAULTS, ESTIMATORS
from hqtool.estimators.protocol import Estimator, advance, decide, joined
from hqtool.estimators.saturation import Saturation
from hqtool.estimators.schedule import EveryInterval, EveryStep, PreviousStep
from hqtool.registry import Entry
from hqtool.vocab import Decision, Moments, Range

# --- estimators: which, and over what -----------------------------------------------------------

#: What a parameter may be given, by its type: ends of the scale, and what lies between. Values
#: that an estimator refuses are left out.
CANDIDATES: dict[Any, list[str]] = {
    int: ["0", "1", "2", "7", "1000", "1000000000"],
    float: [
        "nan",
        "-inf",
        "-1e308",
        "-1",
        "0",
        "5e-324",
        "1e-9",
        "0.5",
        "1",
        "1e70",
        "1e308",
        "inf",
    ],
    bool: ["false", "true"],
}


def specs_of(entry: Entry[Estimator]) -> Iterator[str]:
    """An estimator at its defaults, and then at each value of each parameter."""
    given = _required(entry)
    yield _spec(entry, given)
    for name, parameter in entry.parameters.items():
        for value in CANDIDATES.get(parameter.annotation, []) or get_args(parameter.annotation):
            spec = _spec(entry, given | {name: value})
            if _accepted(spec):
                yield spec


def _required(entry: Entry[Estimator]) -> dict[str, str]:
    """Values for the parameters that have no default: the first ones that are accepted."""
    required = [(n, p) for n, p in entry.parameters.items() if p.default is inspect.Parameter.empty]
    names = [name for name, _ in required]
    for values in itertools.product(*(CANDIDATES[p.annotation] for _, p in required)):
        given = dict(zip(names, values, strict=True))
        if _accepted(_spec(entry, given)):
            return given
    raise AssertionError(f"no value of CANDIDATES suits {entry.usage}")


def _spec(entry: Entry[Estimator], given: dict[str, str]) -> str:
    pairs = ",".join(f"{name}={value}" for name, value in given.items())
    return f"{entry.name}:{pairs}" if pairs else entry.name


def _accepted(spec: str) -> bool:
    """What is refused is refused as usage: any other error is a fault, and fails."""
    try:
        ESTIMATORS.parse(spec)
    except UsageError:
        return False
    return True


ENTRIES = list(ESTIMATORS)
SPECS = list(dict.fromkeys(spec for entry in ENTRIES for spec in specs_of(entry)))
GIVE_RANGES = [next(specs_of(entry)) for entry in ENTRIES if entry.name != "local"]

#: What they read of a tensor that teaches nothing: that a step went by.
COUNT_ALL_STEPS = {Delayed}

RNG = np.random.default_rng(11)
RAMP = [RNG.laplace(size=40) * (1 + step) for step in range(7)]

#: The tensors of a site, in order.
HISTORIES: dict[str, list[Any]] = {
    "growing": RAMP,
    "not_a_number": [[math.nan]] * 3,
    "not_a_number_at_first": [[math.nan, math.nan], *RAMP[:3]],
    "not_a_number_later": [RAMP[0], [math.nan], RAMP[1]],
    "infinite": [[math.inf, -math.inf], [1.0, math.inf], [2.0]],
    "zero": [[0.0, 0.0]] * 3,
    "zero_at_first": [[0.0, 0.0], *RAMP[:3]],
    "constant": [[3.0] * 5] * 3,
    "constant_and_negative": [[-0.25] * 5] * 3,
    "single_value": [[2.5], [-1.5], [1e-3]],
    "empty": [[]] * 3,
    "one_sided": [[1.0, 2.0], [-1.0, -2.0], [5.0]],
    "least": [[5e-324], [-5e-324, 0.0], [5e-324]],
    "huge": [[1e70, -1e70], [-1e70], [1e70, 1.0]],
    "largest": [[1.7e308, -1.7e308], [-1.7e308], [1.7e308, 1.0]],
    "sparse": [[0.0] * 50 + [1e-6], [0.0] * 50 + [1e6], [0.0] * 51],
}


def records(name: str) -> list[RecordedObservation]:
    return [observe(x) for x in HISTORIES[name]]


def without_values(name: str) -> list[RecordedObservation]:
    """Where values are kept now and then, and of the first record not."""
    return [observe(x, values=i % 3 == 1) for i, x in enumerate(HISTORIES[name])]


# --- estimators: by name ------------------------------------------------------------------------


def test_the_defaults_are_registered() -> None:
    assert set(DEFAULTS) <= {entry.name for entry in ENTRIES}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_an_estimator_tells_what_it_is(entry: Entry[Estimator]) -> None:
    """In one line of words; its usage is what a user types, every parameter with its default."""
    assert entry.summary.strip()
    assert "\n" not in entry.summary
    assert entry.usage.partition(":")[0] == entry.name
    for name, parameter in entry.parameters.items():
        assert f"{name}=" in entry.usage
        assert parameter.annotation is not inspect.Parameter.empty, name
    if "…" not in entry.usage:
        assert ESTIMATORS.parse(entry.usage).value == ESTIMATORS.parse(entry.name).value


def test_list_names_every_estimator_and_metric() -> None:
    done = hqtool("list", "--json", "-")
    assert done.status == 0
    found = json.loads(done.out)
    told = {each["name"]: (each["usage"], each["meaning"]) for each in found["estimators"]}
    assert told == {entry.name: (entry.usage, entry.summary) for entry in ENTRIES}
    told = {each["name"]: (each["unit"], each["meaning"]) for each in found["metrics"]}
    assert told == {name: (m.unit, m.meaning) for name, m in METRICS.items()}
    table = hqtool("list").out
    assert all(f"{each.name}" in table for each in (*ENTRIES, *METRICS.values()))


@pytest.mark.parametrize("spec", SPECS)
def test_round_trip_through_json(spec: str) -> None:
    choice = ESTIMATORS.parse(spec)
    again = ESTIMATORS.from_json(json.loads(json.dumps(choice.to_json(), allow_nan=False)))
    assert again == choice
    assert again.value == choice.value


# --- estimators: what they decide ---------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS)
def test_an_estimator_is_a_frozen_value(spec: str) -> None:
    estimator = ESTIMATORS.parse(spec).value
    assert hash(estimator) == hash(ESTIMATORS.parse(spec).value)
    for field in dataclasses.fields(estimator):  # type: ignore[arg-type]
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(estimator, field.name, None)
    assert not hasattr(estimator, "__dict__")


@pytest.mark.parametrize("spec", SPECS)
def test_all_state_is_in_the_state(spec: str) -> None:
    """One object serves two sites in turn as one object each would, and twice alike."""
    shared = ESTIMATORS.parse(spec).value
    first, second = records("growing"), records("growing")[::-1]
    alone = [decisions(ESTIMATORS.parse(spec).value, each) for each in (first, second)]
    states = [shared.start(), shared.start()]
    together: list[list[Decision]] = [[], []]
    for pair in zip(first, second, strict=True):
        for site, observation in enumerate(pair):
            decision, reading = decide(shared, states[site], observation)
            states[site] = advance(shared, states[site], [reading])
            together[site].append(decision)
    assert together == alone
    assert decisions(shared, records("growing")) == alone[0]


@pytest.mark.parametrize("spec", SPECS)
def test_a_state_is_never_changed(spec: str) -> None:
    estimator = ESTIMATORS.parse(spec).value
    state = estimator.start()
    assert estimator.start() == state
    for observation in records("growing"):
        kept = copy.deepcopy(state)
        once, again = decide(estimator, state, observation), decide(estimator, state, observation)
        after = advance(estimator, state, [once[1]])
        assert (once, after) == (again, advance(estimator, state, [again[1]]))
        assert state == kept
        hash(after)
        state = after


@pytest.mark.parametrize("spec", SPECS)
def test_whatever_comes_the_range_is_one(spec: str) -> None:
    """Finite, and lo ≤ hi; with values, without them, and at first without."""
    estimator = ESTIMATORS.parse(spec).value
    for history in HISTORIES:
        bare = [observe(x, values=False) for x in HISTORIES[history]]
        for site in (records(history), without_values(history), bare):
            for decision in decisions(estimator, site):
                if decision.range is not None:
                    lo, hi = decision.range.widest
                    assert math.isfinite(lo), history
                    assert math.isfinite(hi), history
                    assert lo <= hi, history
                assert not (decision.looked and decision.postponed), history


@pytest.mark.parametrize("spec", SPECS)
def test_once_there_is_a_range_there_always_is(spec: str) -> None:
    for history in HISTORIES:
        known = [
            d.range is not None for d in decisions(ESTIMATORS.parse(spec).value, records(history))
        ]
        assert known == sorted(known)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("nothing", [[0.0, -0.0], [math.nan, math.inf], [0.0, math.nan], []])
def test_a_tensor_without_a_nonzero_value_teaches_nothing(spec: str, nothing: list[float]) -> None:
    """It is quantized by what is known, and what comes after it as if it had not been."""
    estimator = ESTIMATORS.parse(spec).value
    alone = decisions(estimator, [observe(RAMP[0])])[0]
    first, second = decisions(estimator, [observe(nothing), observe(RAMP[0])])
    assert second == alone
    if alone.looked:
        assert first.looked
        assert first.range == (Range(0, 0) if 0.0 in nothing else None)

    state = estimator.start()
    for observation in records("growing"):
        state = advance(estimator, state, [decide(estimator, state, observation)[1]])
    found, reading = decide(estimator, state, observe(nothing))
    assert found.range == estimator.plan(state).range
    assert (found.postponed, found.evaluations) == (False, 0)
    if type(estimator) not in COUNT_ALL_STEPS:
        assert reading is None


@pytest.mark.parametrize("spec", SPECS)
def test_without_a_look_the_tensor_is_not_known(spec: str) -> None:
    """The range may depend on the coming tensor only where it looked at it."""
    estimator = ESTIMATORS.parse(spec).value
    for count in range(len(RAMP)):
        before = records("growing")[:count]
        one, other = (
            decisions(estimator, [*before, observe(x)])[-1] for x in ([1.0, -1.0], [900.0, -7.0])
        )
        assert one.looked == other.looked
        assert one.looked or one.range == other.range


def looks_expected(estimator: Any, count: int) -> list[bool]:
    """By the estimator's schedule; one without a schedule is static from the first record on."""
    if isinstance(estimator, Saturation) or getattr(estimator, "init", "one") == "look":
        return [step == 0 for step in range(count)]
    schedule = getattr(estimator, "schedule", None)
    match schedule:
        case None:
            return [False] * count
        case PreviousStep():
            return [step == 0 for step in range(count)]
        case EveryStep():
            return [True] * count
        case EveryInterval():
            return [step % schedule.interval == 0 for step in range(count)]
    raise AssertionError(f"say here when {schedule} looks")


@pytest.mark.parametrize("spec", SPECS)
def test_it_looks_when_its_schedule_says(spec: str) -> None:
    """A static schedule never after the first record."""
    estimator = ESTIMATORS.parse(spec).value
    looked = [decision.looked for decision in decisions(estimator, records("growing"))]
    assert looked == looks_expected(estimator, len(RAMP))


@pytest.mark.parametrize("spec", SPECS)
def test_what_was_decided_without_the_format_holds_in_every_format(spec: str) -> None:
    """So replay decides once for all formats where an estimator does not ask for the format."""
    estimator = ESTIMATORS.parse(spec).value
    seen = [
        [observe(x, bits, scheme) for x in RAMP]
        for bits, scheme in itertools.product((2, 8, 16), SCHEMES)
    ]
    found = [decisions(estimator, each) for each in seen]
    if "format" not in estimator.asks:
        assert all(each == found[0] for each in found)


@pytest.mark.parametrize("spec", SPECS)
def test_it_asks_what_it_declares(spec: str) -> None:
    """Nothing else, which would be refused; and each question at some tensor."""
    estimator = ESTIMATORS.parse(spec).value
    assert estimator.asks <= QUESTIONS.keys()
    for question in estimator.asks:
        with pytest.raises(UndeclaredQuestionError, match=f"'{question}'"):
            run_asking(estimator, estimator.asks - {question})


def run_asking(estimator: Estimator, asks: frozenset[str]) -> None:
    """Run an estimator over tensors that answer these questions alone."""
    state = estimator.start()
    for observation in [*records("growing"), *records("infinite")]:
        asked = Asked(observation, asks, "the estimator")
        plan, reading = estimator.plan(state), None
        if plan.scale_one:
            assert asked.range_at_scale_one
        if plan.reads or plan.looks:
            reading = estimator.read(state, asked)
        state = estimator.learn(state, reading and joined([reading]), plan.range)


# --- metrics ------------------------------------------------------------------------------------

METRIC = pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
RANGES = [Range(-1, 1), Range(0, 0), Range(-1e-3, 2), Range(0, 100), Range(-1e70, 1e70)]

TENSORS = {name: np.concatenate([np.ravel(x) for x in xs]) for name, xs in HISTORIES.items()}


def moments(x: Any, rounding: str = "nearest", bits: int = 4) -> Moments:
    """Under a grid of each of RANGES."""
    return PreparedValues(np.asarray(x, "f8")).moments(
        RANGES, [UniformFormat(bits)] * len(RANGES), rounding
    )


@METRIC
def test_a_metric_tells_what_it_is(metric: Metric) -> None:
    assert METRICS[metric.name] is metric
    assert metric.meaning.strip()
    assert "\n" not in metric.meaning
    assert inspect.getdoc(metric.of)


@METRIC
@pytest.mark.parametrize("rounding", oracle.ROUNDINGS)
@pytest.mark.parametrize("tensor", TENSORS)
def test_a_metric_is_a_figure_a_grid_or_missing(metric: Metric, tensor: str, rounding: str) -> None:
    m = moments(TENSORS[tensor], rounding)
    found = figure(metric.of, m)
    assert found.shape == (len(RANGES),)
    assert not np.isinf(found).any()
    assert figure(metric.of, m).tobytes() == found.tobytes()


@METRIC
@pytest.mark.parametrize("tensor", ["not_a_number", "empty"])
def test_of_no_finite_value_every_metric_is_missing_but_their_share(
    metric: Metric, tensor: str
) -> None:
    found = figure(metric.of, moments(TENSORS[tensor]))
    share = 1.0 if metric.name == "nonfinite" and tensor == "not_a_number" else np.nan
    np.testing.assert_array_equal(found, share)


@METRIC
@pytest.mark.parametrize("rounding", oracle.ROUNDINGS)
def test_a_metric_does_not_depend_on_the_path(metric: Metric, rounding: str) -> None:
    """That of the sorted values, and that over every value."""
    for x in map(finite_values, TENSORS.values()):
        ends = Range(float(x.min(initial=-1)), float(x.max(initial=1)) * 0.75)
        lanes = [ends] * 3, [UniformFormat(bits) for bits in (2, 4, 8)]
        values = PreparedValues(x)
        fast = figure(metric.of, values.moments(*lanes, rounding))
        if not values.exponent and x.size:
            slow = figure(metric.of, dense_moments(x, levels_of(*lanes), rounding))
            np.testing.assert_allclose(fast, slow, rtol=1e-6, atol=1e-300)


@METRIC
@pytest.mark.parametrize("exponent", [-20, -1, 3])
def test_a_metric_has_the_unit_it_names(metric: Metric, exponent: int) -> None:
    """A power of two changes no digit: what has no unit stays, x² grows by its square."""
    x, scale = RAMP[0], 2.0**exponent
    base, scaled = (
        figure(metric.of, dense_moments(s * x, levels_of([Range(-s, 2 * s)], [UniformFormat(4)])))
        for s in (1.0, scale)
    )
    factor = {"x²": scale**2}.get(metric.unit, 1.0)
    assert scaled == pytest.approx(base * factor, rel=1e-12)


@METRIC
def test_compare_says_every_metric(metric: Metric, compared: dict[str, Any]) -> None:
    for row in (*compared["summary"], *compared["steps"]):
        assert metric.name in row


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A comparison of every estimator that gives ranges, at its defaults."""
    from hqtool import TraceWriter

    path = tmp_path_factory.mktemp("conformance") / "t.h5"
    with TraceWriter(path) as writer:
        for step, x in enumerate(RAMP):
            writer.write("fc", "grad_input", step, x)
            writer.commit(step)
    chosen = [part for label in GIVE_RANGES for part in ("--estimator", label)]
    done = hqtool("compare", path, "--json", "-", "--per-step", *chosen)
    assert done.status == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_compare_scores_every_estimator(compared: dict[str, Any]) -> None:
    labels = GIVE_RANGES
    assert [row["estimator"] for row in compared["summary"]] == labels
    looks = {row["estimator"]: row["looks"] for row in compared["summary"]}
    for label in labels:
        expected = looks_expected(ESTIMATORS.parse(label).value, len(RAMP))
        assert looks[label] == sum(expected)


# --- commands -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_explains_itself(name: str) -> None:
    """Itself and every option, in words; what it does not know is told in two lines."""
    command = cli.get_command(click.Context(cli), name)
    assert isinstance(command, click.Command)
    options = [each for each in command.params if isinstance(each, click.Option)]
    done = hqtool(name, "--help")
    assert (done.status, done.err) == (0, "")
    for option in options:
        assert option.help, option.name
        assert option.opts[0] in done.out
    wrong = hqtool(name, "--no-such-option")
    assert (wrong.status, wrong.out) == (2, "")
    assert len(wrong.err.splitlines()) <= 2
