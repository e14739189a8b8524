"""What is recorded of a training, as facts and tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evenhand.report.configuration import warmup_share
from evenhand.report.records import PhaseReport
from evenhand.report.tables import parameter_share
from evenhand.report.wording import UNKNOWN, cell, count, decimal, duration, percent, table


def training_statistics(
    phase: PhaseReport, training: Mapping[str, Any]
) -> tuple[tuple[str, str], ...]:
    """Return the reference's training statistics, and how the work was laid out."""
    batch = training.get("effective_batch_size")
    effective = (
        f"{count(batch)} "
        f"({count(training.get('per_device_train_batch_size'))} per device x "
        f"{count(training.get('processes'))} processes x "
        f"{count(training.get('gradient_accumulation_steps'))} accumulation)"
    )
    trainable, total = training.get("trainable_parameters"), training.get("total_parameters")
    parameters = count(trainable)
    if parameter_share(training):
        parameters += f"{parameter_share(training)[:-1]} of {count(total)})"
    warmup = count(training.get("warmup_steps"))
    if warmup_share(phase) is not None:
        warmup += f" ({percent(warmup_share(phase))} of the steps)"
    facts = [
        ("Training rows", count(training.get("rows"))),
        ("Validation rows", count(training.get("validation_rows"))),
        ("Effective batch size", UNKNOWN if batch is None else effective),
        ("Steps per epoch", count(training.get("steps_per_epoch"))),
        ("Total training steps", count(training.get("total_steps"))),
        ("Warm-up steps", warmup),
        ("Trainable parameters", parameters),
        ("Truncated rows", count(training.get("truncated_rows"))),
    ]
    facts += [
        (title, cell(training[key]))
        for title, key in (
            ("Objective", "objective"),
            ("Layout", "layout"),
            ("Device", "device"),
            ("Number format", "dtype"),
        )
        if training.get(key) is not None
    ]
    return tuple(fact for fact in facts if fact[1] != UNKNOWN)


def training_results(training: Mapping[str, Any]) -> str | None:
    """Return the training results that are recorded, or None where none is."""
    stopped = training.get("stopped_early")
    words = {True: "yes", False: "no"}.get(stopped, UNKNOWN) if stopped is not None else UNKNOWN
    rows = [
        ["Final epoch", decimal(training.get("final_epoch"), digits=1)],
        ["Final eval loss", decimal(training.get("final_eval_loss"), digits=4)],
        ["Final train loss", decimal(training.get("train_loss"), digits=4)],
        ["Training run time", duration(training.get("runtime_seconds"))],
        ["Rows per second", decimal(training.get("rows_per_second"))],
        ["Stopped early", words],
    ]
    recorded = [row for row in rows if row[1] != UNKNOWN]
    return table(["Metric", "Value"], recorded) if recorded else None
