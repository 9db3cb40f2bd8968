"""The report of a trace: what was recorded, how, and how it ended."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from hqtool.report.info_used import USED_COLUMNS, training_fact, used_entries
from hqtool.report.model import Column, Report, Table
from hqtool.sizes import binary_bytes, counted
from hqtool.trace.history import BEGAN
from hqtool.trace.overview import SiteSummary
from hqtool.trace.reader import TraceReader
from hqtool.vocab import TENSOR_KINDS

SCHEMA = "hqtool.info/1"

SITE_COLUMNS = (
    Column("layer", "layer", number=False),
    Column("records", "records"),
    Column("kept", "values"),
    Column("shape", "shape", number=False),
    Column("dtype", "dtype", number=False),
    Column("payload_bytes", "size", binary_bytes),
)

#: Those of a quantized run, which keeps no values.
QUANTIZED_COLUMNS = (
    *(column for column in SITE_COLUMNS if column.key in ("layer", "records", "shape")),
    *USED_COLUMNS,
)

#: The values of a trace are checked up to this size: reading more takes long.
CHECKED_BYTES = 1 << 30

#: A trace's state, or "damaged" → what people read.
STATE_SENTENCES = {
    "complete": "complete",
    "open": "open: still being written, or its writer was killed; readable to its last commit",
    "truncated": "truncated: the recording ended early; readable to its last commit",
    "damaged": "damaged: the file was cut or changed; all statistics match their checksums",
}


def info_report(reader: TraceReader) -> Report:
    """Everything `hqtool info` says of an open trace."""
    rows = [site_row(summary) | _used(reader, summary) for summary in reader.overview()]
    size = os.path.getsize(reader.path)
    condition = condition_of(reader)
    document = {
        "schema": SCHEMA,
        "path": reader.path,
        "format": reader.format,
        **condition.entries,
        "file_bytes": size,
        "steps": step_facts(reader.steps),
        "run": reader.run,
        "optimizers": optimizer_steps(reader),
        "channel_extremes": reader.has_channel_extremes,
        "layers": {row["layer"]: reader.geometry(row["layer"]) for row in rows},
        "sites": rows,
    }
    facts = run_facts(reader, condition.state)
    columns = QUANTIZED_COLUMNS if reader.is_of_quantized_run else SITE_COLUMNS
    tables = [facts_table(_title(reader, size), facts), sites_table(rows, columns)]
    return Report(document, rows, tables, notes=[*condition.notes, *sampling_notes(rows)])


def _used(reader: TraceReader, summary: SiteSummary) -> dict[str, Any]:
    """What quantized a site's tensors, where the trace tells it."""
    if not reader.is_of_quantized_run:
        return {}
    return used_entries(reader.records(summary.site, values=False))


class Condition(NamedTuple):
    """How a trace ended, and whether its values are sound.

    Args:
        state: a key of STATE_SENTENCES: the trace's own, or damaged.
        cut_short: the end of the file is missing.
        damaged_values: records whose values are damaged; None where there were too many bytes of
            values to check them.
        notes: sentences on what was not checked.
    """

    state: str
    cut_short: bool
    damaged_values: int | None
    notes: tuple[str, ...] = ()

    @property
    def entries(self) -> dict[str, Any]:
        """The entries of a JSON document that tell it."""
        return {
            "state": self.state,
            "cut_short": self.cut_short,
            "damaged_values": self.damaged_values,
        }


def condition_of(reader: TraceReader) -> Condition:
    """The condition of an open trace."""
    cut, size = reader.cut_short, reader.payload_bytes
    damaged = reader.damaged_values() if size <= CHECKED_BYTES else None
    state = "damaged" if cut or damaged else reader.state
    unchecked = f"{reader.path}: its values, {binary_bytes(size)}, were not checked for damage"
    return Condition(state, cut, damaged, (unchecked,) if damaged is None else ())


def site_row(s: SiteSummary) -> dict[str, Any]:
    """One row of the document's "sites"."""
    return {
        "layer": s.site.layer,
        "tensor": s.site.tensor,
        "records": s.records,
        "with_values": s.with_values,
        "sampled": s.sampled,
        "shapes": [list(shape) for shape in s.shapes],
        "first_step": s.first_step,
        "last_step": s.last_step,
        "dtypes": list(s.dtypes),
        "payload_bytes": s.payload_bytes,
        "nonfinite": s.nonfinite,
        "nonfinite_records": s.nonfinite_records,
        "nonfinite_step": s.nonfinite_step,
    }


def step_facts(steps: list[int]) -> dict[str, int | None]:
    """The document's "steps", of steps in ascending order."""
    first, last = (steps[0], steps[-1]) if steps else (None, None)
    return {"count": len(steps), "first": first, "last": last}


def step_words(steps: list[int]) -> str:
    """'264 (0 to 263)', of steps in ascending order."""
    return f"{len(steps)} ({steps[0]} to {steps[-1]})" if steps else "none"


def _title(reader: TraceReader, size: int) -> str:
    return f"{reader.path} ({reader.format}, {binary_bytes(size)})"


def facts_table(title: str, facts: Mapping[str, str]) -> Table:
    """A table with a row for each fact about a run."""
    columns = (Column("fact", "run", number=False), Column("value", "", number=False))
    rows = tuple({"fact": name, "value": value} for name, value in facts.items())
    return Table(title, columns, rows)


#: The file of the recipe that a run was quantized by: JSON has it, beside the recipe's name.
WHOLE_RECIPE = "rules"


def run_facts(reader: TraceReader, state: str) -> dict[str, str]:
    """State, steps, and what the recorder noted."""
    told = {name: value for name, value in reader.run.items() if name not in (WHOLE_RECIPE, BEGAN)}
    noted = {str(name): flat(value) for name, value in told.items()}
    if reader.is_of_quantized_run and "training" in noted:
        noted["training"] = training_fact(reader.run["training"])
    facts = {"state": STATE_SENTENCES[state], "steps": step_words(reader.steps), **noted}
    if reader.has_channel_extremes:
        facts["extremes"] = "of each channel, beside those of each tensor"
    by = [f"{name} ({counted(count, 'step')})" for name, count in optimizer_steps(reader).items()]
    return facts | ({"optimizers": ", ".join(by)} if by else {})


def optimizer_steps(reader: TraceReader) -> dict[str, int]:
    """For each optimizer, how many steps its updates ended."""
    ended = (name for step in reader.steps for name in reader.optimizers(step))
    return dict(Counter(ended))


def flat(value: Any) -> str:
    """A JSON value as one line of text, without its empty entries."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {flat(v)}" for key, v in value.items() if v or v == 0)
    if isinstance(value, list):
        return " ".join(map(flat, value))
    return str(value)


def sites_table(rows: list[dict[str, Any]], columns: tuple[Column, ...]) -> Table:
    """A table of the rows of `site_row`, a section for each tensor kind."""
    shown = [
        row | {"shape": _shapes(row), "dtype": ", ".join(row["dtypes"]), "kept": _kept(row)}
        for row in rows
    ]
    shown.sort(key=lambda row: list(TENSOR_KINDS).index(row["tensor"]))
    return Table(counted(len(rows), "site"), columns, tuple(shown), section="tensor")


def _shapes(row: dict[str, Any]) -> str:
    texts = ["×".join(map(str, shape)) or "scalar" for shape in row["shapes"]]
    more = f" and {len(texts) - 2} more" if len(texts) > 2 else ""
    return ", ".join(texts[:2]) + more


def _kept(row: dict[str, Any]) -> str:
    """How many records keep values, and whether those are samples."""
    return f"{row['with_values']}{' sampled' if row['sampled'] else ''}"


def sampling_notes(rows: list[dict[str, Any]]) -> list[str]:
    """Notes on the limits of what is kept; the rows are those of `site_row`."""
    return [*_nonfinite_notes(rows), *_sampled_notes(rows)]


def _nonfinite_notes(rows: list[dict[str, Any]]) -> list[str]:
    """The first step with NaN or infinities, and the sites with the largest share of them."""
    found = [row for row in rows if row["nonfinite_records"]]
    if not found:
        return []
    first = min(row["nonfinite_step"] for row in found)
    worst = sorted(found, key=lambda row: -row["nonfinite_records"] / row["records"])[:3]
    named = ", ".join(
        f"{row['layer']}/{row['tensor']} in {row['nonfinite_records']} of {row['records']} records"
        for row in worst
    )
    sites = counted(len(found), "site")
    return [f"NaN or infinities, first at step {first}, at {sites}: {named}"]


def _sampled_notes(rows: list[dict[str, Any]]) -> list[str]:
    if not any(row["sampled"] for row in rows):
        return []
    return ["sampled: a sample of the tensor's values; statistics are exact all the same"]
