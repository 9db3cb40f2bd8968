"""Estimators by hand-derived numbers and against exhaustive search; specs as users type them.

What holds for every estimator is in test_conformance.py.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from deciding import decisions, decisions_of_steps, observe
from hypothesis import given
from hypothesis import strategies as st

from hqtool.core.formats.uniform import SCHEMES, UniformFormat
from hqtool.core.metrics import cosine
from hqtool.core.observation import PreparedValues
from hqtool.core.recorded import RecordedObservation
from hqtool.core.search import MOST_EVALUATIONS, golden_section
from hqtool.core.stats import stats_of
from hqtool.errors import UsageError
from hqtool.estimators.presets import ESTIMATORS
from hqtool.estimators.protocol import decide
from hqtool.vocab import Range

RNG = np.random.default_rng(7)


def run(spec, tensors, **how):
    """The decisions of one estimator over a site's tensors, or over what was made of them."""
    seen = [
        each if isinstance(each, RecordedObservation) else observe(each, **how) for each in tensors
    ]
    return decisions(ESTIMATORS.parse(spec).value, seen)


TENSORS = [[-1, 2], [-3, 1], [0, 5], [-2, -1]]


def test_current_by_hand():
    found = run("current", TENSORS)
    assert [d.range for d in found] == [(-1, 2), (-3, 1), (0, 5), (-2, -1)]
    assert all(d.looked and d.evaluations == 0 for d in found)


def test_running_by_hand():
    """η weighs the old value: r1 = .25·(−3, 1) + .75·(−1, 2)."""
    found = run("running:momentum=0.75", TENSORS)
    assert [d.range for d in found] == [
        (-1, 2),
        (-1.5, 1.75),
        (-1.125, 2.5625),
        (-1.34375, 1.671875),
    ]
    assert all(d.looked for d in found)


def test_hindsight_by_hand():
    found = run("hindsight:momentum=0.75", TENSORS)
    assert [d.range for d in found] == [(-1, 2), (-1, 2), (-1.5, 1.75), (-1.125, 2.5625)]
    assert [d.looked for d in found] == [True, False, False, False]


@given(
    st.lists(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=4), min_size=2, max_size=12),
    st.floats(0, 1),
)
def test_hindsight_at_t_is_running_at_t_minus_1(tensors, momentum):
    """From the first tensor on that teaches anything: zeros do not."""
    lagging = run(f"hindsight:momentum={momentum}", tensors)
    leading = run(f"running:momentum={momentum}", tensors)
    first = next((t for t, x in enumerate(tensors) if np.any(x)), len(tensors))
    assert [d.range for d in lagging[first + 1 :]] == [d.range for d in leading[first:-1]]


def test_maxabs_and_std_by_hand():
    assert [d.range for d in run("maxabs:momentum=0.5", TENSORS[:2])] == [(-2, 2), (-2.5, 2.5)]
    found = run("std:k=2,momentum=0.5", [[-1, 1], [-3, 3]])
    assert [d.range for d in found] == [(-2, 2), (-4, 4)]


def test_delayed_is_the_window_maximum_of_earlier_steps():
    found = run("delayed:window=2", [[1.0], [-4.0], [2.0], [1.0], [1.0]])
    assert [d.range.hi for d in found] == [1, 1, 4, 4, 2]
    assert [d.looked for d in found] == [True, False, False, False, False]


def test_fixed_never_looks():
    assert {(d.range, d.looked) for d in run("fixed:lo=-1,hi=2", TENSORS)} == {((-1, 2), False)}


def run_steps(spec, steps, **how):
    """Per step the decisions at its records."""
    seen = [[observe(x, **how) for x in step] for step in steps]
    return decisions_of_steps(ESTIMATORS.parse(spec).value, seen)


#: Two steps of two micro-batches, and one of one.
MICRO_BATCHES = [[[-1, 2], [-3, 1]], [[0, 5], [-2, -1]], [[-4, 4]]]


def ranges(steps):
    return [[d.range for d in step] for step in steps]


def test_within_a_step_records_do_not_teach_each_other():
    """Each adds its own reading to the state before the step; joined they are (−3, 2), (−2, 5)."""
    assert ranges(run_steps("running:momentum=0.5", MICRO_BATCHES)) == [
        [(-1, 2), (-3, 1)],
        [(-1.5, 3.5), (-2.5, 0.5)],
        [(-3.25, 3.75)],
    ]


def test_in_hindsight_all_records_of_a_step_have_one_range():
    found = run_steps("hindsight:momentum=0.5", MICRO_BATCHES)
    assert ranges(found) == [[(-1, 2), (-3, 1)], [(-3, 2), (-3, 2)], [(-2.5, 3.5)]]
    assert [[d.looked for d in step] for step in found] == [[True, True], [False, False], [False]]


def test_the_order_of_a_steps_records_changes_no_range():
    """As with a layer called twice, whose gradients arrive in reverse."""
    reverse = [step[::-1] for step in MICRO_BATCHES]
    for spec in ("running", "hindsight", "dsgc:interval=2", "delayed:window=2", "std"):
        turned = [step[::-1] for step in run_steps(spec, reverse)]
        assert turned == run_steps(spec, MICRO_BATCHES)


def test_a_window_counts_steps():
    found = run_steps("delayed:window=2", [[[9], [1]], [[2], [3]], [[1], [1]], [[1], [1]]])
    assert [[d.range.hi for d in step] for step in found] == [[9, 1], [9, 9], [9, 9], [3, 3]]


def test_an_interval_counts_steps_and_all_records_of_a_due_step_search():
    steps = [[RNG.laplace(size=300) * (1 + t) for _ in range(3)] for t in range(7)]
    found = run_steps("dsgc:interval=3", steps)
    assert [[d.looked for d in step] for step in found] == [[t % 3 == 0] * 3 for t in range(7)]
    assert all((d.evaluations > 0) == d.looked for step in found for d in step)
    for t in (0, 3):
        own = [d.range for d in found[t]]
        held = (min(r.lo for r in own), max(r.hi for r in own))
        assert {d.range for step in found[t + 1 : t + 3] for d in step} == {held}


def test_zero_gradients_at_first_do_not_set_a_range_of_zero():
    """Zero-initialised batch norms: r_0 is the first reading that there is."""
    found = run("hindsight:momentum=0.75", [[0, 0], [0, 0], *TENSORS])
    assert [d.range for d in found][:2] == [(0, 0), (0, 0)]
    assert found[2:] == run("hindsight:momentum=0.75", TENSORS)
    assert [d.looked for d in found] == [True] * 3 + [False] * 3


def test_a_search_that_meets_zeros_is_made_at_the_next_step():
    found = run("dsgc:interval=2", [[1, 2], [1, 2], [0, 0], [-3, 5], [7, 7], [7, 7]])
    assert [d.looked for d in found] == [True, False, True, True, True, False]
    assert [d.evaluations > 0 for d in found] == [True, False, False, True, True, False]
    assert found[2].range == found[1].range


ONE_SIDED = {
    "constant": np.full(1000, 0.1, "f4"),
    "constant and negative": np.full(70_000, -3e-5, "f4"),
    "sparse": np.where(np.arange(5000) % 50 == 0, np.float32(0.3), np.float32(0)),
    "one value": np.array([0, 0, -2e6]),
}


@pytest.mark.parametrize("scheme", ["asymmetric", "symmetric"])  # the range's end is a level
@pytest.mark.parametrize("bits", [2, 3, 8, 16])
@pytest.mark.parametrize("name", ONE_SIDED)
def test_dsgc_does_not_clip_where_all_ratios_have_one_cosine(name, bits, scheme):
    """Every ratio keeps the direction of a tensor of one value: a = 1 alone the magnitude."""
    x = ONE_SIDED[name]
    for coarse in (0, 32):
        (found,) = run(f"dsgc:coarse={coarse}", [x], bits=bits, scheme=scheme)
        assert found.range == run("current", [x])[0].range
        figures = observe(x, bits, scheme).moments([found.range])
        assert figures.err[0] <= 1e-12 * figures.xx


def test_a_search_leaves_a_plateau_at_its_upper_end():
    """Highest from 0.2 to 0.6 but for noise, and falling to either side."""

    def plateau(_, a):
        noise = 1e-14 * np.sin(1e6 * a)
        return -np.maximum(0.2 - a, 0) - np.maximum(a - 0.6, 0) + noise

    (best,), _ = golden_section(plateau, 1, 1e-4, equal=1e-13)
    assert best == pytest.approx(0.6, rel=1e-4)


def exhaustive(x, bits, scheme="asymmetric", ratios=4000):
    obs = observe(x, bits, scheme)
    full = obs.stats.range
    candidates = np.linspace(1, 0, ratios, endpoint=False)
    return cosine(obs.moments([Range(a * full.lo, a * full.hi) for a in candidates])).max()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bits", [3, 4, 6])
def test_dsgc_finds_the_best_cosine(bits, scheme):
    x = RNG.laplace(size=4000)
    (found,) = run("dsgc", [x], bits=bits, scheme=scheme)
    reached = cosine(observe(x, bits, scheme).moments([found.range]))[0]
    assert found.range.hi / x.max() == pytest.approx(found.range.lo / x.min())
    assert 1 - reached <= 1.02 * (1 - exhaustive(x, bits, scheme))


def test_dsgc_is_never_worse_than_current_where_it_searches():
    for bits in (2, 3, 4, 8):
        for x in (RNG.standard_normal(500), RNG.random(500), np.array([1.0, 1.001, -7])):
            obs = observe(x, bits)
            (searched,), (full,) = run("dsgc", [x], bits=bits), run("current", [x], bits=bits)
            found, base = cosine(obs.moments([searched.range, full.range]))
            assert found >= base


def test_dsgc_searches_at_its_interval_and_holds_between():
    tensors = [RNG.laplace(size=300) * (1 + t) for t in range(7)]
    found = run("dsgc:interval=3", tensors)
    assert [d.looked for d in found] == [True, False, False, True, False, False, True]
    assert [d.evaluations > 0 for d in found] == [d.looked for d in found]
    assert found[0].range == found[1].range == found[2].range != found[3].range


def test_dsgc_search_without_values_happens_at_the_next_step_that_has_them():
    tensors = [RNG.laplace(size=300) for _ in range(6)]
    kept = [True, True, False, False, True, True]
    seen = [observe(x, values=keep) for x, keep in zip(tensors, kept, strict=True)]
    found = run("dsgc:interval=2", seen)
    assert [d.looked for d in found] == [True, False, False, False, True, False]
    assert [d.postponed for d in found] == [False, False, True, True, False, False]
    assert found[3].range == found[0].range


def search(f, tolerance=1e-3):
    """One search by the book: the oracle of the many in step."""
    kept, seen = (math.sqrt(5) - 1) / 2, {1.0: f(1.0)}
    low, high = 0.0, 1.0
    left, right = 1 - kept, kept
    seen[left], seen[right] = f(left), f(right)
    while high - low > tolerance * (high + low) / 2 and len(seen) <= MOST_EVALUATIONS:
        if seen[left] > seen[right]:
            high, right = right, left
            left = high - kept * (high - low)
            seen[left] = f(left)
        else:
            low, left = left, right
            right = low + kept * (high - low)
            seen[right] = f(right)
    return max(seen, key=lambda a: (seen[a], a)), len(seen)


def test_a_coarse_scan_finds_the_higher_of_two_peaks():
    def two_peaks(_, a):
        return np.exp(-((np.log(a / 0.002) / 0.5) ** 2)) + 0.9 * np.exp(-(((a - 0.8) / 0.2) ** 2))

    (plain,), (few,) = golden_section(two_peaks, 1, 1e-3)
    (scanned,), (more,) = golden_section(two_peaks, 1, 1e-3, coarse=32)
    assert plain == pytest.approx(0.8, rel=0.01)
    assert scanned == pytest.approx(0.002, rel=0.01)
    assert more > few


def test_coarse_evaluations_are_counted():
    calls = []

    def f(which, a):
        calls.append(a.size)
        return -((a - 0.3) ** 2)

    _, (evaluations,) = golden_section(f, 1, 1e-3, coarse=16)
    assert evaluations == sum(calls)
    assert calls[0] == 16


OBJECTIVES = {
    "peak": lambda a: -((a - 0.3) ** 2),
    "tiny_peak": lambda a: -abs(math.log(a / 1e-4)),
    "rising": lambda a: a,
    "flat": lambda a: 0.0,
    "falling": lambda a: -a,
    "two_peaks": lambda a: math.sin(12 * a),
}


@pytest.mark.parametrize("ahead", [1, 2, 3, 5])
def test_searches_in_step_are_as_each_alone(ahead):
    functions = list(OBJECTIVES.values())

    def ask(which, a):
        return np.array([functions[i](x) for i, x in zip(which, a.tolist(), strict=True)])

    best, evaluations = golden_section(ask, len(functions), 1e-3, ahead=ahead)
    alone = [search(f) for f in functions]
    assert list(zip(best.tolist(), evaluations.tolist(), strict=True)) == alone


def test_dsgc_tolerance_is_relative():
    """A maximum at 1e-4 is found to a share of itself, which an absolute 1e-3 would miss."""
    best, evaluations = search(OBJECTIVES["tiny_peak"])
    assert best == pytest.approx(1e-4, rel=1e-3)
    assert evaluations < 50
    assert search(OBJECTIVES["rising"])[0] == search(OBJECTIVES["flat"])[0] == 1.0
    assert search(OBJECTIVES["falling"])[1] == MOST_EVALUATIONS + 1


def test_dsgc_at_several_formats_is_as_at_each_alone():
    """Formats of one record are searched side by side; each gets its own answer."""
    x = RNG.laplace(size=2000)
    formats = tuple(UniformFormat(bits) for bits in (2, 4, 8))
    dsgc = ESTIMATORS.parse("dsgc").value
    values = PreparedValues(x)
    for format_ in formats:
        obs = RecordedObservation(stats_of(x), format_, values, formats, shape=x.shape)
        together = decide(dsgc, dsgc.start(), obs)
        assert together == decide(dsgc, dsgc.start(), observe(x, format_.bits))


def test_nothing_finite_teaches_nothing():
    tensors = [[math.nan], [1.0, -1.0], [math.inf], [2.0, -2.0]]
    for name in ("running", "hindsight"):
        found = run(f"{name}:momentum=0.5", tensors)
        assert found[0].range is None
        assert found[2].range == (-1, 1)
    assert run("hindsight:momentum=0.5", tensors)[1].looked


# --- specs --------------------------------------------------------------------------------------


def test_a_spec_is_echoed_and_completed():
    choice = ESTIMATORS.parse("dsgc:interval=10")
    assert (choice.label, choice.name) == ("dsgc:interval=10", "dsgc")
    assert choice.parameters == {"interval": 10, "tol": 1e-3, "coarse": 0}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("hindsigth", "did you mean 'hindsight'"),
        ("", "unknown estimator"),
        ("hindsight:momentum=1.5", "outside 0…1"),
        ("hindsight:momentum=nan", "outside 0…1"),
        ("hindsight:momentum=fast", "should be a number"),
        ("hindsight:pace=1", "no parameter 'pace'"),
        ("hindsight:0.9", "key=value"),
        ("dsgc:interval=0", "less than 1"),
        ("dsgc:interval=2.5", "should be a whole number"),
        ("dsgc:tol=0", "outside"),
        ("dsgc:coarse=-1", "outside"),
        ("fixed", "lacks lo"),
        ("fixed:lo=1,hi=-1", "not a range"),
        ("fixed:lo=-inf,hi=1", "not a range"),
        ("std:k=0", "not positive"),
        ("delayed:window=0", "less than 1"),
    ],
)
def test_wrong_specs_say_what_is_wrong(spec, words):
    with pytest.raises(UsageError) as caught:
        ESTIMATORS.parse(spec)
    assert words in f"{caught.value.cause} {caught.value.remedy}"


@pytest.mark.parametrize(
    ("spec", "labels"),
    [
        ("current", ["current"]),
        ("hindsight:momentum=0.90", ["hindsight:momentum=0.90"]),
        (
            "hindsight:momentum=0,0.5,0.9",
            ["hindsight:momentum=0", "hindsight:momentum=0.5", "hindsight:momentum=0.9"],
        ),
        ("dsgc:interval=10..30/10,tol=0.01", [f"dsgc:interval={i}0,tol=0.01" for i in (1, 2, 3)]),
        ("delayed:window=2..4", [f"delayed:window={w}" for w in (2, 3, 4)]),
        (
            "std:k=2,3,momentum=0.1..0.3/0.2",
            [f"std:k={k},momentum={m}" for k in (2, 3) for m in (0.1, 0.3)],
        ),
    ],
)
def test_sweeps(spec, labels):
    choices = ESTIMATORS.sweep(spec)
    assert [c.label for c in choices] == labels
    assert [c.value for c in choices] == [ESTIMATORS.parse(label).value for label in labels]


@pytest.mark.parametrize(
    "spec", ["delayed:window=4..2", "delayed:window=1..9/0", "delayed:window=1..x", "std:k=1..1e9"]
)
def test_wrong_sweeps(spec):
    with pytest.raises(UsageError, match="not a rising range"):
        ESTIMATORS.sweep(spec)
