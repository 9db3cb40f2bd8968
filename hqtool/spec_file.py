"""Files of tables that people write: TOML or JSON with the same keys."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hqtool.errors import DataError
from hqtool.inputs import bytes_of
from hqtool.spec_table import SpecTable

T = TypeVar("T")


def load_spec_file(path: str | Path, build: Callable[[SpecTable], T]) -> T:
    """What `build` makes of a file's table.

    The file is TOML or JSON by its suffix, or by its content where the suffix is another.

    Raises:
        DataError: the file is missing, unreadable or no table, or `build` refuses it; the file is
            named first.
    """
    path = Path(path)
    try:
        return build(SpecTable(parse_spec(_read_text(path), path.suffix), "the file"))
    except DataError as error:
        raise DataError(f"{path}: {error.cause}", error.remedy) from error


def parse_spec(text: str, suffix: str = "") -> object:
    """What a text says that is TOML or JSON: by its suffix ('.toml', '.json'), or either.

    Raises:
        DataError: it is neither.
    """
    suffixes = [suffix.lower()] if suffix.lower() in _PARSERS else list(_PARSERS)
    complaints = []
    for each in suffixes:
        try:
            return _PARSERS[each](text)
        except (ValueError, RecursionError) as error:
            complaints.append(f"not {each[1:].upper()}: {error}")
    raise DataError("; ".join(complaints), "correct the syntax, or name the file .toml or .json")


def spelled_for(path: str | Path, toml: str) -> str:
    """A table in TOML, or where the file name ends in .json in JSON, which has no comments."""
    if Path(path).suffix.lower() != ".json":
        return toml
    return json.dumps(tomllib.loads(toml), indent=1, ensure_ascii=False) + "\n"


def check_schema(top: SpecTable, schema: str, noun: str) -> None:
    """Refuse a table of another schema than 'hqtool.FAMILY/VERSION'.

    Args:
        noun: what such a file is, with its article.

    Raises:
        DataError: the schema is missing, another, or of a later version.
    """
    found = top.text("schema")
    if found == schema:
        return
    (family, _, version), (own, _, newest) = found.partition("/"), schema.partition("/")
    if family == own and version.isdecimal() and int(version) > int(newest):
        raise top.wrong("schema", f"{found!r} is newer than this hqtool reads", "upgrade hqtool")
    raise top.wrong("schema", f"{found!r} is not {noun}", f'write schema = "{schema}"')


def _read_text(path: Path) -> str:
    try:
        return bytes_of(path).decode("utf-8-sig")
    except OSError as error:
        remedy = "check the path, and that the file may be read"
        raise DataError(error.strerror or str(error), remedy) from error
    except UnicodeDecodeError as error:
        cause = f"is not UTF-8 at byte {error.start}"
        raise DataError(cause, "save the file as UTF-8") from error


def _loads_json(text: str) -> object:
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object as a dict; a key given twice, of which `dict` would keep one, is refused."""
    twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"key {twice[0]!r} is given twice")
    return dict(pairs)


_PARSERS: dict[str, Callable[[str], object]] = {".toml": tomllib.loads, ".json": _loads_json}
