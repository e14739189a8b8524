"""A phase's model as an architecture: sizes, parameters, adapters; no weights are read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from evenhand.config.schema import PhaseConfig
from evenhand.core.errors import ModelError
from evenhand.finetune import adapters
from evenhand.finetune.embedded import EMBEDDED, find_source
from evenhand.finetune.folders import locate
from evenhand.finetune.params import count, read_settings

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


@dataclass(frozen=True, slots=True)
class Architecture:
    """The sizes of a model that decide what a step of training takes.

    Attributes:
        settings: transformers' configuration.
        total: parameters of the base model, tied ones once.
        trainable: parameters that the phase trains.
        experts_per_token: experts that a token goes through; 0 where there are none.
        adapted: for each layer that gets an adapter, the width of its input.
        rank: rank of the adapter; 0 without one.
    """

    settings: Any
    total: int
    trainable: int
    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    head_width: int
    vocabulary: int
    experts_per_token: int
    adapted: tuple[int, ...]
    rank: int

    @property
    def has_sinks(self) -> bool:
        """Whether its attention has sinks, for which there is no ready fused kernel."""
        return self.settings.model_type == "gpt_oss"


def read_architecture(config: PhaseConfig) -> Architecture:
    """Return a phase's architecture, built on the meta device with what the phase trains.

    Raises:
        ConfigError: target modules that the model does not have.
        ModelError: an architecture that cannot be found.
    """
    settings = read_settings(config)
    family = AutoModelForCausalLM
    if config.task == "sequence_classification":
        family = AutoModelForSequenceClassification
    with torch.device("meta"):
        model = family.from_config(settings)
        total = count(model)
        tuned = adapters.attach(model, config.model_copy(update={"init_adapter": None}))
    heads = settings.num_attention_heads
    return Architecture(
        settings=settings,
        total=total,
        trainable=count(tuned, trainable_only=True),
        layers=settings.num_hidden_layers,
        hidden=settings.hidden_size,
        intermediate=getattr(settings, "intermediate_size", None) or 4 * settings.hidden_size,
        heads=heads,
        key_value_heads=getattr(settings, "num_key_value_heads", None) or heads,
        head_width=getattr(settings, "head_dim", None) or settings.hidden_size // heads,
        vocabulary=settings.vocab_size,
        experts_per_token=getattr(settings, "num_experts_per_tok", None) or 0,
        adapted=tuple(_adapted_widths(tuned.named_parameters())),
        rank=config.lora_r if config.uses_adapter else 0,
    )


def _adapted_widths(parameters: Iterable[tuple[str, Any]]) -> Iterable[int]:
    return (one.shape[1] for name, one in parameters if ".lora_A." in name and one.dim() == 2)


def missing_weights(config: PhaseConfig) -> str | None:
    """Return why a phase's base weights cannot be loaded without a download; None if they can."""
    name = config.model_name_or_path
    if name in EMBEDDED:
        if find_source(EMBEDDED[name]) is not None:
            return None
        return f'"{name}" is not on this machine (run `evenhand models fetch {name}`)'
    try:
        location = locate(name)
    except ModelError as error:
        return error.message
    if location != name or "/" not in name or name.startswith((".", "/", "~")):
        return None  # a folder, whose files have been checked
    for wanted in ("config.json", "tokenizer_config.json"):
        if not _is_cached(config, wanted):
            return f'{wanted} of "{name}" is not on this machine'
    if not any(_is_cached(config, one) for one in _WEIGHTS):
        return f'the weights of "{name}" are not on this machine'
    return None


def _is_cached(config: PhaseConfig, file: str) -> bool:
    found = try_to_load_from_cache(config.model_name_or_path, file, cache_dir=config.cache_dir)
    return isinstance(found, str)
