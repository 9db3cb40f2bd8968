"""The exchange of what was taught on the ranks: rank 0 leads it, the others follow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Self

from hqtool.training.ranks.messages import RankMessages
from hqtool.training.ranks.packed import packed, unpacked
from hqtool.training.sites.trained_site import Taught
from hqtool.vocab import Site

#: Who writes what all ranks have been taught.
_ALL = "all"

#: A step, and how often it had ended before: where there are several optimizers, each ends it.
StepEnd = tuple[int, int]


class Alone(Exception):
    """This rank goes on alone; the message says why, or is empty where the others have ended."""


class Told(NamedTuple):
    """A message at the end of a step.

    Args:
        end: the step; None: the rank has ended, or goes on alone.
        read: how many messages to all the rank has read.
        left_out: ranks that did not answer in time.
    """

    end: StepEnd | None
    taught: tuple[Taught, ...] = ()
    read: int = 0
    left_out: tuple[int, ...] = ()

    def packed(self) -> tuple[Any, ...]:
        """Plain tuples; `unpacked` gives an equal value back."""
        return self.end, [packed(each) for each in self.taught], self.read, self.left_out

    @classmethod
    def unpacked(cls, plain: tuple[Any, ...]) -> Self:
        """What was `packed`."""
        end, taught, *rest = plain
        return cls(end, tuple(unpacked(each) for each in taught), *rest)


class _Stream:
    """The messages of one writer, in order."""

    def __init__(self, messages: RankMessages, writer: str) -> None:
        self._messages, self._writer = messages, writer
        self._next: Told | None = None
        self.number = 0

    def next(self, deadline: float) -> Told | None:
        """The next message, which is kept until it is passed; None where none comes in time."""
        if self._next is None:
            found = self._messages.read(self._writer, self.number, deadline)
            self._next = None if found is None else Told.unpacked(found)
        return self._next

    def passed(self) -> None:
        """Go on to the one after it."""
        self._next = None
        self.number += 1


class Leader:
    """Rank 0: waits for what the others were taught, joins it, and tells them all.

    Args:
        together: joins what was taught of one site in one step.
        say: tells of a rank that is left out.
    """

    def __init__(
        self,
        messages: RankMessages,
        ranks: int,
        timeout_seconds: float,
        together: Callable[[Sequence[Taught]], Taught],
        say: Callable[[str], None],
    ) -> None:
        self._messages, self._together, self._say = messages, together, say
        self._timeout_seconds = timeout_seconds
        self._streams = {rank: _Stream(messages, str(rank)) for rank in range(1, ranks)}
        self._read = dict.fromkeys(self._streams, 0)
        self._learned: list[Taught] = []
        self._written = self._deleted = 0
        self._left_out: tuple[int, ...] = ()

    def tell(self, end: StepEnd, taught: Sequence[Taught]) -> None:
        """A step has ended here: wait until it has on all ranks, and tell them what all know.

        Raises:
            Alone: no other rank is left.
            RuntimeError: the store is gone.
        """
        deadline = time.monotonic() + self._timeout_seconds
        parts = [*taught]
        for rank in list(self._streams):
            parts += self._await(rank, end, deadline)
        self._tell_all(end, parts)
        if not self._streams:
            raise Alone

    def learned(self) -> tuple[Taught, ...]:
        """What all ranks were taught."""
        found, self._learned = tuple(self._learned), []
        return found

    def leave(self) -> None:
        """Tell the others that nothing follows."""
        self._messages.write(_ALL, self._written, Told(None).packed())

    def _await(self, rank: int, end: StepEnd, deadline: float) -> Sequence[Taught]:
        """What a rank was taught in the step that ends; nothing where it is ahead of it."""
        stream = self._streams[rank]
        while told := stream.next(deadline):
            if told.end is None:
                break
            if told.end > end:
                return ()
            stream.passed()
            self._messages.delete(str(rank), stream.number - 1)
            self._read[rank] = told.read
            if told.end == end:
                return told.taught
            self._tell_all(told.end, told.taught)  # it is behind, and waits for this
        if told is None:
            self._left_out += (rank,)
            after = f"rank {rank} did not answer within {self._timeout_seconds:g} s"
            self._say(f"{after} of the end of step {end[0]}: ranges go on without it")
        del self._streams[rank], self._read[rank]
        return ()

    def _tell_all(self, end: StepEnd, parts: Iterable[Taught]) -> None:
        same: dict[tuple[Site, int], list[Taught]] = {}
        for each in parts:
            same.setdefault((each.site, each.step), []).append(each)
        taught = tuple(self._together(each) for each in same.values())
        told = Told(end, taught, left_out=self._left_out)
        self._messages.write(_ALL, self._written, told.packed())
        self._written += 1
        self._learned += taught
        while self._deleted < min(self._read.values(), default=0):
            self._messages.delete(_ALL, self._deleted)
            self._deleted += 1


class Follower:
    """Another rank: tells what it was taught, and waits for what all were."""

    def __init__(self, messages: RankMessages, rank: int, timeout_seconds: float) -> None:
        self._messages, self._rank = messages, rank
        self._timeout_seconds = timeout_seconds
        self._stream = _Stream(messages, _ALL)
        self._written = 0
        self._end: StepEnd = (-1, 0)

    def tell(self, end: StepEnd, taught: Sequence[Taught]) -> None:
        """A step has ended here.

        Raises:
            RuntimeError: the store is gone.
        """
        self._end = end
        self._write(Told(end, tuple(taught), self._stream.number))

    def learned(self) -> tuple[Taught, ...]:
        """What all ranks were taught up to the step that has ended last here.

        Raises:
            Alone: rank 0 has ended, did not answer, or has not waited for this rank.
            RuntimeError: the store is gone.
        """
        deadline = time.monotonic() + self._timeout_seconds
        found: list[Taught] = []
        while told := self._stream.next(deadline):
            if told.end is None:
                raise Alone
            if self._rank in told.left_out:
                raise Alone("rank 0 has waited in vain for this one")
            self._stream.passed()
            found += told.taught
            if told.end >= self._end:
                return tuple(found)
        self.leave()
        raise Alone(f"rank 0 did not answer within {self._timeout_seconds:g} s")

    def leave(self) -> None:
        """Tell rank 0 that nothing follows."""
        self._write(Told(None))

    def _write(self, told: Told) -> None:
        self._messages.write(str(self._rank), self._written, told.packed())
        self._written += 1
