"""A tiny run that was trained, tuned and judged, and ways to spoil a copy of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tests.tiny_experiments import make_posts, write_csv, write_phase

from evenhand.core.paths import write_json

HARD = {
    "name": "beats always hate",
    "metric": "f1",
    "at_least": 0.01,
    "against": {"baseline": "always_hate"},
}
DUTY = {"monitor": "FPR of each group", "owner": "safety", "due_days": 14, "action": "Tune it."}
CONDITION = {"name": "F1", "metric": "f1", "at_least": 0.999, "role": "condition", "duty": DUTY}


def criteria(path: Path, *entries: dict[str, Any]) -> Path:
    """Write criteria that no constant meets."""
    path.write_text(json.dumps({"name": "mine", "criteria": [HARD, *entries]}))
    return path


def make_gated_run(folder: Path, model: Path) -> Path:
    """Train, tune and judge one tiny phase; the verdict is PASS WITH CONDITIONS."""
    from evenhand.cli.main import run

    base, out = folder / model.name, str(folder / "small")
    shutil.copytree(model, base)
    phase = write_phase(folder, base)
    seeds = {"train": 10, "validation": 11, "production": 13}
    for name, seed in seeds.items():
        write_csv(folder / f"{name}.csv", make_posts(16 if name == "train" else 12, seed=seed))
    assert run(["train", str(phase), "--out", out]) == 0
    for name in ("validation", "production"):
        data = str(folder / f"{name}.csv")
        assert run(["evaluate", out, "--data", data, "--name", name]) == 0
    sets = ["--fit-on", "validation", "--report-on", "production"]
    assert run(["threshold", out, *sets]) == 0
    path = criteria(folder / "criteria.json", CONDITION)
    assert run(["gate", out, "--on", "production", "--criteria", str(path)]) == 0
    return Path(out)


def edit(name: str, change: Callable[[Any], None]) -> Callable[[Path], None]:
    """Return what changes one JSON file of a run."""

    def spoil(run: Path) -> None:
        document = json.loads((run / name).read_text(encoding="utf-8"))
        change(document)
        write_json(run / name, document)

    return spoil


def remove(name: str) -> Callable[[Path], None]:
    """Return what removes one file of a run."""

    def spoil(run: Path) -> None:
        (run / name).unlink()

    return spoil


def flip_byte(path: Path, *, at: int = -3, bit: int = 0x10) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[at] ^= bit
    path.write_bytes(content)


def zero_adapter(run: Path) -> None:
    """Set an adapter's second half to zero, so that it changes nothing."""
    path = run / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file(
        {name: torch.zeros_like(one) if "lora_B" in name else one for name, one in tensors.items()},
        path,
        metadata={"format": "pt"},
    )
