"""What prices are made of: looks, stored bits, re-reads, energy, sizes; against slow walks."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hqtool.core.formats.named import FORMATS
from hqtool.core.observation import values_of
from hqtool.core.recorded import RecordedObservation
from hqtool.core.stats import stats_of
from hqtool.errors import DataError, UsageError
from hqtool.estimators.presets import ESTIMATORS
from hqtool.estimators.protocol import advance, decide
from hqtool.estimators.quantizer import parse_quantizer
from hqtool.sizes import read_bytes
from hqtool.traffic.pricing.energy import (
    EnergyTable,
    energy_tables,
    load_energy,
    parse_bandwidth,
    seconds,
)
from hqtool.traffic.pricing.looks import looks_of
from hqtool.traffic.pricing.store import NO_LOOKS, Looks, Stored
from hqtool.traffic.pricing.stored import stored
from hqtool.traffic.pricing.tiling import Streamed, best_loads
from hqtool.traffic.works import Operand
from hqtool.vocab import Record

# --- looks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "hindsight@int8",
        "hindsight@nvfp4",
        "delayed@e4m3",
        "delayed:window=1024,init=one@e4m3",
        "saturation@int8",
        "fixed:lo=-1,hi=1@int8",
        "local@mxfp8",
    ],
)
def test_estimators_that_never_look_after_the_first_step(text):
    assert looks_of(parse_quantizer(text)) == NO_LOOKS


@pytest.mark.parametrize("per", ["tensor", "channel", "sample", "row"])
def test_current_looks_at_every_step_and_as_wide_as_its_granularity(per):
    found = looks_of(parse_quantizer(f"current:per={per}@int8"))
    assert found == Looks(Fraction(1), 0, per)
    held = {"tensor": 2 * 6 * 5, "channel": 2 * 6 * 5, "sample": 6 * 5, "row": 6}
    assert found.held(Operand("output", "output", "a", 60, (2, 6, 5), 1)) == held[per]
    assert found.held(Operand("output", "output", "a", 60)) == 60


@pytest.mark.parametrize("name", [entry.name for entry in ESTIMATORS if entry.package is None])
def test_every_estimator_looks_as_often_as_the_ledger_of_a_run_says(name):
    """Slow oracle: the dynamic looks of the steps from 200 on, of which dsgc's are every 100th."""
    text = {"fixed": "fixed:lo=-3,hi=3@int8", "local": "local@mxfp8"}.get(name, f"{name}@int8")
    quantizer = parse_quantizer(text)
    estimator, state, looked = quantizer.estimator.value, quantizer.estimator.value.start(), 0
    values = np.random.default_rng(1).standard_normal((4, 8, 3, 3)).astype(np.float32)
    record = Record(0, 0, 0, values.shape, stats_of(values), values)
    for step in range(400):
        obs = RecordedObservation(
            record.stats, quantizer.format.value, values_of(record, -3), shape=values.shape
        )
        decision, reading = decide(estimator, state, obs)
        looked += step >= 200 and decision.looked
        state = advance(estimator, state, [reading], decision.range)
    assert looks_of(quantizer).rate == Fraction(looked, 200)


@pytest.mark.parametrize("interval", [1, 7, 100, 3000])
def test_a_search_is_averaged_over_its_interval(interval):
    found = looks_of(parse_quantizer(f"dsgc:interval={interval}@int8"))
    assert found.rate == Fraction(1, interval)
    assert found.evaluations > math.log(1e-3) / math.log((math.sqrt(5) - 1) / 2)


# --- stored bits --------------------------------------------------------------------------------


def walked_blocks(shape: tuple[int, ...], axis: int, size: int, rows: int) -> int:
    """Slow oracle: the blocks that the tensor's elements fall into."""
    axis %= len(shape)
    before = list(itertools.product(*map(range, shape[:axis])))
    found = set()
    for element in itertools.product(*map(range, shape)):
        row = before.index(element[:axis])
        found.add((row // rows, element[axis] // size, element[axis + 1 :]))
    return len(found)


@pytest.mark.parametrize("text", ["mxfp4", "nvfp4", "nvfp4:tile=16", "e4m3-block128", "mxfp8"])
@pytest.mark.parametrize(
    ("shape", "axis"), [((3, 35, 2, 2), 1), ((20, 33), -1), ((2, 5, 16), -1), ((40, 3, 3, 3), 1)]
)
def test_scales_are_those_of_a_walk_over_the_elements(text, shape, axis):
    format_ = FORMATS.parse(text).value
    estimator = "current" if format_.needs_range else "local"
    found = stored(parse_quantizer(f"{estimator}@{text}"), shape, axis)
    scales = walked_blocks(shape, axis, format_.size, format_.rows)
    assert found.scales == scales * format_.scaling.bits
    assert found.payload == math.prod(shape) * format_.element.bits


def test_blocks_that_fill_the_channels_take_the_bits_of_the_format():
    assert sum(stored(parse_quantizer("local@mxfp8"), (2, 64, 7, 7), 1)) == 2 * 64 * 49 * 8.25
    assert sum(stored(parse_quantizer("current@nvfp4"), (5, 48), -1)) == 5 * 48 * 4.5


@pytest.mark.parametrize(
    ("per", "entries"), [("tensor", 0), ("channel", 6), ("sample", 2), ("row", 2 * 5)]
)
def test_ranges_of_parts_are_float32_scales(per, entries):
    quantizer = parse_quantizer(f"hindsight:per={per}@int4")
    assert stored(quantizer, (2, 6, 5), 1) == Stored(2 * 6 * 5 * 4, 32 * entries)


# --- tiling -------------------------------------------------------------------------------------


def walked_loads(rows: list[int], held: int) -> int:
    """How often the other operand streams by while tiles of whole rows are held, one by one."""
    loads, room = 0, -1
    for bits in rows:
        if bits > room:
            loads, room = loads + 1, held
        room -= bits
    return loads


def least_moved(a_rows: list[int], b_rows: list[int], acc: int, held: int) -> int:
    """Slow oracle: every tile of every loop order."""
    a, b = sum(a_rows), sum(b_rows)
    found = []
    if a_rows[0] <= held:
        found.append(a + b * walked_loads(a_rows, held))
    if b_rows[0] <= held:
        found.append(b + a * walked_loads(b_rows, held))
    for height, width in itertools.product(range(1, len(a_rows) + 1), range(1, len(b_rows) + 1)):
        if height * width * acc <= held:
            tiles = [range(0, len(b_rows), width), range(0, len(a_rows), height)]
            found.append(sum(a for _ in tiles[0]) + sum(b for _ in tiles[1]))
    return min(found)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    summed=st.integers(1, 20),
    widths=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    acc=st.integers(1, 33),
    room=st.integers(0, 2000),
)
def test_the_best_loop_order_is_that_of_a_walk(rows, summed, widths, acc, room):
    a_rows, b_rows = ([summed * w] * n for n, w in zip(rows, widths, strict=True))
    a, b = Streamed(sum(a_rows), rows[0]), Streamed(sum(b_rows), rows[1])
    found = best_loads(a, b, 1, acc, acc + room)
    assert found.bits(a, b) == least_moved(a_rows, b_rows, acc, acc + room)
    larger = best_loads(a, b, 1, acc, acc + room + 1)
    assert larger.bits(a, b) <= found.bits(a, b)


def test_groups_are_products_by_themselves():
    """Eight groups, each of which fits the buffer: everything is loaded once."""
    a, b = Streamed(8 * 1000, 100), Streamed(8 * 90, 9)
    assert best_loads(a, b, 8, 32, 90).bits(a, b) == a.bits + b.bits


def test_a_buffer_without_room_for_one_accumulator_is_refused():
    with pytest.raises(ValueError, match="no accumulator"):
        best_loads(Streamed(100, 1), Streamed(100, 1), 1, 32, 31)


# --- energy, time, sizes ------------------------------------------------------------------------


def test_horowitz_2014_is_as_published():
    """1.3 nJ of DRAM, and 10, 20, 100 pJ of SRAM, for 64 bits."""
    table = load_energy("horowitz-2014")
    assert table.dram * 64 == 1300
    assert [(size, pj * 64) for size, pj in table.sram] == [(8192, 10), (32768, 20), (1 << 20, 100)]
    assert energy_tables() == ["horowitz-2014"]


def test_joules_by_hand():
    table = EnergyTable("t", "", 20.0, ((1024, 0.5), (4096, 2.0)))
    assert table.joules(1e12, 0, 0) == 20
    assert table.joules(0, 1e12, 1024) == 0.5
    assert table.joules(0, 1e12, 1025) == 2.0
    assert table.joules(0, 1e12, 1 << 30) == 2.0  # the largest that is listed


@pytest.mark.parametrize(
    ("text", "bytes_per_second"),
    [("25GB/s", 25e9), ("1.2TB/s", 1.2e12), ("100 MiB/s", 100 << 20), ("8 B/s", 8)],
)
def test_bandwidths(text, bytes_per_second):
    assert parse_bandwidth(text) == bytes_per_second
    assert seconds(8 * bytes_per_second, parse_bandwidth(text)) == 1


@pytest.mark.parametrize("text", ["", "25", "25GB", "25GB/h", "GB/s", "0GB/s", "25Gb/s", "25/s"])
def test_no_bandwidths(text):
    with pytest.raises(UsageError, match="is not a bandwidth"):
        parse_bandwidth(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("64KiB", 65536), ("1.5 MiB", 3 << 19), ("7B", 7), ("64KB", None), ("-1", None)],
)
def test_sizes(text, size):
    assert read_bytes(text) == size


TABLE = 'schema = "hqtool.energy/1"\ndram = 4\nsram = [{size = "1MiB", pj_per_bit = 0.1}]\n'


def test_a_table_of_ones_own(tmp_path: Path):
    place = tmp_path / "hbm.toml"
    place.write_text(TABLE)
    found = load_energy(str(place))
    assert (found.name, found.dram, found.sram) == (str(place), 4.0, ((1 << 20, 0.1),))


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (("dram = 4", "dram = -4"), "dram"),
        (("dram = 4\n", ""), "dram"),
        (('"1MiB"', '"1MB"'), "size"),
        (("pj_per_bit = 0.1", "pj = 0.1"), "pj"),
        (("sram = [", "rom = ["), "rom"),
        (("energy/1", "layers/1"), "schema"),
        (('[{size = "1MiB", pj_per_bit = 0.1}]', "[]"), "sram"),
    ],
)
def test_a_table_that_is_none_names_file_and_key(tmp_path: Path, change, key):
    place = tmp_path / "hbm.toml"
    place.write_text(TABLE.replace(*change))
    with pytest.raises(DataError, match=f"hbm.toml.*{key}"):
        load_energy(str(place))


def test_an_unknown_table_is_answered_with_the_known_ones():
    with pytest.raises(UsageError) as error:
        load_energy("horowitz")
    assert "horowitz-2014" in str(error.value)
    with pytest.raises(DataError, match=r"missing\.toml"):
        load_energy("missing.toml")


def test_looks_are_found_alike_whatever_was_asked_before():
    """They are kept: a second answer is the first, and numpy's generator is left alone."""
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    assert looks_of(parse_quantizer("dsgc@int8")) is looks_of(parse_quantizer("dsgc@int8"))
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
