"""Writing beside training: in order, bounded, nothing dropped."""

from __future__ import annotations

import threading

import pytest

from hqtool.capture.background import WAKE_BYTES, Background


def test_calls_are_made_in_order_by_another_thread() -> None:
    background, made, threads = Background(1 << 30), [], set()

    def call(number: int) -> None:
        made.append(number)
        threads.add(threading.get_ident())

    for number in range(1000):
        background.put(lambda number=number: call(number))
    background.drain()
    assert made == list(range(1000))
    assert threads.isdisjoint({threading.get_ident()})
    background.stop()
    assert threads.isdisjoint(thread.ident for thread in threading.enumerate())


@pytest.mark.parametrize("size", [WAKE_BYTES, WAKE_BYTES // 3])
def test_what_waits_is_bounded(size: int) -> None:
    """A disk that writes only once there is no room left: whoever brings more waits."""
    bound, held, most, all_put = 4 * WAKE_BYTES, 0, 0, False
    changed = threading.Condition()
    background = Background(bound)

    def write() -> None:
        nonlocal held
        with changed:
            changed.wait_for(lambda: all_put or held + size > bound)
            held -= size

    for _ in range(40):
        background.put(write, size)
        with changed:
            held += size
            most = max(most, held)
            changed.notify()
    with changed:
        all_put = True
        changed.notify()
    background.drain()
    assert held == 0
    assert bound - size < most <= bound
    assert background.waited_seconds > 0
    background.stop()


def test_a_call_that_holds_more_than_the_bound_is_made_alone() -> None:
    background, made = Background(WAKE_BYTES), []
    for number in range(3):
        background.put(lambda number=number: made.append(number), 10 * WAKE_BYTES)
    background.drain()
    assert made == [0, 1, 2]
    background.stop()


def test_it_can_be_used_again_after_a_stop() -> None:
    background, made = Background(1), []
    for number in range(3):
        background.put(lambda number=number: made.append(number))
        background.stop()
    assert made == [0, 1, 2]
