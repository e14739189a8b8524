"""Findings: sentences that are computed from the numbers, and what was not done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from evenhand.core.evaluation import Evaluation, MetricValue
from evenhand.report.comparison import (
    evaluated,
    group_names,
    judging_set,
    learned_nothing_phases,
    set_baselines,
    worst_group_fpr,
)
from evenhand.report.records import PhaseReport, Summary
from evenhand.report.wording import (
    METRIC_NAMES,
    count,
    decimal,
    is_number,
    listed,
    metric_name,
    percent,
    points,
    points_with_interval,
    with_interval,
)

NO_PAIRED_TEST = "no paired test in this summary yet: treat differences as undecided"
HIGH_WARMUP_SHARE = 0.5
"""A schedule that warms up for more than this share of its steps hardly trains at full rate."""

MAIN_KEYS = (
    "model_name_or_path",
    "task",
    "tuning",
    "objective",
    "strategy",
    "train_file",
    "max_train_rows",
    "max_seq_length",
    "load_in_4bit",
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "lora_target_modules",
    "lora_target_parameters",
    "lora_bias",
    "init_adapter",
    "learning_rate",
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "lr_scheduler_type",
    "optim",
    "early_stopping_patience",
    "early_stopping_threshold",
    "early_stopping_mode",
    "seed",
)
"""The configuration keys that a summary prints and compares, in the order in which it does."""

_UNTUNED_KEYS = (
    "model_name_or_path",
    "task",
    "tuning",
    "strategy",
    "max_seq_length",
    "load_in_4bit",
)


def findings(summary: Summary) -> tuple[str, ...]:
    """Return what the numbers show, one sentence or two each."""
    sources: tuple[Callable[[Summary], Iterator[str]], ...] = (
        _learned_nothing,
        _baselines,
        _generalisation,
        _worst_groups,
        _gaps,
        _chosen_against_phases,
        _unscored,
        _too_small,
        _other_data,
        _confounded,
        _schedules,
        _warnings,
    )
    return tuple(sentence for source in sources for sentence in source(summary))


def not_done(summary: Summary) -> tuple[str, ...]:
    """Return what this summary leaves open."""
    return tuple(_open_points(summary))


def _learned_nothing(summary: Summary) -> Iterator[str]:
    name = judging_set(summary)
    for phase in learned_nothing_phases(summary):
        assert name is not None
        auc = evaluated(summary, name)[phase].metrics.roc_auc
        yield (
            f"{phase} **learned nothing**: its ROC AUC on {name} is {with_interval(auc)}, "
            "not shown to be above 0.5."
        )


def _chosen_against_phases(summary: Summary) -> Iterator[str]:
    chosen, name = summary.selection, judging_set(summary)
    if chosen is None or name is None:
        return
    metric = chosen.metric if chosen.metric in METRIC_NAMES else "f1"
    models = evaluated(summary, name)
    if chosen.chosen not in models:
        return
    own: MetricValue = getattr(models[chosen.chosen].metrics, metric)
    for phase, item in models.items():
        other: MetricValue = getattr(item.metrics, metric)
        if phase == chosen.chosen or own.value is None or other.value is None:
            continue
        verdict = (
            f"overlap; {NO_PAIRED_TEST}"
            if _overlap(own, other)
            else "do not overlap; a paired test is not in this summary yet"
        )
        yield (
            f"{metric_name(metric)} on {name}: {chosen.chosen} {with_interval(own)}, {phase} "
            f"{with_interval(other)}, a difference of {points(own.value - other.value)}. The "
            f"intervals {verdict}."
        )


def _baselines(summary: Summary) -> Iterator[str]:
    for name, phase, item in _focus(summary):
        f1 = item.metrics.f1.value
        if f1 is None:
            continue
        for baseline, other in set_baselines(summary, name).items():
            value = other.metrics.f1.value
            if value is None:
                continue
            if value >= f1:
                yield (
                    f"On {name} the baseline {baseline} has F1 {decimal(value)}, no lower than "
                    f"{phase}'s {decimal(f1)} ({points(f1 - value)})."
                )
            elif _overlap(item.metrics.f1, other.metrics.f1):
                yield (
                    f"On {name} {phase}'s F1 {decimal(f1)} is above the baseline {baseline}'s "
                    f"{decimal(value)} ({points(f1 - value)}), and the intervals overlap; "
                    f"{NO_PAIRED_TEST}."
                )


def _worst_groups(summary: Summary) -> Iterator[str]:
    for name, phase, item in _focus(summary):
        worst = worst_group_fpr(item)
        if worst is not None:
            group, fpr = worst
            yield (
                f"On {name} the highest group FPR of {phase} is {group}'s: "
                f"{with_interval(fpr, as_percent=True)}, {count(fpr.numerator)} of "
                f"{count(fpr.denominator)} normal rows."
            )


def _gaps(summary: Summary) -> Iterator[str]:
    for name, phase, item in _focus(summary):
        for group, gap in item.gaps.items():
            for metric in ("fpr", "fnr"):
                difference: MetricValue = getattr(gap, metric)
                if difference.low is None or difference.high is None:
                    continue
                if difference.low > 0 or difference.high < 0:
                    yield (
                        f"On {name} the {metric_name(metric)} of {phase} for {group} differs from "
                        f"that of the other rows by {points_with_interval(difference)}, not "
                        "adjusted for source and fine label: see the slices."
                    )


def _generalisation(summary: Summary) -> Iterator[str]:
    chosen = summary.selection
    if chosen is None:
        return
    phase = summary.phase(chosen.chosen)
    if phase is None or chosen.set not in phase.evaluations:
        return
    before = phase.evaluations[chosen.set].metrics.f1
    for name, item in phase.evaluations.items():
        after = item.metrics.f1
        if summary.role(name) != "production" or before.value is None or after.value is None:
            continue
        yield (
            f"F1 of {phase.name} is {with_interval(after)} on {name} and {with_interval(before)} "
            f"on {chosen.set}, where it was chosen: {points(after.value - before.value)}. A value "
            "on the set that chose is optimistic."
        )


def _too_small(summary: Summary) -> Iterator[str]:
    for name in summary.set_names():
        models = evaluated(summary, name)
        if summary.role(name) == "train":
            continue
        if not models:
            continue
        phase = _representative(summary, models)
        parts = []
        for group, item in models[phase].groups.items():
            for metric, size, word in (
                ("FPR", item.negatives, "normal"),
                ("FNR", item.positives, "hate"),
            ):
                if size.too_small:
                    parts.append(
                        f"{group} {metric} ({count(size.labels)} {word} rows; "
                        f"{count(size.needed)} would give about +-10 points)"
                    )
        if parts:
            yield f"On {name} there are too few labels for a claim about {listed(parts)}."


def _unscored(summary: Summary) -> Iterator[str]:
    for phase in summary.phases:
        for name, item in phase.evaluations.items():
            if item.bounds is None:
                continue
            f1 = item.bounds.f1
            yield (
                f"{phase.name} left {count(item.n - item.n_scored)} of {count(item.n)} rows of "
                f"{name} unscored ({count(item.n_unparseable)} unparseable, {count(item.n_error)} "
                f"in error): F1 lies between {decimal(f1.worst)} and {decimal(f1.best)} whatever "
                "they are."
            )


def _other_data(summary: Summary) -> Iterator[str]:
    for name in summary.set_names():
        hashes = {item.dataset_sha256 for item in evaluated(summary, name).values()}
        if len(hashes) > 1:
            yield (
                f"The phases were not evaluated on the same file under the name {name} (the "
                "hashes differ): do not compare them on it."
            )


def _confounded(summary: Summary) -> Iterator[str]:
    for before, phase in zip(summary.phases, summary.phases[1:], strict=False):
        reference = summary.phase(phase.parent) if phase.parent else before
        if reference is None or reference.training is None or phase.training is None:
            continue
        old, new = main_configuration(reference.config), main_configuration(phase.config)
        changed = [
            key for key in MAIN_KEYS if key != "init_adapter" and old.get(key) != new.get(key)
        ]
        if len(changed) > 1:
            yield (
                f"{phase.name} differs from {reference.name} in {listed(changed)}: a difference "
                "in results cannot be ascribed to one of them."
            )


def _schedules(summary: Summary) -> Iterator[str]:
    for phase in summary.phases:
        share = warmup_share(phase)
        if share is not None and share > HIGH_WARMUP_SHARE:
            yield f"Warm-up takes {percent(share)} of the steps of {phase.name}."
        checkpoints = (phase.training or {}).get("checkpoints") or ()
        if len(checkpoints) > 1 and checkpoints[-1].get("best"):
            yield f"The last checkpoint of {phase.name} is its best: it may not have converged."


def _warnings(summary: Summary) -> Iterator[str]:
    for phase in summary.phases:
        for warning in phase.warnings:
            yield f"{phase.name}: {warning}"


def main_configuration(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the main keys that are set and matter to the way in which the phase was tuned."""
    tuning = config.get("tuning", "lora")
    keys = MAIN_KEYS if tuning != "none" else _UNTUNED_KEYS
    return {
        key: config[key]
        for key in keys
        if config.get(key) is not None and (tuning == "lora" or not key.startswith("lora_"))
    }


def warmup_share(phase: PhaseReport) -> float | None:
    """Return warm-up steps over all steps, or None where either is not recorded."""
    training = phase.training or {}
    warmup, total = training.get("warmup_steps"), training.get("total_steps")
    return warmup / total if is_number(warmup) and is_number(total) and total > 0 else None


def _open_points(summary: Summary) -> Iterator[str]:
    if not any(phase.evaluations for phase in summary.phases):
        yield "No phase was evaluated."
    if summary.selection is None:
        yield "No phase was chosen."
    production = [name for name in summary.set_names() if summary.role(name) == "production"]
    if not any(evaluated(summary, name) for name in production):
        yield "No production validation was run."
    for phase in summary.phases:
        if phase.training is None:
            yield f"{phase.name} was not trained: its model is evaluated as it came."
    for name in summary.set_names():
        models = evaluated(summary, name)
        if not models:
            yield f"No phase was evaluated on {name}."
            continue
        missing = [phase.name for phase in summary.phases if phase.name not in models]
        if missing and name not in production:
            yield f"Not evaluated on {name}: {listed(missing)}."
        if not set_baselines(summary, name):
            yield f"No baseline was evaluated on {name}."
        if not group_names(models):
            yield f"{name} names no target group: nothing is known of its groups' rates."
    thresholds = {
        item.threshold
        for phase in summary.phases
        for item in phase.evaluations.values()
        if item.threshold is not None
    }
    if 0.5 in thresholds:
        yield "The decision threshold is the default, 0.5: it was not tuned."
    yield (
        "Differences between phases were not tested on paired rows, and the rates of a phase are "
        "of one training run with one seed."
    )


def _focus(summary: Summary) -> Iterator[tuple[str, str, Evaluation]]:
    """Yield (set, phase, evaluation) of the judging set and of each production set."""
    first = judging_set(summary)
    names = [first] if first else []
    names += [
        name for name in summary.set_names() if name != first and summary.role(name) == "production"
    ]
    for name in names:
        models = evaluated(summary, name)
        if models:
            phase = _representative(summary, models)
            yield name, phase, models[phase]


def _representative(summary: Summary, models: dict[str, Evaluation]) -> str:
    chosen = summary.selection.chosen if summary.selection else None
    return chosen if chosen in models else next(iter(models))


def _overlap(first: MetricValue, second: MetricValue) -> bool:
    if first.low is None or first.high is None or second.low is None or second.high is None:
        return True
    return first.low <= second.high and second.low <= first.high
