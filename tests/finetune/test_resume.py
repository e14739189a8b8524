"""An interrupted training, resumed, ends where the uninterrupted one does."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from evenhand.core.records import Row
from evenhand.finetune import checkpoint
from evenhand.finetune.callbacks import read_history
from evenhand.finetune.train import TrainedPhase
from evenhand.finetune.trainer import PackTrainer

Train = Callable[..., TrainedPhase]
MakeRows = Callable[..., tuple[Row, ...]]

BY_STEPS: Mapping[str, Any] = {
    "eval_strategy": "steps",
    "eval_steps": 3,
    "save_strategy": "steps",
    "save_steps": 3,
}


class Killed(BaseException):
    pass


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    original = PackTrainer.training_step

    def training_step(self: PackTrainer, *args: Any, **options: Any) -> torch.Tensor:
        if self.state.global_step == step:
            raise Killed
        return original(self, *args, **options)

    monkeypatch.setattr(PackTrainer, "training_step", training_step)


def assert_same_adapter(ours: Path, theirs: Path) -> None:
    one = load_file(ours / "adapter" / "adapter_model.safetensors")
    other = load_file(theirs / "adapter" / "adapter_model.safetensors")
    assert one.keys() == other.keys()
    assert max((one[name] - other[name]).abs().max().item() for name in one) <= 1e-6


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        pytest.param({}, 6, id="between epochs"),
        pytest.param(BY_STEPS, 5, id="mid-epoch"),
        pytest.param({**BY_STEPS, "gradient_accumulation_steps": 2}, 4, id="accumulating"),
        pytest.param({**BY_STEPS, "dataloader_num_workers": 1}, 4, id="with a worker"),
        pytest.param({"early_stopping_patience": 1}, 5, id="early stopping"),
        pytest.param({**BY_STEPS, "objective": "completion"}, 7, id="completion"),
        pytest.param({}, 1, id="before any checkpoint"),
    ],
)
def test_resumed_training_equals_uninterrupted(
    train: Train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    step: int,
) -> None:
    settings = {
        "num_train_epochs": 3,
        "lora_dropout": 0.3,
        "per_device_train_batch_size": 2,
        "optim": "adamw_torch",
        **changes,
    }
    whole = train(run="whole", **settings)
    with monkeypatch.context() as patched:
        interrupt_at(patched, step)
        with pytest.raises(Killed):
            train(run="parts", **settings)
    parts = train(run="parts", resume=True, **settings)
    assert_same_adapter(tmp_path / "parts", tmp_path / "whole")
    assert parts.statistics["checkpoints"] == whole.statistics["checkpoints"]
    assert parts.statistics["best_checkpoint"] == whole.statistics["best_checkpoint"]
    # Each step stands in the history once.
    steps = [
        line["step"] for line in read_history(tmp_path / "parts/history.jsonl") if "loss" in line
    ]
    assert steps == list(range(1, whole.statistics["steps_run"] + 1))


def test_full_tuning_resumes(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"tuning": "full", "num_train_epochs": 2, "learning_rate": 0.001}
    train(run="whole", **settings)
    with monkeypatch.context() as patched:
        interrupt_at(patched, 6)
        with pytest.raises(Killed):
            train(run="parts", **settings)
    train(run="parts", resume=True, **settings)
    one, other = (
        load_file(tmp_path / run / "model" / "model.safetensors") for run in ("whole", "parts")
    )
    assert max((one[name] - other[name]).abs().max().item() for name in one) <= 1e-6


def flipped(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    other = {"hate": "normal", "normal": "hate"}
    return tuple(dataclasses.replace(row, label=other[row.label or ""]) for row in rows)


def test_training_that_was_stopped_early_is_not_taken_up_again(
    train: Train, make_rows: MakeRows, tmp_path: Path
) -> None:
    settings = {
        "num_train_epochs": 6,
        "early_stopping_patience": 2,
        "validation": flipped(make_rows(6, seed=1)),
    }
    first = train(run="run", **settings)
    assert first.statistics["stopped_early"]
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    shutil.rmtree(tmp_path / "run" / "adapter")
    # As if killed before the adapter was written, in a folder that has been moved since.
    (tmp_path / "run").rename(tmp_path / "moved")
    again = train(run="moved", resume=True, **settings)
    assert again.statistics["steps_run"] == first.statistics["steps_run"]
    assert again.statistics["best_checkpoint"] == first.statistics["best_checkpoint"]
    assert_same_adapter(tmp_path / "moved", tmp_path / "copy")


def test_finished_training_resumes_to_itself(train: Train, tmp_path: Path) -> None:
    train(num_train_epochs=2)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    again = train(num_train_epochs=2, resume=True)
    assert_same_adapter(tmp_path / "run", tmp_path / "copy")
    assert again.statistics["steps_run"] == 8
    assert again.statistics["rows_per_second"] >= 0


def test_leftovers_of_a_killed_process_are_removed(train: Train, tmp_path: Path) -> None:
    (tmp_path / "run" / ".adapter.x1.tmp").mkdir(parents=True)
    (tmp_path / "run" / ".history.jsonl.x2.tmp").write_text("half")
    train(resume=True)
    assert not list((tmp_path / "run").glob(".*"))


def test_fresh_start_forgets_old_checkpoints(train: Train, tmp_path: Path) -> None:
    train(num_train_epochs=3)
    train(num_train_epochs=1)
    found = checkpoint.find_checkpoints(tmp_path / "run" / "checkpoints")
    assert [step for step, _ in found] == [4]
    steps = [line["step"] for line in read_history(tmp_path / "run" / "history.jsonl")]
    assert max(steps) == 4


def test_resuming_keeps_the_number_format(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evenhand.finetune import devices

    monkeypatch.setattr(devices, "probe_bf16", lambda _: (True, "fast today"))
    train(dtype="auto")
    manifest = json.loads(
        (tmp_path / "run" / "checkpoints" / "checkpoint-4" / "manifest.json").read_text()
    )
    assert manifest["dtype"] == "bfloat16"
    monkeypatch.setattr(devices, "probe_bf16", lambda _: (False, "slow today"))
    resumed = train(dtype="auto", resume=True)
    assert resumed.statistics["dtype"] == "bfloat16"


# The checkpoint folder itself


def stage(folder: Path, step: int) -> Path:
    staging = checkpoint.staging_folder(folder, step)
    (staging / "inner").mkdir(parents=True)
    (staging / "a.bin").write_bytes(b"a" * step)
    (staging / "inner" / "b.bin").write_bytes(b"b")
    return staging


def test_a_checkpoint_is_whole_or_absent(tmp_path: Path) -> None:
    stage(tmp_path, 5)
    assert checkpoint.find_checkpoints(tmp_path) == []
    final = checkpoint.finish(tmp_path, 5, facts={"dtype": "float32"})
    assert checkpoint.find_checkpoints(tmp_path) == [(5, final)]
    assert set(checkpoint.read_manifest(final)["files"]) == {"a.bin", "inner/b.bin"}
    assert checkpoint.read_manifest(final)["dtype"] == "float32"
    checkpoint.verify(final)


def test_a_half_deleted_checkpoint_counts_as_absent_and_can_be_written_again(
    tmp_path: Path,
) -> None:
    stage(tmp_path, 5)
    final = checkpoint.finish(tmp_path, 5)
    (final / "manifest.json").unlink()
    assert checkpoint.find_checkpoints(tmp_path) == []
    stage(tmp_path, 5)
    checkpoint.verify(checkpoint.finish(tmp_path, 5))


def test_unfinished_folders_are_cleaned(tmp_path: Path) -> None:
    stage(tmp_path, 5)
    checkpoint.finish(tmp_path, 5)
    stage(tmp_path, 9)
    checkpoint.clean(tmp_path, keep_finished=True)
    assert [one.name for one in tmp_path.iterdir()] == ["checkpoint-5"]
    checkpoint.clean(tmp_path, keep_finished=False)
    assert list(tmp_path.iterdir()) == []
    checkpoint.clean(tmp_path / "absent", keep_finished=False)


@pytest.mark.parametrize(
    ("keep", "best", "left"),
    [(None, 1, [1, 2, 3, 4]), (1, 2, [2, 4]), (2, 4, [3, 4]), (3, 1, [1, 3, 4]), (2, None, [3, 4])],
)
def test_rotation(tmp_path: Path, keep: int | None, best: int | None, left: list[int]) -> None:
    for step in (1, 2, 3, 4):
        stage(tmp_path, step)
        checkpoint.finish(tmp_path, step)
    checkpoint.rotate(tmp_path, keep=keep, best_step=best)
    assert [step for step, _ in checkpoint.find_checkpoints(tmp_path)] == left
