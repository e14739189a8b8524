"""Sentences that qualify an evaluation: what its rows cannot show, and what they do not."""

from __future__ import annotations

from evenhand.core.evaluation import Evaluation
from evenhand.report.comparison import beats_chance, evaluated
from evenhand.report.records import Summary
from evenhand.report.wording import change, count, counted, decimal, listed, percent, with_interval


def chance_remark(item: Evaluation) -> str | None:
    """Say that a model is not shown to rank better than chance, or None where it is.

    On rows of one class that cannot be told, which is no fault of the model.
    """
    shown = beats_chance(item)
    if shown:
        return None
    if shown is None:
        there = "normal" if item.confusion.positives == 0 else "hate"
        missing = "hate" if there == "normal" else "normal"
        some = " with a decision" if item.n_scored < item.n else ""
        return (
            "Whether this phase ranks better than chance cannot be told: "
            f"{item.name} has no {missing} rows{some}."
        )
    metrics = item.metrics
    if metrics.roc_auc.value is not None:
        return (
            f"This phase is not shown to rank better than chance: its ROC AUC on {item.name} "
            f"is {with_interval(metrics.roc_auc)}, not shown to be above 0.5."
        )
    return (
        "This phase is not shown to rank better than chance: its decisions on "
        f"{item.name} are hate for {with_interval(metrics.recall, as_percent=True)} of the hate "
        f"rows and for {with_interval(metrics.fpr, as_percent=True)} of the normal ones, not shown "
        "to differ."
    )


def unscored_remark(item: Evaluation) -> str | None:
    """Say between which values F1 lies whatever the rows without a decision are, or None."""
    if item.bounds is None:
        return None
    f1 = item.bounds.f1
    return (
        f"{count(item.n - item.n_scored)} of {counted(item.n, 'row')} have no decision "
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
                    f"{group} {metric} ({counted(size.labels, f'{word} row')}, "
                    f"{count(size.needed)} needed)"
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
