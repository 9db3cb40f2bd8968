"""Parameters of registered factories: values read from text by their annotations, and shown."""

from __future__ import annotations

import builtins
import inspect
import math
import types
from typing import Any, Literal, Union, get_args, get_origin

#: Types that a text is read as, if it can be, in this order; all others are tried before str.
_SIMPLE_TYPES = (int, float, bool)

_NOUNS = {int: "a whole number", float: "a number", bool: "true or false", type(None): "none"}

_BOOLS = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(
    ("false", "no", "off", "0"), False
)


def parameters_of(factory: Any) -> dict[str, inspect.Parameter]:
    """A factory's keyword parameters by name, in order.

    Raises:
        TypeError: it is not a factory, or has a parameter that has no keyword.
    """
    parameters = _signature(factory).parameters
    named = {n: p for n, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    for name, parameter in named.items():
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise TypeError(f"parameter {name} cannot be given by name")
    return named


def _signature(factory: Any) -> inspect.Signature:
    try:
        return inspect.signature(factory, eval_str=True)
    except NameError:  # an annotation that is there for type checkers alone
        return inspect.signature(factory)


def read_text(parameter: inspect.Parameter, text: str) -> Any:
    """The value that a text stands for.

    An annotation is a type that can be made of a text, a Literal, or a union of such; "none" is
    None where the union has it. Without an annotation the default's type is taken, and without a
    default the first type that the text can be read as.

    Raises:
        ValueError: the text is not such a value; the message says what it would have to be.
    """
    kinds = _types(parameter)
    for kind in kinds:
        try:
            return _read_as(kind, text)
        except (ArithmeticError, TypeError, ValueError):
            pass
    raise ValueError(f"{parameter.name}={text} should be {' or '.join(map(_noun, kinds))}")


def is_text(parameter: inspect.Parameter) -> bool:
    """Whether any text is a value of the parameter, and numbers are not expected."""
    kinds = _types(parameter)
    return str in kinds and not {int, float} & set(kinds)


def shown(value: Any) -> str:
    """A value as `read_text` takes it; '…' for one that must be given."""
    if value is inspect.Parameter.empty:
        return "…"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value or math.isnan(value) else repr(value)
    return str(value)


def to_json(value: Any) -> Any:
    """A value as JSON can hold it: as text where it is of no type of JSON's."""
    plain = value is None or isinstance(value, bool | int | str)
    return value if plain or (isinstance(value, float) and math.isfinite(value)) else shown(value)


def from_json(parameter: inspect.Parameter, value: Any) -> Any:
    """The value that `to_json` wrote."""
    if isinstance(value, str) and str not in _types(parameter):
        return read_text(parameter, value)
    return value


def _types(parameter: inspect.Parameter) -> tuple[Any, ...]:
    """What a value may be, in the order that a text is tried."""
    kinds = _members(parameter.annotation)
    if kinds in ((inspect.Parameter.empty,), (Any,)):
        kinds = _types_of_default(parameter.default)
    none = [kind for kind in kinds if kind is type(None)]
    others = [kind for kind in kinds if kind not in (type(None), *_SIMPLE_TYPES, str)]
    plain = [kind for kind in _SIMPLE_TYPES if kind in kinds]
    return (*none, *plain, *others, *(kind for kind in kinds if kind is str))


def _types_of_default(default: Any) -> tuple[Any, ...]:
    """What a value may be, going by the default alone."""
    if default is None or default is inspect.Parameter.empty:
        none = (type(None),) if default is None else ()
        return (*none, *_SIMPLE_TYPES, str)
    return (int, float) if type(default) is int else (type(default),)


def _members(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(kind for member in get_args(annotation) for kind in _members(member))
    if isinstance(annotation, str):
        return (getattr(builtins, annotation, inspect.Parameter.empty),)
    return (type(None),) if annotation is None else (annotation,)


def _read_as(kind: Any, text: str) -> Any:
    if kind is type(None):
        return _one_of({"none": None}, text.lower())
    if kind is bool:
        return _one_of(_BOOLS, text.lower())
    if get_origin(kind) is Literal:
        return _one_of({shown(value): value for value in get_args(kind)}, text)
    return kind(text)


def _one_of(values: dict[str, Any], text: str) -> Any:
    if text not in values:
        raise ValueError
    return values[text]


def _noun(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(shown, get_args(kind)))
    return _NOUNS.get(kind) or str(getattr(kind, "__name__", kind))
