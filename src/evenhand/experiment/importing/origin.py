"""What is known of the phase behind imported results: configuration, statistics, parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from evenhand.config.load import LoadedPhase, resolved_json
from evenhand.config.schema import PhaseConfig
from evenhand.core.errors import ConfigError, ModelError, Problem
from evenhand.core.paths import sha256_file
from evenhand.experiment.importing.history import History
from evenhand.experiment.phase_facts import is_countable

_COUNTED = "counted from the architecture and the configuration"
_SHAPE = ("model_name_or_path", "task", "tuning")
"""With the keys of the adapter, what the number of parameters depends on."""


@dataclass(frozen=True)
class Origin:
    """What files tell of the phase that made the results.

    Attributes:
        config: the configuration by key, as far as files state it; None where no file tells.
        provenance: for each key the file.
        training: as in ``training.json``; None where nothing is known.
        lines: as in ``history.jsonl``.
        facts: for the manifest: ``config`` (file), ``config_sha256``, ``history`` (``folder``,
            ``files`` with their hashes), ``derived`` (for statistics that no file states, how
            they follow).
        warnings: what could not be found out.
    """

    config: Mapping[str, Any] | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    training: Mapping[str, Any] | None = None
    lines: tuple[Mapping[str, Any], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def find_origin(phase: LoadedPhase | None, past: History | None) -> Origin:
    """Bring together a phase's configuration and what its training left.

    Parameters are counted from both, without weights.

    Raises:
        ConfigError: the training's files contradict the configuration.
    """
    values, provenance = _configuration(phase, past)
    if past is None and values is None:
        return Origin()
    training = dict(past.training) if past else {}
    derived = dict(past.derived) if past else {}
    warnings = []
    if values is not None:
        counted, warning = _parameters(values)
        training |= counted
        derived |= dict.fromkeys(counted, _COUNTED)
        warnings += [warning] if warning else []
    facts = {
        "config": None if phase is None else str(phase.path.resolve()),
        "config_sha256": None if phase is None else sha256_file(phase.path),
        "history": None
        if past is None
        else {"folder": str(past.folder.resolve()), "files": dict(past.files)},
        "derived": derived,
    }
    return Origin(
        config=values,
        provenance=provenance,
        training=training or None,
        lines=past.lines if past else (),
        facts=facts,
        warnings=tuple(warnings),
    )


def _configuration(
    phase: LoadedPhase | None, past: History | None
) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """Return the keys that the file states, with what the training's files tell beyond it."""
    found = dict(past.config) if past else {}
    origins = dict(past.origins) if past else {}
    if phase is None:
        return (found or None), origins
    document = resolved_json(phase)
    # A default is ours; what the training used where its file says nothing, nobody knows.
    values = {key: document["config"][key] for key in sorted(phase.explicit)}
    problems = [
        Problem(key, f"is {values[key]!r}, but {value!r} in {origins[key]}")
        for key, value in found.items()
        if key in values and _plain(values[key]) != _plain(value)
    ]
    if problems:
        hint = "give the configuration that this training ran with, or leave --config out"
        raise ConfigError(str(phase.path), problems, hint=hint, consequence="nothing was imported")
    provenance = {key: document["provenance"][key] for key in values}
    return {**found, **values}, {**origins, **provenance}


def _parameters(values: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Count trainable and total parameters, or say why they cannot be counted."""
    from evenhand.finetune.params import count_parameters

    if not is_countable(values):
        return {}, None
    keys = [key for key in values if key in _SHAPE or key.startswith("lora_")]
    try:
        count = count_parameters(PhaseConfig.model_validate({key: values[key] for key in keys}))
    except (ConfigError, ModelError, ValidationError) as error:
        first = str(error).splitlines()[0]
        return {}, f"the parameters of {values['model_name_or_path']} were not counted: {first}"
    return {
        "trainable_parameters": count.trainable,
        "total_parameters": count.total,
        "trainable_percent": count.percent,
    }, None


def _plain(value: Any) -> Any:
    """Return a value in the form in which both files' are compared."""
    if isinstance(value, (list, tuple)):
        return sorted(value)
    if value == "loss":
        return "eval_loss"
    return value
