"""``--set path=value``: parsing, and applying to an experiment's document."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from evenhand.config.experiment_schema import PhaseEntry
from evenhand.core.errors import Problem
from evenhand.core.registry import suggest


def parse_overrides(overrides: Sequence[str]) -> tuple[dict[str, Any], list[Problem]]:
    r"""Return path -> value, and the overrides that are not of the form ``path=value``.

    The value is read as JSON where it is JSON, else as a text.

    >>> parse_overrides(["lora_r=16", "optim=sgd", "lora_target_modules=[\"q_proj\"]"])[0]
    {'lora_r': 16, 'optim': 'sgd', 'lora_target_modules': ['q_proj']}
    """
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path.strip():
            problems.append(Problem(f"--set {override}", "must be of the form path=value"))
            continue
        values[path.strip()] = _value(text.strip())
    return values, problems


def apply_overrides(
    document: dict[str, Any], values: dict[str, Any]
) -> tuple[dict[str, Any], dict[int, dict[str, Any]], list[Problem]]:
    """Return the changed document, each phase's own overrides by its index, and the problems.

    ``phases.0.lora_r``, ``phases.default.lora_r`` (by name) and ``phases.*.lora_r`` (all of them)
    set a phase's key, ``phases.0.augment.ratio`` one inside it; every other path sets a value of
    the document.
    """
    changed = json.loads(json.dumps(document))
    of_phase: dict[int, dict[str, Any]] = {}
    problems: list[Problem] = []
    for path, value in values.items():
        parts = path.split(".")
        try:
            if len(parts) > 2 and parts[0] == "phases" and parts[2] not in PhaseEntry.model_fields:
                for index in _indices(changed.get("phases"), parts[1]):
                    of_phase.setdefault(index, {})[".".join(parts[2:])] = value
            else:
                _assign(changed, parts, value)
        except LookupError as error:
            problems.append(Problem(f"--set {path}", str(error.args[0])))
    return changed, of_phase, problems


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _assign(document: dict[str, Any], parts: list[str], value: Any) -> None:
    at: Any = document
    for part in parts[:-1]:
        if isinstance(at, list):
            (index,) = _one(_indices(at, part), part)
            at = at[index]
        elif isinstance(at, dict):
            at = at.setdefault(part, {})
        if not isinstance(at, (dict, list)):
            raise LookupError(f'"{part}" holds no keys of its own')
    if isinstance(at, list):
        (index,) = _one(_indices(at, parts[-1]), parts[-1])
        at[index] = value
    else:
        at[parts[-1]] = value


def _one(indices: list[int], part: str) -> list[int]:
    if len(indices) != 1:
        raise LookupError(f'"{part}" can be used for the keys of phases only')
    return indices


def _indices(entries: Any, part: str) -> list[int]:
    """Positions in a list that a number, a name, or ``*`` stands for."""
    if not isinstance(entries, list):
        raise LookupError("the file has no such list")
    if part == "*":
        return list(range(len(entries)))
    names = [entry.get("name") if isinstance(entry, dict) else None for entry in entries]
    if part in names:
        return [names.index(part)]
    if part.isdecimal() and int(part) < len(entries):
        return [int(part)]
    known = [name for name in names if isinstance(name, str)]
    raise LookupError(
        f'"{part}" is neither the name nor the number (from 0) of an entry{suggest(part, known)}'
    )
