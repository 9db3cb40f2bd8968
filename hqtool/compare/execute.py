"""Running the replay of all sites: in this process, in several, or on a cluster.

The unit of work is a site: its steps must run in order, while sites are independent. A task is a
small picklable value without arrays, and its result is small, too: scored records are written to a
file, called a spool, as soon as they are known.
"""

from __future__ import annotations

import heapq
import json
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from hqtool.compare.recipe_sites import SiteQuantizer
from hqtool.compare.replay import replay
from hqtool.compare.results import StepRow, Summary
from hqtool.compare.settings import ReplaySettings
from hqtool.errors import DataError, HqtoolError
from hqtool.trace.history import SiteHistory
from hqtool.trace.ranks import RanksReader
from hqtool.trace.reader import Prefix, TraceReader
from hqtool.traffic.layers import Counts, layer_from_json
from hqtool.vocab import Site

#: What else to make of a site's history, which is read anyway: a picklable function of small
#: results.
Beside = Callable[[Site, SiteHistory], Any]


@dataclass(frozen=True, slots=True)
class Task:
    """One site to be replayed, as it is sent to a worker.

    Args:
        traces: each trace, and the commit up to which to read it; several are ranks of one run.
        spool: file to write scored records to, as JSON lines; None: do not write them.
        seconds: rough estimate of how long it takes, to start the longest first.
        folder: the folder that relative paths start from; empty: the worker's own.
        given: what each recipe gives the site.
        beside: called with the site and its history, once it is replayed.
    """

    traces: tuple[Prefix, ...]
    site: Site
    settings: ReplaySettings
    spool: str | None = None
    seconds: float = 0.0
    folder: str = ""
    given: tuple[SiteQuantizer, ...] = ()
    beside: Beside | None = None

    @property
    def path(self) -> str | None:
        """The trace it reads; None where it takes several together."""
        return self.traces[0].path if len(self.traces) == 1 else None


@dataclass(frozen=True, slots=True)
class SiteResult:
    """What a worker sends back.

    Args:
        worst: the `ReplaySettings.worst` rows of lowest SQNR, the lowest first.
        beside: what `Task.beside` made.
    """

    task: Task
    summaries: list[Summary]
    worst: tuple[StepRow, ...] = ()
    beside: Any = None


class _WorstRows:
    """Keeps the rows of lowest SQNR; rows without error, or without a figure, do not count."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._rows: list[tuple[float, int, StepRow]] = []
        self._met = 0

    def add(self, row: StepRow) -> None:
        db = row.metrics["sqnr_db"]
        if db is not None:
            self._met += 1  # of equals the first one is worse
            self._rows.append((db, self._met, row))
        if len(self._rows) > 4 * self._count + 100:
            self._rows = heapq.nsmallest(self._count, self._rows)

    def rows(self) -> tuple[StepRow, ...]:
        return tuple(row for _, _, row in heapq.nsmallest(self._count, self._rows))


#: Tasks in → (index of the task, its result) in any order.
Executor = Callable[[Sequence[Task]], Iterator[tuple[int, SiteResult]]]

#: How long to wait for a cluster's scheduler to answer.
SCHEDULER_WAIT_SECONDS = 10

#: Below so many seconds of work, as estimated, starting processes costs more time than it saves.
WORTH_PROCESSES = 0.4


def run_task(task: Task) -> SiteResult:
    """Replay one site.

    Raises:
        DataError: the trace proves damaged.
    """
    reader = _reader_of(tuple(_in_folder(task.folder, trace) for trace in task.traces))
    counts = counts_of(task.site.layer, reader.geometry(task.site.layer))
    history = reader.history(task.site, scaled=task.settings.loss_scale == "kept")
    worst = _WorstRows(task.settings.worst)
    if task.spool is None:
        on_row = worst.add if task.settings.worst else None
        summaries = replay(task.site, history, task.settings, counts, on_row, task.given)
        return SiteResult(task, summaries, worst.rows(), _beside(task, history))
    spool = os.path.join(task.folder, task.spool)
    own_spool = f"{spool}.{os.getpid()}"  # a task may be run twice, after a lost worker
    with open(own_spool, "w", encoding="utf-8") as out:

        def write(row: StepRow) -> None:
            if task.settings.worst:
                worst.add(row)
            named = row.flat() | {"trace": task.path}
            out.write(json.dumps(named, allow_nan=False) + "\n")

        summaries = replay(task.site, history, task.settings, counts, write, task.given)
    os.replace(own_spool, spool)
    return SiteResult(task, summaries, worst.rows(), _beside(task, history))


def _beside(task: Task, history: SiteHistory) -> Any:
    return None if task.beside is None else task.beside(task.site, history)


def step_entries() -> list[str]:
    """The names of a scored record's entries, in the order of a spool's lines."""
    return [*StepRow.entries(), "trace"]


def _in_folder(folder: str, trace: Prefix) -> Prefix:
    return trace._replace(path=os.path.join(folder, trace.path))


def counts_of(name: str, geometry: dict[str, Any] | None) -> Counts | None:
    """Element counts of a recorded layer; None where its geometry is unknown, or of no known op.

    Args:
        name: the layer's, which its geometry need not repeat.
    """
    if geometry is None:
        return None
    try:
        layer = layer_from_json({"name": name} | geometry)
        return Counts(*(each * layer.repeat for each in layer.counts()))
    except DataError:  # a recorder may describe layers that the bill does not know
        return None


class _OpenReader(threading.local):
    """The reader that this thread used last; successive tasks of a worker mostly share one."""

    traces: tuple[Prefix, ...] = ()
    reader: TraceReader | RanksReader | None = None


_current = _OpenReader()


def _reader_of(traces: tuple[Prefix, ...]) -> TraceReader | RanksReader:
    if _current.reader is None or _current.traces != traces:
        close_reader()
        _current.reader = _new_reader(traces)
        _current.traces = traces
    return _current.reader


def _new_reader(traces: tuple[Prefix, ...]) -> TraceReader | RanksReader:
    if len(traces) > 1:
        return RanksReader(traces)
    return TraceReader(traces[0].path, upto=traces[0].upto)


def close_reader() -> None:
    """Close the reader that `run_task` keeps open in this thread."""
    if _current.reader is not None:
        _current.reader.close()
    _current.reader = None


def serial(tasks: Sequence[Task]) -> Iterator[tuple[int, SiteResult]]:
    """One task after another in this process."""
    try:
        for index, task in enumerate(tasks):
            yield index, run_task(task)
    finally:
        close_reader()


def processes(jobs: int) -> Executor:
    """Up to `jobs` processes, the longest tasks first; serial where there is little to do."""

    def run(tasks: Sequence[Task]) -> Iterator[tuple[int, SiteResult]]:
        workers = min(jobs, len(tasks))
        if workers < 2 or sum(task.seconds for task in tasks) < WORTH_PROCESSES:
            yield from serial(tasks)
        else:
            yield from _in_pool(tasks, workers)

    return run


def longest_first(tasks: Sequence[Task]) -> list[int]:
    """Indices of the tasks, so that no long one is left for the end."""
    return sorted(range(len(tasks)), key=lambda index: -tasks[index].seconds)


def _in_pool(tasks: Sequence[Task], workers: int) -> Iterator[tuple[int, SiteResult]]:
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool

    context, started = _context_and_processes()
    pool = ProcessPoolExecutor(workers, context, initializer=_take_signals)
    try:
        with warnings.catch_warnings():  # Python 3.12 warns of forking while BLAS has threads
            warnings.simplefilter("ignore", DeprecationWarning)
            futures = {pool.submit(run_task, tasks[i]): i for i in longest_first(tasks)}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BaseException as error:
        _kill(started)
        if not isinstance(error, BrokenProcessPool):
            raise
        cause = "a worker process was killed, perhaps for want of memory"
        raise DataError(cause, "run again with fewer --jobs") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _kill(workers: Iterable[Any]) -> None:
    """End processes that leave nothing behind, by what no process can miss.

    Python forgets a SIGTERM that comes before a forked process has run its first line.
    """
    for worker in workers:
        if worker.pid is not None:
            worker.kill()


def _context_and_processes() -> tuple[Any, list[Any]]:
    """A multiprocessing context, and a list of the processes made by it.

    The program that uses hqtool may have other children, which must be left alone. Forking takes
    milliseconds; except on Linux it is not safe.
    """
    from multiprocessing import get_context

    kind = type(get_context("fork" if sys.platform == "linux" else "spawn"))
    started: list[Any] = []

    class ListingContext(kind):  # type: ignore[valid-type, misc]
        def Process(self, *args: Any, **kwargs: Any) -> Any:
            process = kind.Process(*args, **kwargs)  # type: ignore[attr-defined]
            started.append(process)
            return process

    return ListingContext(), started


def _take_signals() -> None:
    """Ignore Ctrl-C, which reaches every process of the terminal: the parent handles it.

    SIGTERM ends the process, whatever the program that forked it does at SIGTERM.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def cluster(address: str, workers: int) -> Executor:
    """A Dask cluster, the longest tasks first; traces and spools must be in shared folders.

    Args:
        address: of its scheduler, such as 'tcp://host:8786'; 'local' starts one here.
        workers: how many processes a local one has.
    """

    def run(tasks: Sequence[Task]) -> Iterator[tuple[int, SiteResult]]:
        with client_of(address, workers) as client:
            yield from _on_cluster(client, tasks)

    return run


def _on_cluster(client: Any, tasks: Sequence[Task]) -> Iterator[tuple[int, SiteResult]]:
    """Dask runs the tasks of a lost worker again; only a task that keeps killing them fails."""
    from distributed import KilledWorker, as_completed

    here = os.getcwd()  # a worker's own may be another
    futures = {
        client.submit(
            _run_and_close, replace(task, folder=here), pure=False, priority=task.seconds
        ): index
        for index, task in enumerate(tasks)
    }
    try:
        for future in as_completed(futures):
            index = futures[future]
            yield index, replace(future.result(), task=tasks[index])
    except KilledWorker as error:
        cause = "workers were killed over and over, perhaps for want of memory"
        raise DataError(cause, "give each worker more memory") from error


def _run_and_close(task: Task) -> SiteResult:
    """Run a task and close its trace: a cluster's workers go on after the comparison."""
    try:
        return run_task(task)
    finally:
        close_reader()


@contextmanager
def client_of(address: str, workers: int) -> Iterator[Any]:
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        cause = "--scheduler needs dask.distributed"
        raise HqtoolError(cause, "pip install 'hqtool[dask]'") from error
    with ExitStack() as stack:
        if address == "local":
            local = LocalCluster(workers, threads_per_worker=1, dashboard_address=None)
            address = stack.enter_context(local).scheduler_address
        try:
            client = Client(address, timeout=SCHEDULER_WAIT_SECONDS)
        except (OSError, TimeoutError, ValueError) as error:
            cause = f"no Dask scheduler answers at {address}"
            raise DataError(cause, "start one with: dask scheduler") from error
        yield stack.enter_context(client)


def default_jobs() -> int:
    """The number of cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1
