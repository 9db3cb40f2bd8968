"""Choosing what to recommend: against exhaustive search, for conditions, fronts and sensitivity."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hqtool.compare.pareto import Point, on_front
from hqtool.compare.recommending.choosing import choose
from hqtool.compare.recommending.outcomes import NONE, Outcome, mean_figure, measured, untouched
from hqtool.compare.recommending.sensitivity import sensitivity
from hqtool.compare.recommending.targets import FIGURES, Target, Within, parse_target, parse_within
from hqtool.compare.recommending.totals import MIXED, totals, worst_figure
from hqtool.core.metrics import METRICS
from hqtool.errors import UsageError
from hqtool.vocab import Site

SITE = Site("fc", "output")


def outcome(name, cost, *traces, bits=8):
    """An outcome whose figures are missing but for those given, a dict for each trace."""
    figures = tuple(dict.fromkeys(FIGURES) | trace for trace in traces)
    return Outcome(name, bits, cost, figures)


def none_beside(*outcomes):
    return Outcome(NONE, 32, 1e6, untouched(outcomes[0].figures))


# --- conditions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("cosine>=0.999", Target("cosine", True, 0.999)),
        (" sqnr_db >= 20 dB ", Target("sqnr_db", True, 20.0)),
        ("sqnr_db_low>=-3.5", Target("sqnr_db_low", True, -3.5)),
        ("saturation<=1e-3", Target("saturation", False, 1e-3)),
        ("underflow≤0.5%", Target("underflow", False, 0.005)),
        ("gain≥0.9", Target("gain", True, 0.9)),
    ],
)
def test_targets_are_read(text, target):
    found = parse_target(text)
    assert (found.metric, found.at_least) == (target.metric, target.at_least)
    assert found.bound == pytest.approx(target.bound)
    assert parse_target(found.label) == found


@pytest.mark.parametrize(
    ("text", "cause", "remedy"),
    [
        ("cosine", "is not METRIC>=VALUE", "in quotes"),
        ("cosine>0.9", "is not METRIC>=VALUE", "cosine>=0.999"),
        ("cosin>=0.9", "unknown metric 'cosin'", "did you mean 'cosine'"),
        ("cosine>=high", "'high' is not a number", "0.999"),
        ("cosine>=nan", "is not a number", ""),
        ("cosine>=1.01", "nothing can meet", "never above 1"),
        ("saturation<=-0.1", "nothing can meet", "never below 0"),
        ("cosine>=3dB", "cosine is not in dB", "unit"),
        ("sqnr_db>=10%", "sqnr_db is not in %", "unit"),
    ],
)
def test_what_is_no_target_is_refused(text, cause, remedy):
    with pytest.raises(UsageError) as error:
        parse_target(text)
    assert cause in error.value.cause
    assert remedy in error.value.remedy


def test_within_is_read():
    assert parse_within("1dB") == parse_within("1") == Within("sqnr_db", 1.0)
    assert parse_within("cosine=1e-4") == Within("cosine", 1e-4)
    assert parse_within("1dB of current@int8") == Within("sqnr_db", 1.0, "current@int8")
    for text in ("", "-1dB", "gain=1", "sqnr=1", "much"):
        with pytest.raises(UsageError):
            parse_within(text)


def test_every_figure_can_be_a_target_and_a_missing_one_never_meets_it():
    missing = dict.fromkeys(FIGURES)
    for name in [*METRICS, "sqnr_db_low"]:
        for sign in (">=", "<="):
            target = parse_target(f"{name}{sign}0.5")
            assert not target.met(missing, missing)
            assert target.met(missing | {name: 0.5}, missing)
            assert target.met(missing | {name: 0.6}, missing) == (sign == ">=")
    assert not Within("sqnr_db", 1).met(missing | {"sqnr_db": 1.0}, missing)


def test_within_goes_by_the_reference():
    near, far, reference = ({"sqnr_db": db} for db in (19.0, 18.9, 20.0))
    assert Within("sqnr_db", 1).met(near, reference)
    assert not Within("sqnr_db", 1).met(far, reference)
    lossy, exact = {"saturation": 0.02}, {"saturation": 0.0}
    assert Within("saturation", 0.02).met(lossy, exact)
    assert not Within("saturation", 0.01).met(lossy, exact)


def test_without_error_every_sqnr_is_reached():
    metrics = dict.fromkeys(METRICS, 0.0) | {"sqnr_db": None, "underflow": None, "cosine": 1.0}
    exact, unscored = (measured(metrics, None, exact=exact) for exact in (True, False))
    for text in ("sqnr_db>=1000", "sqnr_db_low>=1000", "underflow<=0"):
        assert parse_target(text).met(exact, exact)
        assert not parse_target(text).met(unscored, unscored)


# --- choosing -----------------------------------------------------------------------------------

figures = st.one_of(st.none(), st.sampled_from([-5.0, 0.0, 10.0, 20.0, math.inf]))
shares = st.one_of(st.none(), st.sampled_from([0.0, 0.1, 0.5]))
traces = st.fixed_dictionaries({"sqnr_db": figures, "saturation": shares})
many_outcomes = st.integers(1, 2).flatmap(
    lambda n: st.lists(
        st.tuples(st.sampled_from([1.0, 2.0, 3.0]), st.tuples(*[traces] * n)), min_size=1
    )
)
conditions = st.lists(
    st.sampled_from(
        [Target("sqnr_db", True, 10.0), Target("saturation", False, 0.1), Within("sqnr_db", 10.0)]
    ),
    min_size=1,
)


@given(many_outcomes, conditions)
def test_the_choice_is_that_of_an_exhaustive_search(rows, wanted):
    """Written out anew: of those good enough, none is cheaper, or as cheap and better."""
    outcomes = [outcome(f"q{i}", cost, *each) for i, (cost, each) in enumerate(rows)]
    reference = outcomes[0]
    references = {(c.label, o.quantizer): reference for c in wanted for o in outcomes}
    found = choose(SITE, outcomes, none_beside(*outcomes), wanted, references)

    def db(trace):
        return -math.inf if trace["sqnr_db"] is None else trace["sqnr_db"]

    def good(i):
        for trace, theirs in zip(outcomes[i].figures, reference.figures, strict=True):
            for condition in wanted:
                if isinstance(condition, Within):
                    known = None not in (trace["sqnr_db"], theirs["sqnr_db"])
                    holds = known and db(trace) >= db(theirs) - 10
                elif condition.metric == "sqnr_db":
                    holds = db(trace) >= 10
                else:
                    holds = trace["saturation"] is not None and trace["saturation"] <= 0.1
                if not holds:
                    return False
        return True

    able = [i for i in range(len(outcomes)) if good(i)]
    assert found.met == bool(able)
    assert [not verdict.missed for verdict in found.verdicts] == [
        i in able for i in range(len(outcomes))
    ]
    if not able:
        assert found.chosen.quantizer == NONE
        return
    chosen = outcomes.index(found.chosen)
    for i in able:
        mine, theirs = found.chosen, outcomes[i]
        key = (theirs.bytes, -theirs.quality, i)
        assert (mine.bytes, -mine.quality, chosen) <= key
    fates = [found.fate(verdict) for verdict in found.verdicts]
    assert fates.count("chosen") == 1
    assert [fate == "missed" for fate in fates] == [i not in able for i in range(len(outcomes))]


def test_a_site_must_be_good_enough_in_each_trace():
    good_and_bad = outcome("a", 1.0, {"cosine": 1.0}, {"cosine": 0.5})
    good_enough = outcome("b", 2.0, {"cosine": 0.9}, {"cosine": 0.9})
    target = [Target("cosine", True, 0.7)]
    found = choose(SITE, [good_and_bad, good_enough], none_beside(good_and_bad), target, {})
    assert found.chosen is good_enough
    assert found.verdicts[0].missed == ("cosine>=0.7",)


def test_none_is_a_candidate_where_it_is_given():
    bad = outcome("a", 1.0, {"cosine": 0.5})
    none = none_beside(bad)
    target = [Target("cosine", True, 0.9)]
    assert not choose(SITE, [bad], none, target, {}).met
    assert choose(SITE, [bad, none], none, target, {}).met


# --- totals -------------------------------------------------------------------------------------

points = st.lists(
    st.tuples(
        st.sampled_from([1.0, 2.0, 3.0, 4.0]),
        st.sampled_from([-math.inf, 0.0, 1.0, 2.0, math.inf]),
    ),
    max_size=12,
)


@given(points)
def test_the_front_is_what_nothing_dominates(points):
    def dominated(mine):
        cost, quality = mine
        return quality == -math.inf or any(
            c <= cost and q >= quality and (c < cost or q > quality) for c, q in points
        )

    given = [Point(quality, (cost,)) for cost, quality in points]
    assert on_front(given) == [not dominated(point) for point in points]


@given(st.lists(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 40)), min_size=3, max_size=3)))
def test_no_choice_that_meets_the_target_everywhere_is_cheaper_than_the_mixed_one(sites):
    """Against every combination of three candidates over up to four sites."""
    sites = sites[:4]
    if not sites:
        return
    choices = []
    for number, row in enumerate(sites):
        outcomes = [
            outcome(f"q{i}", float(cost), {"sqnr_db": float(db)})
            for i, (cost, db) in enumerate(row)
        ]
        site = Site(f"layer{number}", "output")
        target = [Target("sqnr_db", True, 15.0)]
        choices.append(choose(site, outcomes, none_beside(*outcomes), target, {}))
    rows = {total.choice: total for total in totals(choices, "sqnr_db")}
    assert list(rows) == [MIXED, "q0", "q1", "q2", NONE]
    assert rows[MIXED].met == len(sites)
    for i in range(3):
        assert rows[f"q{i}"].bytes == sum(row[i][0] for row in sites)
        assert rows[f"q{i}"].worst["sqnr_db"] == min(row[i][1] for row in sites)
        assert rows[f"q{i}"].met == sum(row[i][1] >= 15 for row in sites)
    if all(choice.met for choice in choices):
        costs = [
            sum(row[i][0] for row, i in zip(sites, picks, strict=True))
            for picks in itertools.product(range(3), repeat=len(sites))
            if all(row[i][1] >= 15 for row, i in zip(sites, picks, strict=True))
        ]
        assert rows[MIXED].bytes == min(costs)


def test_means_leave_out_what_has_no_error_unless_all_have_none():
    assert mean_figure([None, 10.0, 20.0, math.inf]) == 15.0
    assert mean_figure([None, math.inf]) == math.inf
    assert mean_figure([None]) is None
    assert worst_figure("saturation", [0.1, None, 0.3]) == 0.3
    assert worst_figure("gain", [0.9, 1.2, None]) == 1.2
    assert worst_figure("cosine", [None]) is None


# --- sensitivity --------------------------------------------------------------------------------


def test_sites_are_ranked_by_their_share_of_the_error():
    decibels = {"a": 20.0, "b": 10.0, "c": math.inf, "d": None, "e": 30.0}
    ranked = sensitivity(
        [(Site(n, "output"), outcome("q", 1.0, {"sqnr_db": db})) for n, db in decibels.items()]
    )
    assert [loss.site.layer for loss in ranked] == ["b", "a", "e", "c", "d"]
    assert [loss.error for loss in ranked] == pytest.approx([0.1, 0.01, 0.001, 0.0, None])
    assert [loss.share for loss in ranked[:3]] == pytest.approx(
        [0.1 / 0.111, 0.01 / 0.111, 0.001 / 0.111]
    )
    assert ranked[3].up_to_here == pytest.approx(1.0)
    assert ranked[4].share is None


@pytest.mark.parametrize("text", ["cosine>=0.99999999", "saturation<=0.001", "sqnr_db>=20"])
def test_a_target_is_told_as_it_was_given(text):
    assert parse_target(text).label == text
