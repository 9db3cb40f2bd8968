"""Noise of stochastic rounding, keyed by the record: order and parallelism change nothing."""

from __future__ import annotations

import numpy as np

from hqtool.vocab import Record, Site


def noise_of(seed: int, site: Site, record: Record) -> np.random.Generator:
    """A generator of its own for each (seed, site, step, micro, call)."""
    import hashlib  # takes milliseconds, and most comparisons draw nothing

    words = (seed, site.layer, site.tensor, record.step, record.micro, record.call)
    digest = hashlib.sha256("\0".join(map(str, words)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "big")))
