"""Writing in the background of training: in order, with bounded memory, nothing dropped."""

from __future__ import annotations

import threading

import pytest

from hqtool.capture.background import WAKE_BYTES, Background


def test_calls_are_made_in_order_one_at_a_time() -> None:
    """By the thread, which is woken for what holds much, and by who waits for the rest."""
    background, made, busy = Background(1 << 30), [], threading.Lock()

    def call(number: int) -> None:
        assert busy.acquire(blocking=False)
        made.append(number)
        busy.release()

    for number in range(1000):
        background.put(lambda number=number: call(number), WAKE_BYTES * (number % 7 == 0))
    background.drain()
    assert made == list(range(1000))
    background.stop()
    assert "hqtool-writer" not in {thread.name for thread in threading.enumerate()}


def test_much_data_is_written_beside_training() -> None:
    background, written = Background(1 << 30), threading.Event()
    background.put(written.set, WAKE_BYTES)
    assert written.wait(60)
    background.stop()


@pytest.mark.parametrize("size", [WAKE_BYTES, WAKE_BYTES // 3])
def test_what_waits_is_bounded(size: int) -> None:
    """A disk that writes only once there is no room left: `put` waits for it."""
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
