"""Which channel, sample and row each recorded value belongs to, against numpy's own indices."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hqtool.core.arrangement import arrangement_of, channel_axis_of
from hqtool.core.samples import places_of
from hqtool.core.stats import stats_of
from hqtool.vocab import Record, SampleLayout

SHAPES = [(), (7,), (5, 6), (2, 3, 4), (3, 8, 2, 5), (2, 6, 2, 2, 3)]


def record_of(x, layout=None):
    return Record(
        0, 0, 0, x.shape, stats_of(x), _kept(x, layout), layout is not None, layout=layout
    )


def _kept(x, layout):
    return x if layout is None else x.reshape(-1)[places_of(layout)]


def layout_of(shape, axis, length, fibres):
    stride = math.prod(shape[axis + 1 :])
    nothing = np.empty(0, np.int64)
    return SampleLayout(np.array(fibres), length, stride, np.empty(0), nothing)


def parts_by_hand(shape, axis):
    """For each place of the tensor its (channel, sample, row), written with loops in mind."""
    index = np.indices(shape or (1,)).reshape(max(1, len(shape)), -1)
    others = [i for d, i in enumerate(index) if d != axis]
    sizes = [n for d, n in enumerate(shape or (1,)) if d != axis]
    row = np.ravel_multi_index(others, sizes) if others else np.zeros(index.shape[1], int)
    return {"channel": index[axis], "sample": index[0], "row": row}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_of_a_whole_tensor(shape):
    x = np.arange(math.prod(shape), dtype="f4").reshape(shape)
    for axis in range(max(1, len(shape))):
        found = arrangement_of(record_of(x), axis - max(1, len(shape)))
        planes = found.planes(x)
        for per, wanted in parts_by_hand(shape, axis).items():
            got = np.broadcast_to(found.index(per), planes.shape)
            assert got.ravel().tolist() == wanted.tolist()
            assert found.count(per) == wanted.max() + 1
        assert planes.reshape(-1).tolist() == x.reshape(-1).tolist()


@pytest.mark.parametrize("pieces", [1, 2, 4])
def test_of_a_sample(pieces):
    shape, axis = (3, 8, 2, 5), 1
    x = np.arange(240, dtype="f4").reshape(shape)
    layout = layout_of(shape, axis, 8 // pieces, [0, 3, 7, 19, 29])
    found = arrangement_of(record_of(x, layout), -3)
    for per, wanted in parts_by_hand(shape, axis).items():
        index = np.broadcast_to(found.index(per), found.plane_shape)
        assert index.ravel().tolist() == wanted[places_of(layout)].tolist()
    assert found.whole_rows == (pieces == 1)


def test_fibres_of_a_sample_tell_their_axis():
    """The trace of a layer without geometry: what capture knew counts, not the number of axes."""
    x = np.zeros((4, 6, 2, 5), "f4")
    assert arrangement_of(record_of(x, layout_of(x.shape, 3, 5, [1]))).channel_axis == 3
    assert arrangement_of(record_of(x, layout_of(x.shape, 1, 6, [1]))).channel_axis == 1


def test_the_axis_without_geometry():
    assert [channel_axis_of((1,) * n) for n in (0, 1, 2, 3, 4, 5)] == [0, 0, 1, 2, 1, 1]
    assert channel_axis_of((3, 8, 8), -3) == 0  # a convolution without batch
    assert channel_axis_of((8,), -3) == 0  # as capture has it, where there are too few axes


def test_nothing_is_known_of_samples_without_layout():
    x = np.zeros(9, "f4")
    assert arrangement_of(Record(0, 0, 0, (99,), stats_of(x), x, sampled=True)) is None
    assert arrangement_of(Record(0, 0, 0, (99,), stats_of(x))) is None
