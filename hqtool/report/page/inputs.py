"""What a page is asked to show: traces, documents that commands wrote as JSON, and studies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hqtool.errors import DataError, UsageError
from hqtool.inputs import bytes_of
from hqtool.report.comparison_report import SCHEMA as COMPARED
from hqtool.report.page.material import Document
from hqtool.report.study_report import SCHEMA as STUDIED
from hqtool.report.traffic import SCHEMA as BILLED
from hqtool.trace.signature import may_be_trace

#: The file in a study's folder that holds its results.
RESULT = "result.json"

#: Schema → which command writes such a document.
WRITERS = {
    COMPARED: "hqtool compare --json",
    BILLED: "hqtool traffic --json",
    STUDIED: "hqtool study --json",
}

#: Of these a page shows one.
SINGLE = (COMPARED, BILLED)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What was given, by what it is."""

    traces: tuple[str, ...]
    compared: Document | None
    bill: Document | None
    studies: tuple[Document, ...]


def inputs_of(paths: Sequence[str]) -> Inputs:
    """The inputs at these paths.

    Raises:
        DataError: one is missing, or nothing that a page shows.
        UsageError: there are several of which it shows one.
    """
    traces = tuple(path for path in paths if not Path(path).is_dir() and may_be_trace(path))
    documents: dict[str, list[Document]] = {schema: [] for schema in WRITERS}
    for path in paths:
        if path not in traces:
            found = _document(path)
            documents[found["schema"]].append(found)
    for schema in SINGLE:
        if len(documents[schema]) > 1:
            cause = f"{len(documents[schema])} files of {WRITERS[schema]} were given"
            raise UsageError(cause, "give one of them")
    compared, bill = (next(iter(documents[schema]), None) for schema in SINGLE)
    return Inputs(traces, compared, bill, tuple(documents[STUDIED]))


def _document(path: str) -> dict[str, Any]:
    """A document that a command wrote; of a study's folder its results."""
    file = Path(path) / RESULT if Path(path).is_dir() else Path(path)
    remedy = f"give a trace, a study's folder, or what one of these wrote: {_writers()}"
    if file.name == RESULT and not file.exists():
        cause = f"{path} holds no {RESULT}"
        raise DataError(cause, "give the folder of a study that hqtool study has finished")
    try:
        found = json.loads(bytes_of(file))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", "check the path") from error
    except (ValueError, RecursionError):
        raise DataError(f"{path} is neither a trace nor JSON", remedy) from None
    except DataError as error:
        raise DataError(f"{path} {error.cause}", error.remedy) from None
    if not isinstance(found, dict) or found.get("schema") not in WRITERS:
        raise DataError(f"{path} is not what a report shows", remedy)
    return found


def _writers() -> str:
    return ", ".join(WRITERS.values())
