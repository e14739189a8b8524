"""``evenhand demo``: the main job end to end on the starter corpus and the embedded model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evenhand.cli.options import JsonFlag

if TYPE_CHECKING:
    from collections.abc import Iterable

_COMMON = {
    "model_name_or_path": "smollm2-135m",
    "lora_dropout": 0.05,
    "learning_rate": 1e-3,
    "num_train_epochs": 2,
    "max_train_rows": 256,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 32,
    "warmup_steps": 0.1,
    "weight_decay": 0.01,
    "lr_scheduler_type": "cosine",
    "early_stopping_patience": 2,
    "early_stopping_threshold": 0.01,
    "early_stopping_mode": "relative",
    "optim": "adamw_torch",
    "logging_steps": 4,
}
_PHASES = (
    ("default", 32, ["q_proj", "v_proj"], "Rank 32 on query and value is enough."),
    ("high_capacity", 64, ["q_proj", "v_proj"], "Twice the rank improves on the default."),
    ("k_proj", 64, ["q_proj", "v_proj", "k_proj"], "Adapting the keys too improves on that."),
)
_ROWS = {"validation": 160, "test": 240, "production": 240}


def command(
    out: Annotated[Path, typer.Option(help="Folder of the demo's data and results.")] = Path(
        "demo"
    ),
    as_json: JsonFlag = False,
) -> None:
    """Train three LoRA phases on the starter corpus, evaluate, compare, choose, summarise.

    Everything is real but small: SmolLM2-135M on the CPU, 256 rows a phase, templates that were
    not trained on for evaluation. It writes OUT/experiment.json, unless there is one: edit it and
    run the demo again, or `evenhand run OUT/experiment.json --out OUT`.

    Example: evenhand demo --out demo
    """
    from evenhand.cli.run import run_and_report
    from evenhand.config.load import load_experiment

    run_and_report(load_experiment(write_demo(out)), out, as_json=as_json)


def write_demo(out: Path) -> Path:
    """Write the demo's data and its experiment, where there is none; return the latter's path."""
    from evenhand.core.paths import write_json
    from evenhand.data.sources import write_rows
    from evenhand.data.starter import generate

    corpus = generate()
    test = corpus["test"]
    sets = {
        "train": corpus["train"],
        "validation": corpus["validation"][: _ROWS["validation"]],
        "test": test[: _ROWS["test"]],
        "production": test[_ROWS["test"] : _ROWS["test"] + _ROWS["production"]],
    }
    for name, rows in sets.items():
        write_rows(rows, out / "data" / f"{name}.jsonl")
    path = out / "experiment.json"
    if not path.is_file():
        write_json(path, _experiment(sets))
    return path


def _experiment(sets: Iterable[str]) -> dict[str, Any]:
    return {
        "name": "demo",
        "description": "Three LoRA phases on the starter corpus; SmolLM2-135M on a CPU.",
        "defaults": _COMMON,
        "phases": [
            {
                "name": name,
                "hypothesis": hypothesis,
                "config": {"lora_r": rank, "lora_alpha": rank, "lora_target_modules": modules},
            }
            for name, rank, modules, hypothesis in _PHASES
        ],
        "sets": [{"name": name, "role": name, "file": f"data/{name}.jsonl"} for name in sets],
        "selection": {"set": "validation", "metric": "f1"},
    }
