"""Which records a trace already holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable

#: (site number, step, micro, call).
Key = tuple[int, int, int, int]


class Keys:
    """The keys taken so far, in little memory while each site's steps come in ascending order.

    Args:
        read_past: yields every key taken so far; called at most once, when a site's step comes
            after a later one.
    """

    def __init__(self, read_past: Callable[[], Iterable[Key]]) -> None:
        self._read_past = read_past
        self._newest: dict[int, tuple[int, set[Key]]] = {}  # by site: its latest step's keys
        self._all: set[Key] | None = None

    def take(self, key: Key) -> bool:
        """Take a key; False if it was taken before."""
        keys = self._comparable(*key[:2])
        new = key not in keys
        keys.add(key)
        return new

    def _comparable(self, site: int, step: int) -> set[Key]:
        """The keys taken so far that one of this site and step could equal."""
        if self._all is not None:
            return self._all
        latest, keys = self._newest.get(site, (-1, set()))
        if step < latest:
            self._all = keys = set(self._read_past())
        elif step > latest:
            keys = set()
            self._newest[site] = step, keys
        return keys
