"""The tables of a summary in Markdown: evaluations, groups, slices, phases side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from evenhand.core.decisions import PairedTest
from evenhand.core.evaluation import (
    BaselineEvaluation,
    Evaluation,
    MetricValue,
)
from evenhand.report.comparison import (
    BASELINE_PREFIX,
    chance_phases,
    evaluated,
    group_names,
    judging_set,
    set_baselines,
)
from evenhand.report.configuration import best_loss, config_place, is_adapted
from evenhand.report.records import PhaseReport, SetReport, Summary
from evenhand.report.wording import (
    METRIC_NAMES,
    UNKNOWN,
    change,
    count,
    decimal,
    estimate,
    interval,
    is_number,
    metric_name,
    percent,
    points_with_interval,
    rate,
    relative,
    table,
    with_interval,
)

VERDICT_WORDS = {
    "better": "better",
    "worse": "worse",
    "no_evidence": "no evidence of a difference",
    "undefined": "not tested",
}
_COMPARED = ("f1", "precision", "recall", "accuracy", "roc_auc")
_SHARES = ("accuracy", "precision", "recall", "fpr", "fnr")


@dataclass(frozen=True)
class Reference:
    """What an evaluation is laid beside.

    Attributes:
        tests: the paired tests against it, by metric and group; None where it is on other rows, so
            that none can be.
        over_seeds: whether the tests are of all seeds, though the evaluations are of one.
    """

    name: str
    evaluation: Evaluation
    tests: Mapping[tuple[str, str | None], PairedTest] | None
    over_seeds: bool = False


def reference_for(
    summary: Summary, phase: PhaseReport, set_name: str, other: PhaseReport | None
) -> Reference | None:
    """Return another phase's evaluation on the set with the paired tests against it, or None."""
    if other is None or set_name not in other.evaluations:
        return None
    item = phase.evaluations[set_name]
    wanted = [(metric, None) for metric in METRIC_NAMES]
    wanted += [(metric, group) for group in item.groups for metric in ("fpr", "fnr")]
    tests = {}
    for metric, group in wanted:
        test = summary.paired_test(set_name, (other.name, phase.name), metric=metric, group=group)
        if test is not None:
            tests[metric, group] = test
    over_seeds = any(summary.compared_as(set_name, one) != one.name for one in (other, phase))
    return Reference(other.name, other.evaluations[set_name], tests, over_seeds=over_seeds)


def efficiency_table(summary: Summary) -> str:
    """Return the phases' size, run time, loss and F1 side by side."""
    judged = judging_set(summary)
    models = evaluated(summary, judged) if judged else {}
    rows = []
    for phase in summary.phases:
        training = phase.training or {}
        config = phase.config
        item = models.get(phase.name)
        trainable = training.get("trainable_parameters")
        adapted = is_adapted(phase)
        modules = config.get("lora_target_modules", UNKNOWN) if adapted else None
        runtime = training.get("runtime_seconds")
        rows.append(
            [
                phase.name,
                config_place(phase),
                count(config.get("lora_r")) if adapted else "-",
                ", ".join(modules) if isinstance(modules, (list, tuple)) else str(modules or "-"),
                count(trainable) + parameter_share(training) if training else "-",
                f"{runtime / 60:.1f} min" if is_number(runtime) else "-",
                decimal(best_loss(training), digits=4) if training else "-",
                "-" if item is None else with_interval(item.metrics.f1),
                _status(summary, phase),
            ]
        )
    header = ["Phase", "Config", "Rank", "Modules", "Trainable parameters", "Run time"]
    header += ["Best eval loss", f"F1 ({judged})" if judged else "F1", "Status"]
    return table(header, rows)


def parameter_share(training: Mapping[str, Any]) -> str:
    """Return the share of trainable parameters in brackets, or nothing."""
    trainable, total = training.get("trainable_parameters"), training.get("total_parameters")
    if not is_number(trainable) or not is_number(total) or total <= 0:
        return ""
    return f" ({percent(trainable / total, digits=3)})"


def performance_comparison(summary: Summary, set_name: str) -> str:
    """Return the phases and the baselines on one set: metrics and each group's FPR."""
    models = evaluated(summary, set_name)
    groups = group_names(models)
    header = ["Model", *(metric_name(metric) for metric in _COMPARED)]
    header += [f"{group} FPR" for group in groups]
    rows = [_comparison_row(phase, item, groups) for phase, item in models.items()]
    rows += [
        _comparison_row(f"{BASELINE_PREFIX}{name}", item, groups)
        for name, item in set_baselines(summary, set_name).items()
    ]
    return table(header, rows)


def performance_table(item: Evaluation, other: Reference | None) -> str:
    """Return every metric with its interval, its rows, and the change from another phase."""
    rows = []
    for metric in METRIC_NAMES:
        value: MetricValue = getattr(item.metrics, metric)
        shown = estimate(value)
        if metric in _SHARES and value.value is not None:
            shown += f" ({rate(value.value)})"
        if metric == "ece" and item.metrics.ece_if_calibrated is not None:
            shown += f" ({decimal(item.metrics.ece_if_calibrated, digits=4)} if calibrated)"
        row = [
            metric_name(metric),
            shown,
            interval(value),
            "-" if value.denominator is None else f"{value.numerator:,} of {value.denominator:,}",
        ]
        if other is not None:
            before = getattr(other.evaluation.metrics, metric)
            row.append(change_between(before, value))
            if other.tests is not None:
                row.append(verdict_words(other.tests.get((metric, None))))
        rows.append(row)
    header = ["Metric", "Value", "95% interval", "Rows"]
    return table(header + _change_header(other, "Change"), rows)


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


def groups_table(item: Evaluation, other: Reference | None) -> str:
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
            before = other.evaluation.groups.get(name)
            row.append("-" if before is None else change_between(before.fpr, group.fpr))
            if other.tests is not None:
                row.append(verdict_words(other.tests.get(("fpr", name))))
        rows.append(row)
    header = ["Target group", "Samples", "FPR", "95% interval", "Negatives"]
    header += ["FNR", "95% interval", "Positives", "Not scored"]
    return table(header + _change_header(other, "Change in FPR"), rows)


def gaps_table(item: Evaluation) -> str:
    """Return each group's rates minus those of the other rows, in percentage points."""
    return table(
        ["Target group", "FPR minus the rest's", "FNR minus the rest's"],
        [
            [name, points_with_interval(gap.fpr), points_with_interval(gap.fnr)]
            for name, gap in item.gaps.items()
        ],
    )


def sets_table(sets: Iterable[SetReport]) -> str:
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


def progression_table(training: Mapping[str, Any]) -> str | None:
    """Return one line per checkpoint, its loss and the relative improvement; None without any."""
    rows, previous = [], None
    for item in training.get("checkpoints") or ():
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


def change_between(before: MetricValue, after: MetricValue) -> str:
    """Return the change of a metric in points and relative, or ``-`` where one is undefined."""
    if before.value is None or after.value is None:
        return "-"
    return change(before.value, after.value)


def verdict_words(test: PairedTest | None) -> str:
    """Return the verdict of a paired test with its adjusted p-value."""
    if test is None:
        return "not tested"
    shown = "" if test.p_holm is None else f" (p {p_value_words(test.p_holm)} after Holm)"
    return f"{VERDICT_WORDS[test.verdict]}{shown}{unanswered_words(test)}"


def unanswered_words(test: PairedTest) -> str:
    """Say that a verdict hangs on the rows without a decision; empty where it does not."""
    return ", since it depends on the rows without a decision" if test.depends_on_unanswered else ""


def p_value_words(value: float) -> str:
    """Return a p-value with its relation.

    >>> p_value_words(0.00002), p_value_words(0.83)
    ('below 0.001', '= 0.830')
    """
    return "below 0.001" if value < 0.001 else f"= {value:.3f}"


def _change_header(other: Reference | None, word: str) -> list[str]:
    if other is None:
        return []
    test = "Paired test over seeds" if other.over_seeds else "Paired test"
    return [f"{word} from {other.name}", *([] if other.tests is None else [test])]


def _status(summary: Summary, phase: PhaseReport) -> str:
    status = []
    if summary.selection is not None and summary.selection.chosen == phase.name:
        status.append("chosen")
    if phase.name in chance_phases(summary):
        status.append("not shown to beat chance")
    if status:
        return ", ".join(status)
    if phase.training is not None:
        return "complete"
    return "not trained" if phase.imported is None else "imported"


def _comparison_row(
    name: str, item: Evaluation | BaselineEvaluation, groups: tuple[str, ...]
) -> list[str]:
    values: list[MetricValue] = [getattr(item.metrics, metric) for metric in _COMPARED]
    rates = [
        with_interval(item.groups[group].fpr, as_percent=True) if group in item.groups else "-"
        for group in groups
    ]
    return [name, *(with_interval(value) for value in values), *rates]
