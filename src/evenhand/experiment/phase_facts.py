"""One training as an audit looks at it: planned or recorded schedule, counted parameters."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from typing import Any

from evenhand.config.experiment_schema import StatedConfig
from evenhand.config.schema import PhaseConfig
from evenhand.core.errors import ConfigError, ModelError
from evenhand.core.records import Dataset
from evenhand.decide.audit.inputs import AuditPhase
from evenhand.decide.audit.schedule import Schedule, plan_schedule
from evenhand.prompts.template import PromptTemplate

COUNTED = ("trainable_parameters", "total_parameters")
"""Figures of a phase that its configuration gives."""

_PLANNED_FROM = frozenset(
    ("num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps",
     "warmup_steps")
)  # fmt: skip
"""Keys without which no schedule can be said to be a configuration's."""


@dataclass(frozen=True)
class PhaseFacts:
    """What is known of one training.

    Attributes:
        config: None where it is not known.
        stated_keys: the keys of ``config`` that its author stated; None: all. The others are our
            defaults, of which a training elsewhere knows nothing.
        train: its training file's rows, of which the number counts; ``train_name`` is that set's
            name.
        n_train: rows trained on, where that is no mere draw of the file's; None: it is.
        stated: figures that somebody claims of it.
        training: the statistics of the training; None where it has not been done.
        processes: training processes, unless they are stated.
        trains_on_file: whether chats are trained on as they stand; None: as the objective says.
    """

    name: str
    config: PhaseConfig | None
    stated_keys: frozenset[str] | None = None
    parent: str | None = None
    train: Dataset | None = None
    train_name: str | None = None
    n_train: int | None = None
    prompt: PromptTemplate | None = None
    stated: StatedConfig | Mapping[str, float] | None = None
    training: Mapping[str, Any] | None = None
    processes: int = 1
    trains_on_file: bool | None = None


def audit_phase(facts: PhaseFacts) -> AuditPhase:
    """Return the phase as the checks see it, with its schedule and its parameters counted."""
    config, training = facts.config, facts.training
    values = _values(facts)
    stated = (
        facts.stated.model_dump(exclude_none=True)
        if isinstance(facts.stated, StatedConfig)
        else dict(facts.stated or {})
    )
    processes = stated.pop("processes", facts.processes)
    prompted = config is None or config.task == "causal_lm"
    verbatim = facts.trains_on_file
    if verbatim is None and config is not None:
        verbatim = config.objective == "full_sequence"
    return AuditPhase(
        name=facts.name,
        config=None if config is None else values,
        parent=facts.parent,
        train=facts.train_name,
        prompt=facts.prompt if prompted else None,
        verbatim=verbatim,
        schedule=_schedule(facts, values, processes=int(processes)),
        count=_counter(config) if config is not None and is_countable(values) else dict,
        stated=stated,
        training=training,
        embedding_parameters=0 if config is None else _embedding_parameters(config),
    )


def is_countable(values: Mapping[str, Any]) -> bool:
    """Tell whether stated keys are enough to count a phase's parameters.

    >>> is_countable({"model_name_or_path": "openai/gpt-oss-20b", "learning_rate": 1e-4})
    False
    """
    if "model_name_or_path" not in values:
        return False
    targets = {"lora_target_modules", "lora_target_parameters"}
    return values.get("tuning", "lora") != "lora" or (
        "lora_r" in values and not targets.isdisjoint(values)
    )


def _values(facts: PhaseFacts) -> dict[str, Any]:
    """Return the configuration by key, as far as it was stated."""
    if facts.config is None:
        return {}
    values = facts.config.model_dump(mode="json")
    known = facts.stated_keys
    return {key: value for key, value in values.items() if known is None or key in known}


def _schedule(facts: PhaseFacts, values: Mapping[str, Any], *, processes: int) -> Schedule | None:
    """Return the schedule that the statistics record, else the planned one, else None."""
    config, train, done = facts.config, facts.train, facts.training or {}
    if done.get("total_steps") and done.get("warmup_steps") is not None:
        return Schedule(
            done["total_steps"],
            int(done["warmup_steps"]),
            done.get("effective_batch_size"),
            done.get("processes"),
        )
    if config is None or config.tuning == "none" or not values.keys() >= _PLANNED_FROM:
        return None
    if train is None or not len(train):
        return None
    drawn = min(len(train), config.max_train_rows or len(train))
    return plan_schedule(
        rows=drawn if facts.n_train is None else facts.n_train,
        epochs=config.num_train_epochs,
        batch=config.per_device_train_batch_size,
        accumulation=config.gradient_accumulation_steps,
        warmup=config.warmup_steps,
        processes=processes,
    )


def _counter(config: PhaseConfig) -> Callable[[], dict[str, int]]:
    """Return what counts a phase's parameters, once for all its seeds."""
    return partial(_count, config.model_copy(update={"seed": 0}).model_dump_json())


@cache
def _count(dumped: str) -> dict[str, int]:
    # Imported here: counting builds the model with torch, which takes seconds to load.
    from evenhand.finetune.params import count_parameters

    try:
        found = count_parameters(PhaseConfig.model_validate_json(dumped))
    except (ConfigError, ModelError):  # an architecture that cannot be had here
        return {}
    return {"trainable_parameters": found.trainable, "total_parameters": found.total}


def _embedding_parameters(config: PhaseConfig) -> int:
    """Return the parameters of the token embedding of an architecture that is shipped, else 0."""
    text = resources.files("evenhand.finetune").joinpath("architectures.json").read_text("utf-8")
    known = json.loads(text).get(config.model_name_or_path)
    return 0 if known is None else known["vocab_size"] * known["hidden_size"]
