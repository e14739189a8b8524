"""Two real processes (torchrun, gloo): the same adapter and scores as one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from evenhand.config.schema import PhaseConfig
from evenhand.core.records import Row
from evenhand.finetune.callbacks import read_history
from evenhand.finetune.train import TrainedPhase

# What is trained, by the name of its run.
PHASES = {
    "label": {"objective": "label"},
    "completion": {"objective": "completion"},
    "gpt_oss": {"model": "gpt_oss", "max_seq_length": 512},
}
# What each process does: train each phase, note the adapter after every step, score rows.
SCRIPT = """
import hashlib, json, sys
from dataclasses import replace
from pathlib import Path
from evenhand.config.schema import PhaseConfig
from evenhand.core.records import Row
from evenhand.finetune.callbacks import History
from evenhand.finetune.processes import current_world
from evenhand.finetune.train import train_phase
from evenhand.prompts.template import PromptTemplate

task = json.loads(Path(sys.argv[1]).read_text())
rows = {name: [Row(**row) for row in task[name]] for name in ("train", "validation", "test")}
prompt = PromptTemplate(**task["prompt"])
seen = {}
steps = []

def note_adapter(self, args, state, control, model=None, **others):
    digest = hashlib.sha256()
    for parameter in model.parameters():
        if parameter.requires_grad:
            digest.update(parameter.detach().numpy().tobytes())
    steps.append(digest.hexdigest())

assert "on_step_end" not in vars(History)
History.on_step_end = note_adapter
for name, config in task["configs"].items():
    run = Path(task["folder"]) / name
    steps.clear()
    trained = train_phase(
        PhaseConfig(**config), rows["train"], rows["validation"], prompt, run=run
    )
    scores = trained.classifier.score(rows["test"])
    seen[name] = {"scores": scores.tolist(), "statistics": dict(trained.statistics)}
    seen[name]["steps"] = list(steps)
world = current_world()
seen["world"] = [world.rank, world.size]
(Path(task["folder"]) / f"rank{world.rank}.json").write_text(json.dumps(seen))
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def launch(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run under torchrun with two processes on the loopback interface."""
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_addr"]
    command = [sys.executable, *launcher, "127.0.0.1", "--master_port", str(free_port())]
    environment = {**os.environ, "EVENHAND_QUIET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [*command, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )


def as_json(rows: tuple[Row, ...]) -> list[dict[str, Any]]:
    return [{"id": row.id, "text": row.text, "label": row.label} for row in rows]


def test_two_processes_train_and_score_like_one(
    make_config: Callable[..., PhaseConfig],
    make_rows: Callable[..., tuple[Row, ...]],
    train: Callable[..., TrainedPhase],
    tmp_path: Path,
) -> None:
    rows = {
        "train": make_rows(16),
        "validation": make_rows(5, seed=1),
        "test": make_rows(7, seed=2),
    }
    settings: dict[str, Any] = {"num_train_epochs": 2, "per_device_eval_batch_size": 2}
    task = {
        "folder": str(tmp_path / "two"),
        "prompt": {
            "strategy": "test",
            "system_prompt": "You read posts. Answer hate or normal.",
            "before": "Post: ",
            "after": "\nanswer",
        },
        "configs": {
            name: make_config(per_device_train_batch_size=2, **changes, **settings).model_dump(
                mode="json"
            )
            for name, changes in PHASES.items()
        },
        **{name: as_json(some) for name, some in rows.items()},
    }
    (tmp_path / "two").mkdir()
    (tmp_path / "task.json").write_text(json.dumps(task))
    (tmp_path / "script.py").write_text(SCRIPT)
    done = launch(tmp_path / "script.py", tmp_path / "task.json")
    assert done.returncode == 0, done.stderr[:4000]
    first, second = (
        json.loads((tmp_path / "two" / f"rank{rank}.json").read_text()) for rank in (0, 1)
    )
    assert (first["world"], second["world"]) == ([0, 2], [1, 2])
    for name, changes in PHASES.items():
        one = train(
            run=name,
            **changes,
            rows=rows["train"],
            validation=rows["validation"],
            per_device_train_batch_size=4,
            **settings,
        )
        statistics = first[name]["statistics"]
        assert statistics["processes"] == 2
        for key in ("effective_batch_size", "steps_per_epoch", "total_steps", "best_checkpoint"):
            assert statistics[key] == one.statistics[key], key
        ours, theirs = (
            load_file(folder / name / "adapter" / "adapter_model.safetensors")
            for folder in (tmp_path / "two", tmp_path)
        )
        assert max((ours[key] - theirs[key]).abs().max().item() for key in theirs) < 1e-5
        expected = one.classifier.score(rows["test"])
        assert first[name]["scores"] == pytest.approx(expected, abs=1e-5)
        assert second[name]["scores"] == first[name]["scores"]
        assert len(set(first[name]["steps"])) == statistics["total_steps"]
        assert first[name]["steps"] == second[name]["steps"]
        histories = [
            read_history(folder / name / "history.jsonl") for folder in (tmp_path / "two", tmp_path)
        ]
        for key in ("loss", "eval_loss", "grad_norm", "learning_rate"):
            found, wanted = ([line[key] for line in lines if key in line] for lines in histories)
            assert found == pytest.approx(wanted, abs=1e-4), key


@pytest.mark.slow
def test_commands_under_torchrun(
    make_config: Callable[..., PhaseConfig],
    make_rows: Callable[..., tuple[Row, ...]],
    tmp_path: Path,
) -> None:
    for name, some in {"train": make_rows(16), "validation": make_rows(6, seed=1)}.items():
        lines = [json.dumps({"text": row.text, "label": row.label}) for row in some]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    config = make_config(per_device_train_batch_size=2).model_dump(mode="json", exclude_none=True)
    config |= {
        "train_file": str(tmp_path / "train.jsonl"),
        "validation_file": str(tmp_path / "validation.jsonl"),
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    run = tmp_path / "run"
    done = launch("-m", "evenhand", "train", tmp_path / "config.json", "--out", run)
    assert done.returncode == 0, done.stderr[:4000]
    assert json.loads((run / "training.json").read_text())["processes"] == 2
    data = tmp_path / "validation.jsonl"
    done = launch("-m", "evenhand", "evaluate", run, "--data", data, "--name", "val", "--json")
    assert done.returncode == 0, done.stderr[:4000]
    evaluation = json.loads(done.stdout)
    assert evaluation["n"] == evaluation["n_scored"] == 6
