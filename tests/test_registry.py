"""Registered factories: parameters of every kind, and entry points that are broken."""

from __future__ import annotations

import inspect
import json
import logging
import math
from importlib.metadata import EntryPoint
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Optional

import pytest

from hqtool.errors import UsageError
from hqtool.parameters import parameters_of, shown
from hqtool.registry import Registry

if TYPE_CHECKING:
    from elsewhere import Widget


SOMEWHERE = PurePosixPath("a")


class Made(NamedTuple):
    """What the factories below give: their parameters."""

    parameters: dict[str, Any]


REGISTRY: Registry[Made] = Registry("thing", group="hqtool.tests")


@REGISTRY.register
def typed(
    count: int = 1_000_000,
    share: float = 0.1234567891,
    name: str = "plain",
    on: bool = True,
    limit: float | None = None,
    old: Optional[int] = 3,  # noqa: UP045
    kind: Literal["min", "max"] = "max",
    mixed: int | str = "auto",
    place: PurePosixPath = SOMEWHERE,
) -> Made:
    """every kind that an annotation can name"""
    return Made(locals())


@REGISTRY.register
def bare(count=3, share=0.5, on=False, name="x", any_=None, widget: Widget = 2.5, **more):  # type: ignore[no-untyped-def]
    """no annotations"""
    return Made({"count": count, "share": share, "on": on, "name": name, "any_": any_})


@REGISTRY.register
def demanding(lo: float, mode: str) -> Made:
    """no defaults"""
    return Made(locals())


@pytest.mark.parametrize(
    ("spec", "name", "value"),
    [
        ("typed:count=12", "count", 12),
        ("typed:share=1e-3", "share", 1e-3),
        ("typed:share=inf", "share", math.inf),
        ("typed:name=0.5", "name", "0.5"),
        ("typed:name=", "name", ""),
        ("typed:on=false", "on", False),
        ("typed:on=No", "on", False),
        ("typed:on=0", "on", False),
        ("typed:on=true", "on", True),
        ("typed:limit=none", "limit", None),
        ("typed:limit=2", "limit", 2.0),
        ("typed:old=None", "old", None),
        ("typed:old=4", "old", 4),
        ("typed:kind=min", "kind", "min"),
        ("typed:mixed=7", "mixed", 7),
        ("typed:mixed=wide", "mixed", "wide"),
        ("typed:place=x/y", "place", PurePosixPath("x/y")),
        ("bare:count=2.5", "count", 2.5),
        ("bare:count=2", "count", 2),
        ("bare:on=false", "on", False),
        ("bare:name=3", "name", "3"),
        ("bare:any_=3", "any_", 3),
        ("bare:any_=none", "any_", None),
        ("bare:any_=false", "any_", False),
        ("bare:any_=word", "any_", "word"),
        ("demanding:lo=1,mode=a", "mode", "a"),
    ],
)
def test_a_parameter_is_read_as_what_it_is(spec: str, name: str, value: Any) -> None:
    choice = REGISTRY.parse(spec)
    found = choice.parameters[name]
    assert (found, type(found)) == (value, type(value))
    assert choice.value.parameters[name] == value
    written = json.dumps(choice.to_json(), allow_nan=False)
    assert REGISTRY.from_json(json.loads(written)) == choice


def test_defaults_are_shown_as_they_are_read() -> None:
    usage = REGISTRY.entry("typed").usage
    assert usage == (
        "typed:count=1000000,share=0.1234567891,name=plain,on=true,limit=none,old=3,kind=max,"
        "mixed=auto,place=a"
    )
    for name in ("typed", "bare"):
        entry = REGISTRY.entry(name)
        assert REGISTRY.parse(entry.usage).parameters == REGISTRY.parse(name).parameters
    assert REGISTRY.entry("demanding").usage == "demanding:lo=…,mode=…"
    assert [shown(x) for x in (1e-3, 3.0, math.inf, False)] == ["0.001", "3", "inf", "false"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("typed:count=2.5", "count=2.5 should be a whole number"),
        ("typed:share=much", "share=much should be a number"),
        ("typed:on=maybe", "on=maybe should be true or false"),
        ("typed:limit=much", "limit=much should be none or a number"),
        ("typed:kind=mean", "kind=mean should be min or max"),
        ("bare:count=x", "count=x should be a whole number or a number"),
        ("demanding:lo=1", "lacks mode"),
        ("typed:count=1,count=2", "'count' is given twice"),
        ("bare:more=1", "no parameter 'more'"),
    ],
)
def test_what_is_wrong_names_the_parameter(spec: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        REGISTRY.parse(spec)


def test_a_text_is_no_range() -> None:
    assert [c.parameters["name"] for c in REGISTRY.sweep("typed:name=1..3,b")] == ["1..3", "b"]
    assert [c.parameters["old"] for c in REGISTRY.sweep("typed:old=1..3")] == [1, 2, 3]
    assert [c.parameters["limit"] for c in REGISTRY.sweep("typed:limit=none,2")] == [None, 2.0]


def test_a_factory_takes_its_parameters_by_name() -> None:
    def positional(x: float, /) -> Made:
        return Made({"x": x})

    with pytest.raises(TypeError, match="x cannot be given by name"):
        parameters_of(positional)
    assert list(parameters_of(bare)) == ["count", "share", "on", "name", "any_", "widget"]
    assert parameters_of(demanding)["lo"].default is inspect.Parameter.empty


# --- entry points -------------------------------------------------------------------------------

PLUGINS = """
import sys
number = 5

def good(k: float = 2.0):
    "works"
    return Thing()

def useless():
    return None

def failing(k: float = 1.0):
    return {}[k]

def refusing(k: float = 1.0):
    from hqtool.errors import UsageError
    raise UsageError("k is too small", "take 2")

def leaving():
    sys.exit(3)

class Thing:
    def act(self): ...
"""


@pytest.fixture
def outside(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Registry[Any]:
    """A registry, and packages that add to it, some of them broken."""
    (tmp_path / "plugins_of_a_test.py").write_text(PLUGINS)
    (tmp_path / "plugin_that_leaves.py").write_text("raise SystemExit(3)")
    (tmp_path / "plugin_that_raises.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    places = {
        "raising": "plugin_that_raises:x",
        "leaving": "plugin_that_leaves:x",
        "missing": "no_such_module_anywhere:x",
        "nowhere": "plugins_of_a_test:gone",
        "number": "plugins_of_a_test:number",
        "own": "plugins_of_a_test:good",
        "useless": "plugins_of_a_test:useless",
        "failing": "plugins_of_a_test:failing",
        "refusing": "plugins_of_a_test:refusing",
        "good": "plugins_of_a_test:good",
    }
    points = [EntryPoint(name, place, "hqtool.tests") for name, place in places.items()]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)
    registry: Registry[Any] = Registry("thing", group="hqtool.tests", methods=("act",))

    @registry.register
    def own() -> Any:
        """hqtool's own"""
        raise ValueError("no")

    return registry


def test_broken_entry_points_are_told_once_and_the_rest_works(
    outside: Registry[Any], caplog: pytest.LogCaptureFixture
) -> None:
    broken = ["raising", "leaving", "missing", "nowhere", "number", "own"]
    with caplog.at_level(logging.WARNING, "hqtool"):
        for _ in range(2):
            assert [entry.name for entry in outside] == [
                "own", "useless", "failing", "refusing", "good"
            ]  # fmt: skip
    told = [record.getMessage() for record in caplog.records]
    assert [line.split("'")[1] for line in told] == broken
    assert "division by zero" in told[0]
    assert "No module named 'no_such_module_anywhere'" in told[2]
    assert all(line.startswith("hqtool: thing '") and "\n" not in line for line in told)
    assert outside.parse("good:k=3").parameters == {"k": 3.0}
    assert outside.entry("own").summary == "hqtool's own"
    with pytest.raises(UsageError, match="unknown thing 'gould'"):
        outside.parse("gould")


def test_a_broken_entry_point_by_name(outside: Registry[Any]) -> None:
    with pytest.raises(UsageError, match=r"'raising' of .* does not load: division by zero"):
        outside.parse("raising")
    with pytest.raises(UsageError, match="gives what has no 'act'"):
        outside.parse("useless")
    with pytest.raises(UsageError, match=r"'failing': 1\.0"):
        outside.parse("failing")
    with pytest.raises(UsageError) as caught:
        outside.parse("refusing")
    assert caught.value.cause == "thing 'refusing': k is too small"
    assert caught.value.remedy == "take 2"


def test_of_two_packages_with_one_name_the_second_is_told(
    outside: Registry[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    points: list[Any] = [
        EntryPoint("good", "plugins_of_a_test:good", "hqtool.tests")._for(  # type: ignore[attr-defined]
            SimpleNamespace(name=package)
        )
        for package in ("first", "second", "second")
    ]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)
    assert outside.entry("good").package == "first"
    assert [each.name for each in outside] == ["own", "good"]
    (told,) = [record.getMessage() for record in caplog.records]
    assert told == "hqtool: thing 'good' of second does not load: first has one of this name"


FAMILY: Registry[Made] = Registry("thing", group="hqtool.tests")


@FAMILY.family("wN", r"w(?P<width>\d+)(?P<mark>[a-z]?)", ["w4", "w8"])
def wide(width: int, mark: str, depth: float = 0.5) -> Made:
    """things of any width"""
    if width > 9:
        raise ValueError("too wide")
    return Made(locals())


def test_a_name_of_a_family_gives_the_parameters_it_names() -> None:
    choice = FAMILY.parse("w7x:depth=2")
    assert choice.value.parameters == {"width": 7, "mark": "x", "depth": 2.0}
    assert (choice.name, choice.parameters) == ("w7x", {"depth": 2.0})
    assert FAMILY.from_json(json.loads(json.dumps(choice.to_json()))) == choice


def test_a_family_is_listed_once_and_suggests_its_members() -> None:
    assert [(entry.name, entry.usage) for entry in FAMILY] == [("wN", "wN:depth=0.5")]
    with pytest.raises(UsageError, match=r"did you mean 'w4'.*known: wN"):
        FAMILY.parse("W4")
    with pytest.raises(UsageError, match=r"'w10': too wide\nwrite w10:depth=0.5"):
        FAMILY.parse("w10")
    with pytest.raises(UsageError, match="no parameter 'width'"):
        FAMILY.parse("w4:width=3")
