"""From plain values to the frozen models, with every problem in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

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
from evenhand.config.renamed import advice_for
from evenhand.config.rules import Broken, broken_experiment_rules
from evenhand.config.schema import AugmentConfig, PhaseConfig
from evenhand.core.registry import suggest


class Found(NamedTuple):
    """A problem: the top-level keys it concerns, where it stands, and what to do."""

    keys: tuple[str, ...]
    place: str
    message: str


_MODEL_AT: Mapping[tuple[str, ...], type[BaseModel]] = {
    (): ExperimentConfig,
    ("phases",): PhaseEntry,
    ("sets",): SetEntry,
    ("sets", "columns"): ColumnsConfig,
    ("columns",): ColumnsConfig,
    ("prompt",): PromptConfig,
    ("selection",): SelectionConfig,
    ("phases", "stated"): StatedConfig,
    ("threshold",): ThresholdConfig,
    ("gate",): GateConfig,
    ("acceptance",): AcceptanceConfig,
}


def check_phase(values: Mapping[str, Any]) -> tuple[PhaseConfig | None, list[Found]]:
    """Return the phase, or None, and everything that is wrong with it.

    >>> config, found = check_phase({"lora_rank": 0, "bf16": True, "dtype": "float32"})
    >>> [(one.place, one.message) for one in found]  # doctest: +NORMALIZE_WHITESPACE
    [('lora_rank', 'is called lora_r here'),
     ('bf16', 'true contradicts dtype "float32"; keep one of the two')]
    """
    config, fields, rules = _validate_phase(values)
    if fields:
        wrong = {one.keys[0] for one in fields}
        rest = {key: value for key, value in values.items() if key not in wrong}
        # A rule that needs a wrong value cannot be judged; the others can.
        _, _, rules = _validate_phase(rest)
        rules = [rule for rule in rules if not wrong.intersection(rule.keys)]
    return config, [*fields, *rules]


def check_experiment(
    document: Mapping[str, Any],
) -> tuple[ExperimentConfig | None, list[Found]]:
    """Return the experiment, or None, and everything that is wrong with it but its phases' keys."""
    rules = [
        Found((rule.keys[0],), rule.keys[0], rule.message)
        for rule in broken_experiment_rules(document)
    ]
    try:
        return ExperimentConfig.model_validate(dict(document)), rules
    except ValidationError as error:
        fields = [
            found_problem(details, _experiment_keys(details))
            for details in error.errors()
            if details["type"] != "rules" and not is_echo(details)
        ]
        return None, [*fields, *rules]


def _validate_phase(
    values: Mapping[str, Any],
) -> tuple[PhaseConfig | None, list[Found], list[Found]]:
    try:
        return PhaseConfig.model_validate(dict(values)), [], []
    except ValidationError as error:
        fields: list[Found] = []
        rules: list[Found] = []
        for details in error.errors():
            if details["type"] == "rules":
                broken = details.get("ctx", {})["broken"]
                rules.extend(_found_rule(rule, details["loc"]) for rule in broken)
            elif not is_echo(details):
                is_inside = details["loc"][:1] == ("augment",) and len(details["loc"]) > 1
                fields.append(found_problem(details, AugmentConfig if is_inside else PhaseConfig))
        return None, fields, rules


def _found_rule(rule: Broken, loc: tuple[int | str, ...]) -> Found:
    """Return a broken rule of a phase, or of the object in it that ``loc`` names."""
    keys = (str(loc[0]),) if loc else rule.keys
    return Found(keys, place_of((*loc, rule.keys[0])), rule.message)


def is_echo(details: ErrorDetails) -> bool:
    """Tell whether a list is called too short because its entries are wrong, which is said too."""
    return details["type"] == "too_short" and bool(details["input"])


def _experiment_keys(details: ErrorDetails) -> type[BaseModel]:
    names = tuple(str(part) for part in details["loc"][:-1] if isinstance(part, str))
    return _MODEL_AT.get(names, ExperimentConfig)


def found_problem(details: ErrorDetails, model: type[BaseModel]) -> Found:
    """Return what pydantic found in a document of ``model``, in words."""
    place = place_of(details["loc"])
    if details["type"] == "extra_forbidden":
        message = _unknown_key(str(details["loc"][-1]), model)
    else:
        message = _in_words(details)
    return Found((str(details["loc"][0]) if details["loc"] else place,), place, message)


def place_of(parts: tuple[int | str, ...]) -> str:
    """Return a JSON path as people write it.

    >>> place_of(("phases", 1, "lora_r"))
    'phases[1].lora_r'
    """
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.removeprefix(".")


def _unknown_key(key: str, model: type[BaseModel]) -> str:
    if model is not PhaseConfig and key in PhaseConfig.model_fields:
        where = "overrides" if model is PhaseEntry else "defaults, or in a phase's overrides"
        return f"is a phase's key; put it in {where}"
    advice = advice_for(key) if model is PhaseConfig else None
    return advice or f"is not a key that is known here{suggest(key, model.model_fields)}"


def _in_words(details: ErrorDetails) -> str:
    kind, context, given = details["type"], details.get("ctx", {}), details["input"]
    match kind:
        case "missing":
            return "is missing"
        case "literal_error":
            return _not_one_of(given, str(context["expected"]))
        case "greater_than_equal":
            return f"must be at least {context['ge']:g}, not {_shown(given)}"
        case "greater_than":
            return f"must be more than {context['gt']:g}, not {_shown(given)}"
        case "less_than_equal":
            return f"must be at most {context['le']:g}, not {_shown(given)}"
        case "less_than":
            return f"must be less than {context['lt']:g}, not {_shown(given)}"
        case "string_pattern_mismatch":
            return f"{_shown(given)} must be letters, digits, _ and -, a letter or digit first"
        case "string_too_short":
            return "must not be empty"
        case "too_short":
            return "must have at least one entry"
        case "evenhand":
            return str(context["message"])
    wanted = _WANTED.get(kind)
    return f"must be {wanted}, not {_shown(given)}" if wanted else details["msg"]


_WANTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a text in quotes",
    "tuple_type": "a list, [ ... ]",
    "dict_type": "an object, { ... }",
    "model_type": "an object, { ... }",
    "model_attributes_type": "an object, { ... }",
}


def _not_one_of(given: Any, expected: str) -> str:
    # pydantic writes: 'a', 'b' or 'c'
    words = expected.replace("'", '"')
    nearest = suggest(given, expected.split("'")[1::2]) if isinstance(given, str) else ""
    return f"must be {words}, not {_shown(given)}{nearest}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else text[:37] + "..."
