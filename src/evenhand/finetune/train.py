"""Training one phase: rows and configuration in, a run folder with the best adapter out."""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from transformers import TrainerCallback, TrainingArguments
from transformers.integrations.integration_utils import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from evenhand.config.schema import PhaseConfig
from evenhand.core.errors import ConfigError, Problem
from evenhand.core.paths import atomic_dir, write_json
from evenhand.core.records import Row
from evenhand.finetune import checkpoint
from evenhand.finetune.callbacks import EarlyStopping, History, Progress, read_history
from evenhand.finetune.classifier import Classifier, prepare
from evenhand.finetune.devices import memory_errors
from evenhand.finetune.models import trains_own_weights
from evenhand.finetune.objective import build_objective
from evenhand.finetune.params import count
from evenhand.finetune.trainer import PackTrainer
from evenhand.finetune.treatment import (
    check_treated,
    encode_treated,
    treat_rows,
    treatment_statistics,
)
from evenhand.prompts.template import PromptTemplate

OUT_OF_MEMORY = (
    'lower "per_device_train_batch_size" and raise "gradient_accumulation_steps" by the same '
    'factor, set "gradient_checkpointing": true, or lower "max_seq_length"; where '
    'scoring stopped, lower "eval_tokens_per_batch"'
)


@dataclass(frozen=True, slots=True)
class TrainedPhase:
    """What training produced: the model, ready to score, and its statistics."""

    classifier: Classifier
    statistics: Mapping[str, Any]


def train_phase(
    config: PhaseConfig,
    train_rows: Sequence[Row],
    validation_rows: Sequence[Row],
    prompt: PromptTemplate,
    *,
    run: Path,
    resume: bool = False,
) -> TrainedPhase:
    """Train one phase and write adapter, checkpoints, history and statistics to its run folder.

    ``resume`` goes on from the newest whole checkpoint, if there is one. With tuning ``none``
    nothing is trained and the base model is returned.

    Raises:
        ConfigError: the configuration does not fit the model or the rows.
        DeviceError, ModelError, StorageError, TrainingError: as their names say.
    """
    _check_validation(config, validation_rows)
    treated = ()
    if config.tuning != "none":
        treated = treat_rows(train_rows, config)
        check_treated(treated, config)
    folder = run / "checkpoints"
    found = checkpoint.find_checkpoints(folder) if resume else []
    newest = found[-1][1] if found else None
    before = None
    if newest is not None:
        checkpoint.verify(newest)
        before = checkpoint.read_manifest(newest)
    transformers.set_seed(config.seed)
    with memory_errors(OUT_OF_MEMORY):
        classifier = prepare(config, prompt, before=before)
    if config.tuning == "none":
        return TrainedPhase(classifier, {})
    world = classifier.join()
    if world.is_first:
        checkpoint.clean(folder, keep_finished=newest is not None)
        _remove_leftovers(run)
    world.wait()
    objective = build_objective(
        config.objective,
        layout=classifier.layout,
        prompt=prompt,
        encoder=classifier.encoder,
        model_type=classifier.base.model_type,
        pairing=config.counterfactual_pairing,
    )
    rows = encode_treated(treated, objective)
    validation = [classifier.layout.encode(row) for row in validation_rows]
    per_step = config.per_device_train_batch_size * config.gradient_accumulation_steps * world.size
    bar = Progress(per_step)
    trainer = PackTrainer(
        model=classifier.model,
        args=training_arguments(
            config,
            classifier,
            folder,
            has_validation=bool(validation),
            processes=world.size,
        ),
        objective=objective,
        layout=classifier.layout,
        train_rows=rows,
        validation_rows=validation,
        validation_objective_rows=[objective.encode(row) for row in validation_rows],
        batch_tokens=classifier.batch_tokens,
        keep_checkpoints=config.save_total_limit,
        checkpoint_facts={
            "device": classifier.device.name,
            "dtype": classifier.device.dtype_name,
        },
        callbacks=[*_listeners(config, run, is_first=world.is_first), bar],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    try:
        with checkpoint.file_errors(run), memory_errors(OUT_OF_MEMORY):
            output = trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
    finally:
        bar.close()
    _save_result(trainer, classifier, run)
    statistics = _statistics(
        trainer,
        output.metrics,
        config,
        classifier,
        rows=len(rows),
        truncated=sum(row.is_truncated for row in rows),
        history=read_history(run / "history.jsonl"),
    ) | treatment_statistics(treated, rows, config)
    if world.is_first:
        write_json(run / "training.json", statistics)
    world.wait()
    return TrainedPhase(classifier, statistics)


def _listeners(config: PhaseConfig, run: Path, *, is_first: bool) -> list[TrainerCallback]:
    found: list[TrainerCallback] = [History(run / "history.jsonl")]
    if config.early_stopping_patience is not None:
        found.append(
            EarlyStopping(
                patience=config.early_stopping_patience,
                threshold=config.early_stopping_threshold,
                mode=config.early_stopping_mode,
                metric=config.metric_for_best_model,
                greater=config.is_greater_better,
            )
        )
    if config.writes_tensorboard and is_first:
        from torch.utils.tensorboard import SummaryWriter

        found.append(TensorBoardCallback(SummaryWriter(str(run / "tensorboard"))))
    return found


def _remove_leftovers(run: Path) -> None:
    """Remove what a killed process was about to rename: results under their temporary names."""
    results = ("adapter", "model", "history.jsonl", "training.json", "manifest.json")
    for name in (*results, "config.json", "prompt.json"):
        for one in run.glob(f".{name}.*"):
            if one.suffix in (".tmp", ".old"):
                shutil.rmtree(one) if one.is_dir() else one.unlink()


def _check_validation(config: PhaseConfig, rows: Sequence[Row]) -> None:
    """Refuse validation rows that cannot do what the phase asks of them."""
    labels = {row.label for row in rows}
    message = None
    if None in labels:
        message = "has rows without a label"
    elif not rows and config.early_stopping_patience is not None:
        message = "has no rows, but early_stopping_patience needs them"
    elif len(labels) == 1 and config.metric_for_best_model == "eval_roc_auc":
        message = f"has only {labels.pop()} rows; metric_for_best_model roc_auc needs both labels"
    if message is not None and config.tuning != "none" and config.eval_strategy != "no":
        raise ConfigError("the validation data", [Problem("validation_file", message)])


def _save_result(trainer: PackTrainer, classifier: Classifier, run: Path) -> None:
    """Write the adapter, or the whole model, to the run folder; every process takes part."""
    is_adapter = classifier.config.uses_adapter
    target = run / ("adapter" if is_adapter else "model")
    with (
        atomic_dir(target)
        if trainer.is_world_process_zero()
        else contextlib.nullcontext(target) as staging
    ):
        trainer.save_model(str(staging), _internal_call=True)
        if staging != target and not is_adapter:
            classifier.base.tokenizer.save_pretrained(staging)


def training_arguments(
    config: PhaseConfig,
    classifier: Classifier,
    folder: Path,
    *,
    has_validation: bool,
    processes: int,
) -> TrainingArguments:
    """Return what the Trainer is told about a phase."""
    on_cpu = classifier.device.name == "cpu"
    evaluates = config.eval_strategy if has_validation else "no"
    return TrainingArguments(
        output_dir=str(folder),
        seed=config.seed,
        learning_rate=config.learning_rate,
        num_train_epochs=config.num_train_epochs,
        per_device_train_batch_size=config.per_device_train_batch_size,
        per_device_eval_batch_size=config.per_device_eval_batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        lr_scheduler_type=config.lr_scheduler_type,
        optim=config.optim,
        activation_checkpointing=config.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        eval_strategy=evaluates,
        eval_steps=config.eval_steps,
        save_strategy=config.save_strategy,
        save_steps=config.save_steps,
        load_best_model_at_end=config.load_best_model_at_end and evaluates != "no",
        restore_callback_states_from_checkpoint=True,
        metric_for_best_model=config.metric_for_best_model,
        greater_is_better=config.is_greater_better,
        logging_steps=config.logging_steps,
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        dataloader_num_workers=config.dataloader_num_workers,
        dataloader_pin_memory=not on_cpu,
        remove_unused_columns=False,
        use_cpu=on_cpu,
        # A base held in bfloat16 needs no autocast; one held in float32 does.
        bf16=trains_own_weights(config) and classifier.device.dtype_name == "bfloat16",
        ddp_find_unused_parameters=False,
        ddp_backend="gloo" if on_cpu and processes > 1 else None,
    )


def _statistics(
    trainer: PackTrainer,
    metrics: Mapping[str, float],
    config: PhaseConfig,
    classifier: Classifier,
    *,
    rows: int,
    truncated: int,
    history: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    processes = trainer.args.world_size
    batches = math.ceil(rows / (config.per_device_train_batch_size * processes))
    trainable = count(classifier.model, trainable_only=True)
    total = classifier.base.parameters
    best = trainer.state.best_global_step
    last_step = trainer.state.global_step
    if not (trainer.args.load_best_model_at_end and best):
        best = last_step
    checkpoints = _progression(history, best)
    losses = [one["eval_loss"] for one in checkpoints]
    runtime = history[-1]["elapsed_seconds"]
    return {
        "rows": rows,
        "validation_rows": len(trainer.validation_rows),
        "per_device_train_batch_size": config.per_device_train_batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation_steps,
        "processes": processes,
        "effective_batch_size": config.per_device_train_batch_size
        * config.gradient_accumulation_steps
        * processes,
        "steps_per_epoch": math.ceil(batches / config.gradient_accumulation_steps),
        "total_steps": trainer.state.max_steps,
        "steps_run": last_step,
        "warmup_steps": trainer.args.get_warmup_steps(trainer.state.max_steps),
        "trainable_parameters": trainable,
        "total_parameters": total,
        "trainable_percent": 100 * trainable / total,
        "runtime_seconds": runtime,
        "rows_per_second": rows * (trainer.state.epoch or 0.0) / runtime,
        "train_loss": metrics["train_loss"],
        "final_epoch": trainer.state.epoch,
        "final_eval_loss": losses[-1] if losses else None,
        "best_checkpoint": f"checkpoint-{best}",
        "stopped_early": last_step < trainer.state.max_steps,
        "checkpoints": checkpoints,
        "objective": trainer.objective.name,
        "layout": trainer.layout.name,
        "truncated_rows": truncated,
        "device": classifier.device.name,
        "dtype": classifier.device.dtype_name,
        "dtype_reason": classifier.device.reason,
    }


def _progression(history: Sequence[Mapping[str, Any]], best: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for line in history:
        if "eval_loss" not in line:
            continue
        before = found[-1]["eval_loss"] if found else None
        change = (before - line["eval_loss"]) / before if before else None
        metrics = {key: line[key] for key in line if key.startswith("eval_")}
        found.append(
            {
                "checkpoint": f"checkpoint-{line['step']}",
                "epoch": line["epoch"],
                "step": line["step"],
                **metrics,
                "relative_improvement": change,
                "best": line["step"] == best,
            }
        )
    return found
