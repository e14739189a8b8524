"""The parts of a summary as finished text: facts, and tables in Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evenhand.core.evaluation import Evaluation, Metrics, MetricValue, Slice
from evenhand.measure.classification import learned_nothing
from evenhand.report.comparison import judging_set
from evenhand.report.findings import main_configuration, warmup_share
from evenhand.report.records import PhaseReport, SetReport, Summary
from evenhand.report.wording import (
    METRIC_NAMES,
    UNKNOWN,
    cell,
    count,
    decimal,
    duration,
    estimate,
    interval,
    is_number,
    metric_name,
    percent,
    points,
    points_with_interval,
    relative,
    table,
)


@dataclass(frozen=True)
class EvaluationSection:
    """One evaluation of one phase."""

    set: str
    role: str
    decided: str
    counts: str
    performance: str
    confusion: str
    bounds: str | None
    groups: str | None
    gaps: str | None
    slices: str | None


@dataclass(frozen=True)
class PhaseSection:
    """One phase: configuration, training, evaluations."""

    title: str
    name: str
    config: str
    run_dir: str
    hypothesis: str | None
    parent: str | None
    configuration: str
    statistics: tuple[tuple[str, str], ...]
    results: str | None
    progression: str | None
    best: str | None
    warnings: tuple[str, ...]
    evaluations: tuple[EvaluationSection, ...]
    learned_nothing_on: str | None


def phase_section(summary: Summary, index: int) -> PhaseSection:
    """Return the section of one phase; its production evaluations have a section of their own."""
    phase = summary.phases[index]
    before = summary.phases[index - 1] if index else None
    reference = (summary.phase(phase.parent) if phase.parent else None) or before
    judged = judging_set(summary)
    item = phase.evaluations.get(judged or "")
    training = phase.training
    return PhaseSection(
        title=f"Phase {index + 1}: {cell(phase.name)}",
        name=cell(phase.name),
        config=cell(phase.config_source or "in the experiment file"),
        run_dir=cell(phase.run_dir),
        hypothesis=None if phase.hypothesis is None else cell(phase.hypothesis),
        parent=None if phase.parent is None else cell(phase.parent),
        configuration=configuration_json(phase.config),
        statistics=() if training is None else training_statistics(phase, training),
        results=None if training is None else training_results(training),
        progression=None if training is None else training_progression(training),
        best=None if training is None else training.get("best_checkpoint"),
        warnings=tuple(cell(warning) for warning in phase.warnings),
        evaluations=tuple(
            evaluation_section(summary, phase, name, reference=reference)
            for name in summary.set_names()
            if name in phase.evaluations and summary.role(name) != "production"
        ),
        learned_nothing_on=judged if item is not None and learned_nothing(item) else None,
    )


def evaluation_section(
    summary: Summary,
    phase: PhaseReport,
    set_name: str,
    *,
    reference: PhaseReport | None,
    with_slices: bool = False,
) -> EvaluationSection:
    """Return one evaluation's tables, with the change from ``reference`` where it has the set."""
    item = phase.evaluations[set_name]
    other = None if reference is None else reference.evaluations.get(set_name)
    named = None if reference is None or other is None else (cell(reference.name), other)
    return EvaluationSection(
        set=cell(set_name),
        role=cell(summary.role(set_name)),
        decided=decided_by(item),
        counts=row_counts(item),
        performance=performance_table(item, named),
        confusion=confusion_table(item),
        bounds=None if item.bounds is None else bounds_table(item),
        groups=groups_table(item, named) if item.groups else None,
        gaps=gaps_table(item) if len(item.groups) > 0 else None,
        slices=slices_table(item.slices) if with_slices and item.slices else None,
    )


def configuration_json(config: Mapping[str, Any]) -> str:
    """Return the main keys of a configuration as JSON, those that are set."""
    shown = main_configuration(config)
    return json.dumps(shown, indent=2, ensure_ascii=False, default=str)


def training_statistics(
    phase: PhaseReport, training: Mapping[str, Any]
) -> tuple[tuple[str, str], ...]:
    """Return the reference's training statistics, and how the work was laid out."""
    effective = (
        f"{count(training.get('effective_batch_size'))} "
        f"({count(training.get('per_device_train_batch_size'))} per device x "
        f"{count(training.get('processes'))} processes x "
        f"{count(training.get('gradient_accumulation_steps'))} accumulation)"
    )
    trainable, total = training.get("trainable_parameters"), training.get("total_parameters")
    share = percent(trainable / total, digits=3) if is_number(trainable) and total else UNKNOWN
    warmup = count(training.get("warmup_steps"))
    if warmup_share(phase) is not None:
        warmup += f" ({percent(warmup_share(phase))} of the steps)"
    facts = [
        ("Training rows", count(training.get("rows"))),
        ("Validation rows", count(training.get("validation_rows"))),
        ("Effective batch size", effective),
        ("Steps per epoch", count(training.get("steps_per_epoch"))),
        ("Total training steps", count(training.get("total_steps"))),
        ("Warm-up steps", warmup),
        ("Trainable parameters", f"{count(trainable)} ({share} of {count(total)})"),
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
    return tuple(facts)


def training_results(training: Mapping[str, Any]) -> str:
    """Return the training results table."""
    stopped = training.get("stopped_early")
    words = {True: "yes", False: "no"}.get(stopped, UNKNOWN) if stopped is not None else UNKNOWN
    return table(
        ["Metric", "Value"],
        [
            ["Final epoch", decimal(training.get("final_epoch"), digits=1)],
            ["Final eval loss", decimal(training.get("final_eval_loss"), digits=4)],
            ["Final train loss", decimal(training.get("train_loss"), digits=4)],
            ["Training run time", duration(training.get("runtime_seconds"))],
            ["Rows per second", decimal(training.get("rows_per_second"))],
            ["Stopped early", words],
        ],
    )


def training_progression(training: Mapping[str, Any]) -> str | None:
    """Return one line per checkpoint, its loss and the relative improvement; None without any."""
    checkpoints = training.get("checkpoints") or ()
    rows, previous = [], None
    for item in checkpoints:
        name, loss = str(item.get("checkpoint")), item.get("eval_loss")
        rows.append(
            [
                f"{name} (BEST)" if item.get("best") else name,
                decimal(item.get("epoch"), digits=1),
                count(item.get("step")),
                decimal(loss, digits=4),
                "baseline" if previous is None else relative(previous, loss),
            ]
        )
        previous = loss
    header = ["Checkpoint", "Epoch", "Step", "Eval loss", "Improvement from previous"]
    return table(header, rows) if rows else None


def performance_table(item: Evaluation, other: tuple[str, Evaluation] | None) -> str:
    """Return every metric with its interval, its rows, and the change from another phase."""
    rows = []
    for metric in METRIC_NAMES:
        value: MetricValue = getattr(item.metrics, metric)
        row = [
            metric_name(metric),
            estimate(value),
            interval(value),
            "-" if value.denominator is None else f"{value.numerator:,} of {value.denominator:,}",
        ]
        if other is not None:
            row.append(_change(value, getattr(other[1].metrics, metric)))
        rows.append(row)
    header = ["Metric", "Value", "95% interval", "Rows"]
    return table(header + ([f"Change from {other[0]}"] if other else []), rows)


def confusion_table(item: Evaluation) -> str:
    """Return the confusion counts."""
    cells = item.confusion
    return table(
        ["Label", "Decided hate", "Decided normal"],
        [
            ["hate", f"{count(cells.tp)} (true positive)", f"{count(cells.fn)} (false negative)"],
            ["normal", f"{count(cells.fp)} (false positive)", f"{count(cells.tn)} (true negative)"],
        ],
    )


def bounds_table(item: Evaluation) -> str:
    """Return the worst and best case over the rows that were not scored."""
    assert item.bounds is not None
    rows = []
    for metric in ("accuracy", "f1", "fpr", "fnr"):
        bound, value = getattr(item.bounds, metric), getattr(item.metrics, metric)
        rows.append(
            [metric_name(metric), decimal(bound.worst), estimate(value), decimal(bound.best)]
        )
    return table(["Metric", "Worst case", "Scored rows", "Best case"], rows)


def groups_table(item: Evaluation, other: tuple[str, Evaluation] | None) -> str:
    """Return FPR and FNR of each target group with intervals and denominators."""
    rows = []
    for name, group in item.groups.items():
        row = [
            name,
            count(group.n),
            estimate(group.fpr, as_percent=True),
            interval(group.fpr, as_percent=True),
            count(group.negatives.labels),
            estimate(group.fnr, as_percent=True),
            interval(group.fnr, as_percent=True),
            count(group.positives.labels),
            count(group.n - group.n_scored),
        ]
        if other is not None:
            before = other[1].groups.get(name)
            row.append("-" if before is None else _change(group.fpr, before.fpr))
        rows.append(row)
    header = ["Target group", "Samples", "FPR", "95% interval", "Negatives"]
    header += ["FNR", "95% interval", "Positives", "Not scored"]
    return table(header + ([f"Change in FPR from {other[0]}"] if other else []), rows)


def gaps_table(item: Evaluation) -> str:
    """Return each group's rates minus those of the other rows, in percentage points."""
    return table(
        ["Target group", "FPR minus the rest's", "FNR minus the rest's"],
        [
            [name, points_with_interval(gap.fpr), points_with_interval(gap.fnr)]
            for name, gap in item.gaps.items()
        ],
    )


def slices_table(slices: Sequence[Slice]) -> str:
    """Return the rates by source, fine label, and group and fine label."""
    rows = []
    for part in slices:
        small = [
            f"{rate} (needs {count(size.needed)})"
            for rate, size in (("FPR", part.negatives), ("FNR", part.positives))
            if size.too_small and size.labels
        ]
        rows.append(
            [
                ", ".join(f"{key}: {value}" for key, value in part.keys.items()),
                count(part.n),
                *_rate_cells(part.fpr),
                count(part.negatives.labels),
                *_rate_cells(part.fnr),
                count(part.positives.labels),
                ", ".join(small) or "-",
            ]
        )
    header = ["Slice", "Samples", "FPR", "95% interval", "Negatives"]
    return table([*header, "FNR", "95% interval", "Positives", "Too small"], rows)


def sets_table(sets: Sequence[SetReport]) -> str:
    """Return the evaluation sets with their composition."""
    return table(
        ["Set", "Role", "Rows", "Hate", "Target groups", "File", "sha256"],
        [
            [
                item.name,
                item.role,
                count(item.rows),
                f"{count(item.n_hate)} ({percent(item.n_hate / item.rows if item.rows else 0.0)})",
                ", ".join(f"{group} {count(n)}" for group, n in item.groups.items()),
                item.file,
                (item.sha256 or UNKNOWN)[:12],
            ]
            for item in sets
        ],
    )


def difference_table(
    first: tuple[str, Metrics], second: tuple[str, Metrics], *, metrics: Sequence[str]
) -> str:
    """Return two columns of metrics and the second minus the first."""
    rows = []
    for metric in metrics:
        before, after = getattr(first[1], metric), getattr(second[1], metric)
        rows.append(
            [metric_name(metric), estimate(before), estimate(after), _change(after, before)]
        )
    return table(["Metric", first[0], second[0], "Difference"], rows)


def _rate_cells(rate: MetricValue) -> tuple[str, str]:
    if rate.denominator == 0:
        return "-", "-"
    return estimate(rate, as_percent=True), interval(rate, as_percent=True)


def _change(value: MetricValue, before: MetricValue) -> str:
    if value.value is None or before.value is None:
        return "-"
    return points(value.value - before.value)


def decided_by(item: Evaluation) -> str:
    """Say how the decisions came about."""
    if item.threshold is not None:
        return f"hate where p(hate) is at least {item.threshold:g}"
    return {"generate": "the model's generated answer"}.get(item.method, "decisions as imported")


def row_counts(item: Evaluation) -> str:
    """Say how many rows there are, and how many count."""
    text = (
        f"{count(item.n)} rows, {count(item.n_scored)} scored, "
        f"{count(item.n_unparseable)} unparseable, {count(item.n_error)} in error"
    )
    if item.n_clusters is not None:
        text += f"; intervals over {count(item.n_clusters)} clusters of dependent rows"
    return text
