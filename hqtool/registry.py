"""Name ↔ object ↔ JSON: one roster drives the command line, `hqtool list`, docs and tests."""

from __future__ import annotations

import inspect
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from hqtool.errors import HqtoolError, UsageError
from hqtool.nearest import did_you_mean
from hqtool.parameters import from_json, is_text, parameters_of, read_text, shown, to_json

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")

#: What to do about a package that adds what does not work.
REPAIR = "repair or remove that package"


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
        parameters = {name: to_json(value) for name, value in self.parameters.items()}
        return {"label": self.label, "name": self.name, "parameters": parameters}


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """A registered factory; its keyword parameters are read off its signature.

    Args:
        package: the outside package that adds it; None where it is hqtool's own.
        fixed: parameters that the name itself gives, where it is one of a family.
        members: the names that it stands for; of a family, those worth suggesting.
    """

    name: str
    factory: Callable[..., T]
    summary: str
    package: str | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    members: tuple[str, ...] = ()

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The factory's parameters by name, in order, without those that the name gives."""
        return {n: p for n, p in parameters_of(self.factory).items() if n not in self.fixed}

    @property
    def usage(self) -> str:
        """The spec a user types, with every default: `hindsight:momentum=0.9`."""
        defaults = [f"{name}={shown(p.default)}" for name, p in self.parameters.items()]
        return ":".join([self.name, ",".join(defaults)]) if defaults else self.name


@dataclass(frozen=True, slots=True)
class Family(Generic[T]):
    """Names that follow a pattern, such as int2 … int16, all made by one factory.

    Args:
        entry: how the family is listed; its name stands for all.
        pattern: of a whole name; what its groups match are the parameters of their names.
    """

    entry: Entry[T]
    pattern: re.Pattern[str]

    def member(self, name: str) -> Entry[T] | None:
        """The entry of one name; None where it does not follow the pattern."""
        found = self.pattern.fullmatch(name)
        if found is None:
            return None
        known = parameters_of(self.entry.factory)
        fixed = {key: read_text(known[key], text) for key, text in found.groupdict().items()}
        return replace(self.entry, name=name, fixed=fixed, members=(name,))


class Registry(Generic[T]):
    """Factories by name, extended by other packages through entry points.

    An entry point that does not load is skipped, with one warning of the logger "hqtool"; all
    others work.

    Args:
        noun: what is registered, for error messages.
        group: entry-point group that outside packages add factories to.
        methods: names of methods or properties that every object made by a factory must have.
    """

    def __init__(self, noun: str, group: str, methods: tuple[str, ...] = ()) -> None:
        self.noun = noun
        self.group = group
        self.methods = methods
        self._entries: dict[str, Entry[T]] = {}
        self._families: list[Family[T]] = []
        #: Package and name of an entry point → why it does not load, or None.
        self._outside: dict[tuple[str, str], str | None] = {}

    def register(self, factory: Callable[..., T]) -> Callable[..., T]:
        """Decorator: add `factory` under its own name, `_` as `-`; docstring line 1 as summary."""
        self._add(factory.__name__.replace("_", "-"), factory)
        return factory

    def family(
        self, name: str, pattern: str, members: Iterable[str]
    ) -> Callable[[Callable[..., T]], Callable[..., T]]:
        """Decorator: add a factory under every name that follows a pattern.

        Args:
            name: how lists show the family, such as 'intN'.
            pattern: regular expression; its named groups give the parameters of these names.
            members: names to suggest where a name is unknown.
        """

        def register(factory: Callable[..., T]) -> Callable[..., T]:
            given = dict.fromkeys(re.compile(pattern).groupindex)
            entry = Entry(name, factory, _summary(factory), None, given, tuple(members))
            self._families.append(Family(entry, re.compile(pattern)))
            return factory

        return register

    def _add(self, name: str, factory: Callable[..., T], package: str | None = None) -> None:
        parameters_of(factory)
        self._entries[name] = Entry(name, factory, _summary(factory), package, members=(name,))

    def __iter__(self) -> Iterator[Entry[T]]:
        """Every entry, one for each family; those of outside packages last."""
        _warn(self._load_outside())
        entries = [family.entry for family in self._families] + [*self._entries.values()]
        return iter(sorted(entries, key=lambda entry: entry.package is not None))

    def _found(self, name: str) -> Entry[T] | None:
        members = (family.member(name) for family in self._families)
        return self._entries.get(name) or next(filter(None, members), None)

    def entry(self, name: str) -> Entry[T]:
        """Raises: UsageError: no such name, here or in any installed package that loads."""
        found, failures = self._found(name), []
        if found is None:
            failures = self._load_outside(name)
            found = self._found(name)
        if found is None:
            for why in (why for (_, its), why in self._outside.items() if its == name and why):
                raise UsageError(why, REPAIR)
            _warn(self._load_outside())
            raise UsageError(f"unknown {self.noun} '{name}'", self._suggested(name))
        _warn(failures)
        return found

    def _suggested(self, name: str) -> str:
        """The nearest known name, and all; of a family its own name stands for its members."""
        entries = [family.entry for family in self._families] + [*self._entries.values()]
        names = [entry.name for entry in entries]
        members = [each for entry in entries for each in entry.members]
        near = did_you_mean(name, members) or did_you_mean(name, names)
        return f"{near}known: {', '.join(names)}"

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
            UsageError: as `parse`, or a range is malformed.
        """
        name, _, rest = text.partition(":")
        known = self.entry(name.strip()).parameters
        lists = [
            [f"{key}={v}" for v in _values(value, key not in known or not is_text(known[key]))]
            for key, value in _listed(rest, text)
        ]
        if math.prod(map(len, lists)) > MOST_VALUES:
            raise UsageError(f"'{text}' spells out over {MOST_VALUES} settings", "sweep less")
        combined = [f"{name}:{','.join(pairs)}" for pairs in product(*lists)]
        return [self.parse(spec) for spec in (combined if len(combined) > 1 else [text])]

    def from_json(self, data: Mapping[str, Any]) -> Choice[T]:
        """The choice that `Choice.to_json` wrote."""
        entry = self.entry(data["name"])
        known = entry.parameters
        given = {n: from_json(known[n], v) for n, v in data["parameters"].items() if n in known}
        return self._choose(data["label"], entry, given)

    def _choose(self, label: str, entry: Entry[T], given: dict[str, Any]) -> Choice[T]:
        parameters = {n: given.get(n, p.default) for n, p in entry.parameters.items()}
        missing = [n for n, value in parameters.items() if value is inspect.Parameter.empty]
        if missing:
            raise UsageError(f"{self.noun} '{label}' lacks {missing[0]}", f"write {entry.usage}")
        return Choice(label, entry.name, parameters, self._made(label, entry, parameters))

    def _made(self, label: str, entry: Entry[T], parameters: Mapping[str, Any]) -> T:
        """The object that a factory makes; one of an outside package may fail in any way."""
        refusals = (Exception,) if entry.package else (ValueError,)
        try:
            value = entry.factory(**entry.fixed, **parameters)
        except refusals as error:
            why, remedy = str(error) or type(error).__name__, f"write {entry.usage}"
            if isinstance(error, HqtoolError):
                why, remedy = error.cause, error.remedy or remedy
            raise UsageError(f"{self.noun} '{label}': {why}", remedy) from error
        for method in self.methods:
            if not hasattr(value, method):
                cause = f"{self.noun} '{label}' of {entry.package} gives what has no '{method}'"
                raise UsageError(cause, REPAIR)
        return value

    def _load_outside(self, name: str | None = None) -> list[str]:
        """Add what packages add, or what they add under one name; why some of it does not load."""
        from importlib.metadata import entry_points  # seldom needed, and slow to import

        failures = []
        for point in entry_points(group=self.group):
            package = point.dist.name if point.dist else "a package without name"
            if (package, point.name) not in self._outside and name in (None, point.name):
                why = self._outside[package, point.name] = self._try_to_load(point, package)
                failures += [why] if why else []
        return failures

    def _try_to_load(self, point: EntryPoint, package: str) -> str | None:
        """Add what an entry point names; if it fails, return why."""
        try:
            if taken := self._found(point.name):
                raise ValueError(f"{taken.package or 'hqtool'} has one of this name")
            self._add(point.name, point.load(), package)
        except (Exception, SystemExit) as error:
            said = (str(error) or type(error).__name__).splitlines()[0]
            return f"{self.noun} '{point.name}' of {package} does not load: {said}"
        return None


def _summary(factory: Callable[..., Any]) -> str:
    return (inspect.getdoc(factory) or "").partition("\n")[0]


def _warn(failures: Sequence[str]) -> None:
    """Log warnings: lines on stderr where the program configures no logging."""
    if not failures:
        return
    import logging  # seldom needed

    for why in failures:
        logging.getLogger("hqtool").warning("hqtool: %s", why)


def _pairs(rest: str, text: str) -> list[tuple[str, str]]:
    """'a=1,b=2' as pairs."""
    items = [item.partition("=") for item in rest.split(",") if item.strip()]
    for key, equals, _ in items:
        if not equals:
            raise UsageError(f"'{key}' in '{text}' is not key=value", "write name:key=value,…")
    pairs = [(key.strip(), value.strip()) for key, _, value in items]
    twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twice:
        raise UsageError(f"'{twice[0]}' is given twice in '{text}'", "give each parameter once")
    return pairs


def _listed(rest: str, text: str) -> list[tuple[str, str]]:
    """'a=1,2,b=3' as pairs ('a', '1,2') and ('b', '3')."""
    joined = re.sub(r",(?=[^=,]+(?:,|$))", ";", rest)
    return [(key, value.replace(";", ",")) for key, value in _pairs(joined, text)]


def _values(text: str, ranges: bool) -> list[str]:
    """'0,0.5' or '10..100/10' (both ends included; /1 where no step is given) as values."""
    items = [item.strip() for item in text.split(",")]
    return [value for item in items for value in (values_of(item) if ranges else [item])]


def values_of(text: str) -> list[str]:
    """'10..100/10' (both ends included; /1 where no step is given) as values; else the text.

    Raises:
        UsageError: a range that does not rise, or is none.
    """
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
        raise UsageError(f"'{text}' is not a rising range", "write FIRST..LAST or FIRST..LAST/STEP")
    return [f"{start + i * pace:.12g}" for i in range(count)]


#: Settings that one spec may spell out.
MOST_VALUES = 10_000


def _typed(entry: Entry[Any], key: str, value: str) -> Any:
    if key not in entry.parameters:
        raise UsageError(f"{entry.name} has no parameter '{key}'", f"write {entry.usage}")
    try:
        return read_text(entry.parameters[key], value)
    except ValueError as error:
        raise UsageError(f"{entry.name}: {error}", f"write {entry.usage}") from None
