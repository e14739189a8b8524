"""JSON as written by hand, read strictly: a key given twice and NaN are mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from evenhand.core.errors import Problem


class _Object(dict[str, Any]):
    repeated: tuple[str, ...] = ()


def read_object(path: Path) -> tuple[dict[str, Any] | None, list[Problem]]:
    """Read a JSON file that must hold one object; return it, or None, and every problem."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        return None, [Problem(f"byte {error.start}", "is not UTF-8 text")]
    except OSError as error:
        return None, [Problem("file", f"cannot be read: {error.strerror or error}")]
    return parse_object(text)


def parse_object(text: str) -> tuple[dict[str, Any] | None, list[Problem]]:
    """Parse a JSON text that must hold one object; return it, or None, and every problem.

    >>> parse_object('{"a": 1, "a": 2}')[1]
    [Problem(place='a', message='is given twice')]
    """
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        return None, [Problem(place, f"is not JSON: {error.msg}")]
    except (ValueError, RecursionError) as error:
        return None, [Problem("file", f"is not JSON: {error}")]
    if not isinstance(value, dict):
        return None, [Problem("file", "must hold a JSON object, { ... }")]
    repeated: list[Problem] = []
    plain = _plain(value, "", repeated)
    return plain, repeated


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    value = _Object(pairs)
    keys = [key for key, _ in pairs]
    value.repeated = tuple(sorted({key for key in keys if keys.count(key) > 1}))
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _plain(value: Any, place: str, repeated: list[Problem]) -> Any:
    if isinstance(value, _Object):
        prefix = f"{place}." if place else ""
        repeated.extend(Problem(prefix + key, "is given twice") for key in value.repeated)
        return {key: _plain(item, prefix + key, repeated) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, f"{place}[{i}]", repeated) for i, item in enumerate(value)]
    return value
