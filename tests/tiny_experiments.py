"""Small data files, phases and experiments on the tiny models, for the tests of the commands."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

WORDS = ("people", "town", "out", "neighbours", "they", "all", "moved", "next")
GROUPS = ("lgbtq", "mexican", "middle_east")
MODULES = {"llama": ["q_proj", "v_proj"], "bert": ["query", "value"]}


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.finetune.conftest import save_model

    return save_model("llama", tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.finetune.conftest import save_model

    return save_model("bert", tmp_path_factory.mktemp("tiny") / "bert")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENHAND_QUIET", "1")


def make_posts(count: int, *, seed: int, groups: Sequence[str] = GROUPS) -> list[dict[str, str]]:
    """Posts that a model can learn: hateful ones say *thrown*, normal ones *kind*."""
    rng = random.Random(seed)
    posts = []
    for number in range(count):
        label = ("hate", "normal")[number % 2]
        words = ["thrown" if label == "hate" else "kind", *rng.choices(WORDS, k=rng.randint(3, 9))]
        rng.shuffle(words)
        group = groups[(number // 2) % len(groups)] if groups else ""
        posts.append(
            {"id": f"{seed}-{number}", "text": " ".join(words), "label": label, "group": group}
        )
    return posts


def write_csv(path: Path, posts: Sequence[Mapping[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(posts[0]))
        writer.writeheader()
        writer.writerows(posts)
    return path


def write_unified(path: Path, posts: Sequence[Mapping[str, str]]) -> Path:
    rows = [
        {
            "text": post["text"],
            "label_binary": post["label"],
            "label_multiclass": post["label"],
            "target_group_norm": post["group"],
            "source_dataset": "made_up",
            "original_id": post["id"],
        }
        for post in posts
    ]
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def write_chat(path: Path, posts: Sequence[Mapping[str, str]]) -> Path:
    words = {"hate": "hate", "normal": "not_hate"}
    lines = []
    for post in posts:
        answer = json.dumps({"classification": words[post["label"]], "rationale": "so"})
        messages = [
            {"role": "system", "content": "You classify posts."},
            {"role": "user", "content": f'Text: "{post["text"]}"'},
            {"role": "assistant", "content": answer},
        ]
        lines.append(json.dumps({"messages": messages}) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


def phase_keys(model: Path, **changes: Any) -> dict[str, Any]:
    """The keys of a phase that is trained in well under a second; None takes a key away."""
    keys = {
        "model_name_or_path": str(model),
        "device": "cpu",
        "dtype": "float32",
        "max_seq_length": 128,
        "lora_r": 4,
        "lora_alpha": 8,
        "lora_target_modules": MODULES[model.name],
        "learning_rate": 0.01,
        "num_train_epochs": 1,
        "per_device_train_batch_size": 4,
        "logging_steps": 1,
        "report_to": "none",
        "optim": "adamw_torch",
        **({"task": "sequence_classification"} if model.name == "bert" else {}),
        **changes,
    }
    return {key: value for key, value in keys.items() if value is not None}


def write_phase(folder: Path, model: Path, **changes: Any) -> Path:
    """Write ``phase.json`` with its two data files beside it."""
    write_csv(folder / "train.csv", make_posts(16, seed=1))
    write_csv(folder / "validation.csv", make_posts(8, seed=2))
    files = {"train_file": "train.csv", "validation_file": "validation.csv"}
    path = folder / "phase.json"
    path.write_text(json.dumps(phase_keys(model, **{**files, **changes})), encoding="utf-8")
    return path


def write_experiment(
    folder: Path, model: Path, *, phases: Sequence[Mapping[str, Any]] = (), **changes: Any
) -> Path:
    """Write ``experiment.json``, two phases unless told otherwise, and its four data sets."""
    roles = {"train": 16, "validation": 12, "test": 12, "production": 12}
    for number, (role, count) in enumerate(roles.items()):
        write_csv(folder / f"{role}.csv", make_posts(count, seed=10 + number))
    document = {
        "name": "tiny",
        "defaults": phase_keys(model),
        "phases": list(phases) or [{"name": "small"}, {"name": "large", "config": {"lora_r": 8}}],
        "sets": [{"name": role, "role": role, "file": f"{role}.csv"} for role in roles],
        "selection": {"set": "validation", "metric": "f1"},
        **changes,
    }
    path = folder / "experiment.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def edit_json(path: Path, **changes: Any) -> Path:
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**document, **changes}), encoding="utf-8")
    return path
