"""The traces of one run's ranks, read as if they were one.

In data-parallel training every rank sees its own part of the batch. Quantized training that
reduces max|x| or min and max over the ranks gives all of them one range: joined records show an
estimator what it would see there.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hqtool.core.arrangement import axes_of
from hqtool.core.samples import by_place
from hqtool.errors import DataError
from hqtool.trace.hdf5_files import ClosedAtEnd
from hqtool.trace.history import SiteHistory, began_of, history_of
from hqtool.trace.overview import SiteSummary, joined_overview
from hqtool.trace.reader import Prefix, TraceReader
from hqtool.trace.schema import Row
from hqtool.vocab import Record, SampleLayout, Site, Stats

#: Rows of several ranks that agree in this make one record.
_position = attrgetter("step", "micro", "call")


class Rank(NamedTuple):
    """Which process of how many wrote a trace."""

    rank: int
    world_size: int


def rank_of(trace: TraceReader) -> Rank | None:
    """Which rank wrote a trace, from its provenance; None where it names none."""
    rank, world_size = trace.run.get("rank"), trace.run.get("world_size")
    if isinstance(rank, int) and isinstance(world_size, int) and 0 <= rank < world_size:
        return Rank(rank, world_size)
    return None


@dataclass(frozen=True, slots=True)
class Ranks:
    """Ranks of one run.

    Args:
        world_size: how many the run had.
        given: the ranks whose traces are there, ascending.
    """

    world_size: int
    given: tuple[int, ...]

    def __str__(self) -> str:
        return f"{names_of(self.given)} of {self.world_size}"

    @property
    def missing(self) -> tuple[int, ...]:
        """The others, ascending."""
        return tuple(sorted(set(range(self.world_size)) - set(self.given)))

    @property
    def gap(self) -> str | None:
        """'rank 1 of 4 is missing'; None where none is."""
        if not self.missing:
            return None
        verb = "is" if len(self.missing) == 1 else "are"
        return f"{names_of(self.missing)} of {self.world_size} {verb} missing"


def ranks_of_one_run(traces: Sequence[TraceReader]) -> Ranks:
    """The ranks that wrote some traces.

    Raises:
        DataError: one is not a rank's trace, they differ in world size, or two are the same rank.
    """
    world_size = _rank_required(traces[0]).world_size
    paths: dict[int, str] = {}
    for trace in traces:
        rank = _rank_required(trace)
        if rank.world_size != world_size:
            raise DataError(
                f"{traces[0].path} is of a run on {world_size} ranks, "
                f"{trace.path} of one on {rank.world_size}",
                "give the traces of one run",
            )
        if rank.rank in paths:
            cause = f"{paths[rank.rank]} and {trace.path} are both rank {rank.rank}"
            raise DataError(cause, "give each rank's trace of one run once")
        paths[rank.rank] = trace.path
    return Ranks(world_size, tuple(sorted(paths)))


def names_of(ranks: Iterable[int]) -> str:
    """'rank 3', 'ranks 0 and 1', 'ranks 0 to 6 and 8'."""
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    words = [word for run in runs for word in _words_of(run)]
    if len(words) == 1:
        return f"rank{'s' if len(runs[0]) > 1 else ''} {words[0]}"
    return f"ranks {', '.join(words[:-1])} and {words[-1]}"


def _words_of(run: list[int]) -> list[str]:
    return [f"{run[0]} to {run[-1]}"] if len(run) > 2 else list(map(str, run))


def _rank_required(trace: TraceReader) -> Rank:
    rank = rank_of(trace)
    if rank is None:
        cause = f"{trace.path} does not say which rank of a run it is"
        raise DataError(cause, "give traces that hqtool capture recorded under torchrun")
    return rank


class RanksReader(ClosedAtEnd):
    """Reads several traces as one: the records that all of them have, each joined over them.

    A context manager. Memory stays bounded by one joint record and one site's rows. Whether the
    traces are ranks of one run is not checked here but by `ranks_of_one_run`.

    Args:
        traces: path of each trace, or up to which commit to read it; at least one. Their order
            changes no result where they are ranks.

    Raises:
        DataError: as TraceReader does of any of them.
    """

    def __init__(self, traces: Iterable[str | os.PathLike[str] | Prefix]) -> None:
        with contextlib.ExitStack() as files:
            self.traces = tuple(files.enter_context(_open_trace(trace)) for trace in traces)
            self._files = files.pop_all()
        self._by_rank = sorted(self.traces, key=lambda trace: rank_of(trace) or Rank(0, 0))

    def close(self) -> None:
        """Close every trace; records can no longer be read."""
        self._files.close()

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites that every trace holds, in the order the lowest rank first recorded them."""
        others = [set(trace.sites) for trace in self._by_rank[1:]]
        return tuple(site for site in self._by_rank[0].sites if all(site in o for o in others))

    @property
    def steps(self) -> list[int]:
        """The steps that every trace committed, ascending."""
        return sorted(set.intersection(*(set(trace.steps) for trace in self.traces)))

    @property
    def state(self) -> str:
        """The traces' state where they agree; else open if one is open, or truncated."""
        states = {trace.state for trace in self.traces}
        return states.pop() if len(states) == 1 else "open" if "open" in states else "truncated"

    def geometry(self, layer: str) -> dict[str, Any] | None:
        """A layer's geometry on the lowest rank that describes it; None where none does."""
        described = (trace.geometry(layer) for trace in self._by_rank)
        return next((geometry for geometry in described if geometry is not None), None)

    def classes(self, layer: str) -> tuple[str, ...] | None:
        """A layer's classes on the lowest rank that tells them; None where none does."""
        told = (trace.classes(layer) for trace in self._by_rank)
        return next((classes for classes in told if classes is not None), None)

    def overview(self) -> list[SiteSummary]:
        """What the traces together hold of each site, also of those that some lack."""
        return joined_overview(trace.overview() for trace in self._by_rank)

    def records(self, site: Site, *, values: bool = True, scaled: bool = False) -> Iterator[Record]:
        """A site's records, joined over the traces (see `joint`), by (step, micro, call).

        A record that one of the traces lacks is left out, its values unread. The arguments and
        errors are those of `TraceReader.records`.
        """
        return (self._joint(rows, values, scaled) for rows in self._shared_rows(site))

    def history(self, site: Site, *, scaled: bool = False) -> SiteHistory:
        """A site's joint records as columns; see `records`."""
        shared = list(self._shared_rows(site))
        bare = [self._joint(rows, False, scaled) for rows in shared]
        history = history_of(bare, lambda index: self._joint(shared[index], True, scaled))
        kept = [all(row.element for row in rows) for rows in shared]
        extremes = all(trace.has_channel_extremes for trace in self.traces)
        return replace(
            history,
            has_values=np.array(kept, bool),
            has_channel_extremes=np.full(len(shared), extremes),
            of_quantized_run=all(trace.is_of_quantized_run for trace in self.traces),
            axes=axes_of((self.geometry(site.layer) or {}).get("op"), site.tensor),
            began=began_of(self._by_rank[0].run, site),  # what ranks join is the same on all
        )

    def _shared_rows(self, site: Site) -> Iterator[list[Row]]:
        """The rows of each record that all traces have, in the order of ranks."""
        streams = [trace.rows(site) for trace in self._by_rank]
        for _, group in groupby(heapq.merge(*streams, key=_position), _position):
            rows = list(group)  # in the order of ranks: the merge is stable
            if len(rows) == len(self._by_rank):
                yield rows

    def _joint(self, rows: Sequence[Row], values: bool, scaled: bool) -> Record:
        kept = values and all(row.element for row in rows)
        parts = zip(self._by_rank, rows, strict=True)
        return joint([trace.record(row, kept, scaled, values) for trace, row in parts])


def _open_trace(trace: str | os.PathLike[str] | Prefix) -> TraceReader:
    if isinstance(trace, Prefix):
        return TraceReader(trace.path, upto=trace.upto)
    return TraceReader(trace)


def joint(parts: Sequence[Record]) -> Record:
    """One record of the tensors that several ranks recorded at one (step, micro, call).

    Its statistics are those of all elements. Values are there where every rank kept some, and a
    sample if any of them is one: of ranks that sampled different shares of their tensors, each
    counts by the values it kept; the extremes of all of them are known, and of a rank that kept its
    whole tensor, all values are. Shapes are concatenated along the first dimension, or flattened
    where the others differ. The extremes of a channel are those of all ranks. The loss scale
    is the ranks' own, NaN where they differ.
    """
    first = parts[0]
    shape = _joint_shape([part.shape for part in parts])
    sampled = any(part.sampled for part in parts)
    values, layout = _joint_sample(parts) if sampled else (_joint_values(parts, shape), None)
    return Record(
        step=first.step,
        micro=first.micro,
        call=first.call,
        shape=shape,
        stats=pooled([(_finite(part), part.stats) for part in parts]),
        values=values,
        sampled=sampled,
        loss_scale=first.loss_scale if len({p.loss_scale for p in parts}) == 1 else math.nan,
        rank_numels=tuple(part.numel for part in parts),
        layout=layout,
        channel_extremes=_joint_extremes([part.channel_extremes for part in parts]),
    )


def _joint_extremes(parts: Sequence[NDArray[Any] | None]) -> NDArray[np.float64] | None:
    """The lowest and the highest of all ranks, channel by channel; None where one lacks them."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or len({part.shape for part in known}) > 1:
        return None
    return np.stack(
        [np.fmin.reduce([part[0] for part in known]), np.fmax.reduce([part[1] for part in known])]
    )


def _joint_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    trailing = {shape[1:] for shape in shapes}
    if len(trailing) == 1 and all(shapes):
        return (sum(shape[0] for shape in shapes), *trailing.pop())
    return (sum(map(math.prod, shapes)),)


def _joint_values(parts: Sequence[Record], shape: tuple[int, ...]) -> NDArray[Any] | None:
    kept = [part.values.reshape(-1) for part in parts if part.values is not None]
    return np.concatenate(kept).reshape(shape) if len(kept) == len(parts) else None


def _joint_sample(parts: Sequence[Record]) -> tuple[NDArray[Any] | None, SampleLayout | None]:
    """The ranks' values one after the other, and how they lie in the joint tensor, if known."""
    kept = [(p.values, p.layout) if p.sampled else _all_exact(p) for p in parts]
    samples = [(values, layout) for values, layout in kept if values is not None and layout]
    if len(samples) < len(parts):
        return _joint_values(parts, (-1,)), None
    starts = list(itertools.accumulate((part.numel for part in parts[:-1]), initial=0))
    if not _lie_alike([layout for values, layout in samples if values.size], starts):
        samples = [by_place(values, layout) for values, layout in samples]
    moved = [_moved(layout, start) for (_, layout), start in zip(samples, starts, strict=True)]
    drawn = next((layout for layout in moved if layout.fibres.size), moved[0])
    layout = replace(
        drawn,
        fibres=np.concatenate([layout.fibres for layout in moved]),
        extremes=np.concatenate([layout.extremes for layout in moved]),
        extreme_places=np.concatenate([layout.extreme_places for layout in moved]),
    )
    return np.concatenate([values for values, _ in samples]), layout


def _lie_alike(layouts: Sequence[SampleLayout], starts: Sequence[int]) -> bool:
    """Whether the fibres of tensors that begin there are fibres of the joint one."""
    strides = {(layout.length, layout.stride) for layout in layouts}
    return len(strides) == 1 and all(start % math.prod(min(strides)) == 0 for start in starts)


def _all_exact(whole: Record) -> tuple[NDArray[Any] | None, SampleLayout | None]:
    """A tensor that was kept whole, as a sample whose extremes are all of its values."""
    if whole.values is None:
        return None, None
    flat, nothing = whole.values.reshape(-1), np.empty(0, np.int64)
    known = SampleLayout(nothing, 1, 1, flat, np.arange(flat.size))
    return flat[:0], known


def _moved(layout: SampleLayout, start: int) -> SampleLayout:
    """The layout within a joint tensor in which the sampled one begins at element `start`."""
    return replace(
        layout,
        fibres=layout.fibres + start // layout.length,
        extreme_places=layout.extreme_places + start,
    )


def _finite(record: Record) -> int:
    return record.numel - record.stats.nnan - record.stats.ninf


def pooled(parts: Sequence[tuple[int, Stats]]) -> Stats:
    """The statistics of several tensors as one, from theirs alone.

    Args:
        parts: the number of finite elements of each tensor, and its statistics.
    """
    filled = [(n, s) for n, s in parts if n > 0]
    mean, std = _mean_and_std(filled)
    return Stats(
        min=min((s.min for _, s in filled), default=math.nan),
        max=max((s.max for _, s in filled), default=math.nan),
        absmax=max((s.absmax for _, s in filled), default=math.nan),
        mean=mean,
        std=std,
        l2=math.hypot(*(s.l2 for _, s in filled)) if filled else math.nan,
        nzero=sum(s.nzero for _, s in parts),
        nnan=sum(s.nnan for _, s in parts),
        ninf=sum(s.ninf for _, s in parts),
        min_nonzero=min((s.min_nonzero for _, s in filled if s.min_nonzero > 0), default=math.nan),
    )


def _mean_and_std(parts: Sequence[tuple[int, Stats]]) -> tuple[float, float]:
    """σ² is the mean of the parts' σ² plus that of their means' squared distances from the mean."""
    if not parts:
        return math.nan, math.nan
    total = sum(n for n, _ in parts)
    weighted = [(n / total, s) for n, s in parts]
    mean = math.fsum(w * s.mean for w, s in weighted)
    spreads = [math.sqrt(w) * d for w, s in weighted for d in (s.std, s.mean - mean)]
    return mean, math.hypot(*spreads)
