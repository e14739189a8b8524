"""Findings: sentences that are computed from the numbers, and what was not done."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from evenhand.core.evaluation import Evaluation, MetricValue
from evenhand.report.comparison import (
    evaluated,
    group_names,
    judging_set,
    learned_nothing_phases,
    set_baselines,
    worst_group_fpr,
)
from evenhand.report.configuration import warmup_share
from evenhand.report.records import Summary
from evenhand.report.wording import (
    change,
    count,
    decimal,
    listed,
    metric_name,
    percent,
    points,
    points_with_interval,
    ratio,
    with_interval,
)

HIGH_WARMUP_SHARE = 0.5
"""A schedule that warms up for more than this share of its steps hardly trains at full rate."""


def findings(summary: Summary) -> tuple[str, ...]:
    """Return what the numbers show, one sentence or two each."""
    sources: tuple[Callable[[Summary], Iterator[str]], ...] = (
        _learned_nothing,
        _baselines,
        _generalisation,
        _worst_groups,
        _gaps,
        _unscored,
        _too_small,
        _other_data,
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
        metrics = evaluated(summary, name)[phase].metrics
        yield (
            f"{phase} learned nothing: its ROC AUC on {name} is {with_interval(metrics.roc_auc)}, "
            "not shown to be above 0.5."
            if metrics.roc_auc.value is not None
            else f"{phase} learned nothing: on {name} it decides hate for "
            f"{with_interval(metrics.recall, as_percent=True)} of the hate rows and for "
            f"{with_interval(metrics.fpr, as_percent=True)} of the normal ones, not shown to "
            "differ."
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
                        f"that of the other rows by {points_with_interval(difference)}"
                        f"{_adjusted(item, group, metric)}."
                    )


def _adjusted(item: Evaluation, group: str, metric: str) -> str:
    if group not in item.composition:
        return ", not adjusted for the kinds of posts"
    adjusted: MetricValue = getattr(item.composition[group], metric).adjusted
    if adjusted.value is None:
        return ""
    return f"; among posts of the same kind the ratio is {ratio(adjusted)}"


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
            f"on {chosen.set}, where it was chosen: {change(before.value, after.value)}. A value "
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
            yield (
                f"{phase.name} was not trained: its model is evaluated as it came."
                if phase.imported is None
                else f"Nothing is recorded of the training of {phase.name}."
            )
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
    for phase in summary.phases:
        used = {item.threshold for item in phase.evaluations.values()}
        if 0.5 in used and phase.threshold is None and phase is summary.chosen:
            yield f"The decision threshold of {phase.name} is the default, 0.5: it was not tuned."
        if phase.verdict is None and phase is summary.chosen:
            yield f"No gate was run for {phase.name}."
    if summary.audit is None:
        yield "No audit was made."
    if len(summary.phases) > 1 and not summary.comparisons:
        yield "Differences between phases were not tested on paired rows."


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
