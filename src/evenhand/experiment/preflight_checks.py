"""The checks of a preflight: each turns facts into a verdict, a sentence and a remedy."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from evenhand.config.schema import PhaseConfig
from evenhand.core.progress import format_duration
from evenhand.decide.audit.schedule import Schedule
from evenhand.finetune.devices import Device
from evenhand.finetune.preflight.architecture import Architecture
from evenhand.finetune.preflight.kernels import KernelFacts
from evenhand.finetune.preflight.launch import LaunchFacts
from evenhand.finetune.preflight.lengths import SequenceFacts
from evenhand.finetune.preflight.memory import MemoryEstimate, Room
from evenhand.finetune.preflight.step import MeasuredSteps
from evenhand.prompts.template import PromptTemplate

Status = Literal["ok", "warning", "problem", "unknown"]

HIGH_WARMUP = 0.3
HIGH_TRUNCATION = 0.01
TIGHT = 0.9
"""Share of the memory or of the disk above which there is little room for a surprise."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what was checked.
        status: ``ok``, ``warning``, ``problem`` (training would fail or be wrong), or ``unknown``.
        message: one sentence.
        remedy: what to do; empty where nothing is.
        facts: the figures behind it, not rounded.
    """

    name: str
    status: Status
    message: str
    remedy: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def check_files(missing: Mapping[str, str], *, rows: int | None, source: str) -> Check:
    """Judge whether the data, prompt and adapter files are there."""
    facts = {"missing": dict(missing), "rows": rows, "source": source}
    if missing:
        told = ", ".join(f"{key} ({name})" for key, name in missing.items())
        remedy = "Name files that exist; the checks below use starter texts where rows are missing."
        return Check("files", "problem", f"Not found: {told}.", remedy, facts)
    if rows is None:
        message = f"No training rows are named; {source} stand in."
        return Check("files", "unknown", message, "Name a train_file.", facts)
    return Check("files", "ok", f"{rows:,} training rows from {source}.", facts=facts)


def check_parameters(model: Architecture) -> Check:
    """State the parameters."""
    share = 100 * model.trainable / model.total
    facts = {"trainable": model.trainable, "total": model.total, "percent": share}
    message = f"{model.trainable:,} of {model.total:,} parameters are trained ({share:.3f}%)."
    return Check("parameters", "ok", message, facts=facts)


def check_prompt(prompt: PromptTemplate, lengths: SequenceFacts | None) -> Check:
    """State the prompt's hash and length; warn where it takes most of the sequence."""
    name = f"Prompt {prompt.origin}, {prompt.strategy}, sha256 {prompt.sha256[:12]}"
    facts: dict[str, Any] = {"sha256": prompt.sha256, "strategy": prompt.strategy}
    if lengths is None:
        remedy = "Put the model's tokenizer on this machine."
        return Check("prompt", "unknown", f"{name}; tokens not counted.", remedy, facts)
    if lengths.layout == "classifier":
        return Check("prompt", "ok", "A classification head sees the post without a prompt.")
    around = lengths.prefix + lengths.tail + max(lengths.labels)
    facts |= {
        "template_sha256": lengths.template_sha256,
        "prefix_tokens": lengths.prefix,
        "tail_tokens": lengths.tail,
        "tokens": around,
    }
    message = (
        f"{name}, chat template {str(lengths.template_sha256)[:12]}: "
        f"{lengths.prefix} shared tokens before the post, {lengths.tail} after it, "
        f"room for {lengths.max_length - around} tokens of post."
    )
    return Check("prompt", "ok", message, facts=facts)


def check_truncation(lengths: SequenceFacts, *, source: str) -> Check:
    """Judge the share of rows that do not fit."""
    share, count = lengths.truncated_share, len(lengths.rows)
    facts = {
        "truncated": lengths.truncated,
        "rows": count,
        "share": share,
        "mean_tokens": sum(lengths.rows) / count,
        "longest_tokens": max(lengths.rows),
        "max_seq_length": lengths.max_length,
    }
    message = (
        f"{lengths.truncated:,} of {count:,} rows ({100 * share:.1f}%; {source}) are cut to "
        f"max_seq_length {lengths.max_length}."
    )
    if share > HIGH_TRUNCATION:
        return Check("truncation", "warning", message, "Raise max_seq_length.", facts)
    return Check("truncation", "ok", message, facts=facts)


def check_memory(
    estimate: MemoryEstimate,
    room: Room | None,
    *,
    device: Device,
    processes: int,
    steps: MeasuredSteps | None,
) -> Check:
    """Judge the memory of a step against what the device has; a measured peak counts for more.

    ``room`` is the memory before the steps were measured. The processes of a CPU share it.
    """
    here = processes if device.name == "cpu" else 1
    estimated = estimate.total
    peak = None if steps is None else steps.peak_memory
    needed = here * (estimated if peak is None else peak)
    facts: dict[str, Any] = {
        "estimate": {**asdict(estimate), "total": estimate.total},
        "measured_peak": peak,
        "measured_added": None if steps is None else steps.added_memory,
        "room": None if room is None else asdict(room),
    }
    parts = {
        "weights": estimate.weights,
        "gradients and optimiser": estimate.gradients + estimate.optimiser,
        "activations": estimate.activations + estimate.working,
        "logits": estimate.logits,
        "libraries": estimate.runtime,
    }
    told = ", ".join(f"{name} {gigabytes(value)}" for name, value in parts.items())
    message = f"About {gigabytes(estimated)} a process in {device.dtype_name} ({told})"
    if peak is not None:
        message += f"; measured {gigabytes(peak)}"
    if room is None:
        return Check(
            "memory", "unknown", f"{message}; this machine does not tell its own.", "", facts
        )
    where = "the GPU" if device.name == "cuda" else "this machine"
    several = f" for {here} processes" if here > 1 else ""
    message += f"; {where} has {gigabytes(room.total)}, {gigabytes(room.free)} free{several}."
    remedy = (
        "Lower per_device_train_batch_size and raise gradient_accumulation_steps, or set "
        "gradient_checkpointing to true"
    )
    if needed > room.total:
        if estimate.weights > 0.5 * room.total:
            remedy = "Use a device with more memory, several GPUs with FSDP, or a smaller model"
        return Check("memory", "problem", message, f"{remedy}.", facts)
    if here * estimated > room.total:
        return Check(
            "memory", "warning", message, f"The largest batch may not fit. {remedy}.", facts
        )
    if needed > TIGHT * room.total or needed - estimate.runtime > room.free:
        return Check("memory", "warning", message, f"It is tight. {remedy}.", facts)
    return Check("memory", "ok", message, facts=facts)


def check_disk(
    config: PhaseConfig, model: Architecture, schedule: Schedule | None, folder: Path
) -> Check:
    """Judge the room for checkpoints where the run folder will be."""
    trained = model.total if config.tuning == "full" else model.trainable
    each = 4.0 * (trained + 2 * model.trainable)  # weights and the optimiser's two moments
    kept = _checkpoints(config, schedule)
    needed = (kept + 1) * each + 4.0 * trained  # one more is written before the oldest is deleted
    there = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.is_dir())
    free = float(shutil.disk_usage(there).free)
    facts = {"needed": needed, "free": free, "checkpoint": each, "checkpoints_kept": kept}
    message = (
        f"About {gigabytes(needed)} for {kept} checkpoint{'s' if kept > 1 else ''} and the result; "
        f"{gigabytes(free)} free at {folder}."
    )
    if needed > free:
        remedy = "Lower save_total_limit, or choose a run folder on another disk."
        return Check("disk", "problem", message, remedy, facts)
    if needed > TIGHT * free:
        return Check("disk", "warning", message, "Set save_total_limit, or free some space.", facts)
    return Check("disk", "ok", message, facts=facts)


def _checkpoints(config: PhaseConfig, schedule: Schedule | None) -> int:
    """Return how many checkpoints are kept at once; where that is not known, one an epoch."""
    written = config.num_train_epochs
    if config.save_strategy == "no":
        written = 1.0  # the best state is saved all the same
    elif config.save_strategy == "steps" and config.save_steps < 1:
        written = 1 / config.save_steps
    elif config.save_strategy == "steps" and schedule is not None:
        written = schedule.total / config.save_steps
    return max(1, min(config.save_total_limit or math.ceil(written), math.ceil(written)))


def check_kernel(part: str, facts: Sequence[KernelFacts]) -> Check:
    """Judge a kernel by its output and gradients against eager's."""
    figures = [{**asdict(one), "worst": one.found.worst, "is_same": one.is_same} for one in facts]
    name = facts[0].name
    told = "; ".join(
        f"{one.dtype}: largest relative difference {one.found.worst:.1e}, bound {one.bound:.1e}"
        for one in facts
    )
    layout = f" in the {facts[0].layout} layout"
    if all(one.is_same for one in facts):
        message = f"{name}{layout} gives eager's output and gradients ({told})."
        return Check(part, "ok", message, facts={"comparisons": figures})
    message = f"{name}{layout} does not give eager's output and gradients ({told})."
    remedy = f"Do not train with it: use another version of the kernel, or eager {part}."
    return Check(part, "problem", message, remedy, {"comparisons": figures})


def check_processes(
    config: PhaseConfig, facts: LaunchFacts, *, processes: int, gpus: int, device: Device
) -> Check:
    """Judge the settings of data-parallel training, as the Trainer will get them."""
    batch, accumulation = config.per_device_train_batch_size, config.gradient_accumulation_steps
    effective = processes * batch * accumulation
    figures = {**asdict(facts), "processes": processes, "gpus": gpus}
    figures["effective_batch_size"] = effective
    message = (
        f"{processes} process{'es' if processes > 1 else ''} x {batch} rows x {accumulation} "
        f"accumulation = {effective} rows an update"
    )
    wrong = []
    if facts.finds_unused:
        wrong.append("DDP would search for unused parameters (find_unused_parameters)")
    if facts.is_reentrant and facts.uses_checkpointing:
        wrong.append("activation checkpointing would be reentrant")
    if facts.gpus_per_process > 1:
        wrong.append(f"one process would drive {facts.gpus_per_process} GPUs")
    if wrong:
        remedy = "These are Evenhand's own settings: a newer transformers may have renamed them."
        return Check("processes", "problem", f"{message}, but {'; '.join(wrong)}.", remedy, figures)
    message += "; find_unused_parameters off, checkpointing non-reentrant."
    if device.name == "cuda" and processes != gpus:
        remedy = f"Start one process a GPU: torchrun --nproc_per_node {gpus} -m evenhand train ..."
        if processes > gpus:
            remedy = "With several machines, ask for the processes of one of them."
        return Check(
            "processes", "warning", f"{message} {processes} for {gpus} GPUs.", remedy, figures
        )
    return Check("processes", "ok", message, facts=figures)


def check_warmup(schedule: Schedule | None) -> Check:
    """Judge the share of updates in which the learning rate rises."""
    if schedule is None:
        return Check("warm-up", "unknown", "The updates are not known without the training rows.")
    share = schedule.warmup_share
    facts = {"warmup_steps": schedule.warmup, "total_steps": schedule.total, "share": share}
    message = f"{schedule.warmup:,} of {schedule.total:,} updates warm up ({100 * share:.0f}%)."
    if share > HIGH_WARMUP:
        remedy = "Give warmup_steps as a share, 0.1 for example; 3 to 10% is usual."
        return Check("warm-up", "warning", message, remedy, facts)
    return Check("warm-up", "ok", message, facts=facts)


def check_step(
    steps: MeasuredSteps,
    *,
    rows: int | None,
    epochs: float,
    processes: int,
    hourly_price: float | None,
) -> Check:
    """State speed, time and cost from measured steps.

    Processes that were not started here are counted on GPUs alone, as if none slowed another; on
    a CPU they would share the same cores.
    """
    rate = steps.rows_per_second
    facts: dict[str, Any] = {**asdict(steps), "rows_per_second": rate}
    message = (
        f"{rate:.3g} rows/s over {len(steps.seconds)} measured steps of {steps.rows_per_step} rows "
        f"({steps.processes} process{'es' if steps.processes > 1 else ''}, {steps.device}, "
        f"{steps.dtype}, {steps.layout} layout)"
    )
    if rows is None:
        message += ", on starter texts; the time of an epoch is not known without the rows."
        return Check("time", "unknown", message, "Name the training rows.", facts)
    scale = processes / steps.processes
    if scale != 1 and steps.device != "cuda":
        message += f"; the time of {processes} processes on these cores was not measured."
        remedy = f"Run preflight itself under torchrun --nproc_per_node {processes}."
        return Check("time", "unknown", message, remedy, facts)
    seconds = rows / (rate * scale)
    facts |= {
        "seconds_per_epoch": seconds,
        "seconds_in_all": epochs * seconds,
        "processes": processes,
    }
    at_best = f" at best on {processes} GPUs" if scale != 1 else ""
    message += f": {format_duration(seconds)} an epoch of {rows:,} rows{at_best}"
    if hourly_price is not None:
        cost = hourly_price * processes * seconds / 3600
        facts |= {"hourly_price": hourly_price, "cost_per_epoch": cost, "cost": epochs * cost}
        message += f", {cost:.2f} an epoch and {epochs * cost:.2f} in all"
        message += f" at {hourly_price:g} an hour and process"
    return Check("time", "ok", f"{message}; without evaluation.", facts=facts)


def check_same_prompt(prompts: Mapping[str, PromptTemplate]) -> Check:
    """Judge whether the phases of an experiment are asked in the same words."""
    hashes = {name: prompt.sha256 for name, prompt in prompts.items()}
    if len(set(hashes.values())) > 1:
        told = ", ".join(f"{name} {one[:12]}" for name, one in hashes.items())
        remedy = "Name the prompt once, in the experiment, unless the prompt is what is compared."
        return Check(
            "prompts", "warning", f"Phases have different prompts: {told}.", remedy, hashes
        )
    return Check("prompts", "ok", f"{len(hashes)} phases have the same prompt.", facts=hashes)


def gigabytes(value: float) -> str:
    """Return bytes in GB (1e9).

    >>> gigabytes(2.5e9), gigabytes(4e6)
    ('2.5 GB', '0.004 GB')
    """
    return f"{value / 1e9:.1f} GB" if value >= 1e8 else f"{value / 1e9:.1g} GB"


def worst(checks: Iterable[Check]) -> Status:
    """Return the worst status, an unknown being better than a warning."""
    order: tuple[Status, ...] = ("ok", "unknown", "warning", "problem")
    return order[max((order.index(one.status) for one in checks), default=0)]
