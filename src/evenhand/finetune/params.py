"""Counting trainable and total parameters on the meta device: no weights are read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from evenhand.config.schema import PhaseConfig
from evenhand.core.errors import ModelError
from evenhand.core.records import LABELS
from evenhand.finetune import adapters
from evenhand.finetune.embedded import EMBEDDED


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """Parameters that are trained, and those of the base model."""

    trainable: int
    total: int

    @property
    def percent(self) -> float:
        """Trainable parameters in percent of the base model's."""
        return 100 * self.trainable / self.total


def count_parameters(config: PhaseConfig) -> ParameterCount:
    """Count a phase's parameters from the architecture alone.

    Architectures shipped with Evenhand (gpt-oss-20b, a 7B model, the embedded ones) are known
    offline; others are read from a local folder or the hub.

    Raises:
        ConfigError: target modules that the model does not have.
        ModelError: an architecture that cannot be found.
    """
    settings = read_settings(config)
    with torch.device("meta"):
        if config.task == "sequence_classification":
            model = AutoModelForSequenceClassification.from_config(settings)
        else:
            model = AutoModelForCausalLM.from_config(settings)
        total = count(model)
        # A parent adapter has the same shape; its file is not needed to count.
        tuned = adapters.attach(model, config.model_copy(update={"init_adapter": None}))
    return ParameterCount(trainable=count(tuned, trainable_only=True), total=total)


def count(model: torch.nn.Module, *, trainable_only: bool = False) -> int:
    """Count a model's parameters, tied ones once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable_only)


def read_settings(config: PhaseConfig) -> Any:
    """Return the configuration of a phase's model, without its weights.

    Raises:
        ModelError: an architecture that cannot be found.
    """
    name = config.model_name_or_path
    known = json.loads(
        resources.files("evenhand.finetune").joinpath("architectures.json").read_text("utf-8")
    )
    extra = {"num_labels": len(LABELS)} if config.task == "sequence_classification" else {}
    if name in known:
        architecture = dict(known[name])
        return AutoConfig.for_model(architecture.pop("model_type"), **architecture, **extra)
    folder = Path(name).expanduser()
    if name not in EMBEDDED and not folder.is_dir() and "/" not in name:
        raise ModelError(f'the architecture of "{name}" is not known', hint="name a model folder")
    place = str(folder) if folder.is_dir() else name
    try:
        return AutoConfig.from_pretrained(place, cache_dir=config.cache_dir, **extra)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise ModelError(
            f'cannot read the architecture of "{name}": {first}',
            hint="without a connection to the hub, name a local model folder",
        ) from error
