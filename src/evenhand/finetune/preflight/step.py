"""A few real steps of a phase's training, timed; nothing is written."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from evenhand.config.schema import PhaseConfig
from evenhand.core.records import Row
from evenhand.finetune.classifier import prepare
from evenhand.finetune.devices import memory_errors
from evenhand.finetune.objective import build_objective
from evenhand.finetune.preflight.memory import peak_bytes, reset_peak, resident_bytes
from evenhand.finetune.train import OUT_OF_MEMORY, training_arguments
from evenhand.finetune.trainer import PackTrainer
from evenhand.finetune.treatment import TreatedRow, check_treated, encode_treated, treat_rows
from evenhand.prompts.template import PromptTemplate


@dataclass(frozen=True, slots=True)
class MeasuredSteps:
    """Real training steps on this machine, after one that is not counted.

    Attributes:
        seconds: of each step.
        rows_per_step: rows behind each update, over all processes.
        processes: processes that took part.
        layout: how rows were laid out.
        peak_memory: most bytes that this process had, in all; None where it cannot be known.
        added_memory: bytes over what the process had before the model was loaded.
    """

    seconds: tuple[float, ...]
    rows_per_step: int
    processes: int
    layout: str
    device: str
    dtype: str
    peak_memory: float | None
    added_memory: float | None

    @property
    def seconds_per_step(self) -> float:
        """Mean time of a step."""
        return sum(self.seconds) / len(self.seconds)

    @property
    def rows_per_second(self) -> float:
        """Rows over time, over all processes."""
        return self.rows_per_step / self.seconds_per_step


class _Clock(TrainerCallback):
    """Notes when each step ended."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.ended: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Note the time, once the device has done its work."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.ended.append(time.perf_counter())


def measure_steps(
    config: PhaseConfig,
    prompt: PromptTemplate,
    rows: Sequence[Row],
    *,
    steps: int,
    rng: np.random.Generator,
) -> MeasuredSteps:
    """Load the model, train one step and then ``steps`` more on rows drawn at random.

    Every process of a launcher takes part, as in training.

    Raises:
        ConfigError, DeviceError, ModelError, TrainingError: as in training.
    """
    treated = treat_rows(rows, config)
    check_treated(treated, config)
    reset_peak()
    before = resident_bytes()
    transformers.set_seed(config.seed)
    with memory_errors(OUT_OF_MEMORY):
        classifier = prepare(config, prompt)
    world = classifier.join()
    device = classifier.device.name
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    per_step = config.per_device_train_batch_size * config.gradient_accumulation_steps * world.size
    drawn = _draw(treated, (steps + 1) * per_step, rng)
    objective = build_objective(
        config.objective,
        layout=classifier.layout,
        prompt=prompt,
        encoder=classifier.encoder,
        model_type=classifier.base.model_type,
        pairing=config.counterfactual_pairing,
    )
    short = config.model_copy(
        update={"num_train_epochs": 1.0, "eval_strategy": "no", "save_strategy": "no"}
    )
    clock = _Clock(device)
    with tempfile.TemporaryDirectory() as folder:
        trainer = PackTrainer(
            model=classifier.model,
            args=training_arguments(
                short, classifier, Path(folder), has_validation=False, processes=world.size
            ),
            objective=objective,
            layout=classifier.layout,
            train_rows=encode_treated(drawn, objective),
            validation_rows=[],
            validation_objective_rows=[],
            batch_tokens=classifier.batch_tokens,
            keep_checkpoints=None,
            checkpoint_facts={},
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        with memory_errors(OUT_OF_MEMORY):
            trainer.train()
    peak, added = peak_bytes(), None
    if device == "cuda":
        peak = added = float(torch.cuda.max_memory_allocated())
    elif peak is not None and before is not None:
        added = peak - before
    return MeasuredSteps(
        seconds=tuple(np.diff(clock.ended).tolist()),
        rows_per_step=per_step,
        processes=world.size,
        layout=classifier.layout.name,
        device=device,
        dtype=classifier.device.dtype_name,
        peak_memory=peak,
        added_memory=added,
    )


def _draw(rows: Sequence[TreatedRow], count: int, rng: np.random.Generator) -> list[TreatedRow]:
    """Draw rows without repeating one before all have been drawn."""
    order: list[int] = []
    while len(order) < count:
        order += rng.permutation(len(rows)).tolist()
    return [rows[place] for place in order[:count]]
