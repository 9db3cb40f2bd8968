"""Candidates that follow from hqtool's comparison of each site.

Where a setting leaves a site alone, the site's error is 0: sums over sites take it as it is, means
over all sites count it. Errors of independent quantizers add up along a chain of layers relative to
the signal, which each layer scales as it scales the error: so sums of noise to signal follow from
the chain, and means of dB do not. Where noise is not small, 1 + noise multiplies, for the next
quantizer's noise is relative to the noisy tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from benchmarks.truth.offline.replayed import Replayed
from benchmarks.truth.offline.site_figures import SiteFigures, mean


def _of_quantized(r: Replayed, name: str) -> float:
    return mean(figure for s in r.sites if (figure := getattr(s, name)) is not None)


def _over_all(r: Replayed, of: Callable[[SiteFigures], float]) -> float:
    return sum(map(of, r.sites)) / r.network.sites


def _noise(sites: Iterable[SiteFigures]) -> float:
    return sum(s.noise for s in sites)


def _doublings(sites: Iterable[SiteFigures]) -> float:
    return sum(math.log2(1 + s.noise) for s in sites)


# --- as hqtool shows it -------------------------------------------------------------------------


def sqnr(r: Replayed) -> float:
    """mean SQNR in dB over the sites that are quantized: what hqtool shows"""
    return -_of_quantized(r, "sqnr_db")


def sqnr_low(r: Replayed) -> float:
    """the same of each site's worst tenth of records"""
    return -_of_quantized(r, "sqnr_db_low")


def cosine(r: Replayed) -> float:
    """mean cosine over the sites that are quantized"""
    return -_of_quantized(r, "cosine")


# --- with the sites that stay exact -------------------------------------------------------------


def cosine_all(r: Replayed) -> float:
    """mean of 1 − cosine over all sites"""
    return _over_all(r, lambda s: 1 - s.cosine)


def saturation(r: Replayed) -> float:
    """mean share of saturated values over all sites"""
    return _over_all(r, lambda s: s.saturation)


def underflow(r: Replayed) -> float:
    """mean share of values that become 0 over all sites"""
    return _over_all(r, lambda s: s.underflow)


def gain(r: Replayed) -> float:
    """Σ over sites of (1−gain)²: the bias, the error's part along the tensor"""
    return sum(s.bias for s in r.sites)


def variance(r: Replayed) -> float:
    """Σ over sites of noise − (1−gain)²: the error's part across the tensor"""
    return sum(s.noise - s.bias for s in r.sites)


def noise(r: Replayed) -> float:
    """Σ over sites of noise to signal, Σ(x−q)²/Σx² = 10^(−SQNR/10), the mean over records"""
    return _noise(r.sites)


def noise_low(r: Replayed) -> float:
    """the same of each site's worst tenth of records"""
    return sum(s.noise_low for s in r.sites)


def noise_max(r: Replayed) -> float:
    """noise of the noisiest site: the minimum over layers"""
    return max((s.noise for s in r.sites), default=0.0)


def noise_log(r: Replayed) -> float:
    """Σ over sites of log2(1 + noise): noise that multiplies, and a ruined site is not worse yet"""
    return _doublings(r.sites)


def noise_by_macs(r: Replayed) -> float:
    """Σ of noise, each by its layer's share of multiply-accumulates"""
    return sum(r.network.macs.get(s.layer, 0.0) * s.noise for s in r.sites)


def noise_by_update(r: Replayed) -> float:
    """Σ of noise, each by its layer's share of the update, ‖G_W‖²"""
    return sum(r.network.update.get(s.layer, 0.0) * s.noise for s in r.sites)


def lost_gradients(r: Replayed) -> float:
    """share of gradients whose norm is below √3 × their noise, over all sites"""
    return sum(s.lost for s in r.backward) / r.network.sites


# --- forward and backward apart -----------------------------------------------------------------


def noise_forward(r: Replayed) -> float:
    """Σ of noise over weights, inputs and outputs"""
    return _noise(r.forward)


def noise_backward(r: Replayed) -> float:
    """Σ of noise over gradients"""
    return _noise(r.backward)


def forward_and_bias(r: Replayed) -> float:
    """forward noise, and of gradients the bias alone: the rest averages out over steps"""
    return _noise(r.forward) + sum(s.bias for s in r.backward)


def noise_split(r: Replayed) -> float:
    """noise_forward, and noise_backward divided by the number of layers: forward noise adds up
    before it reaches the loss, a layer's update has that of its own gradient"""
    return _noise(r.forward) + _noise(r.backward) / len(r.network.layers)


def chain(r: Replayed) -> float:
    """noise as it adds up at the weight gradients, mean over layers: all of forward's, and of
    backward's what comes before the layer"""
    return _noise(r.forward) + _reached(r, lambda s: s.noise)


def chain_log(r: Replayed) -> float:
    """the same of log2(1 + noise)"""
    return _doublings(r.forward) + _reached(r, lambda s: math.log2(1 + s.noise))


def _reached(r: Replayed, of: Callable[[SiteFigures], float]) -> float:
    """A gradient's error reaches its own layer and all before: their share of the layers."""
    place = {layer: i for i, layer in enumerate(r.network.layers, start=1)}
    return sum(of(s) * place.get(s.layer, 0) for s in r.backward) / len(place)


# --- where the error lies in the tensor ---------------------------------------------------------


def granular(r: Replayed) -> float:
    """Σ over sites of granular noise: noise without that of clipped values (overload noise)"""
    return _of_errors(r, r.sites, "granular")


def channels(r: Replayed) -> float:
    """Σ over sites of log2(1 + error/variance) of each channel, the mean over channels"""
    return _of_errors(r, r.sites, "channels")


def elements(r: Replayed) -> float:
    """Σ over sites of the share of values lost, the mean of min(1, (x−q)²/x²)"""
    return _of_errors(r, r.sites, "elements")


def granular_forward(r: Replayed) -> float:
    """granular noise over weights, inputs and outputs"""
    return _of_errors(r, r.forward, "granular")


def granular_split(r: Replayed) -> float:
    """noise_split of granular noise"""
    return granular_forward(r) + _of_errors(r, r.backward, "granular") / len(r.network.layers)


def channels_forward(r: Replayed) -> float:
    """channels over weights, inputs and outputs"""
    return _of_errors(r, r.forward, "channels")


def elements_forward(r: Replayed) -> float:
    """elements over weights, inputs and outputs"""
    return _of_errors(r, r.forward, "elements")


def _of_errors(r: Replayed, sites: Iterable[SiteFigures], name: str) -> float:
    found = (r.errors.get((s.layer, s.tensor)) for s in sites)
    return sum(getattr(each, name) for each in found if each is not None)


Score = Callable[[Replayed], float]

SITE_SCORES: tuple[Score, ...] = (
    *(sqnr, sqnr_low, cosine, cosine_all, saturation, underflow, gain, variance),
    *(noise, noise_low, noise_max, noise_log, noise_by_macs, noise_by_update, lost_gradients),
    *(noise_forward, noise_backward, forward_and_bias, noise_split, chain, chain_log),
    *(granular, channels, elements, granular_forward, channels_forward, elements_forward),
    granular_split,
)


def meanings(scores: Iterable[Score]) -> Mapping[str, str]:
    """Name → what it is, as its docstring says."""
    return {score.__name__: " ".join((score.__doc__ or "").split()) for score in scores}
