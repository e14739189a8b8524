"""Every key of the configuration does what it says; tiny models, seconds."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, EarlyStoppingCallback, TrainingArguments
from transformers.trainer_callback import TrainerState

from evenhand.config.schema import PhaseConfig
from evenhand.core.errors import ConfigError
from evenhand.core.records import LABELS, Row
from evenhand.data.drawing import draw_train_rows
from evenhand.finetune.callbacks import EarlyStopping, History, read_history
from evenhand.finetune.classifier import load_classifier
from evenhand.finetune.encoding import encode_plain
from evenhand.finetune.train import TrainedPhase
from evenhand.prompts.template import PromptTemplate

Train = Callable[..., TrainedPhase]
MakeRows = Callable[..., tuple[Row, ...]]

NO_VALIDATION: Mapping[str, Any] = {
    "eval_strategy": "no",
    "save_strategy": "no",
    "load_best_model_at_end": False,
}


def adapter(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


def largest_difference(
    ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]
) -> float:
    assert ours.keys() == theirs.keys()
    return max((ours[name] - theirs[name]).abs().max().item() for name in ours)


def logged(run: Path, key: str) -> list[float]:
    return [line[key] for line in read_history(run / "history.jsonl") if key in line]


def checkpoints(run: Path) -> list[int]:
    return sorted(int(one.name.split("-")[1]) for one in (run / "checkpoints").glob("checkpoint-*"))


def flipped(rows: Sequence[Row]) -> tuple[Row, ...]:
    other = {"hate": "normal", "normal": "hate"}
    return tuple(dataclasses.replace(row, label=other[row.label or ""]) for row in rows)


# Learning rate, batches, optimiser


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"lr_scheduler_type": "constant"}, [1, 1, 1, 1]),
        ({"lr_scheduler_type": "linear"}, [1, 0.75, 0.5, 0.25]),
        ({"lr_scheduler_type": "linear", "warmup_steps": 2}, [0, 0.5, 1, 0.5]),
        ({"lr_scheduler_type": "linear", "warmup_steps": 0.5}, [0, 0.5, 1, 0.5]),
        (
            {"lr_scheduler_type": "cosine"},
            [(1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)],
        ),
        ({"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 2}, [0, 0.5, 1, 1]),
        ({"lr_scheduler_type": "polynomial"}, [1, 0.75, 0.5, 0.25]),
        ({"lr_scheduler_type": "inverse_sqrt", "warmup_steps": 1}, [0, 1, 0.5**0.5, 3**-0.5]),
        (
            {"lr_scheduler_type": "cosine_with_restarts"},
            [(1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)],
        ),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_learning_rate_follows_its_schedule(
    train: Train, tmp_path: Path, changes: dict[str, Any], expected: list[float]
) -> None:
    train(learning_rate=0.02, **NO_VALIDATION, **changes)
    found = logged(tmp_path / "run", "learning_rate")
    assert found == pytest.approx([0.02 * share for share in expected], abs=1e-6)


def test_accumulated_batches_equal_one_large_batch(train: Train, tmp_path: Path) -> None:
    train(run="one", per_device_train_batch_size=8, **NO_VALIDATION)
    split = train(
        run="split",
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        **NO_VALIDATION,
    )
    assert largest_difference(adapter(tmp_path / "one"), adapter(tmp_path / "split")) < 1e-5
    assert logged(tmp_path / "one", "loss") == pytest.approx(
        logged(tmp_path / "split", "loss"), abs=1e-5
    )
    assert split.statistics["effective_batch_size"] == 8
    assert split.statistics["steps_run"] == 2


def test_accumulation_weighs_tokens_not_batches(train: Train, tmp_path: Path) -> None:
    # Answers of one and of several tokens: a mean of batch means would differ.
    changes = {"objective": "completion", **NO_VALIDATION}
    train(run="one", per_device_train_batch_size=4, **changes)
    train(run="split", per_device_train_batch_size=1, gradient_accumulation_steps=4, **changes)
    assert largest_difference(adapter(tmp_path / "one"), adapter(tmp_path / "split")) < 1e-5


def test_gradient_norm_is_clipped(train: Train, tmp_path: Path) -> None:
    changes = {
        "optim": "sgd",
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": 16,
        **NO_VALIDATION,
    }
    train(run="start", learning_rate=1e-30, **changes)
    train(run="clipped", learning_rate=1.0, max_grad_norm=1e-3, **changes)
    train(run="free", learning_rate=1.0, max_grad_norm=0, **changes)

    def moved(run: str) -> float:
        start, end = adapter(tmp_path / "start"), adapter(tmp_path / run)
        return sum(((end[name] - start[name]) ** 2).sum().item() for name in start) ** 0.5

    assert moved("clipped") == pytest.approx(1e-3, rel=1e-3)
    assert moved("free") == pytest.approx(logged(tmp_path / "free", "grad_norm")[0], rel=1e-3)
    assert moved("free") > 0.1


def test_weight_decay_shrinks_the_weights(train: Train, tmp_path: Path) -> None:
    changes = {
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": 16,
        **NO_VALIDATION,
    }
    train(run="none", **changes)
    train(run="half", weight_decay=0.5, **changes)
    none, half = adapter(tmp_path / "none"), adapter(tmp_path / "half")
    # In the first step B is zero, so A has no gradient and changes by the decay alone.
    for name in (name for name in none if "lora_A" in name):
        torch.testing.assert_close(half[name], none[name] * (1 - 0.1 * 0.5))


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused", "adafactor", "sgd"])
@pytest.mark.parametrize("workers", [0])
def test_optimisers_train(train: Train, optim: str, workers: int) -> None:
    trained = train(optim=optim, dataloader_num_workers=workers)
    assert math.isfinite(trained.statistics["train_loss"])


@pytest.mark.parametrize("optim", ["adagrad", "rmsprop"])
def test_further_optimisers_train(train: Train, optim: str) -> None:
    assert math.isfinite(train(optim=optim, **NO_VALIDATION).statistics["train_loss"])


def test_worker_processes_and_recomputation_change_nothing(train: Train, tmp_path: Path) -> None:
    train(run="plain", **NO_VALIDATION)
    train(run="workers", dataloader_num_workers=1, **NO_VALIDATION)
    train(run="recomputed", gradient_checkpointing=True, **NO_VALIDATION)
    plain = adapter(tmp_path / "plain")
    assert largest_difference(plain, adapter(tmp_path / "workers")) == 0
    assert largest_difference(plain, adapter(tmp_path / "recomputed")) < 1e-5


@pytest.mark.parametrize(("epochs", "steps"), [(0.5, 2), (1.5, 6), (2, 8)])
def test_epochs_may_be_fractions(train: Train, epochs: float, steps: int) -> None:
    trained = train(num_train_epochs=epochs)
    assert trained.statistics["steps_run"] == trained.statistics["total_steps"] == steps
    assert trained.statistics["steps_per_epoch"] == 4
    assert trained.statistics["final_epoch"] == pytest.approx(epochs)


# Evaluation, checkpoints, the best of them


def test_evaluation_and_checkpoints_by_steps(train: Train, tmp_path: Path) -> None:
    trained = train(
        eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1, logging_steps=3
    )
    assert [one["step"] for one in trained.statistics["checkpoints"]] == [1, 2, 3, 4]
    assert checkpoints(tmp_path / "run") == [1, 2, 3, 4]
    lines = read_history(tmp_path / "run" / "history.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == [3]


def test_evaluation_and_checkpoints_by_epochs(train: Train, tmp_path: Path) -> None:
    trained = train(num_train_epochs=2)
    assert [one["epoch"] for one in trained.statistics["checkpoints"]] == [1, 2]
    assert checkpoints(tmp_path / "run") == [4, 8]


def test_without_evaluation_and_checkpoints(train: Train, tmp_path: Path) -> None:
    trained = train(**NO_VALIDATION)
    assert trained.statistics["checkpoints"] == []
    assert trained.statistics["final_eval_loss"] is None
    assert not checkpoints(tmp_path / "run")
    assert adapter(tmp_path / "run")


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_limit_keeps_the_best_and_the_newest(
    train: Train, make_rows: MakeRows, tmp_path: Path, limit: int
) -> None:
    # The more is learnt the worse it fits flipped labels: the first checkpoint is the best.
    trained = train(
        num_train_epochs=4, save_total_limit=limit, validation=flipped(make_rows(6, seed=1))
    )
    assert trained.statistics["best_checkpoint"] == "checkpoint-4"
    assert checkpoints(tmp_path / "run") == {1: [4, 16], 2: [4, 16], 3: [4, 12, 16]}[limit]


@pytest.mark.parametrize("is_best_kept", [True, False], ids=["best", "last"])
def test_result_is_the_best_or_the_last_checkpoint(
    train: Train, make_rows: MakeRows, tmp_path: Path, is_best_kept: bool
) -> None:
    trained = train(
        num_train_epochs=3,
        validation=flipped(make_rows(6, seed=1)),
        load_best_model_at_end=is_best_kept,
    )
    step = 4 if is_best_kept else 12
    file = tmp_path / "run" / "checkpoints" / f"checkpoint-{step}" / "adapter_model.safetensors"
    assert largest_difference(adapter(tmp_path / "run"), load_file(file)) == 0
    # The model in memory is the one on disk.
    rows = make_rows(5, seed=2)
    reloaded = load_classifier(
        tmp_path / "run", trained.classifier.config, trained.classifier.prompt
    )
    assert reloaded.score(rows) == pytest.approx(trained.classifier.score(rows), abs=1e-6)
    assert [one["best"] for one in trained.statistics["checkpoints"]].index(True) == step // 4 - 1


def test_best_evaluation_between_checkpoints_is_saved(
    train: Train, make_rows: MakeRows, tmp_path: Path
) -> None:
    trained = train(
        validation=flipped(make_rows(6, seed=1)),
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=4,
    )
    losses = [one["eval_loss"] for one in trained.statistics["checkpoints"]]
    best = 1 + losses.index(min(losses))
    assert trained.statistics["best_checkpoint"] == f"checkpoint-{best}"
    file = tmp_path / "run" / "checkpoints" / f"checkpoint-{best}" / "adapter_model.safetensors"
    assert largest_difference(adapter(tmp_path / "run"), load_file(file)) == 0


@pytest.mark.parametrize("metric", ["f1", "accuracy", "roc_auc", "loss"])
def test_metric_chooses_the_best_checkpoint(train: Train, metric: str) -> None:
    trained = train(num_train_epochs=4, metric_for_best_model=metric, learning_rate=0.05)
    values = [one[f"eval_{metric}"] for one in trained.statistics["checkpoints"]]
    best = values.index(min(values) if metric == "loss" else max(values))
    assert trained.statistics["best_checkpoint"] == f"checkpoint-{4 * (best + 1)}"


@pytest.mark.parametrize(
    ("changes", "epochs"),
    [
        ({"early_stopping_patience": 1}, 6),
        ({"early_stopping_patience": 1, "early_stopping_threshold": 100.0}, 2),
        ({"early_stopping_patience": 3, "early_stopping_threshold": 100.0}, 4),
        (
            {
                "early_stopping_patience": 2,
                "early_stopping_threshold": 0.9999,
                "early_stopping_mode": "relative",
            },
            3,
        ),
        ({}, 6),
    ],
    ids=["improves", "absolute", "patience", "relative", "off"],
)
def test_early_stopping(train: Train, changes: dict[str, Any], epochs: int) -> None:
    trained = train(num_train_epochs=6, learning_rate=0.003, **changes)
    assert trained.statistics["steps_run"] == 4 * epochs
    assert trained.statistics["stopped_early"] == (epochs < 6)
    assert trained.statistics["total_steps"] == 24


def test_early_stopping_reads_the_threshold_as_a_share_or_a_difference() -> None:
    def waited(mode: str, *values: float) -> int:
        stopping = EarlyStopping(
            patience=9, threshold=0.01, mode=mode, metric="eval_loss", greater=False
        )
        control = type("Control", (), {"should_training_stop": False})()
        for value in values:
            stopping.on_evaluate(None, None, control, metrics={"eval_loss": value})
        return stopping.waited

    assert waited("absolute", 0.50, 0.494) == 1  # 0.006 better, 0.01 asked for
    assert waited("relative", 0.50, 0.494) == 0  # 1.2% better, 1% asked for
    assert waited("absolute", 5.0, 4.98) == 0
    assert waited("relative", 5.0, 4.98) == 1
    assert waited("relative", 0.50, 0.498, 0.496, 0.494) == 3  # against the best just before
    assert waited("relative", 0.50, 0.60, 0.498) == 2  # against the best, not the last


@settings(max_examples=60)
@given(
    values=st.lists(st.floats(0.1, 2.0), min_size=1, max_size=12),
    threshold=st.sampled_from([0.0, 0.01, 0.2]),
    greater=st.booleans(),
)
def test_absolute_early_stopping_is_transformers_own(
    values: list[float], threshold: float, greater: bool
) -> None:
    class Control:
        should_training_stop = False

    theirs = EarlyStoppingCallback(early_stopping_patience=2, early_stopping_threshold=threshold)
    ours = EarlyStopping(
        patience=2, threshold=threshold, mode="absolute", metric="eval_loss", greater=greater
    )
    args = TrainingArguments(greater_is_better=greater, metric_for_best_model="eval_loss")
    state = TrainerState()
    for value in values:
        stops = [Control(), Control()]
        theirs.on_evaluate(args, state, stops[0], metrics={"eval_loss": value})
        ours.on_evaluate(args, state, stops[1], metrics={"eval_loss": value})
        assert stops[0].should_training_stop == stops[1].should_training_stop
        best = state.best_metric  # the Trainer keeps it, after the callbacks
        if best is None or (value > best if greater else value < best):
            state.best_metric = value


def test_the_run_time_of_an_interrupted_training_is_added_up(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    lines = [{"step": 2, "elapsed_seconds": 100.0}, {"step": 4, "elapsed_seconds": 250.0}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    state = TrainerState(global_step=2, is_world_process_zero=True)
    history = History(path)
    history.on_train_begin(None, state, None)
    history.on_log(None, state, None, logs={"loss": 1.0})
    assert [line["step"] for line in read_history(path)] == [2, 2]
    assert 100.0 <= read_history(path)[-1]["elapsed_seconds"] < 110.0


def test_progression_is_relative_to_the_checkpoint_before(train: Train) -> None:
    trained = train(num_train_epochs=3)
    first, second, third = trained.statistics["checkpoints"]
    assert first["relative_improvement"] is None
    assert second["relative_improvement"] == pytest.approx(
        1 - second["eval_loss"] / first["eval_loss"]
    )
    assert trained.statistics["final_eval_loss"] == third["eval_loss"]


def test_batches_in_scoring_change_no_score(train: Train, make_rows: MakeRows) -> None:
    rows = make_rows(9, seed=3)
    scores = [
        train(run=f"run{size}", eval_tokens_per_batch=size).classifier.score(rows)
        for size in (1, 60, 1000)
    ]
    for one in scores[1:]:
        assert one == pytest.approx(scores[0], abs=1e-5)


# Adapters


@pytest.mark.parametrize("bias", ["none", "lora_only", "all"])
def test_lora_bias(train: Train, make_rows: MakeRows, tmp_path: Path, bias: str) -> None:
    trained = train(lora_bias=bias, num_train_epochs=2)
    biases = {name for name in adapter(tmp_path / "run") if name.endswith("bias")}
    adapted = {name for name in biases if "q_proj" in name or "v_proj" in name}
    assert bool(biases) == (bias != "none")
    assert (biases == adapted) == (bias != "all")
    statistics = trained.statistics
    stored = sum(one.numel() for one in adapter(tmp_path / "run").values())
    assert statistics["trainable_parameters"] == stored
    assert statistics["total_parameters"] == trained.classifier.base.parameters
    rows = make_rows(5, seed=2)
    reloaded = load_classifier(
        tmp_path / "run", trained.classifier.config, trained.classifier.prompt
    )
    assert reloaded.score(rows) == pytest.approx(trained.classifier.score(rows), abs=1e-6)


def test_same_seed_same_adapter(train: Train, tmp_path: Path) -> None:
    for run, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(run=run, seed=seed, lora_dropout=0.3, **NO_VALIDATION)
    a, b, c = (adapter(tmp_path / run) for run in "abc")
    assert largest_difference(a, b) == 0
    assert largest_difference(a, c) > 1e-3


def test_dropout_rank_and_alpha_take_effect(train: Train, tmp_path: Path) -> None:
    train(run="plain", **NO_VALIDATION)
    train(run="dropout", lora_dropout=0.5, **NO_VALIDATION)
    train(run="alpha", lora_alpha=64, **NO_VALIDATION)
    train(run="rank", lora_r=2, **NO_VALIDATION)
    plain = adapter(tmp_path / "plain")
    assert largest_difference(plain, adapter(tmp_path / "dropout")) > 1e-4
    assert largest_difference(plain, adapter(tmp_path / "alpha")) > 1e-4
    assert {
        one.shape[0] for name, one in adapter(tmp_path / "rank").items() if "lora_A" in name
    } == {2}


def test_all_linear_layers_can_be_adapted_and_continued(train: Train, tmp_path: Path) -> None:
    train(run="parent", lora_target_modules="all-linear", **NO_VALIDATION)
    names = {name.split(".")[-3] for name in adapter(tmp_path / "parent")}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    train(
        run="child",
        lora_target_modules="all-linear",
        init_adapter=str(tmp_path / "parent"),
        **NO_VALIDATION,
    )


def test_continuing_starts_where_the_parent_ended(
    train: Train, make_rows: MakeRows, tmp_path: Path
) -> None:
    rows = make_rows(8)
    parent = train(run="parent", rows=rows, num_train_epochs=3)
    log_probs = parent.classifier.score(rows)
    gold = np.array([row.label == "hate" for row in rows])
    expected = -np.log(np.where(gold, log_probs, 1 - log_probs)).mean()
    child = train(
        run="child",
        rows=rows,
        init_adapter=str(tmp_path / "parent"),
        per_device_train_batch_size=8,
        learning_rate=0.001,
    )
    assert logged(tmp_path / "child", "loss")[0] == pytest.approx(expected, abs=1e-5)
    assert largest_difference(adapter(tmp_path / "parent"), adapter(tmp_path / "child")) > 0
    assert child.statistics["trainable_parameters"] == parent.statistics["trainable_parameters"]


def test_full_tuning_trains_and_stores_every_weight(
    train: Train, make_rows: MakeRows, tmp_path: Path
) -> None:
    trained = train(tuning="full", learning_rate=0.001)
    statistics = trained.statistics
    assert statistics["trainable_parameters"] == statistics["total_parameters"]
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    assert not (tmp_path / "run" / "adapter").exists()
    rows = make_rows(5, seed=2)
    reloaded = load_classifier(
        tmp_path / "run", trained.classifier.config, trained.classifier.prompt
    )
    assert reloaded.score(rows) == pytest.approx(trained.classifier.score(rows), abs=1e-6)


def test_no_tuning_scores_the_base_model(train: Train, make_rows: MakeRows, tmp_path: Path) -> None:
    trained = train(tuning="none")
    assert trained.statistics == {}
    assert not (tmp_path / "run").exists()
    scores = trained.classifier.score(make_rows(4))
    assert scores.shape == (4,)
    assert ((scores > 0) & (scores < 1)).all()


def test_experts_are_adapted_by_parameter_name(train: Train, tmp_path: Path) -> None:
    train(
        model="gpt_oss",
        rows=None,
        max_seq_length=256,
        num_train_epochs=0.25,
        lora_target_parameters=["mlp.experts.gate_up_proj"],
        **NO_VALIDATION,
    )
    assert any("experts" in name for name in adapter(tmp_path / "run"))


# Objectives


def naive_next_token_loss(model: Any, ids: Sequence[int], first: int) -> tuple[float, int]:
    """Summed loss of the tokens from ``first`` on, and their number."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].float()
    loss = cross_entropy(logits[first - 1 : -1], torch.tensor(ids[first:]), reduction="sum")
    return loss.item(), len(ids) - first


def base_model(config: PhaseConfig) -> Any:
    return AutoModelForCausalLM.from_pretrained(config.model_name_or_path, dtype=torch.float32)


def test_completion_loss_is_that_of_the_answer(
    train: Train, make_rows: MakeRows, tmp_path: Path
) -> None:
    rows = make_rows(4)
    trained = train(objective="completion", rows=rows, validation=rows)
    encoder = trained.classifier.encoder
    assert encoder is not None
    model = base_model(trained.classifier.config)
    sums = []
    for row in rows:
        label = encoder.labels[LABELS.index(row.label or "")]
        ids = (*encoder.prefix, *encoder.encode(row).ids, *label)
        sums.append(naive_next_token_loss(model, ids, len(ids) - len(label)))
    expected = sum(loss for loss, _ in sums) / sum(count for _, count in sums)
    assert logged(tmp_path / "run", "loss")[0] == pytest.approx(expected, abs=1e-4)
    assert trained.statistics["objective"] == "completion"


def test_label_loss_is_the_choice_among_labels(
    train: Train, make_rows: MakeRows, tmp_path: Path
) -> None:
    rows = make_rows(4)
    trained = train(rows=rows, validation=rows)
    encoder = trained.classifier.encoder
    assert encoder is not None
    model = base_model(trained.classifier.config)
    losses = []
    for row in rows:
        scores = []
        for label in encoder.labels:
            ids = (*encoder.prefix, *encoder.encode(row).ids, *label)
            scores.append(-naive_next_token_loss(model, ids, len(ids) - len(label))[0])
        target = torch.tensor(LABELS.index(row.label or ""))
        losses.append(cross_entropy(torch.tensor(scores), target).item())
    assert logged(tmp_path / "run", "loss")[0] == pytest.approx(np.mean(losses), abs=1e-4)


@pytest.mark.parametrize("is_chat", [False, True], ids=["rendered", "verbatim"])
def test_full_sequence_loss_covers_the_whole_chat(
    train: Train,
    make_rows: MakeRows,
    prompt: PromptTemplate,
    tmp_path: Path,
    is_chat: bool,
) -> None:
    rows = make_rows(4)
    if is_chat:
        rows = tuple(
            dataclasses.replace(
                row,
                messages=(
                    ("system", "say it"),
                    ("user", f"read: {row.text}"),
                    ("assistant", "{{no}}"),
                ),
            )
            for row in rows
        )
    trained = train(objective="full_sequence", rows=rows, validation=rows)
    tokenizer = trained.classifier.base.tokenizer
    model = base_model(trained.classifier.config)
    sums = []
    for row in rows:
        turns = row.messages or (
            ("system", prompt.system_prompt),
            ("user", f"Post: {row.text}\nanswer"),
            ("assistant", row.label or ""),
        )
        text = "".join(f"<|im_start|>{role}\n{said}<|im_end|>\n" for role, said in turns)
        ids = tokenizer.encode(text, add_special_tokens=False)
        if sum(ids[:3]) >= 0:
            sums.append(naive_next_token_loss(model, ids, 1))
    expected = sum(loss for loss, _ in sums) / sum(count for _, count in sums)
    # The text is tokenised on its own there and in context here: nearly the same tokens.
    assert logged(tmp_path / "run", "loss")[0] == pytest.approx(expected, rel=0.05)
    statistics = trained.statistics
    assert statistics["checkpoints"][0]["eval_loss"] < logged(tmp_path / "run", "loss")[0]


# Rows and lengths


def test_rows_are_drawn_with_the_seed(
    make_config: Callable[..., PhaseConfig], make_rows: MakeRows
) -> None:
    rows = make_rows(50)
    config = make_config(max_train_rows=10)
    drawn = draw_train_rows(rows, config)
    assert len({row.id for row in drawn}) == len(drawn) == 10
    assert list(drawn) == sorted(drawn, key=rows.index)
    assert draw_train_rows(rows, config) == drawn
    assert draw_train_rows(rows, make_config(max_train_rows=10, seed=8)) != drawn
    assert draw_train_rows(rows, make_config(max_train_rows=99)) == rows


def test_rows_without_a_label_cannot_be_trained_on(
    make_config: Callable[..., PhaseConfig], make_rows: MakeRows
) -> None:
    with pytest.raises(ConfigError) as caught:
        draw_train_rows([*make_rows(2), Row("x", "text")], make_config())
    assert "without a label" in caught.value.render()
    with pytest.raises(ConfigError):
        draw_train_rows([], make_config())


@pytest.mark.parametrize(
    ("validation", "changes", "message"),
    [
        ([], {"early_stopping_patience": 1}, "early_stopping_patience needs them"),
        ([Row("a", "text")], {}, "rows without a label"),
        ([Row("a", "text", "hate")], {"metric_for_best_model": "roc_auc"}, "needs both labels"),
    ],
)
def test_unfit_validation_rows_are_refused(
    train: Train, validation: list[Row], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        train(validation=validation, **changes)
    assert message in caught.value.render()


def test_only_the_text_is_cut(train: Train, make_rows: MakeRows) -> None:
    rows = (*make_rows(7, max_words=2), Row("long", "people " * 200, "hate"))
    trained = train(rows=rows, max_seq_length=64)
    assert trained.statistics["truncated_rows"] == 1
    encoder = trained.classifier.encoder
    assert encoder is not None
    encoded = encoder.encode(rows[-1])
    longest = max(len(label) for label in encoder.labels)
    assert len(encoder.prefix) + len(encoded.ids) + longest == 64
    assert encoded.ids[-len(encoder.tail) :] == encoder.tail
    plain = encode_plain(encoder.tokenizer, rows[-1].text)
    assert list(encoded.ids[: -len(encoder.tail)]) == plain[: encoder.room]


# Classifier heads


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_classifier_head(train: Train, make_rows: MakeRows, tmp_path: Path, tuning: str) -> None:
    trained = train(
        model="bert",
        tuning=tuning,
        num_train_epochs=4,
        rows=make_rows(32),
        learning_rate=0.01 if tuning == "lora" else 0.002,
    )
    statistics = trained.statistics
    assert statistics["layout"] == "classifier"
    assert statistics["checkpoints"][-1]["eval_accuracy"] == 1
    assert (statistics["trainable_parameters"] == statistics["total_parameters"]) == (
        tuning == "full"
    )
    rows = make_rows(6, seed=5)
    reloaded = load_classifier(
        tmp_path / "run", trained.classifier.config, trained.classifier.prompt
    )
    assert reloaded.score(rows) == pytest.approx(trained.classifier.score(rows), abs=1e-6)
    with pytest.raises(ConfigError, match="the command"):
        reloaded.answer(rows)


def test_classifier_head_on_a_causal_model(train: Train, make_rows: MakeRows) -> None:
    trained = train(task="sequence_classification", learning_rate=0.003)
    rows = make_rows(5, seed=2)
    together = trained.classifier.score(rows)
    alone = np.concatenate([trained.classifier.score([row]) for row in rows])
    assert together == pytest.approx(alone, abs=1e-5)


# Records


@pytest.mark.parametrize("report_to", ["tensorboard", "none"])
def test_tensorboard(train: Train, tmp_path: Path, report_to: str) -> None:
    train(report_to=report_to)
    assert (tmp_path / "run" / "tensorboard").exists() == (report_to == "tensorboard")


def test_statistics_and_history(train: Train, tmp_path: Path) -> None:
    trained = train(num_train_epochs=2, warmup_steps=0.25, per_device_train_batch_size=3)
    stored = json.loads((tmp_path / "run" / "training.json").read_text())
    assert stored == json.loads(json.dumps(trained.statistics))
    expected = {
        "rows": 16,
        "validation_rows": 6,
        "effective_batch_size": 3,
        "processes": 1,
        "steps_per_epoch": 6,
        "total_steps": 12,
        "warmup_steps": 3,
        "device": "cpu",
        "dtype": "float32",
        "layout": "tree",
        "objective": "label",
    }
    assert expected.items() <= stored.items()
    assert stored["rows_per_second"] > 0
    lines = read_history(tmp_path / "run" / "history.jsonl")
    assert all("step" in line and "epoch" in line for line in lines)


@pytest.mark.parametrize("model", ["llama", "bert"])
def test_bfloat16(train: Train, make_rows: MakeRows, tmp_path: Path, model: str) -> None:
    trained = train(model=model, dtype="bfloat16")
    assert trained.statistics["dtype"] == "bfloat16"
    assert {one.dtype for one in adapter(tmp_path / "run").values()} == {torch.float32}
    assert np.isfinite(trained.classifier.score(make_rows(3))).all()


def test_only_safe_files_are_written(train: Train, tmp_path: Path) -> None:
    train()
    names = {one.name for one in (tmp_path / "run").rglob("*") if one.is_file()}
    assert names == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "history.jsonl",
        "manifest.json",
        "trainer_state.json",
        "training.json",
        # torch's own state files, read back with weights_only
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
    }
