"""The values that hqtool's parts pass to each other: small and frozen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:  # the bill of traffic needs these nouns, and no numpy
    import numpy as np
    from numpy.typing import NDArray

#: Tensor kinds in the order tables show them, with the paper's letter (section 3.1).
TENSOR_KINDS: dict[str, str] = {
    "output": "what the layer computes, Y",
    "grad_input": "gradient with respect to the layer's input, G_X",
    "input": "what the layer reads, X",
    "grad_output": "gradient with respect to the layer's output, G_Y",
    "weight": "the layer's weight, W",
    "grad_weight": "gradient with respect to the weight, G_W",
}

#: Those that appear as data passes forward; the others come with gradients.
FORWARD = ("output", "input", "weight")

#: A tensor kind → the kind as which the same numbers appear at the next layer, whose quantizer may
#: stand for its own: what a layer computes is, but for what lies between, what later layers read,
#: and likewise backward.
COUNTERPARTS = {
    "output": "input",
    "input": "output",
    "grad_input": "grad_output",
    "grad_output": "grad_input",
}


class Range(NamedTuple):
    """The real interval an estimator asks for, in the tensor's own unit."""

    lo: float
    hi: float

    @property
    def widest(self) -> Range:
        """The range itself: of one entry, or of many alike."""
        return self


#: Granularities: the part of a tensor that shares one range.
Granularity = Literal["tensor", "channel", "sample", "row"]


@dataclass(frozen=True, slots=True, eq=False)
class EntryRanges:
    """A range for each entry of a granularity: for each channel, say; equal where all values are.

    Args:
        per: 'channel': one for each index along the channel axis (of weights and their gradients,
            the axis of the output channels); 'sample': for each index along the first axis; 'row':
            for each fibre along the channel axis, in row-major order of the other axes.
        lo, hi: (entries,) in the tensor's own unit; NaN where nothing is known of an entry.
    """

    per: str
    lo: NDArray[np.float64]
    hi: NDArray[np.float64]

    def __len__(self) -> int:
        return self.lo.size

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EntryRanges):
            return NotImplemented
        pairs = ((self.lo, other.lo), (self.hi, other.hi))
        same = self.per == other.per and self.lo.size == other.lo.size
        return same and all(bool(((a == b) | ((a != a) & (b != b))).all()) for a, b in pairs)

    def __hash__(self) -> int:
        return hash((self.per, self.lo.size))

    @property
    def widest(self) -> Range | None:
        """The lowest and the highest end of all entries; None where nothing is known of any."""
        known = (self.lo == self.lo) & (self.hi == self.hi)
        if not known.any():
            return None
        return Range(float(self.lo[known].min()), float(self.hi[known].max()))


#: What quantizes a tensor: one range for all of it, or one for each entry of a granularity.
AnyRange = Range | EntryRanges


@dataclass(frozen=True, slots=True, order=True)
class Site:
    """One (layer, tensor kind) whose tensor recurs every step."""

    layer: str
    tensor: str

    def __str__(self) -> str:
        return f"{self.layer}/{self.tensor}"


class Stats(NamedTuple):
    """Exact statistics of one record's full tensor, over its finite values.

    A float is NaN where the tensor has no finite value (`min_nonzero`: no nonzero one).
    `std` is the population standard deviation; `l2` the Euclidean norm.
    """

    min: float
    max: float
    absmax: float
    mean: float
    std: float
    l2: float
    nzero: int
    nnan: int
    ninf: int
    min_nonzero: float

    @property
    def range(self) -> Range | None:
        """(min, max), eq. 1; None where the tensor has no finite value."""
        return None if math.isnan(self.min) else Range(self.min, self.max)

    def divided(self, factor: float) -> Stats:
        """The statistics of the tensor divided by a factor > 0."""
        return self._replace(
            min=self.min / factor,
            max=self.max / factor,
            absmax=self.absmax / factor,
            mean=self.mean / factor,
            std=self.std / factor,
            l2=self.l2 / factor,
            min_nonzero=self.min_nonzero / factor,
        )


@dataclass(frozen=True, slots=True, eq=False)
class SampleLayout:
    """Where the values of a sample lie in its tensor, and the tensor's extremes.

    The sampled values are fibres, one after the other. A fibre is all values along the channel axis
    at one position of the other axes; where fibres are too long, they are cut into equal pieces,
    each of which counts as a fibre. In the row-major order of the tensor, fibre f begins at
    f // stride · length · stride + f % stride, and its values are `stride` places apart.

    Args:
        fibres: numbers of the fibres kept, ascending; every fibre was as likely as any other.
        length: number of values in a fibre.
        stride: distance between the neighbours in a fibre.
        extremes: the largest and smallest finite values of the tensor, exact.
        extreme_places: index of each of them in the row-major order of the tensor.
    """

    fibres: NDArray[np.int64]
    length: int
    stride: int
    extremes: NDArray[Any]
    extreme_places: NDArray[np.int64]


class UsedRange(NamedTuple):
    """What quantized a tensor in training.

    Args:
        range: the range used, the widest ends where entries had ranges of their own; None where
            the format needs none, or nothing finite was known.
        looked: the tensor was read before it was quantized.
        clipped: the share of its values that were clipped.
        carries_scale: the range carries the record's loss scale, as the tensor does.
    """

    range: Range | None
    looked: bool
    clipped: float
    carries_scale: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """What was recorded of a site at one (step, micro-batch, call).

    Args:
        shape: the tensor's full shape, also where only a sample of its values was kept.
        stats: exact, over the full tensor.
        values: the tensor, in `shape`; where `sampled`, a 1-D uniform sample of it; or None.
        sampled: values are a sample, in which each value of the tensor was equally likely.
        layout: where in the tensor a sample's values lie, and the tensor's extremes; None for
            whole tensors, and for samples in older traces.
        channel_extremes: (2, channels) the lowest and the highest finite value of each channel of
            the full tensor, NaN where it has none; None where they were not recorded.
        loss_scale: factor that the gradient carried when it was recorded (AMP); 1 where none.
            Readers divide it out of `stats` and `values` unless asked not to.
        rank_numels: number of elements on each rank, where the record joins several ranks'
            tensors; empty where it is one tensor.
        used: of a quantized run, what quantized the tensor, whose statistics are those before.
    """

    step: int
    micro: int
    call: int
    shape: tuple[int, ...]
    stats: Stats
    values: NDArray[Any] | None = None
    sampled: bool = False
    loss_scale: float = 1.0
    rank_numels: tuple[int, ...] = ()
    layout: SampleLayout | None = None
    channel_extremes: NDArray[np.float64] | None = None
    used: UsedRange | None = None

    @property
    def range(self) -> Range | None:
        """Of a quantized run, the range that quantized the tensor; None where none did."""
        return None if self.used is None else self.used.range

    @property
    def looked(self) -> bool | None:
        """Of a quantized run, whether the tensor was read first; None of any other run."""
        return None if self.used is None else self.used.looked

    @property
    def clipped(self) -> float | None:
        """Of a quantized run, the share of values clipped; None of any other run."""
        return None if self.used is None else self.used.clipped

    @property
    def numel(self) -> int:
        """Number of elements of the full tensor."""
        return math.prod(self.shape)

    @property
    def device_numels(self) -> tuple[int, ...]:
        """Number of elements on each device that holds a part of it: what one device moves."""
        return self.rank_numels or (self.numel,)


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Sums over a record's finite values x and their quantized values q: all a metric needs.

    Args:
        count: number of finite values.
        nonzero: how many of them are not zero.
        xx: Σx².
        qq, xq: Σq² and Σxq, one entry a grid, as all that follow.
        err: Σ(x−q)², computed as such where subtracting the other sums would lose its digits.
        saturated: values beyond an end of the levels by more than (½+10⁻⁶) of the gap there; of
            rounding that is drawn or in expectation, values clipped.
        underflowed: nonzero values whose code is zero's.
        nonfinite: share of NaN and infinities among all values of the record; NaN where it has
            no value.
        exponent: e, where values and quantized values were divided by 2^e before they were summed,
            for their squares to stay within float64.

    `count`, `nonzero` and `xx` have one entry a lane, too, where lanes count other values: of a
    sample, ranges of channels and block formats count the fibres alone.

    Under stochastic rounding every entry is the expectation over the rounding noise. Of a sample
    with a layout every entry is an estimate for the whole tensor. Those of many tensors are
    (tensors, grids) arrays, and (tensors, 1) arrays where one tensor has a single figure.
    """

    count: Any
    nonzero: Any
    xx: Any
    qq: NDArray[np.float64]
    xq: NDArray[np.float64]
    err: NDArray[np.float64]
    saturated: NDArray[np.float64]
    underflowed: NDArray[np.float64]
    nonfinite: Any = 0.0
    exponent: Any = 0


class Look(NamedTuple):
    """A tensor was read before it was quantized.

    Args:
        per: what shares a range: the 'tensor', or a 'sample', 'channel', 'row' or 'block' of it.
        elements: what a chip must hold to look at one such part without spilling it: the whole
            tensor for a channel, whose values lie in every sample.
        evaluations: passes over the tensor that a search needed beyond the look itself.
    """

    per: str = "tensor"
    elements: int = 0
    evaluations: int = 0

    @property
    def dynamic(self) -> bool:
        """It makes the step dynamic: it is at more than a block, which reads itself on chip."""
        return self.per != "block"


class Decision(NamedTuple):
    """What an estimator did at one record.

    Args:
        range: what quantizes this record; None where nothing finite was ever observed, or where
            the number format needs no range.
        look: how much of this very tensor was read first; None where nothing was.
        postponed: a look was due, but the record lacks what it needs (values).
    """

    range: AnyRange | None
    look: Look | None = None
    postponed: bool = False

    @property
    def looked(self) -> bool:
        """It read this very tensor first, which makes the step dynamic."""
        return self.look is not None and self.look.dynamic

    @property
    def evaluations(self) -> int:
        """Passes over the tensor that a search needed beyond the look itself."""
        return 0 if self.look is None else self.look.evaluations
