"""Which keys of a phase's configuration a summary prints and compares."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from evenhand.report.records import PhaseReport, Summary
from evenhand.report.wording import is_number

MAIN_KEYS = (
    "model_name_or_path",
    "task",
    "tuning",
    "objective",
    "strategy",
    "train_file",
    "max_train_rows",
    "max_seq_length",
    "load_in_4bit",
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "lora_target_modules",
    "lora_target_parameters",
    "lora_bias",
    "init_adapter",
    "learning_rate",
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "lr_scheduler_type",
    "optim",
    "early_stopping_patience",
    "early_stopping_threshold",
    "early_stopping_mode",
    "seed",
)
"""The configuration keys that a summary prints and compares, in the order in which it does."""

_UNTUNED_KEYS = (
    "model_name_or_path",
    "task",
    "tuning",
    "strategy",
    "max_seq_length",
    "load_in_4bit",
)


def main_configuration(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the main keys that are set and matter to the way in which the phase was tuned."""
    tuning = config.get("tuning", "lora")
    keys = MAIN_KEYS if tuning != "none" else _UNTUNED_KEYS
    return {
        key: config[key]
        for key in keys
        if config.get(key) is not None and (tuning == "lora" or not key.startswith("lora_"))
    }


def configuration_json(config: Mapping[str, Any]) -> str:
    """Return the main keys of a configuration as JSON, those that are set."""
    return json.dumps(main_configuration(config), indent=2, ensure_ascii=False, default=str)


def reference_phase(summary: Summary, phase: PhaseReport) -> PhaseReport | None:
    """Return the phase that another is compared with: its parent, else the one before it."""
    if phase.parent is not None:
        return summary.phase(phase.parent)
    index = summary.phases.index(phase)
    return summary.phases[index - 1] if index else None


def changed_keys(before: PhaseReport, phase: PhaseReport) -> list[str]:
    """Return the main keys in which two phases differ; none where one of them was not tuned."""
    if any(not one.config or one.config.get("tuning") == "none" for one in (before, phase)):
        return []
    old, new = main_configuration(before.config), main_configuration(phase.config)
    return [key for key in MAIN_KEYS if key != "init_adapter" and old.get(key) != new.get(key)]


def warmup_share(phase: PhaseReport) -> float | None:
    """Return warm-up steps over all steps, or None where either is not recorded."""
    training = phase.training or {}
    warmup, total = training.get("warmup_steps"), training.get("total_steps")
    return warmup / total if is_number(warmup) and is_number(total) and total > 0 else None


def best_loss(training: Mapping[str, Any]) -> float | None:
    """Return the evaluation loss of the best checkpoint, else the final one."""
    for item in training.get("checkpoints") or ():
        if item.get("best"):
            return item.get("eval_loss")
    return training.get("final_eval_loss")


def still_improving(phase: PhaseReport) -> float | None:
    """Return by which share the loss fell to the last checkpoint, where that is the best one."""
    checkpoints = (phase.training or {}).get("checkpoints") or ()
    if len(checkpoints) < 2 or not checkpoints[-1].get("best"):
        return None
    before, last = checkpoints[-2].get("eval_loss"), checkpoints[-1].get("eval_loss")
    if not is_number(before) or not is_number(last) or last >= before:
        return None
    return (before - last) / before
