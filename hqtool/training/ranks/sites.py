"""Sites that learn together on all ranks, so that their ranges are those of one joined batch.

When a step ends, what estimators read on each rank is handed over, joined, and learned by all
before the next layer runs. So the state of a site is the same on all ranks, also of one that did
not run everywhere in a step. A look is at the rank's own tensor, as that of a micro-batch is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from hqtool.estimators.protocol import widest
from hqtool.launch.process_rank import rank_of_group, rank_of_process
from hqtool.launch.stderr_lines import say
from hqtool.sizes import counted
from hqtool.training.ranks.exchange import Alone, Follower, Leader
from hqtool.training.ranks.messages import RankMessages, store_of_group
from hqtool.training.sites.trained_site import Taught, TrainedSite
from hqtool.vocab import Site


class RankSites:
    """Lets the sites of this process learn with those of the other ranks, if there are any.

    Args:
        sites: those of this process; more may come.
        timeout_seconds: how long to wait for a rank before going on without it; 0: nothing is
            joined.
    """

    def __init__(self, sites: Mapping[Site, TrainedSite], timeout_seconds: float) -> None:
        self._sites, self._timeout_seconds = sites, timeout_seconds
        self._early: dict[Site, list[Taught]] = {}
        self._exchange: Leader | Follower | None = None
        self._store: Any = None
        self._groups = 0
        self._own: list[Taught] | None = None  # handed over; nothing has come back yet
        self._end = (-1, 0)
        self._ranks = self._joined = 0

    def met(self, site: TrainedSite) -> None:
        """A site runs for the first time here; other ranks may have been taught of it."""
        for each in self._early.pop(site.site, ()):
            site.take(each)

    def step_ended(self, step: int) -> None:
        """A step has ended: hand over what was taught, where there are other ranks."""
        self.settle()
        self._end = (step, self._end[1] + 1 if step == self._end[0] else 0)
        if not self._meets():
            return
        assert self._exchange is not None
        self._own = [each for site in self._sites.values() for each in site.hand_over()]
        try:
            self._exchange.tell(self._end, self._own)
        except (Alone, RuntimeError) as why:
            self._go_alone(why)
        else:
            self._joined += self._end[1] == 0

    def settle(self) -> None:
        """Take what all ranks were taught in the step that has ended, before anything runs."""
        if self._own is None:
            return
        found: Sequence[Taught] = self._own
        if self._exchange is not None:
            try:
                found = self._exchange.learned()
            except (Alone, RuntimeError) as why:
                self._joined -= self._end[1] == 0
                self._go_alone(why)
        self._own = None
        for each in found:
            if each.site in self._sites:
                self._sites[each.site].take(each)
            else:
                self._early.setdefault(each.site, []).append(each)

    def leave(self) -> None:
        """Tell the other ranks that nothing follows."""
        if self._exchange is not None and store_of_group() is self._store:
            with suppress(RuntimeError):
                self._exchange.leave()
        self._exchange = None

    def lines(self, steps: int) -> list[str]:
        """How ranges were joined; nothing where there is one rank.

        Args:
            steps: how many have ended.
        """
        if self._ranks:
            some = f" at {self._joined:,} of {counted(steps, 'step')}"
            at = some if self._joined < steps else ""
            return [f"ranges joined over {counted(self._ranks, 'rank')}{at}"]
        if not rank_of_process():
            return []
        why = "no process group was made" if self._timeout_seconds else "--rank-timeout 0"
        return [f"each rank has chosen its ranges by itself: they were not joined ({why})"]

    def to_json(self) -> dict[str, int]:
        """How many ranks took part, and in how many steps; empty where there is one rank."""
        return {"ranks": self._ranks, "steps": self._joined} if self._ranks else {}

    # Meeting and parting

    def _meets(self) -> bool:
        """Whether there are other ranks; a script may make a group late, end it or make another."""
        store = store_of_group() if self._timeout_seconds else None
        if store is not self._store:
            self._store, self._exchange = store, None if store is None else self._met(store)
        return self._exchange is not None

    def _met(self, store: Any) -> Leader | Follower | None:
        rank, ranks = (rank_of_group()[key] for key in ("rank", "world_size"))
        if ranks < 2:
            return None
        messages = RankMessages(store, f"hqtool/{self._groups}")
        self._groups, self._ranks = self._groups + 1, ranks
        if rank:
            return Follower(messages, rank, self._timeout_seconds)
        return Leader(messages, ranks, self._timeout_seconds, self._together, say)

    def _together(self, same: Sequence[Taught]) -> Taught:
        """What was taught of a site, joined; only listed where the site has not run here."""
        first = same[0]
        if first.site in self._sites:
            return self._sites[first.site].together(same)
        readings = tuple(reading for each in same for reading in each.readings)
        used = widest([each.used for each in same if each.used is not None])
        return Taught(first.site, first.step, readings, used)

    def _go_alone(self, why: Exception) -> None:
        self._exchange = None
        if str(why):
            cause = str(why) if isinstance(why, Alone) else "the store of the ranks is gone"
            me = f"rank {rank_of_group().get('rank', '?')}"
            say(f"{me}: {cause}: from step {self._end[0]} on its ranges go on alone")
