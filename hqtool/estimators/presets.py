"""The estimators by name. The first line of each docstring is what `hqtool list` shows."""

from __future__ import annotations

import math
from typing import Literal

from hqtool.estimators.chunks import ChunkMeans
from hqtool.estimators.composed import Composed, Fixed, Local
from hqtool.estimators.delayed import Delayed
from hqtool.estimators.entry_statistics import at
from hqtool.estimators.powers_of_two import FixedPoint, PowerOfTwoDeviations, Shift
from hqtool.estimators.protocol import Estimator
from hqtool.estimators.saturation import Saturation
from hqtool.estimators.schedule import EveryInterval, EveryStep, PreviousStep, Schedule
from hqtool.estimators.search_statistics import BestClip
from hqtool.estimators.smoothing import Ema, ExponentEma, Latest, Widest, WindowMax
from hqtool.estimators.statistics import AmaxOrOne, Deviations, MaxAbs, MinMax
from hqtool.estimators.value_statistics import Percentile, Sawb
from hqtool.registry import Registry
from hqtool.vocab import Granularity as Per
from hqtool.vocab import Range

ESTIMATORS: Registry[Estimator] = Registry(
    "estimator", group="hqtool.estimators", methods=("asks", "start", "plan", "read", "learn")
)

#: The estimators that `compare` runs by default: the paper's four.
DEFAULTS = ("current", "running", "hindsight", "dsgc")


@ESTIMATORS.register
def current(per: Per = "tensor") -> Estimator:
    """min-max of the tensor itself, read every step (eq. 1)"""
    return Composed(at(per, MinMax()), Latest(), EveryStep())


@ESTIMATORS.register
def running(momentum: float = 0.9, per: Per = "tensor") -> Estimator:
    """moving average of min-max, this step included (section 4.1)"""
    return Composed(at(per, MinMax()), Ema(momentum), EveryStep())


@ESTIMATORS.register
def hindsight(momentum: float = 0.9, per: Per = "tensor") -> Estimator:
    """moving average of min-max up to the previous step: static after step 0 (eq. 2, 3)"""
    return Composed(at(per, MinMax()), Ema(momentum), PreviousStep())


@ESTIMATORS.register
def dsgc(interval: int = 100, tol: float = 1e-3, coarse: int = 0) -> Estimator:
    """clip ratio of best cosine, searched every `interval` steps, held between (section 5.1)"""
    return _best("cosine", interval, tol, coarse)


@ESTIMATORS.register
def best_mse(interval: int = 100, tol: float = 1e-3, coarse: int = 0) -> Estimator:
    """clip ratio of least squared error, searched every `interval` steps, held between"""
    return _best("sqnr", interval, tol, coarse)


@ESTIMATORS.register
def best_sqnr(interval: int = 100, tol: float = 1e-3, coarse: int = 0) -> Estimator:
    """clip ratio of highest SQNR: that of `best-mse`, since one tensor's Σx² is the same for all"""
    return _best("sqnr", interval, tol, coarse)


def _best(objective: str, interval: int, tol: float, coarse: int) -> Estimator:
    if not 1e-9 <= tol < 1:
        raise ValueError(f"tol={tol:g} lies outside 1e-9…1")
    if not 0 <= coarse <= 10_000:
        raise ValueError(f"coarse={coarse} lies outside 0…10000")
    return Composed(BestClip(objective, tol, coarse), Latest(), EveryInterval(interval))


@ESTIMATORS.register
def fixed(lo: float, hi: float) -> Estimator:
    """a given range, never a look (DoReFa, [24])"""
    if not (math.isfinite(lo) and math.isfinite(hi) and lo <= hi):
        raise ValueError(f"lo={lo:g}, hi={hi:g} is not a range")
    return Fixed(Range(lo, hi))


@ESTIMATORS.register
def local() -> Estimator:
    """no range: each block of the format reads itself, on chip; for MX formats"""
    return Local()


@ESTIMATORS.register
def maxabs(momentum: float = 0.9, per: Per = "tensor") -> Estimator:
    """moving average of max|x|, this step included; meant for --scheme symmetric ([23])"""
    return Composed(at(per, MaxAbs()), Ema(momentum), EveryStep())


@ESTIMATORS.register
def std(k: float = 3.0, momentum: float = 0.9, per: Per = "tensor") -> Estimator:
    """moving average of k standard deviations either side of 0, this step included ([15])"""
    if not 0 < k < math.inf:
        raise ValueError(f"k={k:g} is not positive")
    return Composed(at(per, Deviations(k)), Ema(momentum), EveryStep())


@ESTIMATORS.register
def delayed(
    window: int = 16,
    algo: Literal["max", "most_recent"] = "max",
    margin: int = 0,
    init: Literal["look", "one"] = "look",
) -> Estimator:
    """max|x| of the last `window` steps, this one left out: TransformerEngine's delayed scaling"""
    return Delayed(window, algo, margin, init)


@ESTIMATORS.register
def saturation(
    target: float = 1e-4, widen: float = 1.25, narrow: float = 0.95, one_reach: bool = False
) -> Estimator:
    """in hindsight, wider where more than `target` was clipped, else narrower (section 4)"""
    return Saturation(target, widen, narrow, one_reach)


@ESTIMATORS.register
def fp8_lm() -> Estimator:
    """in hindsight, twice as wide where 1e-5 was clipped, else half in 1000 steps (FP8-LM)"""
    return Saturation(1e-5, 2.0, 2**-0.001, one_reach=True)


@ESTIMATORS.register
def window(steps: int = 16) -> Estimator:
    """widest min-max of the last `steps` steps, this one left out: `delayed`, with both ends"""
    return Composed(MinMax(), WindowMax(steps), PreviousStep())


@ESTIMATORS.register
def luq(momentum: float = 0.9) -> Estimator:
    """moving average of max|x| up to the previous step (Chmiel et al., LUQ, eq. 18)"""
    return Composed(MaxAbs(), Ema(momentum), PreviousStep())


@ESTIMATORS.register
def wage(hindsight: bool = False) -> Estimator:
    """power of two next to max|x|, less one step: the shift of WAGE ([21, 22])"""
    return Composed(Shift(), Latest(), _reading(hindsight))


@ESTIMATORS.register
def sakr(k: float = 8.0) -> Estimator:
    """power of two above k·σ/√0.1 of the largest σ up to the previous step ([15])

    Sakr and Shanbhag take the largest σ of a whole recorded run, and keep the range for the next.
    Here the run is the same, so that only the steps so far are known: a range that begins too
    narrow widens until the largest σ has passed. k = 2 is theirs for weight gradients.
    """
    if not 0 < k < math.inf:
        raise ValueError(f"k={k:g} is not positive")
    return Composed(PowerOfTwoDeviations(k), Widest(), PreviousStep())


@ESTIMATORS.register
def exponent(momentum: float = 0.96, hindsight: bool = False) -> Estimator:
    """moving average of the exponent of the smallest fixed-point step that holds max|x| ([23])

    In its authors' code the average decides for how long a step is held, and the bits grow where
    the mean |x| is not kept; here it is the step itself, at the format's bits.
    """
    return Composed(FixedPoint(), ExponentEma(momentum), _reading(hindsight))


@ESTIMATORS.register
def percentile(q: float = 99.9) -> Estimator:
    """from the (100−q)-th to the q-th percentile of the tensor's values, read every step

    A look at each step, whatever it takes to sort; two registers cannot find it in hindsight.
    """
    return Composed(Percentile(q), Latest(), EveryStep())


@ESTIMATORS.register
def sawb(c1: float = 12.1, c2: float = 12.2, hindsight: bool = False) -> Estimator:
    """c1·rms − c2·mean|x| either side of 0 (SAWB, with LUQ's coefficients for 4 bits)"""
    return Composed(Sawb(c1, c2), Latest(), _reading(hindsight))


@ESTIMATORS.register
def te_current() -> Estimator:
    """max|x| of the tensor itself, or scale 1 if not finite: TransformerEngine's current scaling"""
    return Composed(AmaxOrOne(), Latest(), EveryStep())


@ESTIMATORS.register
def chunks(size: int = 16, count: int = 0, hindsight: bool = False) -> Estimator:
    """means of the extremes of chunks of `size` samples, or of `count` chunks (RangeBN, [1])"""
    return Composed(ChunkMeans(size, count), Latest(), _reading(hindsight))


def _reading(hindsight: bool) -> Schedule:
    """Of this step's tensor by a look, or of the previous one's without."""
    return PreviousStep() if hindsight else EveryStep()
