"""A starting experiment for a user's own table: what its label words mean, and what to write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evenhand.core.errors import ConfigError, Problem
from evenhand.core.records import HATE, NORMAL

MAX_LABEL_WORDS = 12


def label_map(
    words: Sequence[str], *, positive: Sequence[str], known: Mapping[str, str]
) -> dict[str, str]:
    """Return word -> ``hate`` or ``normal`` for the label words of a table.

    ``positive`` names the words that mean hate; every other word then means normal. Without it,
    every word must be in ``known``.

    >>> label_map(["toxic", "fine"], positive=["toxic"], known={})
    {'toxic': 'hate', 'fine': 'normal'}

    Raises:
        ConfigError: it cannot be told which words mean hate, or a label never occurs.
    """
    listed = ", ".join(f'"{word}"' for word in words[:MAX_LABEL_WORDS])
    if len(words) > MAX_LABEL_WORDS:
        message = f"has {len(words):,} different values ({listed}, ...), so it holds no label words"
        raise ConfigError(
            "the table", [Problem("--label", message)], consequence="nothing was written"
        )
    unknown = [word for word in words if word not in known]
    problems = [
        Problem("--positive", f'"{word}" is no label word of the table; it has {listed}')
        for word in positive
        if word not in words
    ]
    if not positive and unknown:
        problems.append(
            Problem("--positive", f"cannot tell which words mean hate; name them, of {listed}")
        )
    chosen = dict.fromkeys(words, NORMAL) | dict.fromkeys(positive, HATE) if positive else known
    mapped = {word: chosen[word] for word in words if word in chosen}
    missing = {HATE, NORMAL} - set(mapped.values())
    if not problems and missing:
        message = f"no row would be {' or '.join(sorted(missing))}; the label words are {listed}"
        problems.append(Problem("--label", message))
    if problems:
        raise ConfigError("the table", problems, consequence="nothing was written")
    return mapped


def starting_experiment(name: str, *, data_folder: str) -> dict[str, Any]:
    """Return an experiment with one LoRA phase on the small embedded model, sized for a CPU.

    Its data sets are ``train.jsonl``, ``validation.jsonl`` and ``test.jsonl`` of ``data_folder``.
    """
    roles = ("train", "validation", "test")
    return {
        "name": name,
        "description": "A first LoRA phase on a small model; add phases to compare.",
        "defaults": {"model_name_or_path": "smollm2-135m", "seed": 42},
        "phases": [
            {
                "name": "first",
                "hypothesis": "An adapter on the query and value projections learns the labels.",
                "config": {
                    "lora_r": 32,
                    "lora_alpha": 32,
                    "lora_dropout": 0.05,
                    "lora_target_modules": ["q_proj", "v_proj"],
                    "learning_rate": 5e-4,
                    "num_train_epochs": 2,
                    "per_device_train_batch_size": 16,
                    "per_device_eval_batch_size": 16,
                    "warmup_steps": 0.1,
                    "lr_scheduler_type": "cosine",
                    "logging_steps": 5,
                },
            }
        ],
        "sets": [
            {"name": role, "role": role, "file": f"{data_folder}/{role}.jsonl"} for role in roles
        ],
        "selection": {"set": "validation", "metric": "f1"},
    }
