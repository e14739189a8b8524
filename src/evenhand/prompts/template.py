"""Prompt files: the reference's ``strategies`` format plus the strings that answer each label."""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from evenhand.core.errors import ConfigError, Problem
from evenhand.core.paths import sha256_json
from evenhand.core.records import LABELS
from evenhand.core.registry import suggest

_KEYS = ("name", "description", "system_prompt", "user_template", "labels", "parameters")
_HINT = 'a strategy needs "system_prompt" and "user_template" with {text} exactly once'


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """One strategy of a prompt file.

    Attributes:
        strategy: its name in the file.
        system_prompt: the instruction; may be empty.
        before: what the user turn says before the post.
        after: what the user turn says after the post.
        labels: the string that the model answers for each canonical label.
        parameters: sampling settings, used by ``--method generate`` alone.
        origin: the file, or ``built-in``.
    """

    strategy: str
    system_prompt: str
    before: str
    after: str
    labels: Mapping[str, str] = field(default_factory=lambda: {name: name for name in LABELS})
    parameters: Mapping[str, Any] = field(default_factory=dict)
    origin: str = "built-in"

    @property
    def sha256(self) -> str:
        """Hash of what reaches a score: instruction, user turn and label strings.

        Sampling settings are left out: strategies that differ only in them score alike.
        """
        return sha256_json([self.system_prompt, self.before, self.after, dict(self.labels)])

    def to_json(self) -> dict[str, Any]:
        """Return the template as the content of a prompt file with this one strategy."""
        user = _escape(self.before) + "{text}" + _escape(self.after)
        entry = {
            "name": self.strategy,
            "system_prompt": self.system_prompt,
            "user_template": user,
            "labels": dict(self.labels),
            "parameters": dict(self.parameters),
        }
        return {"strategies": {self.strategy: entry}}


def load_prompt(path: Path | None = None, *, strategy: str | None = None) -> PromptTemplate:
    """Read a strategy from a prompt file; without a path, the built-in short prompt.

    Without ``strategy`` the file's only or first one is taken.

    Raises:
        ConfigError: the file cannot be read, the strategy is not in it, or its template is wrong.

    >>> load_prompt().labels["hate"]
    'hate'
    """
    if path is None:
        content = resources.files("evenhand.prompts").joinpath("builtin.json").read_text("utf-8")
        origin = "built-in"
    else:
        origin = str(path)
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(origin, [Problem("file", f"cannot be read: {error}")]) from error
    try:
        document = json.loads(content)
    except ValueError as error:
        raise ConfigError(origin, [Problem("file", f"is not JSON: {error}")]) from error
    strategies = document.get("strategies") if isinstance(document, dict) else None
    if not isinstance(strategies, dict) or not strategies:
        raise ConfigError(origin, [Problem("strategies", "is missing or empty")], hint=_HINT)
    name = next(iter(strategies)) if strategy is None else strategy
    if name not in strategies:
        known = ", ".join(strategies)
        message = f'"{name}" is not in the file{suggest(name, strategies)} (it has {known})'
        raise ConfigError(origin, [Problem("strategy", message)])
    return parse_strategy(strategies[name], name=name, origin=origin)


def parse_strategy(entry: Any, *, name: str, origin: str) -> PromptTemplate:
    """Check one strategy's entry and return it as a template.

    Raises:
        ConfigError: with every problem of the entry.
    """
    place = f"strategies.{name}"
    if not isinstance(entry, dict):
        raise ConfigError(origin, [Problem(place, "must be an object")], hint=_HINT)
    problems = [
        Problem(f"{place}.{key}", f"is not a known key{suggest(key, _KEYS)}")
        for key in entry
        if key not in _KEYS
    ]
    system = entry.get("system_prompt", "")
    if not isinstance(system, str):
        problems.append(Problem(f"{place}.system_prompt", "must be a string"))
    before, after = "", ""
    try:
        before, after = _split_user_template(entry.get("user_template"))
    except ValueError as error:
        problems.append(Problem(f"{place}.user_template", str(error)))
    labels = entry.get("labels", {label: label for label in LABELS})
    problems += _label_problems(labels, place=f"{place}.labels")
    parameters = entry.get("parameters", {})
    problems += _parameter_problems(parameters, place=f"{place}.parameters")
    if problems:
        raise ConfigError(origin, problems, hint=_HINT)
    return PromptTemplate(
        strategy=name,
        system_prompt=system,
        before=before,
        after=after,
        labels=labels,
        parameters=parameters,
        origin=origin,
    )


def _split_user_template(template: Any) -> tuple[str, str]:
    if not isinstance(template, str):
        raise ValueError("is missing or not a string")
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"has unbalanced braces ({error}); write {{{{ for a brace") from None
    parts, fields = [""], []
    for literal, name, form, conversion in pieces:
        parts[-1] += literal
        if form or conversion:
            raise ValueError("has a field with ! or : in it; write {text} alone")
        if name is not None:
            fields.append(name)
            parts.append("")
    unknown = [name for name in fields if name != "text"]
    if unknown:
        raise ValueError(f"has the unknown field {{{unknown[0]}}}; only {{text}} is filled in")
    if len(fields) != 1:
        raise ValueError(f"must have {{text}} exactly once, not {len(fields)} times")
    return parts[0], parts[1]


def _label_problems(labels: Any, *, place: str) -> list[Problem]:
    if not isinstance(labels, dict):
        return [Problem(place, "must be an object")]
    problems = [
        Problem(f"{place}.{key}", f"is not a label{suggest(key, LABELS)}; use hate and normal")
        for key in labels
        if key not in LABELS
    ]
    problems += [
        Problem(f"{place}.{label}", "must be a string that is not empty")
        for label in LABELS
        if not (isinstance(labels.get(label), str) and labels[label])
    ]
    if not problems and labels[LABELS[0]] == labels[LABELS[1]]:
        problems.append(Problem(place, "both labels have the same string"))
    return problems


def _parameter_problems(parameters: Any, *, place: str) -> list[Problem]:
    if not isinstance(parameters, dict):
        return [Problem(place, "must be an object")]
    return [
        Problem(f"{place}.{key}", f"must be {what}, not {parameters[key]!r}")
        for key, (is_fit, what) in _PARAMETERS.items()
        if key in parameters and not is_fit(parameters[key])
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# The sampling settings that are used; further ones of other programs are passed over.
_PARAMETERS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "max_tokens": (
        lambda value: type(value) is int and value > 0,
        "a whole number above 0",
    ),
    "temperature": (lambda value: _is_number(value) and value >= 0, "a number, at least 0"),
    "top_p": (lambda value: _is_number(value) and 0 < value <= 1, "above 0 and at most 1"),
}


def _escape(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
