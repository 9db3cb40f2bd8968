"""A comparison as `compare --json` wrote it, as the object that it was written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from hqtool.compare.comparison import Comparison, Selection, TraceFacts
from hqtool.compare.execute import SiteResult, Task
from hqtool.compare.results import Summary
from hqtool.compare.settings import ReplaySettings
from hqtool.core.metrics import METRICS
from hqtool.errors import DataError, HqtoolError
from hqtool.estimators.quantizer import Quantizer, parse_quantizer
from hqtool.report.page.material import Document
from hqtool.trace.reader import Prefix
from hqtool.trace.schema import NO_STEP, Commit
from hqtool.vocab import Site

Row = Mapping[str, Any]


def comparison_of(document: Document) -> Comparison:
    """The comparison of a document of schema `hqtool.compare/1`.

    Recipes are told by their rows alone, and ranks taken together by their sites.

    Raises:
        DataError: an entry is missing, or names what this hqtool does not know.
    """
    try:
        return _comparison(document)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        cause = f"the comparison cannot be read: {type(error).__name__} {error}"
        raise DataError(cause, "write it anew with hqtool compare --json") from error
    except HqtoolError as error:
        raise DataError(f"the comparison cannot be read: {error.cause}", error.remedy) from error


def _comparison(document: Document) -> Comparison:
    noted, rows = document["settings"], document["summary"]
    settings = ReplaySettings(
        tuple(_quantizers(rows)),
        calibrate=noted["calibrate"],
        seed=noted["seed"],
        loss_scale=noted["loss_scale"],
        buffer_bytes=noted.get("buffer_bytes", 0),
    )
    groups: dict[tuple[str | None, Site], list[Summary]] = {}
    for row in rows:
        site = Site(row["layer"], row["tensor"])
        groups.setdefault((row.get("trace"), site), []).append(_summary(row))
    return Comparison(
        tuple(TraceFacts(**facts) for facts in document["trace"]),
        Selection(tuple(noted["layers"]), tuple(noted["tensors"])),
        settings,
        tuple(
            SiteResult(Task(_prefixes(path), site, settings), summaries)
            for (path, site), summaries in groups.items()
        ),
    )


def _quantizers(rows: list[Row]) -> list[Quantizer]:
    """Those asked for by themselves, each once, in order."""
    lanes = dict.fromkeys(
        f"{row['estimator']}@{row['format']}/{row['rounding']}"
        for row in rows
        if row.get("recipe") is None
    )
    return [parse_quantizer(lane) for lane in lanes]


def _prefixes(path: str | None) -> tuple[Prefix, ...]:
    return () if path is None else (Prefix(path, Commit(NO_STEP, 0, 0, 0, 0, 0)),)


def _summary(row: Row) -> Summary:
    """Entries that older documents lack have their defaults."""
    entries = {f.name: row[f.name] for f in fields(Summary) if f.name in row}
    entries["metrics"] = {name: row[name] for name in METRICS}
    entries.setdefault("records", row["replayed"])
    missing = [f.name for f in fields(Summary) if _required(f) and f.name not in entries]
    if missing:
        raise KeyError(missing[0])
    return Summary(**entries)


def _required(field: Any) -> bool:
    return field.default is MISSING and field.default_factory is MISSING
