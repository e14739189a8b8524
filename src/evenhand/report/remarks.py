"""Sentences that qualify an evaluation: what its rows cannot show, and what they do not."""

from __future__ import annotations

from evenhand.core.evaluation import Evaluation
from evenhand.measure.classification import learned_nothing
from evenhand.report.comparison import evaluated
from evenhand.report.records import Summary
from evenhand.report.wording import change, count, decimal, listed, percent, with_interval


def learned_nothing_remark(item: Evaluation) -> str | None:
    """Say by which figures an evaluation does not show that anything was learned, or None."""
    if not learned_nothing(item):
        return None
    metrics = item.metrics
    if metrics.roc_auc.value is not None:
        return (
            f"its ROC AUC on {item.name} is {with_interval(metrics.roc_auc)}, not shown to be "
            "above 0.5."
        )
    return (
        f"on {item.name} it decides hate for {with_interval(metrics.recall, as_percent=True)} of "
        f"the hate rows and for {with_interval(metrics.fpr, as_percent=True)} of the normal ones, "
        "not shown to differ."
    )


def unscored_remark(item: Evaluation) -> str | None:
    """Say between which values F1 lies whatever the rows without a decision are, or None."""
    if item.bounds is None:
        return None
    f1 = item.bounds.f1
    return (
        f"{count(item.n - item.n_scored)} of {count(item.n)} rows have no decision "
        f"({count(item.n_unparseable)} unparseable, {count(item.n_error)} in error): F1 lies "
        f"between {decimal(f1.worst)} and {decimal(f1.best)} whatever they are."
    )


def small_groups_remark(item: Evaluation) -> str | None:
    """Say for which rates there are too few labels, with the number that they need, or None."""
    parts = []
    for group, part in item.groups.items():
        for metric, size, word in (
            ("FPR", part.negatives, "normal"),
            ("FNR", part.positives, "hate"),
        ):
            if size.too_small:
                parts.append(
                    f"{group} {metric} ({count(size.labels)} {word} rows, {count(size.needed)} "
                    "needed)"
                )
    if not parts:
        return None
    return (
        f"Too few labels for a claim about {listed(parts)}; so many as are needed give about 10 "
        "points either way."
    )


def other_rows_remark(summary: Summary, set_name: str) -> str | None:
    """Warn where phases were evaluated on different files under one name, or return None."""
    hashes = {item.dataset_sha256 for item in evaluated(summary, set_name).values()}
    if len(hashes) < 2:
        return None
    return (
        f"The phases were not evaluated on the same file under the name {set_name} (the hashes "
        "differ): do not compare them on it."
    )


def generalisation_remark(before: Evaluation, after: Evaluation) -> str | None:
    """Say how F1 moved from the set that a phase was chosen on to another one, or None."""
    old, new = before.metrics.f1, after.metrics.f1
    if old.value is None or new.value is None:
        return None
    return (
        f"F1 {with_interval(new)} here, {with_interval(old)} on {before.name}, where the phase was "
        f"chosen: {change(old.value, new.value)}. A value on the set that chose is optimistic."
    )


def composition_remark(item: Evaluation) -> str:
    """Return how many rows of a set each group has."""
    return ", ".join(
        f"{group} {count(part.n)} ({percent(part.n / item.n if item.n else 0.0)})"
        for group, part in item.groups.items()
    )
