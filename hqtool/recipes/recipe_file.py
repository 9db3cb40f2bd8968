"""The recipe file (schema "hqtool.recipe/1"): TOML, or JSON with the same keys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from hqtool.errors import DataError, UsageError
from hqtool.estimators.quantizer import Quantizer, parse_quantizer
from hqtool.recipes.recipe import STRAIGHT_THROUGH, Recipe, Rule, StraightThrough
from hqtool.spec_file import check_schema, load_spec_file, parse_spec
from hqtool.spec_table import SpecTable
from hqtool.vocab import TENSOR_KINDS

SCHEMA = "hqtool.recipe/1"

#: What a rule gives a tensor that stays as it is.
NONE = "none"

#: Keys of the file, and of a rule.
TOP_KEYS = ("schema", "name", "description", "source", "ste", "rule")
RULE_KEYS = ("layers", "exclude", "types", "first", "last", *TENSOR_KINDS, "ste")


def read_recipe(path: str | Path) -> Recipe:
    """The recipe in a file; where the file does not name it, it is called by the path.

    Raises:
        DataError: the file is missing or unreadable, or anything in it is not as the schema wants
            it; names the file, the rule and the key.
    """
    return load_spec_file(path, lambda top: _recipe(top, str(path)))


def parse_recipe(text: str, name: str) -> Recipe:
    """The recipe that a text says, which is called `name`.

    Raises:
        DataError: anything in it is not as the schema wants it; names the recipe, rule and key.
    """
    try:
        return _recipe(SpecTable(parse_spec(text), "the file"), name, named=True)
    except DataError as error:
        raise DataError(f"recipe '{name}': {error.cause}", error.remedy) from error


#: Keys of a recipe that is written as one table: its name, quantizers of all layers, and `ste`.
KEYS_OF_TABLE = ("name", *TENSOR_KINDS, "ste")


def recipe_of_table(table: SpecTable, name: str) -> Recipe:
    """The recipe that gives all layers the quantizers of one table, which has `KEYS_OF_TABLE`.

    Raises:
        DataError: anything in it is not a quantizer, or there is none; names the key.
    """
    kinds = [kind for kind in TENSOR_KINDS if kind in table]
    if not kinds:
        remedy = f'give one or more of {", ".join(TENSOR_KINDS)} a quantizer, or "none"'
        raise table.wrong("output", "no tensor has a quantizer", remedy)
    quantizers = {kind: _quantizer(table, kind) for kind in kinds}
    return Recipe(name=name, rules=(Rule(quantizers=quantizers),), ste=_ste(table) or "clipped")


def _recipe(top: SpecTable, name: str, named: bool = False) -> Recipe:
    """The recipe of a table; `named`: its own name does not count."""
    check_schema(top, SCHEMA, "a recipe")
    top.only(TOP_KEYS)
    own = _text(top, "name")
    return Recipe(
        name=name if named or not own else own,
        rules=_rules(top),
        description=_text(top, "description"),
        source=_text(top, "source"),
        ste=_ste(top) or "clipped",
    )


def _text(table: SpecTable, key: str) -> str:
    return table.text(key).strip() if key in table else ""


def _ste(table: SpecTable) -> StraightThrough | None:
    return STRAIGHT_THROUGH[table.choice("ste", STRAIGHT_THROUGH)] if "ste" in table else None


def _rules(top: SpecTable) -> tuple[Rule, ...]:
    tables = top.get("rule", [])
    if not isinstance(tables, list):
        raise top.wrong("rule", "is not a list of rules", "head each rule with [[rule]]")
    numbered = enumerate(tables, start=1)
    return tuple(_rule(SpecTable(table, f"rule number {number}")) for number, table in numbered)


def _rule(table: SpecTable) -> Rule:
    table.only(RULE_KEYS)
    kinds = [kind for kind in TENSOR_KINDS if kind in table]
    return Rule(
        layers=table.texts("layers", default=("*",), least=1),
        exclude=table.texts("exclude"),
        types=table.texts("types"),
        first=table.boolean("first", default=False),
        last=table.boolean("last", default=False),
        quantizers={kind: _quantizer(table, kind) for kind in kinds},
        ste=_ste(table),
    )


def _quantizer(table: SpecTable, kind: str) -> Quantizer | None:
    text = table.text(kind)
    if text.strip() == NONE:
        return None
    try:
        return parse_quantizer(text)
    except UsageError as error:
        remedy = error.remedy or "write ESTIMATOR@FORMAT[/ROUNDING]"
        raise table.wrong(kind, error.cause, remedy) from error


# --- from recipe to file ------------------------------------------------------------------------


def to_json(recipe: Recipe) -> dict[str, Any]:
    """The keys of a recipe's file; `parse_recipe` reads them back."""
    top: dict[str, Any] = {"schema": SCHEMA}
    texts = ("name", "description", "source")
    top |= {key: text for key in texts if (text := getattr(recipe, key))}
    if recipe.ste != "clipped":
        top["ste"] = recipe.ste
    return top | {"rule": [_rule_to_json(rule) for rule in recipe.rules]}


def _rule_to_json(rule: Rule) -> dict[str, Any]:
    defaults = Rule()
    plain = [f.name for f in fields(Rule) if f.name not in ("quantizers", "ste")]
    given = {key: value for key in plain if (value := getattr(rule, key)) != getattr(defaults, key)}
    row: dict[str, Any] = {"layers": rule.layers} | given
    row |= {kind: q.label if q else NONE for kind, q in rule.quantizers.items()}
    return row | ({"ste": rule.ste} if rule.ste else {})


def dumps(recipe: Recipe) -> str:
    """The recipe as TOML."""
    top = to_json(recipe)
    rules = top.pop("rule")
    parts = ["\n".join(_lines(top)), *("\n".join(["[[rule]]", *_lines(rule)]) for rule in rules)]
    return "\n\n".join(parts) + "\n"


def _lines(table: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {_toml(value)}" for key, value in table.items()]


def _toml(value: Any) -> str:
    """A boolean, a text or a list of texts as TOML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return f"[{', '.join(map(_toml, value))}]"
    lines = "\n".join(map(_escaped, value.split("\n")))
    return f'"""\n{lines}\n"""' if "\n" in value else f'"{lines}"'


def _escaped(text: str) -> str:
    """A text as it stands between the quotes of a basic string of TOML."""
    return json.dumps(text, ensure_ascii=False)[1:-1].replace("\x7f", "\\u007f")
