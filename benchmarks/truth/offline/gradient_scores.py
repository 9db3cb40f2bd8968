"""Candidates that follow from weight gradients, made of quantized operands and of exact ones.

g is the exact gradient of a layer's weight, ĝ that from the quantized input and output gradient.
What earlier quantizers did to these operands is not in it: their errors are of this site alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from benchmarks.truth.offline.gradient_sums import GradientSums
from benchmarks.truth.offline.replayed import Replayed
from benchmarks.truth.offline.site_figures import CRITERION, mean
from benchmarks.truth.offline.site_scores import (
    Score,
    channels_forward,
    elements_forward,
    granular_forward,
    noise_forward,
)


def _layers(r: Replayed, of: Callable[[GradientSums], NDArray[np.float64]]) -> Iterable[float]:
    """The mean over steps of each layer."""
    return [float(np.mean(of(each))) for each in r.gradients.values()]


def _whole(r: Replayed, of: str) -> NDArray[np.float64]:
    """(steps,) of all weights as one vector: sums over layers."""
    return np.sum([getattr(each, of) for each in r.gradients.values()], axis=0)


def gw_noise(r: Replayed) -> float:
    """‖ĝ−g‖²/‖g‖², mean over layers"""
    return mean(_layers(r, lambda each: each.error / each.exact))


def gw_noise_max(r: Replayed) -> float:
    """the same of the worst layer"""
    return max(_layers(r, lambda each: each.error / each.exact))


def gw_noise_whole(r: Replayed) -> float:
    """the same of all weights as one vector: layers by their share of the update"""
    return float(np.mean(_whole(r, "error") / _whole(r, "exact")))


def gw_angle(r: Replayed) -> float:
    """1 − cosine between ĝ and g of all weights"""
    norms = np.sqrt(_whole(r, "exact") * _whole(r, "made"))
    return float(np.mean(1 - _whole(r, "along") / norms)) if norms.all() else 1.0


def gw_bias(r: Replayed) -> float:
    """(1 − g·ĝ/g·g)² of all weights: the error along the gradient"""
    return float(np.mean((1 - _whole(r, "along") / _whole(r, "exact")) ** 2))


def gw_lost(r: Replayed) -> float:
    """share of weight gradients whose norm is below √3 × their error"""
    return mean(_layers(r, lambda each: each.error > CRITERION * each.exact))


def gw_excess(r: Replayed) -> float:
    """‖ĝ−g‖² relative to the variance of g over batches, mean over layers"""
    return mean(_layers(r, lambda each: each.error / each.batch_noise))


def gw_excess_whole(r: Replayed) -> float:
    """the same of all weights as one vector"""
    return float(np.mean(_whole(r, "error") / _whole(r, "batch_noise")))


def forward_and_gw(r: Replayed) -> float:
    """forward noise + gw_noise_whole"""
    return noise_forward(r) + gw_noise_whole(r)


def forward_and_excess(r: Replayed) -> float:
    """forward noise + gw_excess_whole: what the function loses, and the noise that updates gain"""
    return noise_forward(r) + gw_excess_whole(r)


def gw_granular_excess(r: Replayed) -> float:
    """gw_excess_whole without what is clipped"""
    return float(np.mean(_whole(r, "granular_error") / _whole(r, "batch_noise")))


def granular_and_excess(r: Replayed) -> float:
    """granular_forward + gw_granular_excess: as forward_and_excess, without overload"""
    return granular_forward(r) + gw_granular_excess(r)


def channels_and_excess(r: Replayed) -> float:
    """channels_forward + gw_granular_excess"""
    return channels_forward(r) + gw_granular_excess(r)


def elements_and_excess(r: Replayed) -> float:
    """elements_forward + gw_granular_excess"""
    return elements_forward(r) + gw_granular_excess(r)


GRADIENT_SCORES: tuple[Score, ...] = (
    *(gw_noise, gw_noise_max, gw_noise_whole, gw_angle, gw_bias, gw_lost, gw_excess),
    *(gw_excess_whole, forward_and_gw, forward_and_excess, gw_granular_excess),
    *(granular_and_excess, channels_and_excess, elements_and_excess),
)
