"""Writing scored records to files, one spool of JSON lines after the other, never all in memory."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from typing import IO, Any

from hqtool.compare.execute import step_entries
from hqtool.display import encodable
from hqtool.errors import HqtoolError
from hqtool.report.export import shown_cells

#: Takes the path of each spool in turn.
Sink = Callable[[str], None]

#: Rows in one group of a Parquet file.
GROUP_ROWS = 1 << 16


def json_lines(out: IO[str]) -> Sink:
    """A sink that writes one JSON object a line."""

    def take(spool: str) -> None:
        with open(spool, encoding="utf-8") as lines:
            shutil.copyfileobj(lines, out)
        out.flush()

    return take


def csv_rows(out: IO[str]) -> Sink:
    """A sink that writes CSV with a header line; a missing figure is an empty cell."""
    writer = csv.DictWriter(out, step_entries(), lineterminator="\n")
    writer.writeheader()

    def take(spool: str) -> None:
        writer.writerows(map(shown_cells, _rows(spool)))
        out.flush()

    return take


def _rows(spool: str) -> Iterator[dict[str, Any]]:
    with open(spool, encoding="utf-8") as lines:
        yield from map(json.loads, lines)


class ParquetRows:
    """A sink that writes a Parquet file, valid even without rows; to be closed at the end.

    Raises:
        HqtoolError: pyarrow is not installed.
    """

    def __init__(self, path: str) -> None:
        try:
            import pyarrow.parquet
        except ImportError as error:
            raise HqtoolError("Parquet needs pyarrow", "pip install 'hqtool[parquet]'") from error
        self._arrow = pyarrow
        self._schema = self._schema_of(step_entries())
        self._writer = pyarrow.parquet.ParquetWriter(path, self._schema)

    def __call__(self, spool: str) -> None:
        rows = _rows(spool)
        while group := list(islice(rows, GROUP_ROWS)):
            self._writer.write_table(
                self._arrow.Table.from_pylist([*map(_in_utf8, group)], self._schema)
            )

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()

    def _schema_of(self, entries: list[str]) -> Any:
        """Texts, whole numbers and truth values as such; all figures, and bits, float64.

        Any figure may be missing; bits may be a fraction.
        """
        names = ("layer", "tensor", "estimator", "format", "rounding", "trace")
        texts = dict.fromkeys(names, self._arrow.string())
        whole = dict.fromkeys(("step", "micro", "call"), self._arrow.int64())
        kinds = texts | whole | dict.fromkeys(("looked", "exact"), self._arrow.bool_())
        return self._arrow.schema([(n, kinds.get(n, self._arrow.float64())) for n in entries])


def _in_utf8(row: dict[str, Any]) -> dict[str, Any]:
    return {key: encodable(v) if isinstance(v, str) else v for key, v in row.items()}
