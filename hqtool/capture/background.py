"""Writing beside training: calls made in order by a thread of their own."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

#: Held bytes from which on the thread is woken; what is less waits for `drain`.
WAKE_BYTES = 1 << 20


class Background:
    """Makes calls one after another, in order, in a thread of its own.

    What waits is bounded: whoever brings more than there is room for waits, too. Nothing is
    dropped. The calls must not raise.

    Args:
        bound_bytes: how much data the calls that wait may hold; a single call may hold more.

    Attributes:
        waited_seconds: for how long callers have waited.
    """

    def __init__(self, bound_bytes: int) -> None:
        self.waited_seconds = 0.0
        self._bound_bytes = bound_bytes
        self._calls: deque[tuple[Callable[[], object], int]] = deque()
        self._held_bytes = 0
        self._changed = threading.Condition()  # its lock is reentrant: a signal may come meanwhile
        self._urgent = False
        self._thread: threading.Thread | None = None

    def put(self, call: Callable[[], object], nbytes: int = 0) -> None:
        """Let a call be made.

        Args:
            nbytes: how much data it holds until it was made.
        """
        with self._changed:
            if self._held_bytes and self._held_bytes + nbytes > self._bound_bytes:
                self._wait_until(lambda: self._held_bytes + nbytes <= self._bound_bytes)
            self._calls.append((call, nbytes))
            self._held_bytes += nbytes
            if self._held_bytes >= WAKE_BYTES:
                self._wake()

    def drain(self) -> None:
        """Wait until all calls were made."""
        with self._changed:
            if self._calls:
                self._wait_until(lambda: not self._calls)

    def stop(self) -> None:
        """Make all calls and end the thread; a later `put` starts another."""
        self.drain()
        with self._changed:
            thread, self._thread = self._thread, None
            self._changed.notify_all()
        if thread is not None:
            thread.join()

    def _wait_until(self, done: Callable[[], bool]) -> None:
        began = time.perf_counter()
        self._wake()
        self._changed.wait_for(lambda: done() or not self._calls)
        self.waited_seconds += time.perf_counter() - began

    def _wake(self) -> None:
        """Daemonic: a process that ends without `stop` must not hang."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="hqtool-writer", daemon=True)
            self._thread.start()
        self._urgent = True
        self._changed.notify_all()

    def _run(self) -> None:
        while self._await_calls():
            while self._calls:
                call, nbytes = self._calls[0]
                call()
                self._made(nbytes)

    def _made(self, nbytes: int) -> None:
        """The first call was made. Who waits is told where that may matter."""
        if not nbytes and len(self._calls) > 1:
            self._calls.popleft()
            return
        with self._changed:
            self._calls.popleft()
            self._held_bytes -= nbytes
            self._changed.notify_all()

    def _await_calls(self) -> bool:
        """Whether there is something to do; False: the thread is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._urgent or not self._is_current())
            self._urgent = False
            return self._is_current()

    def _is_current(self) -> bool:
        return self._thread is threading.current_thread()
