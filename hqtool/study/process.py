"""Running a study's processes: some at a time here, or on a cluster."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from hqtool.compare.execute import client_of
from hqtool.errors import DataError
from hqtool.study.run import STDERR, STDOUT, Ended

#: Seconds between two looks at the processes.
PAUSE = 0.01

#: Seconds that a process has between SIGTERM and SIGKILL.
GRACE = 5.0

#: Starts the program of its arguments, which ends when the study is killed (Linux).
_ENDING_WITH_PARENT = """
import ctypes, os, signal, sys
parent = int(sys.argv[1])
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != parent:
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True, slots=True)
class Job:
    """A process to start.

    Args:
        command: program and arguments.
        place: the folder for what it prints; made anew.
        folder: where it starts.
        environment: variables beside those of this process.
        timeout: seconds after which it is ended; None: never.
    """

    command: tuple[str, ...]
    place: Path
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None


#: Jobs in → (index of the job, how it ended) in any order.
Executor = Callable[[Sequence[Job]], Generator[tuple[int, Ended], None, None]]


class Process:
    """A job at work, in a process group of its own.

    Raises:
        DataError: it cannot be started.
    """

    def __init__(self, job: Job, *, ends_with_parent: bool = True) -> None:
        self._job, self._begin = job, time.monotonic()
        self._timed_out = False
        words = list(job.command)
        if ends_with_parent and sys.platform == "linux":
            words = [sys.executable, "-ISc", _ENDING_WITH_PARENT, str(os.getpid()), *words]
        try:
            shutil.rmtree(job.place, ignore_errors=True)
            job.place.mkdir(parents=True)
            with open(job.place / STDOUT, "wb") as out, open(job.place / STDERR, "wb") as err:
                self._process = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=job.folder,
                    env=os.environ | dict(job.environment), start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            cause = f"cannot start a run in {job.place}: {error.strerror}"
            raise DataError(cause, "check the folder and the disk") from error

    def poll(self) -> Ended | None:
        """How it ended; None while it goes on. Ends it where it has taken too long."""
        seconds = time.monotonic() - self._begin
        status = self._process.poll()
        if status is None and self._job.timeout is not None and seconds > self._job.timeout:
            self._timed_out = True
            self.end()
            status = self._process.returncode
        if status is None:
            return None
        threads = self._job.environment.get(THREADS, os.environ.get(THREADS))
        return Ended(status, self._timed_out, round(seconds, 3), threads)

    def end(self) -> None:
        """End it and the processes that it started."""
        self.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def terminate(self) -> None:
        """Ask it to end."""
        self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


THREADS = "OMP_NUM_THREADS"


def run_job(job: Job) -> Ended:
    """Run a job to its end, wherever this is called."""
    process = Process(job, ends_with_parent=False)
    try:
        while (ended := process.poll()) is None:
            time.sleep(PAUSE)
        return ended
    except BaseException:
        process.end()
        raise


def here(jobs: int) -> Executor:
    """Up to so many processes at a time, in the order of the jobs."""

    def run(tasks: Sequence[Job]) -> Generator[tuple[int, Ended], None, None]:
        waiting = list(enumerate(tasks))[::-1]
        running: dict[int, Process] = {}
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    index, job = waiting.pop()
                    running[index] = Process(job)
                found = [(i, end) for i, p in running.items() if (end := p.poll()) is not None]
                for index, ended in found:
                    del running[index]
                    yield index, ended
                if not found:
                    time.sleep(PAUSE)
        finally:
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.end()

    return run


def cluster(address: str, workers: int) -> Executor:
    """A Dask cluster, whose workers share the study's folder and have what the script needs.

    Args:
        address: of its scheduler; 'local' starts one here.
        workers: how many processes a local one has.
    """

    def run(tasks: Sequence[Job]) -> Generator[tuple[int, Ended], None, None]:
        from distributed import as_completed

        with client_of(address, workers) as client:
            futures = {
                client.submit(run_job, replace(job, place=job.place.absolute()), pure=False): i
                for i, job in enumerate(tasks)
            }
            for future in as_completed(futures):
                yield futures[future], future.result()

    return run
