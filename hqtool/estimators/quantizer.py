"""Quantizers: estimator @ format / rounding, as typed, swept, and made of products."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product as combinations
from typing import Any

from hqtool.core.formats.format import Format
from hqtool.core.formats.householder import HouseholderFormat
from hqtool.core.formats.named import FORMATS
from hqtool.core.moments.dense import ROUNDINGS
from hqtool.errors import UsageError
from hqtool.estimators.presets import ESTIMATORS
from hqtool.estimators.protocol import Estimator
from hqtool.nearest import known_names
from hqtool.registry import Choice, values_of

#: The estimator of the formats that scale their own blocks: it gives no range.
LOCAL = "local"

NEAREST = "nearest"

#: A range of numbers, maybe with a step, in a format's name.
_NUMBERS = re.compile(r"(\d+)\.\.\d+(?:/\d+)?")

#: What tells one quantizer from another: the labels of its estimator and format, its rounding.
Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True, eq=False)
class Quantizer:
    """What makes a site's numbers few: who chooses the range, how they are stored and rounded.

    Args:
        rounding: a name of `ROUNDINGS`.

    Raises:
        UsageError: an unknown rounding; an estimator that gives no range for a format that needs
            one, or one that gives a range for a format that needs none.
    """

    estimator: Choice[Estimator]
    format: Choice[Format]
    rounding: str = NEAREST

    def __post_init__(self) -> None:
        require_rounding(self.rounding)
        _require_pair(self.estimator, self.format, self.label)

    @property
    def label(self) -> str:
        """'hindsight:momentum=0.9@int8/stochastic'; without the rounding where it is to nearest."""
        return label_of(*self.key)

    @property
    def key(self) -> Key:
        """What its rows are found by."""
        return self.estimator.label, self.format.label, self.rounding

    @property
    def bits(self) -> float:
        """Bits stored for each element, scales included; an int where whole."""
        return self.format.value.bits

    def to_json(self) -> dict[str, Any]:
        """JSON-safe; `from_json` gives an equal quantizer back."""
        return {
            "estimator": self.estimator.to_json(),
            "format": self.format.to_json(),
            "rounding": self.rounding,
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantizer) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


def label_of(estimator: str, format_: str, rounding: str) -> str:
    """The text that names a quantizer by these parts; without the rounding where it is to nearest.

    Args:
        estimator, format_: labels.
    """
    text = f"{estimator}@{format_}"
    return text if rounding == NEAREST else f"{text}/{rounding}"


def from_json(data: dict[str, Any]) -> Quantizer:
    """The quantizer that `Quantizer.to_json` wrote."""
    estimator, format_ = ESTIMATORS.from_json(data["estimator"]), FORMATS.from_json(data["format"])
    return Quantizer(estimator, format_, data["rounding"])


def parse_quantizer(text: str) -> Quantizer:
    """One quantizer, as 'EST@FORMAT' or 'EST@FORMAT/ROUNDING'.

    Raises:
        UsageError: the text is malformed, names something unknown, or spells out several.
    """
    found = sweep_quantizers(text)
    if len(found) != 1:
        raise UsageError(f"'{text}' spells out {len(found)} quantizers", "write a single one here")
    return found[0]


def sweep_quantizers(text: str) -> list[Quantizer]:
    """A text whose parts may each list values: one quantizer for each combination.

    'hindsight:momentum=0,0.9@int8/stochastic' are two, 'current@int8,e4m3/nearest,stochastic' four.

    Raises:
        UsageError: the text is malformed, or names something unknown.
    """
    estimator, at, rest = text.rpartition("@")
    if not (at and estimator.strip() and rest.strip()):
        raise UsageError(f"'{text}' is not a quantizer", _how_to_write(text.strip()))
    formats, rounding = _format_and_rounding(rest)
    return [
        Quantizer(*each)
        for each in combinations(
            ESTIMATORS.sweep(estimator.strip()), sweep_formats(formats), roundings_of([rounding])
        )
    ]


def _how_to_write(text: str) -> str:
    """The remedy for a quantizer without estimator or without format."""
    word = text.strip("@")
    if not _is_format(word):
        return "write ESTIMATOR@FORMAT[/ROUNDING], such as hindsight@int8/stochastic"
    needs_range = sweep_formats(word)[0].value.needs_range
    return f"write {'hindsight' if needs_range else LOCAL}@{word}"


def _format_and_rounding(text: str) -> tuple[str, str]:
    """'int8/stochastic' in two; a number follows the '/' of a range such as 1..8/2."""
    formats, slash, rounding = text.rpartition("/")
    if not slash or re.match(r"\s*[-+.\d]", rounding):
        return text, NEAREST
    return formats, rounding


def sweep_formats(text: str) -> list[Choice[Format]]:
    """Comma-separated formats, the parameters of each of which may list values, too.

    A part that is no format's name goes on with the parameters of the format before it:
    'int8,e4m3:scale=free,pow2,mxfp4' are four. A number in a name may be
    a range: 'int4..8' are five.

    Raises:
        UsageError: a name or parameter is unknown, or a value does not fit; or there is none.
    """
    specs: list[str] = []
    for part in (part.strip() for part in text.split(",")):
        if specs and ":" in specs[-1] and not _is_format(part):
            specs[-1] += f",{part}"
        elif part:
            specs.append(part)
    if not specs:
        raise UsageError(f"'{text}' names no format", "write int8, or int8,e4m3,mxfp8")
    found = [choice for spec in specs for each in _numbered(spec) for choice in FORMATS.sweep(each)]
    return list({choice.label: choice for choice in found}.values())


def _numbered(spec: str) -> list[str]:
    """A spec for each number of the range in a format's name: of 'int4..8:a=1' 'int4:a=1', …"""
    name, colon, rest = spec.partition(":")
    found = _NUMBERS.search(name)
    if found is None:
        return [spec]
    before, after = name[: found.start()], name[found.end() :]
    return [f"{before}{number}{after}{colon}{rest}" for number in values_of(found[0])]


def _is_format(text: str) -> bool:
    name = _NUMBERS.sub(lambda found: found[1], text.partition(":")[0].strip())
    if not name or "=" in name:
        return False
    try:
        FORMATS.entry(name)
    except UsageError:
        return False
    return True


def roundings_of(texts: Iterable[str]) -> tuple[str, ...]:
    """Comma-separated roundings, each once, in order.

    Raises:
        UsageError: one is unknown.
    """
    words = [word.strip() for text in texts for word in text.split(",")]
    for word in words:
        require_rounding(word)
    return tuple(dict.fromkeys(words))


def require_rounding(name: str) -> None:
    """Raises: UsageError: it is no name of `ROUNDINGS`."""
    if name not in ROUNDINGS:
        raise UsageError(f"unknown rounding '{name}'", known_names(name, ROUNDINGS))


def _require_pair(estimator: Choice[Estimator], format_: Choice[Format], label: str) -> None:
    """Refuse an estimator and a format of which only one knows of a range."""
    needs_range, local = format_.value.needs_range, estimator.name == LOCAL
    if local and needs_range:
        cause = f"'{label}': {format_.label} needs a range, and {LOCAL} gives none"
        raise UsageError(cause, f"write hindsight@{format_.label}, or another estimator")
    if isinstance(format_.value, HouseholderFormat) and not _always_looks(estimator.value):
        cause = f"'{label}': {format_.label} mixes samples by what it reads of them at every step"
        raise UsageError(cause, f"write current@{format_.label}")
    if not local and not needs_range:
        cause = f"'{label}': {format_.label} scales its own blocks and takes no range"
        raise UsageError(cause, f"write {LOCAL}@{format_.label}")


def _always_looks(estimator: Estimator) -> bool:
    """Whether it looks at every tensor, so that the format may, too."""
    return estimator.plan(estimator.start()).always


def product(
    estimators: Sequence[Choice[Estimator]],
    formats: Sequence[Choice[Format]],
    roundings: Sequence[str] = (NEAREST,),
) -> list[Quantizer]:
    """Every estimator at every format that takes its range, with every rounding.

    Formats that need no range go with `local` alone, once, whether it is among the estimators or
    not; `local` goes with these formats alone.

    Raises:
        UsageError: `local` is asked for, and every format needs a range; or a format needs one,
            and there is no other estimator.
    """
    with_range = [f for f in formats if f.value.needs_range]
    by_itself = [f for f in formats if not f.value.needs_range]
    others = [e for e in estimators if e.name != LOCAL]
    if len(others) < len(estimators) and with_range and not (by_itself and others):
        by_itself = [*by_itself, with_range[0]]  # a pair that is refused, with the remedy
    pairs = [*combinations(others, with_range), *combinations(_local(by_itself), by_itself)]
    return unique(Quantizer(e, f, r) for e, f in pairs for r in roundings)


def _local(formats: Sequence[Choice[Format]]) -> list[Choice[Estimator]]:
    return [ESTIMATORS.parse(LOCAL)] if formats else []


def unique(quantizers: Iterable[Quantizer]) -> list[Quantizer]:
    """Each quantizer once, in order."""
    return list(dict.fromkeys(quantizers))
