"""Ranges of entries: smoothed, joined and fitted to other numbers of entries, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hqtool.core.entry_ranges import filled, joined_ranges, resized
from hqtool.estimators.smoothing import Ema, Latest, WindowMax
from hqtool.vocab import EntryRanges, Range

NAN = math.nan
SMOOTHINGS = [Latest(), Ema(0.9), Ema(0.25), WindowMax(1), WindowMax(3)]


def channels(*pairs: tuple[float, float]) -> EntryRanges:
    lo, hi = zip(*pairs, strict=True) if pairs else ((), ())
    return EntryRanges("channel", np.array(lo, float), np.array(hi, float))


ends = st.floats(-1e6, 1e6)
steps = st.lists(st.lists(st.tuples(ends, ends), min_size=3, max_size=3), min_size=1, max_size=6)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@given(readings=steps)
def test_each_entry_is_smoothed_as_a_tensor_would_be(smoothing, readings):
    together, alone = None, [None] * 3
    for step in readings:
        together = smoothing(together, channels(*step))
        pairs = zip(alone, step, strict=True)
        alone = [smoothing(memory, Range(*pair)) for memory, pair in pairs]
    found = smoothing.range(together)
    for i, memory in enumerate(alone):
        assert (found.lo[i], found.hi[i]) == smoothing.range(memory)


def test_moving_average_of_two_channels_by_hand():
    smoothing = Ema(0.75)
    first = smoothing(None, channels((-4, 8), (0, 1)))
    assert first == channels((-4, 8), (0, 1))
    assert smoothing(first, channels((-8, 0), (-2, 3))) == channels((-5, 6), (-0.5, 1.5))


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_what_says_nothing_of_an_entry_leaves_it_as_it_was(smoothing):
    first = smoothing(None, channels((-4, 8), (NAN, NAN)))
    second = smoothing(first, channels((NAN, NAN), (-2, 3)))
    assert smoothing.range(second) == channels((-4, 8), (-2, 3))


def test_window_forgets_entry_by_entry_but_never_all():
    smoothing, memory = WindowMax(2), None
    for reading in [(-4, 8), (NAN, NAN), (NAN, NAN), (NAN, NAN), (-1, 1)]:
        memory = smoothing(memory, channels(reading))
        last = smoothing.range(memory)
    assert last == channels((-1, 1))


def test_another_number_of_entries_is_smoothed_from_the_widest_ends():
    old = channels((-4, 8), (0, 1), (-6, 2))
    assert Ema(0.5)(old, channels((-2, 0))) == channels((-4, 4))
    assert Latest()(old, channels((-2, 0))) == channels((-2, 0))


def test_fitted_ranges():
    known = channels((-4, 8), (NAN, NAN), (-6, 2))
    assert known.widest == Range(-6, 8)
    assert filled(known, 3) == channels((-4, 8), (-6, 8), (-6, 2))
    assert filled(known, 2) == channels((-6, 8), (-6, 8))
    assert filled(channels((NAN, NAN)), 1) == channels((0, 0))
    assert filled(channels(), 2) == channels((0, 0), (0, 0))
    assert resized(known, "channel", 3) is known
    assert resized(Range(-1, 2), "channel", 2) == channels((-1, 2), (-1, 2))
    assert channels().widest is None


def test_readings_of_one_step_are_joined_entry_by_entry():
    one, other = channels((-4, 8), (NAN, NAN)), channels((-1, 9), (-2, 3))
    assert joined_ranges([one, other]) == channels((-4, 9), (-2, 3))
    smaller = channels((-5, 1))
    assert joined_ranges([smaller, one]) == channels((-5, 8), (-5, 1))
    assert joined_ranges([Range(-4, 1), Range(-1, 3)]) == Range(-4, 3)


def test_equality_is_of_values():
    assert channels((NAN, 1)) == channels((NAN, 1))
    assert channels((0, 1)) != channels((0, 2))
    assert channels((0, 1)) != channels((0, 1), (0, 1))
    assert channels((0, 1)) != EntryRanges("sample", np.zeros(1), np.ones(1))
