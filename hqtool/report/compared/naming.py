"""How the report of a comparison names its quantizers: by what differs between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from hqtool.compare.settings import ReplaySettings
from hqtool.core.formats.format import Format
from hqtool.estimators.quantizer import label_of
from hqtool.registry import Choice
from hqtool.report.breaking import longest_piece
from hqtool.report.model import Column, TableRow

#: A quantizer as a row has it: estimator, format, rounding.
Lane = tuple[str, str, str]

#: A column that shows `Names.shown`'s label of each.
QUANTIZER = Column("quantizer", "quantizer", number=False)

#: Cells from which on a word is too wide for a column beside those of the estimator.
WIDE = 8


def lane_of(row: TableRow) -> Lane:
    """The quantizer of a row."""
    return row["estimator"], row["format"], row["rounding"]


class Names:
    """The names of a comparison's quantizers, in columns, titles and sentences.

    Args:
        settings: of the comparison; at least one quantizer.
    """

    def __init__(self, settings: ReplaySettings) -> None:
        self._settings = settings
        self.many_formats = len(settings.formats) > 1
        self._many_roundings = len(settings.roundings) > 1
        #: Whether every format is compared with itself under the same several estimators.
        self.formats_apart = _formats_apart(settings)

    @property
    def columns(self) -> tuple[Column, ...]:
        """A column for each part that differs; the estimators' where nothing does."""
        if self._in_one_column:
            return (QUANTIZER,)
        of_format = [Column("format", "format", number=False)] if self.many_formats else []
        of_rounding = [Column("rounding", "rounding", number=False)] if self._many_roundings else []
        others = [*of_format, *of_rounding]
        if others and len(self._settings.estimators) == 1:
            return tuple(others)
        return (Column("estimator", "estimator", number=False), *others)

    @property
    def _in_one_column(self) -> bool:
        """Whether columns for each part would leave too little room for figures in a terminal."""
        settings = self._settings
        labels = [choice.label for choice in settings.formats]
        wide = any(":" in label or longest_piece(label) > WIDE for label in labels)
        differ = [len(each) > 1 for each in (settings.estimators, settings.formats)]
        return (self._many_roundings and any(differ)) or (wide and all(differ))

    @property
    def group(self) -> tuple[str, ...]:
        """The keys of the rows among which the best entries are marked."""
        return ("layer", "format", "rounding") if self.formats_apart else ("layer",)

    def shown(self, row: TableRow) -> TableRow:
        """A row with what `columns` show."""
        return {**row, "quantizer": lane_label(lane_of(row))}

    @property
    def alike(self) -> str:
        """What no column shows, because it is the same everywhere; '' where nothing is."""
        settings = self._settings
        shown = {column.key for column in self.columns}
        parts = [] if shown & {"estimator", "quantizer"} else [settings.estimators[0].label]
        parts += [] if self.many_formats else [_in_words(settings.formats[0])]
        parts += [] if self._many_roundings else [f"{settings.roundings[0]} rounding"]
        return ", ".join(parts)

    def setting(self, lane: Lane) -> str:
        """A lane's format in a sentence, with its rounding where there are several."""
        _, label, rounding = lane
        format_ = next(f for f in self._settings.formats if f.label == label)
        scheme = _scheme(format_)
        bits = scheme and not (self.many_formats and scheme != "asymmetric")
        words = f"{format_.value.bits} bits" if bits else label
        return f"{words}/{rounding}" if self._many_roundings else words

    def name(self, lane: Lane) -> str:
        """A lane by what differs between lanes."""
        return lane[0] if self.formats_apart else lane_label(lane)

    def title(self, lane: Lane) -> str:
        """A lane by its estimator, and by its format and rounding where there are several."""
        estimator = lane[0]
        if not (self.many_formats or self._many_roundings):
            return estimator
        return lane_label(lane)

    def method(self, lane: Lane) -> Lane:
        """A lane without the parameters of its estimator and its format."""
        estimators = {choice.label: choice.name for choice in self._settings.estimators}
        formats = {choice.label: choice.name for choice in self._settings.formats}
        return estimators[lane[0]], formats[lane[1]], lane[2]

    def in_order(self, lanes: Sequence[Lane]) -> list[Lane]:
        """Lanes in the order of tables: by format where each is compared with itself."""
        if not self.formats_apart:
            return list(lanes)
        at = list(dict.fromkeys((q.format.label, q.rounding) for q in self._settings.quantizers))
        return sorted(lanes, key=lambda lane: at.index(lane[1:]))


def lane_label(lane: Lane) -> str:
    """A quantizer as it is typed."""
    return label_of(*lane)


def _formats_apart(settings: ReplaySettings) -> bool:
    """Those that scale their own blocks have no choice of estimators, and do not count."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for q in settings.quantizers:
        if q.format.value.needs_range:
            found[q.format.label, q.rounding].add(q.estimator.label)
    sets = list(found.values())
    return bool(sets) and len(sets[0]) > 1 and all(each == sets[0] for each in sets)


def scheme_of(settings: ReplaySettings) -> str | None:
    """How the levels of all formats lie about zero; None where they are not uniform, or differ."""
    schemes = {_scheme(choice) for choice in settings.formats}
    return schemes.pop() if len(schemes) == 1 else None


def _scheme(choice: Choice[Format]) -> str | None:
    """The scheme of a uniform format without parameters."""
    value: Any = choice.value
    return getattr(value, "scheme", None) if choice.label == choice.name else None


def _in_words(choice: Choice[Format]) -> str:
    scheme = _scheme(choice)
    return f"{choice.value.bits} bits, {scheme}" if scheme else choice.label
