"""LoRA adapters: attached, checked against the model, continued, and loaded for scoring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import (
    LoraConfig,
    PeftConfig,
    PeftModel,
    TaskType,
    get_peft_model,
    get_peft_model_state_dict,
)
from peft.utils.constants import SEQ_CLS_HEAD_NAMES
from safetensors import safe_open

from evenhand.config.schema import PhaseConfig
from evenhand.core.errors import ConfigError, ModelError, Problem
from evenhand.core.registry import suggest
from evenhand.finetune.experts import adapt_activations
from evenhand.finetune.folders import adapter_folder

# What a continued adapter must share with the configuration; PEFT stores "all-linear" spelled out.
_COMPARED = ("r", "lora_alpha", "lora_dropout", "bias", "target_parameters")
_MODULES = ("target_modules",)
_TASKS = {"causal_lm": TaskType.CAUSAL_LM, "sequence_classification": TaskType.SEQ_CLS}


def attach(model: Any, config: PhaseConfig) -> Any:
    """Return the model with what the phase trains left trainable: an adapter, all, or nothing.

    Raises:
        ConfigError: target modules or parameters that the model does not have.
        ModelError: ``init_adapter`` is missing, pickled, damaged, or of another shape.
    """
    if config.tuning == "full":
        return model
    if config.tuning == "none":
        return model.requires_grad_(False)
    wanted = lora_config(config)
    problems = target_problems(model, config)
    if problems:
        raise ConfigError("the configuration", problems)
    torch.manual_seed(config.seed)  # the adapter's random half: seeded before it is made
    if config.init_adapter is None:
        try:
            tuned = get_peft_model(model, wanted)
        except ValueError as error:
            problem = Problem("lora_target_modules", str(error).splitlines()[0])
            raise ConfigError("the configuration", [problem]) from error
        adapt_activations(tuned)
        return tuned
    folder = adapter_folder(Path(config.init_adapter))
    found = _read_config(folder)
    keys = _COMPARED if config.lora_target_modules == "all-linear" else (*_COMPARED, *_MODULES)
    differ = [key for key in keys if _value(found, key) != _value(wanted, key)]
    if differ:
        told = ", ".join(
            f"{key} {getattr(found, key, None)} (here {getattr(wanted, key)})" for key in differ
        )
        raise ModelError(f"init_adapter {folder} was trained with {told}")
    return _load(model, folder, is_trainable=True)


def _value(config: PeftConfig, key: str) -> Any:
    value = getattr(config, key, None)
    # The order in which names are written means nothing: PEFT sorts them.
    return set(value) if isinstance(value, list) else value


def lora_config(config: PhaseConfig) -> LoraConfig:
    """Return PEFT's configuration of a phase's adapter."""
    modules = config.lora_target_modules
    return LoraConfig(
        task_type=_TASKS[config.task],
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        bias=config.lora_bias,
        target_modules=modules if isinstance(modules, str) else list(modules),
        target_parameters=list(config.lora_target_parameters) or None,
    )


def load_adapter(model: Any, folder: Path) -> Any:
    """Return the model with a finished adapter, for scoring only.

    Raises:
        ModelError: no adapter there, a pickled one, or one of another base model.
    """
    return _load(model, adapter_folder(folder), is_trainable=False)


def _load(model: Any, folder: Path, *, is_trainable: bool) -> Any:
    _read_config(folder)
    try:
        with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
            stored = set(file.keys())
        tuned = PeftModel.from_pretrained(model, str(folder), is_trainable=is_trainable)
    # Whatever PEFT stumbles on, the file is what is wrong: a torn header, a foreign shape, ...
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"the adapter in {folder} cannot be loaded: {reason}") from error
    # PEFT passes over tensors that find no place, and would answer with the bare base model.
    if stored != set(get_peft_model_state_dict(tuned)):
        raise ModelError(f"the adapter in {folder} was not made for this base model")
    adapt_activations(tuned)
    return tuned


def _read_config(folder: Path) -> PeftConfig:
    try:
        return PeftConfig.from_pretrained(str(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder / 'adapter_config.json'} is damaged: {error}") from error


def target_problems(model: Any, config: PhaseConfig) -> list[Problem]:
    """Name the target modules and parameters that the model does not have."""
    # A new head is trained whole, so that PEFT gives no adapter to the layers in it.
    head = SEQ_CLS_HEAD_NAMES if config.task == "sequence_classification" else ()
    known = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if name.partition(".")[0] not in head
        and (isinstance(module, torch.nn.Linear) or type(module).__name__.startswith("Linear"))
    }
    problems = []
    if not isinstance(config.lora_target_modules, str):
        problems = [
            Problem(
                "lora_target_modules",
                f'"{name}" is not a linear layer of {config.model_name_or_path}'
                f"{suggest(name, known)}; it has {', '.join(sorted(known))}",
            )
            for name in config.lora_target_modules
            if name.rsplit(".", 1)[-1] not in known
        ]
    parameters = [name for name, _ in model.named_parameters()]
    problems += [
        Problem(
            "lora_target_parameters",
            f'"{name}" is not a parameter of {config.model_name_or_path}'
            f"{suggest(name, {'.'.join(one.split('.')[-3:]) for one in parameters})}",
        )
        for name in config.lora_target_parameters
        if not any(f".{one}".endswith(f".{name}") for one in parameters)
    ]
    return problems
