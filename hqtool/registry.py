"""Name ↔ object ↔ JSON: one roster drives the command line, `hqtool list`, docs and tests."""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Generic, TypeVar

from hqtool.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Choice(Generic[T]):
    """A registered name with the parameters chosen for it.

    Args:
        label: how results name it: the text the user gave, or the bare name.
        parameters: every parameter with its value, defaults included.
    """

    label: str
    name: str
    parameters: Mapping[str, Any]
    value: T

    def to_json(self) -> dict[str, Any]:
        """JSON-safe; `Registry.from_json` gives the same choice back."""
        return {"label": self.label, "name": self.name, "parameters": dict(self.parameters)}


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """A registered factory; its keyword parameters are read off its signature."""

    name: str
    factory: Callable[..., T]
    summary: str

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The factory's parameters by name, in order."""
        return dict(inspect.signature(self.factory, eval_str=True).parameters)

    @property
    def usage(self) -> str:
        """The spec a user types, with every default: `hindsight:momentum=0.9`."""
        shown = [f"{name}={_shown(p.default)}" for name, p in self.parameters.items()]
        return ":".join([self.name, ",".join(shown)]) if shown else self.name


class Registry(Generic[T]):
    """Factories by name, extended by other packages through entry points.

    Args:
        noun: what is registered, for error messages.
        group: entry-point group that outside packages add factories to.
    """

    def __init__(self, noun: str, group: str) -> None:
        self.noun = noun
        self.group = group
        self._entries: dict[str, Entry[T]] = {}

    def register(self, factory: Callable[..., T]) -> Callable[..., T]:
        """Decorator: add `factory` under its own name, its docstring's first line as summary."""
        self._add(factory.__name__, factory)
        return factory

    def _add(self, name: str, factory: Callable[..., T]) -> None:
        summary = (inspect.getdoc(factory) or "").partition("\n")[0]
        self._entries[name] = Entry(name, factory, summary)

    def __iter__(self) -> Iterator[Entry[T]]:
        """Every entry, those of outside packages last."""
        self._load_outside()
        return iter(list(self._entries.values()))

    def entry(self, name: str) -> Entry[T]:
        """Raises: UsageError: no such name, here or in any installed package."""
        if name not in self._entries:
            self._load_outside()
        if name not in self._entries:
            raise UsageError(f"unknown {self.noun} '{name}'", self._remedy(name))
        return self._entries[name]

    def parse(self, text: str) -> Choice[T]:
        """'name' or 'name:key=value,…' as typed on the command line.

        Raises:
            UsageError: unknown name or parameter, or a value that does not fit.
        """
        name, _, rest = text.partition(":")
        entry = self.entry(name.strip())
        given = {k: _typed(entry, k, v) for k, v in _pairs(rest, text)}
        return self._choose(text, entry, given)

    def sweep(self, text: str) -> list[Choice[T]]:
        """A spec whose parameters may list values, one choice for each combination.

        'hindsight:momentum=0,0.5,0.9' are three, 'dsgc:interval=10..100/10,tol=1e-3' ten. A
        single choice keeps the text as its label.

        Raises:
            UsageError: as `parse`, or a range that is none.
        """
        name, _, rest = text.partition(":")
        lists = [[f"{key}={v}" for v in _values(value)] for key, value in _listed(rest, text)]
        if math.prod(map(len, lists)) > MOST_VALUES:
            raise UsageError(f"'{text}' spells out over {MOST_VALUES} settings", "sweep less")
        combined = [f"{name}:{','.join(pairs)}" for pairs in product(*lists)]
        return [self.parse(spec) for spec in (combined if len(combined) > 1 else [text])]

    def from_json(self, data: Mapping[str, Any]) -> Choice[T]:
        """The choice that `Choice.to_json` wrote."""
        return self._choose(data["label"], self.entry(data["name"]), dict(data["parameters"]))

    def _choose(self, label: str, entry: Entry[T], given: dict[str, Any]) -> Choice[T]:
        parameters = {n: given.get(n, p.default) for n, p in entry.parameters.items()}
        missing = [n for n, value in parameters.items() if value is inspect.Parameter.empty]
        if missing:
            raise UsageError(f"{self.noun} '{label}' lacks {missing[0]}", f"write {entry.usage}")
        try:
            value = entry.factory(**parameters)
        except ValueError as error:
            raise UsageError(f"{self.noun} '{label}': {error}", f"write {entry.usage}") from error
        return Choice(label, entry.name, parameters, value)

    def _load_outside(self) -> None:
        from importlib.metadata import entry_points  # seldom needed, and slow to import

        for point in entry_points(group=self.group):
            if point.name not in self._entries:
                self._add(point.name, point.load())

    def _remedy(self, name: str) -> str:
        near = difflib.get_close_matches(name, self._entries, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        return f"{hint}known: {', '.join(self._entries)}"


def _shown(default: Any) -> str:
    return "…" if default is inspect.Parameter.empty else f"{default:g}"


def _pairs(rest: str, text: str) -> list[tuple[str, str]]:
    """'a=1,b=2' as pairs."""
    items = [item.partition("=") for item in rest.split(",") if item.strip()]
    for key, equals, _ in items:
        if not equals:
            raise UsageError(f"'{key}' in '{text}' is no key=value", "write name:key=value,…")
    return [(key.strip(), value.strip()) for key, _, value in items]


def _listed(rest: str, text: str) -> list[tuple[str, str]]:
    """'a=1,2,b=3' as pairs ('a', '1,2') and ('b', '3')."""
    joined = re.sub(r",(?=[^=,]+(?:,|$))", ";", rest)
    return [(key, value.replace(";", ",")) for key, value in _pairs(joined, text)]


def _values(text: str) -> list[str]:
    """'0,0.5' or '10..100/10' (both ends included; /1 where no step is given) as values."""
    return [value for item in text.split(",") for value in _range(item.strip())]


def _range(text: str) -> list[str]:
    first, dots, rest = text.partition("..")
    if not dots:
        return [text]
    last, _, step = rest.partition("/")
    try:
        start, stop, pace = float(first), float(last), float(step or 1)
        count = math.floor((stop - start) / pace * (1 + 1e-9)) + 1
    except (ValueError, ZeroDivisionError, OverflowError):
        count = 0
    if not 0 < count <= MOST_VALUES:
        raise UsageError(f"'{text}' is no rising range", "write FIRST..LAST or FIRST..LAST/STEP")
    return [f"{start + i * pace:.12g}" for i in range(count)]


#: Settings that one spec may spell out.
MOST_VALUES = 10_000


def _typed(entry: Entry[Any], key: str, value: str) -> Any:
    if key not in entry.parameters:
        raise UsageError(f"{entry.name} has no parameter '{key}'", f"write {entry.usage}")
    kind = entry.parameters[key].annotation
    try:
        return kind(value)
    except ValueError:
        cause = f"{entry.name}: {key}={value} is no {_NOUN_OF[kind]}"
        raise UsageError(cause, f"write {entry.usage}") from None


_NOUN_OF = {int: "whole number", float: "number"}
