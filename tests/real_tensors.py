"""Tensors of a real training run, and the ranges that estimators give them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from deciding import decisions, observe

from hqtool import TraceReader
from hqtool.estimators.presets import ESTIMATORS

TRACE = Path(__file__).parent.parent / "sample_data" / "digits.h5"

#: Where other projects' float32 rounds a quotient that is all but half-way to the other side.
SHARE_OF_OTHER_CODES = 6e-5


def _sites():
    with TraceReader(str(TRACE)) as reader:
        found = [
            [r.values for r in reader.records(s) if r.values is not None] for s in reader.sites
        ]
    return [[x for x in tensors if np.any(x)] for tensors in found]


#: The recorded tensors of each site in order, as float32 arrays, those of zeros left out.
SITES = _sites()
TENSORS = [x for tensors in SITES for x in tensors]


def ranges(spec, tensors, *how):
    """The range that quantizes each of a site's tensors; `how` as `observe` takes it."""
    seen = [observe(x, *how) for x in tensors]
    return [d.range for d in decisions(ESTIMATORS.parse(spec).value, seen)]
