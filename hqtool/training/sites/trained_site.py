"""One site in training: its estimator's state, and what its quantizer did to each tensor."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from numpy.typing import NDArray
from torch import Tensor

from hqtool.capture.channels import channel_extremes
from hqtool.capture.tensors import stats_of_tensor, to_numpy
from hqtool.core.noise import noise_key
from hqtool.core.observation import PreparedValues, values_of
from hqtool.core.questions import Observation
from hqtool.core.recorded import RecordedObservation
from hqtool.estimators.entry_statistics import reads_channel_extremes
from hqtool.estimators.ledger import Ledger
from hqtool.estimators.protocol import Reading, advance, asked_by, decide, joined_by, widest
from hqtool.estimators.quantizer import NEAREST, Quantizer
from hqtool.estimators.statistics import OfStats, OfStatsAndFormat
from hqtool.kernels import NoiseKey
from hqtool.training.tensors.memory import Into, LastMemory, new_memory, same_memory
from hqtool.training.tensors.quantized import Quantized
from hqtool.training.tensors.quantizing import Axes, quantized, quantized_by_kernel
from hqtool.vocab import AnyRange, Decision, EntryRanges, Range, Record, Site, Stats

#: The questions that statistics answer, of a whole tensor.
_OF_STATISTICS = frozenset({"extremes", "spread", "zeros", "nonfinite", "format"})


class Place(NamedTuple):
    """What the noise of a tensor is keyed by, beside its site: where in training it belongs."""

    step: int
    micro: int
    call: int


class Taught(NamedTuple):
    """What the tensors of a site teach in a step.

    Args:
        readings: one, or several that are still to be joined; none: nothing was read.
        used: the widest range that quantized them.
    """

    site: Site
    step: int
    readings: tuple[Reading, ...]
    used: AnyRange | None


class Treated(NamedTuple):
    """What was decided of a tensor, and read of it; a pass that trains teaches it.

    Args:
        stats: of the tensor before it was quantized, as it is; None where nothing asked for them.
        loss_scale: factor that it carries.
        divided: the range is that of the tensor without this factor.
        channel_extremes: (2, channels) of the tensor as it is, where a trace keeps them.
    """

    decision: Decision
    reading: Reading | None
    shape: tuple[int, ...]
    stats: Stats | None
    place: Place
    loss_scale: float = 1.0
    divided: bool = True
    share_clipped: float = 0.0
    channel_extremes: NDArray[Any] | None = None

    @property
    def is_finite(self) -> bool:
        """Whether it is not known to hold NaN or infinities."""
        return self.stats is None or not (self.stats.nnan or self.stats.ninf)

    @property
    def overflows(self) -> bool:
        """It is not finite under a loss scale above 1, for which the scaler skips the update."""
        return self.loss_scale > 1 and not self.is_finite


@dataclass(slots=True, eq=False)
class TrainedSite:
    """A site that a recipe quantizes.

    Args:
        seed: of stochastic rounding.
        axes: of its tensors.
        records_all: statistics of all tensors that train are wanted, for a trace.
        divides: loss scales are divided out before ranges.

    Attributes:
        state: of the estimator, after all steps before `step`.
        last: what was done to the last tensor that may train.
        records: how many tensors trained.
        clipped: the sum of their shares that were clipped.
        nonfinite: how many of them held NaN or infinities; the first step that had one.
        overflows: how many others overflowed under a loss scale.
    """

    site: Site
    quantizer: Quantizer
    seed: int
    axes: Axes
    records_all: bool
    divides: bool = True
    state: Any = None
    last: Treated | None = None
    records: int = 0
    clipped: float = 0.0
    nonfinite: int = 0
    first_nonfinite: int | None = None
    overflows: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    _waiting: dict[int, list[Taught]] = field(default_factory=dict)
    _memory: LastMemory = field(default_factory=LastMemory)

    def __post_init__(self) -> None:
        self.state = self.quantizer.estimator.value.start()

    def treat(
        self,
        x: Tensor,
        place: Place,
        *,
        trains: bool,
        loss_scale: float = 1.0,
        owned: bool = False,
    ) -> tuple[Treated, Quantized]:
        """Decide on a tensor's range, and quantize the tensor.

        Args:
            x: detached.
            trains: its pass may train. Else it is quantized with what is known; where nothing is,
                it is looked at, which teaches nothing.
            loss_scale: factor that it carries.
            owned: it may be overwritten.
        """
        self._learn_before(place.step)
        scale = loss_scale if self.divides else 1.0
        seen = _Seen(self, x, place, scale)
        treated = Treated(
            *(Decision(None), None, tuple(x.shape), None, place, loss_scale, self.divides)
        )
        done = self._by_standing_range(x, treated, owned) if trains else None
        seen.stats = None if done is None else done.stats
        decision, reading = self._decided(seen, trains=trains)
        if trains and self.records_all:
            seen.need_stats()
        treated = treated._replace(decision=decision, reading=reading, stats=seen.stats)
        if trains and self.records_all and reads_channel_extremes(self.quantizer.estimator.value):
            treated = treated._replace(channel_extremes=self._channel_extremes(x))
        done = done or self.again(x, treated, owned)
        return treated._replace(share_clipped=done.share_clipped), done

    def _by_standing_range(self, x: Tensor, treated: Treated, owned: bool) -> Quantized | None:
        """Quantize a tensor with the range that is known before it is read, and read it, too.

        None where it must be looked at first, or where no kernel does both in one pass.
        """
        plan = self.quantizer.estimator.value.plan(self.state)
        if plan.looks or plan.range is None:
            return None
        treated = treated._replace(decision=Decision(plan.range))
        format_ = self.quantizer.format.value
        how = (x, format_, _in_its_unit(treated), self._key(treated.place))
        return quantized_by_kernel(*how, into=self._into(owned and not self._reads_more))

    def _channel_extremes(self, x: Tensor) -> NDArray[Any] | None:
        axis = self.axes.channel if self.axes.entry is None else self.axes.entry
        found = channel_extremes(x, axis)
        return None if found is None else to_numpy(found)[0]

    @property
    def _reads_more(self) -> bool:
        """Whether more is read of a tensor than its statistics."""
        return self.needs_values or reads_channel_extremes(self.quantizer.estimator.value)

    def again(self, x: Tensor, treated: Treated, owned: bool = False) -> Quantized:
        """Quantize a tensor as another one was: with its range, and its noise."""
        wanted, key = _in_its_unit(treated), self._key(treated.place)
        same = tuple(x.shape) == treated.shape
        stats = treated.stats if same else None
        how = (wanted, self.axes, key, stats, self._into(owned))
        return quantized(x, self.quantizer.format.value, *how)

    def _into(self, owned: bool) -> Into:
        """Where a quantized tensor is put."""
        if owned:
            return same_memory
        return self._memory if self.site.tensor == "weight" else new_memory

    def _key(self, place: Place) -> NoiseKey | None:
        """Of the noise of a tensor; None: it is rounded to nearest."""
        if self.quantizer.rounding == NEAREST:
            return None
        return noise_key(self.seed, self.site, *place)

    def teach(self, treated: Treated, step: int) -> None:
        """The pass of a tensor trains, in this step."""
        readings = () if treated.reading is None else (treated.reading,)
        self.take(Taught(self.site, step, readings, treated.decision.range))
        self.ledger.count(treated.decision, (math.prod(treated.shape),))
        self.records += 1
        self.clipped += treated.share_clipped
        if treated.overflows:
            self.overflows += 1
        elif not treated.is_finite:
            self.nonfinite += 1
            self.first_nonfinite = step if self.first_nonfinite is None else self.first_nonfinite

    def take(self, taught: Taught) -> None:
        """Keep what was taught, until the next step begins."""
        self._waiting.setdefault(taught.step, []).append(taught)

    def hand_over(self) -> list[Taught]:
        """What was taught and is not learned yet, which is then forgotten here."""
        taken, self._waiting = self._waiting, {}
        return [self.together(each) for each in taken.values()]

    def together(self, same: Sequence[Taught]) -> Taught:
        """What was taught in one step, here or elsewhere, as if by one batch."""
        readings = [reading for each in same for reading in each.readings]
        used = widest([each.used for each in same if each.used is not None])
        joined = (joined_by(self.quantizer.estimator.value, readings),) if readings else ()
        return Taught(self.site, same[0].step, joined, used)

    def learn_all(self) -> Any:
        """Let the estimator learn from all that was taught; its state."""
        self._learn_before(sys.maxsize)
        return self.state

    def state_before(self, step: int) -> Any:
        """The estimator's state once it has learned from the steps before this one."""
        state = self.state
        for each in sorted(self._waiting):
            if each < step:
                done = self.together(self._waiting[each])
                state = advance(self.quantizer.estimator.value, state, done.readings, done.used)
        return state

    def go_on_from(self, state: Any) -> None:
        """Take another state, and forget what was taught."""
        self.state, self._waiting = state, {}

    def _learn_before(self, step: int) -> None:
        """Let the estimator learn from the steps before this one, each joined as one batch."""
        while self._waiting and (first := min(self._waiting)) < step:
            self.state = self.state_before(first + 1)
            del self._waiting[first]

    def _decided(self, seen: _Seen, *, trains: bool) -> tuple[Decision, Reading | None]:
        estimator = self.quantizer.estimator.value
        plan = estimator.plan(self.state)
        if not (plan.looks or plan.scale_one or (trains and plan.reads)):
            return Decision(plan.range), None
        if trains or (plan.range is None and not plan.scale_one and self._needs_range):
            return decide(estimator, self.state, seen.observation)
        if plan.scale_one:
            return Decision(asked_by(estimator, seen.observation).range_at_scale_one), None
        return Decision(plan.range), None

    @property
    def needs_values(self) -> bool:
        """Whether the estimator asks what statistics alone do not tell."""
        estimator: Any = self.quantizer.estimator.value
        statistic = getattr(estimator, "statistic", None)
        plain = statistic is None or isinstance(statistic, (OfStats, OfStatsAndFormat))
        return not (plain and estimator.asks <= _OF_STATISTICS)

    @property
    def _needs_range(self) -> bool:
        return self.quantizer.format.value.needs_range


class _Seen:
    """A tensor as an estimator sees it; what is not asked for is not computed.

    Args:
        scale: what its values are divided by.
    """

    def __init__(self, site: TrainedSite, x: Tensor, place: Place, scale: float) -> None:
        self._site, self._x, self._place = site, x, place
        self._scale = scale if 0 < scale < float("inf") else 1.0
        self.stats: Stats | None = None

    def need_stats(self) -> Stats:
        """The statistics of the tensor as it is."""
        if self.stats is None:
            self.stats = stats_of_tensor(self._x)
        return self.stats

    @property
    def observation(self) -> Observation:
        stats = self.need_stats()
        stats = stats if self._scale == 1.0 else stats.divided(self._scale)
        format_: Any = self._site.quantizer.format.value
        values = self._prepared(stats) if self._site.needs_values else None
        shape, axis = tuple(self._x.shape), self._site.axes.channel
        return RecordedObservation(
            stats, format_, values, (), self._place.step, shape, channel_axis=axis
        )

    def _prepared(self, stats: Stats) -> PreparedValues | None:
        """The values, in the memory of the tensor where it is on a CPU and of a type of numpy."""
        x = self._x.detach().cpu()
        wide = x.float() if x.element_size() < 4 else x
        values = to_numpy(wide / self._scale if self._scale != 1.0 else wide)[0]
        record = Record(*self._place, tuple(x.shape), stats, values)
        return values_of(record, self._site.axes.channel, self._site.axes.entry)


def _in_its_unit(treated: Treated) -> AnyRange | None:
    """The range decided on, in the unit of the tensor as it is."""
    wanted = treated.decision.range
    if wanted is None or not treated.divided or treated.loss_scale == 1.0:
        return wanted
    return _times(wanted, treated.loss_scale)


def _times(wanted: AnyRange, factor: float) -> AnyRange:
    if isinstance(wanted, EntryRanges):
        return EntryRanges(wanted.per, wanted.lo * factor, wanted.hi * factor)
    return Range(wanted.lo * factor, wanted.hi * factor)
