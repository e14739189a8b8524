"""The fields of the configuration in words, as a Markdown page, and as JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from evenhand.config.experiment_schema import (
    AcceptanceConfig,
    ColumnsConfig,
    ExperimentConfig,
    GateConfig,
    PhaseEntry,
    PromptConfig,
    SelectionConfig,
    SetEntry,
    StatedConfig,
    ThresholdConfig,
)
from evenhand.config.production_schema import (
    AlarmConfig,
    ProductionConfig,
    ReviewConfig,
    ServeConfig,
    WatchConfig,
)
from evenhand.config.schema import AugmentConfig, PhaseConfig
from evenhand.core.errors import ConfigError, Problem
from evenhand.core.registry import suggest

_PHASE_TITLE = "A phase's keys: in its file, or in an experiment's config, overrides or defaults"
_SECTIONS: Mapping[str, tuple[tuple[str, type[BaseModel]], ...]] = {
    "experiment": (("An experiment's file", ExperimentConfig),),
    "phases": (("Each entry of phases", PhaseEntry), (_PHASE_TITLE, PhaseConfig)),
    "augment": (("augment, of a phase", AugmentConfig),),
    "sets": (("Each entry of sets", SetEntry),),
    "columns": (("columns, of the experiment or of one set", ColumnsConfig),),
    "prompt": (("prompt", PromptConfig),),
    "selection": (("selection", SelectionConfig),),
    "stated": (("stated, of a phase's entry", StatedConfig),),
    "threshold": (("threshold", ThresholdConfig),),
    "gate": (("gate", GateConfig),),
    "acceptance": (("acceptance", AcceptanceConfig),),
    "production": (
        ("The settings file of `evenhand serve`", ProductionConfig),
        ("serve, of the settings", ServeConfig),
        ("watch, of the settings", WatchConfig),
        ("watch.alarms, of the settings", AlarmConfig),
        ("review, of the settings", ReviewConfig),
    ),
}
_PARTS: Mapping[str, type[BaseModel]] = {
    "serve": ServeConfig,
    "watch": WatchConfig,
    "alarms": AlarmConfig,
    "review": ReviewConfig,
}
"""The settings' sections, which ``evenhand explain watch.alarms`` names without "production"."""

_ALL = tuple(part for parts in _SECTIONS.values() for part in parts)
_ALIASES = {"phase": "phases", "defaults": "phases", "config": "phases", "overrides": "phases"}


@dataclass(frozen=True, slots=True)
class FieldDoc:
    """One field: its name, what it takes, its default as JSON (None: required), its meaning."""

    name: str
    takes: str
    default: str | None
    description: str


def explain(path: str | None = None) -> str:
    """Return the documentation of everything (None), of a section, or of one field.

    >>> print(explain("phases.lora_r"))
    lora_r   whole number (at least 1); default 8
        Rank of the adapter.

    Raises:
        ConfigError: there is no such section or field.
    """
    found = _ALL if path is None else find(path)
    if isinstance(found, FieldDoc):
        return _entry(found)
    blocks = [f"{title}\n\n" + "\n".join(map(_entry, field_docs(model))) for title, model in found]
    return "\n\n".join(blocks)


def documented(path: str | None = None) -> tuple[FieldDoc, ...]:
    """Return the fields that :func:`explain` prints, as records.

    Raises:
        ConfigError: there is no such section or field.
    """
    found = _ALL if path is None else find(path)
    if isinstance(found, FieldDoc):
        return (found,)
    return tuple(doc for _, model in found for doc in field_docs(model))


def find(path: str) -> FieldDoc | tuple[tuple[str, type[BaseModel]], ...]:
    """Return the section or the field that a path such as ``phases[1].lora_r`` names.

    Raises:
        ConfigError: there is no such section or field.
    """
    words = path.replace("[", ".").replace("]", "").split(".")
    names = [word for word in words if word and not word.isdecimal() and word != "*"]
    section = _ALIASES.get(names[0], names[0]) if names else ""
    if names and names[-1] in _PARTS:
        model = _PARTS[names[-1]]
        return tuple(part for part in _SECTIONS["production"] if part[1] is model)
    if section in _SECTIONS and len(names) == 1:
        return _SECTIONS[section]
    if section in _SECTIONS:
        models = [model for _, model in _SECTIONS[section]]
        if section == "sets" and names[1] == "columns" and len(names) == 3:
            models = [ColumnsConfig]
    elif section in _PARTS:
        models = [_PARTS[name] for name in names[:-1] if name in _PARTS]
    else:
        models = [ExperimentConfig, PhaseConfig, *_PARTS.values()]
    known = {doc.name: doc for model in reversed(models) for doc in field_docs(model)}
    if names and names[-1] in known:
        return known[names[-1]]
    asked = names[-1] if names else path
    inside = {
        f"{section}.{asked}": doc
        for section, parts in _SECTIONS.items()
        for _, model in parts
        for doc in field_docs(model)
        if doc.name == asked and len(names) == 1
    }
    if len(inside) == 1:
        return next(iter(inside.values()))
    nearest = suggest(asked, [*known, *_SECTIONS])
    message = f"there is no such field or section{nearest}"
    if inside:
        message = f"is in several sections; ask for {' or '.join(inside)}"
    raise ConfigError(
        "the question",
        [Problem(path, message)],
        hint="`evenhand explain` lists every field",
        consequence="nothing to explain",
    )


def field_docs(model: type[BaseModel]) -> tuple[FieldDoc, ...]:
    """Return the documentation of a model's fields, in order."""
    schema = model.model_json_schema()
    required = schema.get("required", ())
    return tuple(
        FieldDoc(
            name,
            _takes(model, name, part),
            None if name in required else _default(model, name),
            str(model.model_fields[name].description),
        )
        for name, part in schema["properties"].items()
    )


def json_schema(document: Literal["phase", "experiment", "production"]) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a phase's, an experiment's or the settings' file."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    if document == "production":
        return {**head, **ProductionConfig.model_json_schema()}
    if document == "phase":
        return {**head, **PhaseConfig.model_json_schema()}
    _, definitions = models_json_schema(
        [(ExperimentConfig, "validation"), (PhaseConfig, "validation")]
    )
    models = definitions["$defs"]
    experiment = models.pop("ExperimentConfig")
    keys = {"$ref": "#/$defs/PhaseConfig"}
    entry = models["PhaseEntry"]["properties"]
    for holder, name in ((experiment["properties"], "defaults"), (entry, "overrides")):
        holder[name] = {**keys, "description": holder[name]["description"]}
    entry["config"] = {
        "anyOf": [{"type": "string"}, keys],
        "description": entry["config"]["description"],
    }
    return {**head, **experiment, "$defs": models}


def reference_page() -> str:
    """Return the Markdown page of all fields; the documentation holds its output."""
    lines = [
        "# Configuration fields",
        "",
        "Generated from the schema; `evenhand explain` prints the same. How the files work"
        " together is in [Configuration](../configuration.md).",
    ]
    for title, model in _ALL:
        lines += [
            "",
            f"## {title}",
            "",
            "| field | takes | default | meaning |",
            "|---|---|---|---|",
        ]
        for doc in field_docs(model):
            default = "*required*" if doc.default is None else f"`{doc.default}`"
            takes = doc.takes.replace("|", "\\|")
            lines.append(f"| `{doc.name}` | {takes} | {default} | {doc.description} |")
    return "\n".join(lines) + "\n"


def _entry(doc: FieldDoc) -> str:
    default = "required" if doc.default is None else f"default {doc.default}"
    return f"{doc.name}   {doc.takes}; {default}\n    {doc.description}"


def _default(model: type[BaseModel], name: str) -> str:
    default = model.model_fields[name].get_default(call_default_factory=True)
    plain = default.model_dump(exclude_none=True) if isinstance(default, BaseModel) else default
    return json.dumps(plain)


def _takes(model: type[BaseModel], name: str, part: Mapping[str, Any]) -> str:
    """What a field takes, in words; two fields hold a phase's keys, which no schema type says."""
    if (model, name) in ((PhaseEntry, "config"), (PhaseEntry, "overrides")):
        return "file name, or object with a phase's keys" if name == "config" else "a phase's keys"
    if (model, name) == (ExperimentConfig, "defaults"):
        return "a phase's keys"
    return _in_words(part)


def _in_words(part: Mapping[str, Any]) -> str:
    if "anyOf" in part:
        return " or ".join(_in_words(option) for option in part["anyOf"])
    if "$ref" in part:
        return "object"
    if "enum" in part:
        *first, last = (json.dumps(value) for value in part["enum"])
        return f"{', '.join(first)} or {last}" if first else last
    if "const" in part:
        return json.dumps(part["const"])
    kind = str(part.get("type"))
    if kind == "array":
        return f"list of {_in_words(part['items'])}"
    if kind == "object":
        values = part.get("additionalProperties")
        return f"object: word to {_in_words(values)}" if isinstance(values, dict) else "object"
    limits = [f"{words} {part[key]:.10g}" for key, words in _LIMITS.items() if key in part]
    return f"{_KINDS[kind]} ({', '.join(limits)})" if limits else _KINDS[kind]


_KINDS = {
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "string": "text",
    "null": "null",
}
_LIMITS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}


if __name__ == "__main__":
    print(reference_page(), end="")
