"""What listens to training: early stopping, the history file, progress."""

# ruff: noqa: ARG002 - the Trainer calls these with more than each of them needs

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from evenhand.core.paths import write_text
from evenhand.core.progress import progress


def is_improvement(
    value: float, best: float, *, threshold: float, mode: str, greater: bool
) -> bool:
    """Return whether a metric improved on the best value seen so far by more than the threshold.

    ``absolute`` compares the difference with the threshold, as Hugging Face does; ``relative``
    compares it with that share of the best value, which is what "1% improvement" says.

    >>> is_improvement(0.5088, 0.5108, threshold=0.01, mode="relative", greater=False)
    False
    >>> is_improvement(0.50, 0.51, threshold=0.01, mode="relative", greater=False)
    True
    """
    gain = value - best if greater else best - value
    return gain > (threshold * abs(best) if mode == "relative" else threshold)


class EarlyStopping(TrainerCallback, ExportableState):
    """Stops after ``patience`` evaluations without improvement; its state is in checkpoints."""

    def __init__(
        self, *, patience: int, threshold: float, mode: str, metric: str, greater: bool
    ) -> None:
        self.patience = patience
        self.threshold = threshold
        self.mode = mode
        self.metric = metric
        self.greater = greater
        self.best: float | None = None
        self.waited = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop again at once, if training was stopped before it was interrupted."""
        control.should_training_stop |= self.waited >= self.patience

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Compare with the best value seen, which moves on with small improvements too."""
        value = given["metrics"][self.metric]
        if self.best is None or is_improvement(
            value, self.best, threshold=self.threshold, mode=self.mode, greater=self.greater
        ):
            self.waited = 0
        else:
            self.waited += 1
        if self.best is None or (value > self.best if self.greater else value < self.best):
            self.best = value
        control.should_training_stop |= self.waited >= self.patience

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        settings = {
            "patience": self.patience,
            "threshold": self.threshold,
            "mode": self.mode,
            "metric": self.metric,
            "greater": self.greater,
        }
        return {"args": settings, "attributes": {"best": self.best, "waited": self.waited}}


class History(TrainerCallback):
    """Appends one line to ``history.jsonl`` per log and per evaluation."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.started = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep the lines up to the step from which training goes on."""
        if state.is_world_process_zero:
            kept = [line for line in read_history(self.path) if line["step"] <= state.global_step]
            before = kept[-1]["elapsed_seconds"] if kept and state.global_step > 0 else 0.0
            self.started = time.monotonic() - before
            text = "".join(json.dumps(line) + "\n" for line in kept if state.global_step > 0)
            write_text(self.path, text)

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Write a line."""
        if state.is_world_process_zero:
            line = {"step": state.global_step, **given["logs"], "epoch": state.epoch}
            line["elapsed_seconds"] = time.monotonic() - self.started
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")


def read_history(path: Path) -> list[dict[str, Any]]:
    """Read ``history.jsonl``; a last line that a kill cut short is left out."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


class Progress(TrainerCallback):
    """Shows the rows trained, with loss and epoch."""

    def __init__(self, rows_per_step: int) -> None:
        self.rows_per_step = rows_per_step
        self.context: Any = None
        self.advance: Any = None
        self.fields: dict[str, float | str] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Open the bar."""
        total = (state.max_steps - state.global_step) * self.rows_per_step
        self.context = progress(total, label="train")
        self.advance = self.context.__enter__()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move it on."""
        self.advance(self.rows_per_step, epoch=f"{state.epoch:.2f}", **self.fields)

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Note the latest losses."""
        logs = given["logs"]
        shown = {"loss": "loss", "eval_loss": "validation loss"}
        self.fields |= {shown[key]: f"{logs[key]:.4f}" for key in shown if key in logs}

    def close(self) -> None:
        """Close the bar, however training ended."""
        if self.context is not None:
            self.context.__exit__(None, None, None)
