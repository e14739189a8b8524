"""The training history of a model that was trained elsewhere, from the files that it left."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evenhand.core.errors import DataError, Problem
from evenhand.core.paths import sha256_file

ARGUMENTS = (
    "learning_rate",
    "num_train_epochs",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "lr_scheduler_type",
    "optim",
    "seed",
    "eval_strategy",
    "save_strategy",
    "load_best_model_at_end",
    "metric_for_best_model",
    "greater_is_better",
    "gradient_checkpointing",
    "bf16",
)
"""Hugging Face's training arguments that are keys of a phase too."""

ADAPTER = {
    "base_model_name_or_path": "model_name_or_path",
    "r": "lora_r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "target_modules": "lora_target_modules",
    "target_parameters": "lora_target_parameters",
    "bias": "lora_bias",
}
"""Keys of ``adapter_config.json`` and what a phase calls them."""

# Hugging Face rounds these before it writes them, and event files hold them as 32-bit floats.
_DECIMALS = {"runtime": 4, "samples_per_second": 3, "steps_per_second": 3}
_MOST_PROCESSES = 4096


@dataclass(frozen=True)
class History:
    """What the files of a training prove.

    Attributes:
        folder: where they lie.
        lines: as in ``history.jsonl``: one per log and per evaluation.
        training: as in ``training.json``, without the keys that no file tells.
        derived: for the keys that follow from others by arithmetic, how.
        config: the phase's configuration as far as the files tell it, and in ``origins`` which.
        files: sha256 by name.
    """

    folder: Path
    lines: tuple[Mapping[str, Any], ...]
    training: Mapping[str, Any]
    derived: Mapping[str, str]
    config: Mapping[str, Any]
    origins: Mapping[str, str]
    files: Mapping[str, str]


def read_history(folder: Path) -> History:
    """Read event files, ``trainer_state.json``, ``all_results.json`` and ``adapter_config.json``.

    Raises:
        DataError: the folder holds none of them, one cannot be read, or events of two trainings.
    """
    if not folder.is_dir():
        raise DataError(
            str(folder),
            [Problem("--history", "is not a folder; name the one that holds the training's files")],
            consequence="nothing was imported",
        )
    problems: list[Problem] = []
    events = sorted(path for path in folder.rglob("*tfevents*") if path.is_file())
    read = _read_events(events, problems)
    state = _read_object(folder / "trainer_state.json", problems)
    results = _read_object(folder / "all_results.json", problems)
    adapter = _read_object(folder / "adapter_config.json", problems)
    if not problems and not (events or state or results or adapter):
        message = (
            "holds no TensorBoard event file (*tfevents*), trainer_state.json, all_results.json "
            "or adapter_config.json"
        )
        problems.append(Problem("--history", message))
    if problems:
        raise DataError(str(folder), problems, consequence="nothing was imported")
    lines = tuple((state or {}).get("log_history") or read.lines)
    config, origins = _configuration(read.arguments, adapter)
    training, derived = _training(lines, results or {}, state or {}, read.arguments)
    named = [*events, *(folder / f"{n}.json" for n in ("trainer_state", "all_results"))]
    named.append(folder / "adapter_config.json")
    files = {
        path.relative_to(folder).as_posix(): sha256_file(path) for path in named if path.is_file()
    }
    return History(folder, lines, training, derived, config, origins, files)


@dataclass(frozen=True)
class _Events:
    lines: tuple[Mapping[str, Any], ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)


def _read_events(paths: Sequence[Path], problems: list[Problem]) -> _Events:
    """Read scalars as log lines, and the text of the training arguments."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found: list[tuple[float, list[Any]]] = []
    for path in paths:
        try:
            events = list(EventFileLoader(str(path)).Load())
        except Exception as error:  # the loader raises what protobuf and its record reader raise
            problems.append(Problem(path.name, f"is not readable as TensorBoard events: {error}"))
            continue
        if not events:
            problems.append(Problem(path.name, "holds no TensorBoard events"))
            continue
        found.append((events[0].wall_time, events))
    lines: list[Mapping[str, Any]] = []
    arguments: list[Mapping[str, Any]] = []
    for _, events in sorted(found, key=lambda one: one[0]):
        logged, texts = _log_lines(events)
        # The closing evaluation is written again, of the best model, at the last step's number.
        known = {(line["step"], "eval_loss" in line) for line in lines}
        lines += [line for line in logged if (line["step"], "eval_loss" in line) not in known]
        arguments += texts
    if len(arguments) > 1:
        message = f"events of {len(arguments)} trainings; name the folder of one"
        problems.append(Problem("--history", message))
    return _Events(tuple(lines), arguments[0] if arguments else {})


def _log_lines(events: Sequence[Any]) -> tuple[list[dict[str, Any]], list[Mapping[str, Any]]]:
    lines: list[dict[str, Any]] = []
    texts: list[Mapping[str, Any]] = []
    current: dict[str, Any] = {}
    for event in events:
        for value in event.summary.value:
            if value.tag.startswith("args/"):
                texts += _arguments(value)
            elif value.metadata.plugin_data.plugin_name == "scalars" and value.tensor.float_val:
                key = _key(value.tag)
                if current and (current["step"] != event.step or key in current):
                    lines.append(current)
                    current = {}
                current = {"step": int(event.step), **current}
                current[key] = _rounded(key, float(value.tensor.float_val[0]))
                if key == "epoch":  # the last of a log's values
                    lines.append(current)
                    current = {}
    return ([*lines, current] if current else lines), texts


def _key(tag: str) -> str:
    """Undo the names that Hugging Face gives its logs in TensorBoard."""
    kind, _, name = tag.partition("/")
    return f"{kind}_{name}" if kind in ("eval", "test") else name or kind


def _rounded(key: str, value: float) -> float:
    for ending, digits in _DECIMALS.items():
        if key.endswith(ending):
            return round(value, digits)
    return value


def _arguments(value: Any) -> list[Mapping[str, Any]]:
    try:
        document = json.loads(value.tensor.string_val[0])
    except (ValueError, IndexError):
        return []
    return [document] if isinstance(document, dict) else []


def _read_object(path: Path, problems: list[Problem]) -> Mapping[str, Any] | None:
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problems.append(Problem(path.name, f"is not readable as JSON: {error}"))
        return None
    if not isinstance(value, dict):
        problems.append(Problem(path.name, "is not a JSON object"))
        return None
    return value


def _configuration(
    arguments: Mapping[str, Any], adapter: Mapping[str, Any] | None
) -> tuple[dict[str, Any], dict[str, str]]:
    config: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for key, name in ADAPTER.items():
        value = (adapter or {}).get(key)
        if value is not None:
            config[name] = sorted(value) if isinstance(value, list) else value
            origins[name] = "adapter_config.json"
    for name in ARGUMENTS:
        if arguments.get(name) is not None:
            config[name] = arguments[name]
            origins[name] = "the event file's training arguments"
    return config, origins


def _training(
    lines: Sequence[Mapping[str, Any]],
    results: Mapping[str, Any],
    state: Mapping[str, Any],
    arguments: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the training statistics that the files prove, and how the derived ones follow."""
    closing = next((line for line in reversed(lines) if "train_runtime" in line), {})
    summary = {**closing, **results}
    epochs = summary.get("epoch", state.get("epoch"))
    steps_run = state.get("global_step", max((line["step"] for line in lines), default=None))
    known: dict[str, Any] = {
        "per_device_train_batch_size": arguments.get("per_device_train_batch_size"),
        "gradient_accumulation_steps": arguments.get("gradient_accumulation_steps"),
        "warmup_steps": arguments.get("warmup_steps") or None,
        "runtime_seconds": summary.get("train_runtime"),
        "rows_per_second": summary.get("train_samples_per_second"),
        "train_loss": summary.get("train_loss"),
        "total_flos": summary.get("total_flos", state.get("total_flos")),
        "final_epoch": epochs,
        "steps_run": steps_run,
        "total_steps": state.get("max_steps"),
    }
    derived: dict[str, str] = {}

    def derive(key: str, value: Any, how: str) -> None:
        if known.get(key) is None and value is not None:
            known[key] = value
            derived[key] = how

    planned = arguments.get("num_train_epochs", state.get("num_train_epochs"))
    derive("steps_per_epoch", _steps_per_epoch(lines), "the step at which a whole epoch ended")
    if planned and known.get("steps_per_epoch"):
        total = math.ceil(planned * known["steps_per_epoch"])
        derive("total_steps", total, "steps per epoch x num_train_epochs")
    derive("rows", _rows(summary, planned), "train_samples_per_second x train_runtime / epochs")
    derive(
        "validation_rows",
        _whole(summary.get("eval_samples_per_second"), summary.get("eval_runtime"), 1.0),
        "eval_samples_per_second x eval_runtime",
    )
    derive(
        "processes",
        _processes(known),
        "the only number that gives these steps per epoch from rows, batch size and accumulation",
    )
    if all(known.get(key) for key in ("processes", "per_device_train_batch_size")):
        effective = known["processes"] * known["per_device_train_batch_size"]
        derive(
            "effective_batch_size",
            effective * (known["gradient_accumulation_steps"] or 1),
            "batch size per device x processes x accumulation",
        )
    if known["total_steps"] and steps_run is not None:
        derive("stopped_early", steps_run < known["total_steps"], "steps run against steps planned")
    checkpoints = _checkpoints(lines, _best_step(lines, state, arguments))
    known["checkpoints"] = checkpoints or None
    losses = [one["eval_loss"] for one in checkpoints]
    known["final_eval_loss"] = losses[-1] if losses else results.get("eval_loss")
    known["best_checkpoint"] = next((o["checkpoint"] for o in checkpoints if o["best"]), None)
    return {key: value for key, value in known.items() if value is not None}, derived


def _steps_per_epoch(lines: Sequence[Mapping[str, Any]]) -> int | None:
    for line in lines:
        epoch = line.get("epoch")
        if epoch and line.get("step") and float(epoch).is_integer():
            steps = line["step"] / epoch
            return int(steps) if steps.is_integer() else None
    return None


def _rows(summary: Mapping[str, Any], epochs: float | None) -> int | None:
    rate, runtime = summary.get("train_samples_per_second"), summary.get("train_runtime")
    return None if not epochs else _whole(rate, runtime, epochs)


def _whole(rate: float | None, runtime: float | None, epochs: float) -> int | None:
    """Return the one whole number that a rounded rate over a rounded time leaves, if it is one."""
    if not rate or not runtime:
        return None
    low = math.ceil((rate - 5e-4) * (runtime - 5e-5) / epochs)
    high = math.floor((rate + 5e-4) * (runtime + 5e-5) / epochs)
    return low if low == high else None


def _processes(known: Mapping[str, Any]) -> int | None:
    """Return the number of processes, if only one gives the steps per epoch that were taken.

    Transformers takes the batches of an epoch, rounded up, over the accumulation, rounded up; it
    rounded down before release 4.46.
    """
    rows, batch = known.get("rows"), known.get("per_device_train_batch_size")
    steps = known.get("steps_per_epoch")
    if not (rows and batch and steps):
        return None
    accumulation = known.get("gradient_accumulation_steps") or 1
    fitting = []
    for count in range(1, _MOST_PROCESSES):
        batches = math.ceil(rows / (batch * count))
        if steps in (math.ceil(batches / accumulation), max(batches // accumulation, 1)):
            fitting.append(count)
    return fitting[0] if len(fitting) == 1 else None


def _best_step(
    lines: Sequence[Mapping[str, Any]], state: Mapping[str, Any], arguments: Mapping[str, Any]
) -> int | None:
    """Return the step of the best checkpoint: as recorded, else as the arguments choose it."""
    recorded = state.get("best_global_step")
    if recorded is None and state.get("best_model_checkpoint"):
        recorded = int(str(state["best_model_checkpoint"]).rpartition("-")[2])
    if recorded is not None or not arguments.get("load_best_model_at_end"):
        return recorded
    metric = str(arguments.get("metric_for_best_model") or "eval_loss")
    metric = metric if metric.startswith("eval_") else f"eval_{metric}"
    measured = [(line[metric], line["step"]) for line in lines if metric in line]
    if not measured or arguments.get("eval_strategy") != arguments.get("save_strategy"):
        return None
    values = [value for value, _ in measured]
    best = max(values) if arguments.get("greater_is_better") else min(values)
    return measured[values.index(best)][1]


def _checkpoints(lines: Sequence[Mapping[str, Any]], best: int | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for line in lines:
        if "eval_loss" not in line:
            continue
        before = found[-1]["eval_loss"] if found else None
        change = (before - line["eval_loss"]) / before if before else None
        found.append(
            {
                "checkpoint": f"checkpoint-{line['step']}",
                "epoch": line.get("epoch"),
                "step": line["step"],
                "eval_loss": line["eval_loss"],
                "relative_improvement": change,
                "best": line["step"] == best,
            }
        )
    return found
