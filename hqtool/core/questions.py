"""What may be asked of a tensor: it answers questions and is never handed over.

One implementation answers from what a trace recorded (`RecordedObservation`); in training another
answers from the tensor at hand. An estimator declares which questions it asks; `Asked` refuses all
others, so that what an estimator costs can be read off it, and replay can share work.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from hqtool.core.formats.format import ElementFormat
from hqtool.errors import UsageError
from hqtool.vocab import AnyRange, Range

if TYPE_CHECKING:
    from hqtool.vocab import Moments

T = TypeVar("T")

#: Every question there is, and what it asks; those of the step and the shape need no declaration.
QUESTIONS: dict[str, str] = {
    "format": "the number format that the tensor is to be quantized in",
    "extremes": "the smallest and the largest value, and max|x|, at a granularity",
    "spread": "mean, standard deviation and Euclidean norm",
    "zeros": "the number of zeros, and the smallest magnitude beside them",
    "nonfinite": "the number of NaN and of infinities",
    "quantiles": "values below which given shares of the tensor lie; needs values",
    "clipped": "the share of values beyond a range; needs values, unless the range holds all",
    "magnitude": "the mean of |x|; needs values, unless they have one sign",
    "moments": "sums over values and quantized values under given ranges; needs values",
}

#: Each statistic that a record has, and the question that it answers.
QUESTION_OF = {
    "min": "extremes", "max": "extremes", "absmax": "extremes", "range": "extremes",
    "mean": "spread", "std": "spread", "l2": "spread",
    "nzero": "zeros", "min_nonzero": "zeros", "nnan": "nonfinite", "ninf": "nonfinite",
}  # fmt: skip


class Observation(Protocol):
    """A tensor as an estimator sees it, at the number format it is to be quantized in.

    An answer is None where it takes values, and none were recorded.
    """

    @property
    def step(self) -> int:
        """The step of the run that the tensor belongs to."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's full shape."""

    @property
    def held(self) -> int | None:
        """How many values answers are computed of; None where only statistics are known."""

    @property
    def teaches(self) -> bool:
        """The tensor holds a finite value other than 0."""

    @property
    def all_zero(self) -> bool:
        """The tensor's finite values are all 0, and there are some."""

    @property
    def stats(self) -> Any:
        """Entries of `Stats`, each under the question of `QUESTION_OF`."""

    def part_size(self, per: str) -> int:
        """How many elements a sample or a row has; of other granularities, the whole tensor."""

    @property
    def format(self) -> ElementFormat:
        """The number format that the tensor is to be quantized in."""

    @property
    def formats(self) -> tuple[ElementFormat, ...]:
        """All formats that the tensor is quantized in side by side, `format` among them."""

    @property
    def range_at_scale_one(self) -> Range:
        """The range whose levels are those of the format itself: (−448, 448) of e4m3."""

    def extremes(self, per: str = "tensor") -> AnyRange | None:
        """(min, max) over finite values, at a granularity; None where nothing is known of it."""

    def spread(self, per: str) -> Any | None:
        """The population standard deviation of each entry, 1-D; None where it is unknown."""

    def quantiles(self, shares: Sequence[float]) -> tuple[float, ...] | None:
        """For each share in 0…1 the value below which so many of the finite values lie."""

    def magnitude(self) -> float | None:
        """The mean of |x| over the finite values; NaN where there are none."""

    def clipped(self, within: Range) -> float | None:
        """The share of the finite values that lie outside a range; NaN where there are none."""

    def moments(
        self, wanted: Sequence[AnyRange], formats: Sequence[ElementFormat] | None = None
    ) -> Moments | None:
        """Moments under rounding to nearest on the levels of each range.

        Args:
            formats: one a range; the observation's own where None.
        """

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """The result of `make`, which is called once for each `key` while the tensor is there."""


class UndeclaredQuestionError(UsageError):
    """An estimator asked a question that it does not declare."""


class Asked:
    """An observation that answers the declared questions alone; an `Observation` itself.

    Args:
        obs: what answers.
        asks: the questions that may be asked, of `QUESTIONS`.
        asker: who declared them, for the error message.

    Raises:
        UndeclaredQuestionError: at any other question.
    """

    __slots__ = ("_asker", "_asks", "_obs")

    def __init__(self, obs: Observation, asks: frozenset[str], asker: str) -> None:
        self._obs = obs
        self._asks = asks
        self._asker = asker

    def require(self, question: str) -> None:
        """Raises: UndeclaredQuestionError: the question is not declared."""
        if question not in self._asks:
            declared = ", ".join(sorted(self._asks)) or "nothing"
            raise UndeclaredQuestionError(
                f"{self._asker} asks a tensor for '{question}', but declares {declared}",
                f"add '{question}' to its `asks`",
            )

    @property
    def step(self) -> int:
        return self._obs.step

    @property
    def shape(self) -> tuple[int, ...]:
        return self._obs.shape

    @property
    def held(self) -> int | None:
        return self._obs.held

    @property
    def teaches(self) -> bool:
        return self._obs.teaches

    @property
    def all_zero(self) -> bool:
        return self._obs.all_zero

    def part_size(self, per: str) -> int:
        return self._obs.part_size(per)

    @property
    def stats(self) -> Any:
        return _AskedStats(self, self._obs.stats)

    @property
    def format(self) -> ElementFormat:
        self.require("format")
        return self._obs.format

    @property
    def formats(self) -> tuple[ElementFormat, ...]:
        self.require("format")
        return self._obs.formats

    @property
    def range_at_scale_one(self) -> Range:
        self.require("format")
        return self._obs.range_at_scale_one

    def extremes(self, per: str = "tensor") -> AnyRange | None:
        self.require("extremes")
        return self._obs.extremes(per)

    def spread(self, per: str) -> Any | None:
        self.require("spread")
        return self._obs.spread(per)

    def quantiles(self, shares: Sequence[float]) -> tuple[float, ...] | None:
        self.require("quantiles")
        return self._obs.quantiles(shares)

    def magnitude(self) -> float | None:
        self.require("magnitude")
        return self._obs.magnitude()

    def clipped(self, within: Range) -> float | None:
        self.require("clipped")
        return self._obs.clipped(within)

    def moments(
        self, wanted: Sequence[AnyRange], formats: Sequence[ElementFormat] | None = None
    ) -> Moments | None:
        self.require("moments")
        return self._obs.moments(wanted, formats or [self.format] * len(wanted))

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        return self._obs.once(key, make)


class _AskedStats:
    """Statistics of which the declared ones can be read."""

    __slots__ = ("_asked", "_stats")

    def __init__(self, asked: Asked, stats: Any) -> None:
        self._asked = asked
        self._stats = stats

    def __getattr__(self, name: str) -> Any:
        if name not in QUESTION_OF:
            raise AttributeError(f"a tensor has no statistic '{name}'")
        self._asked.require(QUESTION_OF[name])
        return getattr(self._stats, name)
