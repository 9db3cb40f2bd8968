"""Writing in the background of training: calls made in order, by a thread or by one that waits."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

#: The thread is woken once waiting calls hold so many bytes; fewer wait for `drain`.
WAKE_BYTES = 1 << 20


class Background:
    """Makes calls one after another, in order, in a thread of its own.

    The data of waiting calls is bounded: where there is no room for another call, `put` waits.
    No call is dropped, and none may raise an exception. A thread that waits for the calls makes
    them itself, unless they are being made already: waking another thread takes longer than
    writing a step's statistics.

    Args:
        bound_bytes: how much data the waiting calls may hold; a single call may hold more.

    Attributes:
        waited_seconds: for how long other threads have waited.
    """

    def __init__(self, bound_bytes: int) -> None:
        self.waited_seconds = 0.0
        self._bound_bytes = bound_bytes
        self._calls: deque[tuple[Callable[[], object], int]] = deque()
        self._held_bytes = 0
        self._changed = threading.Condition()  # its lock is reentrant: a signal may come meanwhile
        self._maker: int | None = None  # the thread that is making calls now
        self._urgent = False
        self._thread: threading.Thread | None = None

    def put(self, call: Callable[[], object], nbytes: int = 0) -> None:
        """Add a call to those to be made.

        Args:
            nbytes: how much data the call holds until it has been made.
        """
        if nbytes:
            self._wait_until(lambda: self._has_room(nbytes))
        with self._changed:
            self._calls.append((call, nbytes))
            self._held_bytes += nbytes
            if nbytes and self._held_bytes >= WAKE_BYTES:
                self._wake()

    def _has_room(self, nbytes: int) -> bool:
        return not self._held_bytes or self._held_bytes + nbytes <= self._bound_bytes

    def drain(self) -> None:
        """Return when all calls were made."""
        self._wait_until(lambda: not self._calls and self._is_free())

    def stop(self) -> None:
        """Make all calls and end the thread; a later `put` starts another."""
        self.drain()
        with self._changed:
            thread, self._thread = self._thread, None
            self._changed.notify_all()
        if thread is not None:
            thread.join()

    def _wait_until(self, enough: Callable[[], bool]) -> None:
        """Wait for the thread that is making calls, or make them here where none is."""
        if enough():
            return
        began = time.perf_counter()
        while not enough():
            if self._is_free():
                self._make_calls(enough)
            with self._changed:
                self._changed.wait_for(lambda: enough() or self._is_free())
        self.waited_seconds += time.perf_counter() - began

    def _is_free(self) -> bool:
        """Whether no other thread makes calls."""
        return self._maker in (None, threading.get_ident())

    def _make_calls(self, enough: Callable[[], bool]) -> None:
        with self._changed:
            if not self._is_free():
                return
            outer, self._maker = self._maker, threading.get_ident()
        try:
            while self._calls and (outer is not None or not enough()):
                self._make(*self._calls.popleft())
        finally:
            with self._changed:
                self._maker = outer
                self._changed.notify_all()

    def _make(self, call: Callable[[], object], nbytes: int) -> None:
        call()
        if nbytes:
            with self._changed:
                self._held_bytes -= nbytes
                self._changed.notify_all()

    def _wake(self) -> None:
        """Wake the thread. It is daemonic: a process that ends without `stop` must not hang."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="hqtool-writer", daemon=True)
            self._thread.start()
        self._urgent = True
        self._changed.notify_all()

    def _run(self) -> None:
        while self._await_calls():
            self._make_calls(lambda: False)

    def _await_calls(self) -> bool:
        """Whether there is something to do; False: the thread is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._urgent or not self._is_current())
            self._urgent = False
            return self._is_current()

    def _is_current(self) -> bool:
        return self._thread is threading.current_thread()
