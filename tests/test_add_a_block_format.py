"""What `block.py` shows: a block format with a rule of its own for the scale, in one file."""

from __future__ import annotations

import textwrap

import numpy as np
import pytest

from hqtool.core.formats import block
from hqtool.core.formats.format import Format
from hqtool.core.metrics import measure
from hqtool.core.observation import values_of
from hqtool.core.stats import stats_of
from hqtool.registry import Registry
from hqtool.vocab import Record

_, _, EXAMPLE = block.__doc__.partition("three names:\n")


def test_a_block_format_with_a_scale_of_its_own():
    package: dict = {"__name__": __name__}
    exec(textwrap.dedent(EXAMPLE), package)
    formats: Registry[Format] = Registry("format", "hqtool.formats", ("bits", "needs_range"))
    formats.register(package["roomy"])
    specs = ("roomy", "roomy:element=e2m1,room=1", "roomy:room=64")
    made = [formats.parse(spec).value for spec in specs]
    assert [each.bits for each in made] == [6.25, 4.25, 6.25]
    x = np.random.default_rng(1).laplace(size=(5, 200)).astype("f4")
    moments = values_of(Record(0, 0, 0, x.shape, stats_of(x), x)).moments([None] * 3, made)
    found = {name: figures.tolist() for name, figures in measure(moments).items()}
    assert found["saturation"] == [0, 0, 0]
    assert found["sqnr_db"][0] > found["sqnr_db"][2] > 0
    scale = np.abs(x[0, :64]).max() * 2 / 28
    levels = made[0].levels(np.abs(x[:1, :64]).max(axis=1), None)
    assert levels.scale.tolist() == [pytest.approx(scale)]
