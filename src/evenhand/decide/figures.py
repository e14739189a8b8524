"""The figures that a gate judges: of a model, of a baseline, of a classifier that reads nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from evenhand.config.criteria import RANGE
from evenhand.core.evaluation import (
    Confusion,
    Evaluation,
    GroupEvaluation,
    MetricValue,
)
from evenhand.measure.intervals import newcombe

Constant = Literal["always_hate", "always_normal"]
CONSTANTS: tuple[Constant, ...] = ("always_hate", "always_normal")

_GAPS = {"fpr_gap": "fpr", "fnr_gap": "fnr"}


def figure_of(evaluation: Evaluation, *, metric: str, group: str | None) -> MetricValue:
    """Return a model's figure over all rows (None), in a group, or its range over the groups.

    >>> range_of({"a": MetricValue(value=0.2, reason="-"), "b": MetricValue(value=0.5, reason="-")})
    ... # doctest: +ELLIPSIS
    MetricValue(value=0.3, ... reason='no_interval_for_a_range', ...)
    """
    if group is None:
        return getattr(evaluation.metrics, metric)
    if group == RANGE:
        return range_of({n: getattr(one, metric) for n, one in evaluation.groups.items()})
    if group not in evaluation.groups:
        return MetricValue(reason="no_such_group")
    if metric in _GAPS:
        return getattr(evaluation.gaps[group], _GAPS[metric])
    return getattr(evaluation.groups[group], metric)


def range_of(values: dict[str, MetricValue]) -> MetricValue:
    """Return the largest minus the smallest value; it has no interval that can be trusted."""
    known = [one.value for one in values.values() if one.value is not None]
    if len(values) < 2:
        return MetricValue(reason="fewer_than_two_groups")
    if len(known) < len(values):
        missing = next(name for name, one in values.items() if one.value is None)
        return MetricValue(reason=f"undefined_for_{missing}")
    return MetricValue(value=max(known) - min(known), reason="no_interval_for_a_range")


def difference(first: MetricValue, second: MetricValue) -> MetricValue:
    """Return ``first - second``; with an interval where both have one.

    The interval is made from the two intervals as if they were independent (MOVER, Zou and Donner
    2008), which is too wide, not too narrow, where both are measured on the same rows.
    """
    for part in (first, second):
        if part.value is None:
            return MetricValue(reason=part.reason)
    assert first.value is not None and second.value is not None
    if first.low is None or second.low is None:
        reason = second.reason if second.low is None else first.reason
        return MetricValue(value=first.value - second.value, reason=reason)
    return newcombe(first, second).model_copy(update={"method": "mover"})


def unscored_range(
    evaluation: Evaluation, *, metric: str, group: str | None
) -> tuple[float, float] | None:
    """Return between which values the unscored rows could put a metric, however they were answered.

    Known of accuracy, recall, F1, FPR, FNR and the two gaps; None for other metrics, and where
    every row was scored.
    """
    if metric in _GAPS:
        return _gap_range(evaluation, _GAPS[metric], group)
    part = evaluation if group is None else evaluation.groups.get(group)
    if part is None or part.bounds is None:
        return None
    bound = getattr(part.bounds, "fnr" if metric == "recall" else metric, None)
    if bound is None or bound.worst is None or bound.best is None:
        return None
    ends = (1 - bound.worst, 1 - bound.best) if metric == "recall" else (bound.worst, bound.best)
    return min(ends), max(ends)


def _gap_range(evaluation: Evaluation, rate: str, group: str | None) -> tuple[float, float] | None:
    if evaluation.bounds is None or group is None or group not in evaluation.groups:
        return None
    part = evaluation.groups[group]
    inside = (_misses(part.confusion, rate), _unscored(part, rate))
    rest = evaluation.gaps[group].rest
    outside = (_misses(rest, rate), _unscored(evaluation, rate) - inside[1])
    ends = []
    for (wrong, n), unscored in (inside, outside):
        if n == 0:
            return None
        ends.append((wrong / (n + unscored), (wrong + unscored) / (n + unscored)))
    return ends[0][0] - ends[1][1], ends[0][1] - ends[1][0]


def _misses(confusion: Confusion, rate: str) -> tuple[int, int]:
    """The wrongly answered rows that a rate counts, and the rows that it is over."""
    if rate == "fpr":
        return confusion.fp, confusion.negatives
    return confusion.fn, confusion.positives


def _unscored(part: Evaluation | GroupEvaluation, rate: str) -> int:
    """The unscored rows of a rate's class, from how far they could move it."""
    bound = None if part.bounds is None else getattr(part.bounds, rate)
    _, scored = _misses(part.confusion, rate)
    if bound is None or bound.worst is None or bound.best is None or scored == 0:
        return 0
    share = bound.worst - bound.best
    return round(scored * share / (1 - share))


@dataclass(frozen=True)
class ClassCounts:
    """How many rows are hate, and how many normal."""

    positives: int
    negatives: int


def class_counts(
    evaluation: Evaluation, *, group: str | None, is_scored_only: bool = False
) -> ClassCounts | None:
    """Return the class counts of the rows that a constant would answer; None without the group.

    These are all rows where the evaluation has the constants as baselines, else the scored ones.
    """
    baseline = None if is_scored_only else evaluation.baselines.get("always_hate")
    source = evaluation if baseline is None else baseline
    if group is None:
        return _counts(source.confusion)
    part = source.groups.get(group)
    return None if part is None else _counts(part.confusion)


def constant_figure(
    constant: Constant,
    evaluation: Evaluation,
    *,
    metric: str,
    group: str | None,
    is_scored_only: bool = False,
) -> float | None:
    """Return the figure of a classifier that gives every row the same answer; None if undefined.

    ``is_scored_only`` takes the rows that the model answered, to be held against figures on these.
    """
    if group == RANGE:
        values = [
            constant_figure(constant, evaluation, metric=metric, group=name)
            for name in evaluation.groups
        ]
        known = [value for value in values if value is not None]
        return max(known) - min(known) if len(known) == len(values) > 1 else None
    counts = class_counts(evaluation, group=group, is_scored_only=is_scored_only)
    if counts is None:
        return None
    if metric in _GAPS:  # the same answer inside and outside the group
        return 0.0 if constant_value(constant, _GAPS[metric], counts) is not None else None
    return constant_value(constant, metric, counts)


def constant_value(constant: Constant, metric: str, counts: ClassCounts) -> float | None:
    """Return a metric of a constant classifier from the class counts alone; None if undefined.

    Its score is 1 or 0 on every row, so its ROC AUC is 0.5.

    >>> constant_value("always_hate", "f1", ClassCounts(positives=455, negatives=554))
    0.6215846994535519
    """
    hate, normal = counts.positives, counts.negatives
    n = hate + normal
    says_hate = constant == "always_hate"
    right, wrong = (hate, normal) if says_hate else (normal, hate)
    ratios: dict[str, tuple[float, int]] = {
        "accuracy": (right, n),
        "precision": (hate, n if says_hate else 0),
        "recall": (hate if says_hate else 0, hate),
        "f1": (2 * hate if says_hate else 0, (2 * hate + normal if says_hate else 1) * (hate > 0)),
        "fpr": (normal if says_hate else 0, normal),
        "fnr": (0 if says_hate else hate, hate),
        "roc_auc": (0.5, 1 if hate and normal else 0),
        "ece": (wrong, n),
        "brier": (wrong, n),
    }
    top, bottom = ratios[metric]
    return top / bottom if bottom else None


def _counts(confusion: Confusion) -> ClassCounts:
    return ClassCounts(confusion.positives, confusion.negatives)
