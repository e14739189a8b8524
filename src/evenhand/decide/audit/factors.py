"""What differs between two phases' configurations: their factors, for a fair comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAIN_KEYS = (
    "model_name_or_path",
    "task",
    "tuning",
    "objective",
    "strategy",
    "train_file",
    "max_train_rows",
    "augment",
    "label_policy",
    "row_weights",
    "counterfactual_pairing",
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

_LAYERS = frozenset({"lora_target_modules", "lora_target_parameters"})
_SAME_SIZE = 0.05
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


def changed_keys(
    before: Mapping[str, Any], after: Mapping[str, Any], *, same_size: bool = False
) -> tuple[str, ...]:
    """Return the main keys that differ, apart from the adapter that a phase starts from.

    ``lora_alpha`` is no factor of its own where it goes with the rank, since alpha / r, the scale
    of the adapter's output, stays as it is. Nor is the rank then, where other layers are adapted at
    a rank that gives as many trainable parameters (``same_size``): layers are compared that way.

    >>> changed_keys({"lora_r": 32, "lora_alpha": 32}, {"lora_r": 64, "lora_alpha": 64})
    ('lora_r',)
    >>> one = {"lora_r": 64, "lora_alpha": 64, "lora_target_modules": "q"}
    >>> other = {"lora_r": 32, "lora_alpha": 32, "lora_target_modules": "qk"}
    >>> changed_keys(one, other), changed_keys(one, other, same_size=True)
    (('lora_r', 'lora_target_modules'), ('lora_target_modules',))
    """
    old, new = main_configuration(before), main_configuration(after)
    changed = [key for key in MAIN_KEYS if key != "init_adapter" and old.get(key) != new.get(key)]
    scale = _scale(old)
    if "lora_r" in changed and scale is not None and scale == _scale(new):
        same = {"lora_alpha"}
        if same_size and not _LAYERS.isdisjoint(changed):
            same.add("lora_r")
        changed = [key for key in changed if key not in same]
    return tuple(changed)


def of_same_size(one: int | None, other: int | None) -> bool:
    """Whether two phases train as many parameters, to within 5%; ranks are whole numbers.

    >>> of_same_size(3_686_400, 3_628_800), of_same_size(3_686_400, None)
    (True, False)
    """
    if one is None or other is None:
        return False
    return abs(one - other) <= _SAME_SIZE * max(one, other)


def _scale(config: Mapping[str, Any]) -> float | None:
    rank, alpha = config.get("lora_r"), config.get("lora_alpha")
    return None if rank is None or alpha is None else alpha / rank
