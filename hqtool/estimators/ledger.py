"""The ledger of looks: what estimators read, and what it moves; for replay and training alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hqtool.vocab import Decision


@dataclass(slots=True)
class Ledger:
    """What the decisions at a site's records cost.

    A look at no more than a block is made on chip, and is no entry here.

    Args:
        looks: records that were looked at before they were quantized.
        evaluations: passes that searches took beyond these looks.
        postponed: looks that were due but lacked values to read.
    """

    looks: int = 0
    evaluations: int = 0
    postponed: int = 0
    _moved: Counter[int] = field(default_factory=Counter)

    def count(self, decision: Decision, numels: Iterable[int]) -> None:
        """Add a decision.

        Args:
            numels: elements of the record's tensor on each device; they matter where it looked.
        """
        look = decision.look
        if look is not None and look.dynamic:
            self.looks += 1
            self.evaluations += look.evaluations
            for numel in numels:
                held = numel if look.per in ("tensor", "channel") else look.elements
                self._moved[held] += (2 + look.evaluations) * numel
        elif decision.postponed:
            self.postponed += 1

    def count_plain(
        self, looks: int, numels: Sequence[int], held: Sequence[int] | None = None
    ) -> None:
        """Add looks without searches.

        Args:
            numels: elements of each tensor on each device.
            held: what a chip must hold for each, as in `Look`; None: whole tensors.
        """
        self.looks += looks
        pairs = zip(numels if held is None else held, numels, strict=True)
        for (size, numel), times in Counter(pairs).items():
            self._moved[size] += 2 * numel * times

    def moved(self, on_chip: int = 0) -> int:
        """Elements of accumulator output that looks and searches moved.

        Each tensor is moved twice at a look, and once more for each evaluation.

        Args:
            on_chip: elements that the chip holds: a look at no more of them moves nothing.
        """
        return sum(moved for held, moved in self._moved.items() if held > on_chip)
