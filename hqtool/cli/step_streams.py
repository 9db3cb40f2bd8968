"""The files that scored records stream to while a comparison runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from hqtool.cli.output import result_stream
from hqtool.outputs import ReaderGone, names_stdout
from hqtool.report.step_sinks import ParquetRows, Sink, csv_rows, json_lines


@dataclass(frozen=True, slots=True)
class StepStreams:
    """Where scored records are written.

    Args:
        on_spool: takes the path of each spool, a file of scored records, in turn; None where
            nobody asked for them.
        kept: a file that holds them all, for the JSON document; None where that has no steps.
    """

    on_spool: Callable[[str], None] | None
    kept: str | None


@contextmanager
def step_streams(
    document: bool,
    csv_to: str | None,
    jsonl_to: str | None,
    parquet_to: str | None,
    quiet: bool,
    force: bool,
) -> Iterator[StepStreams]:
    """Open every file that was asked for; each is complete when the block ends."""
    with ExitStack() as files:
        sinks: list[Sink] = []
        kept = None
        if document:
            lines = files.enter_context(tempfile.NamedTemporaryFile("w", suffix=".jsonl"))
            kept = lines.name
            sinks.append(json_lines(lines.file))
        for target, sink in ((csv_to, csv_rows), (jsonl_to, json_lines)):
            if target is not None:
                place = result_stream(target, quiet, lines=True, force=force)
                sinks.append(sink(files.enter_context(place)[0]))
        if parquet_to is not None:
            place = result_stream(parquet_to, quiet, force=force)
            rows = ParquetRows(files.enter_context(place)[1])
            files.callback(rows.close)
            sinks.append(rows)

        wanted = kept or any(t and not names_stdout(t) for t in (csv_to, jsonl_to, parquet_to))

        def on_spool(path: str) -> None:
            for sink in list(sinks):
                try:
                    sink(path)
                except ReaderGone:  # the other files are wanted all the same
                    sinks.remove(sink)
                    if not wanted:
                        raise

        yield StepStreams(on_spool if sinks else None, kept)
