"""Checks of what models answered: unscored rows, composition, baselines, groups, scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from evenhand.core.decisions import Finding
from evenhand.core.evaluation import (
    BaselineEvaluation,
    Composition,
    Evaluation,
    MetricValue,
    RateRatio,
)
from evenhand.decide.audit.inputs import AuditEvaluation, AuditInputs
from evenhand.decide.audit.wording import decimal, listed, percent, ratio, rows
from evenhand.measure.classification import learned_nothing

MOSTLY_EXPLAINED = 0.5
"""The share of a gap that composition explains before a finding says so."""

MOSTLY_COMPARED = 0.5
"""The share of a group's rows that must have a counterpart of the same kind before one does."""

_RATES = {"fpr": "FPR", "fnr": "FNR"}


def baseline_not_beaten(inputs: AuditInputs) -> Iterator[Finding]:
    """Find evaluations in which a baseline has as good an F1, or a lower FPR for a group."""
    for one in inputs.evaluations:
        for name, baseline in one.evaluation.baselines.items():
            own, other = one.evaluation.metrics.f1.value, baseline.metrics.f1.value
            better_f1 = own is not None and other is not None and other >= own
            groups = _groups_with_lower_fpr(one.evaluation, baseline)
            if not better_f1 and (not groups or name.startswith("always_")):
                continue
            f1 = f"F1 {decimal(other)} against {decimal(own)}"
            lower = [f"{group} FPR {percent(a)} against {percent(b)}" for group, (a, b) in groups]
            yield Finding(
                check="baseline_not_beaten",
                subject=f"{one.subject} / {name}",
                severity="warning" if better_f1 else "note",
                message=(
                    f"On {one.set} the baseline {name} does as well as {one.model} or better: "
                    f"{listed([f1, *lower] if better_f1 else [*lower, f1])}."
                ),
                evidence={
                    "f1": {"baseline": other, "model": own},
                    "group_fpr": {group: {"baseline": a, "model": b} for group, (a, b) in groups},
                },
                remedy=(
                    "Show on paired rows that the model is worth its cost, or take the baseline; "
                    "look at how the model was trained and asked first."
                ),
            )


def unparseable_answers(inputs: AuditInputs) -> Iterator[Finding]:
    """Find evaluations with rows that no decision came from."""
    for one in inputs.evaluations:
        found = one.evaluation
        left = found.n_unparseable + found.n_error
        if left == 0:
            continue
        groups = {
            name: group.n_unparseable + group.n_error
            for name, group in found.groups.items()
            if group.n_unparseable + group.n_error
        }
        bounds = found.bounds
        f1 = (
            ""
            if bounds is None
            else f"; F1 lies between {decimal(bounds.f1.worst)} and {decimal(bounds.f1.best)}"
        )
        yield Finding(
            check="unparseable_answers",
            subject=one.subject,
            severity="warning",
            message=(
                f"{one.model} gave no decision for {rows(left)} of the {found.n:,} of {one.set} "
                f"({found.n_unparseable:,} unparseable, {found.n_error:,} in error): its figures "
                f"are over {found.n_scored:,}{f1}."
            ),
            evidence={
                "n": found.n,
                "n_scored": found.n_scored,
                "n_unparseable": found.n_unparseable,
                "n_error": found.n_error,
                "groups": groups,
                "bounds": None if bounds is None else bounds.model_dump(mode="json"),
            },
            remedy="Score the label strings instead of parsing answers, or report the bounds.",
        )


def composition(inputs: AuditInputs) -> Iterator[Finding]:
    """Find group gaps that are mostly a matter of which kinds of posts the groups have.

    Where that cannot be told of a gap that is there, a note says so.
    """
    for one in inputs.evaluations:
        for group, found in one.evaluation.composition.items():
            for metric, name in _RATES.items():
                rates: RateRatio = getattr(found, metric)
                if not _excludes_one(rates.crude):
                    continue
                labels = _labels_in_group(one.evaluation, group, metric)
                is_compared = labels > 0 and rates.left_out <= (1 - MOSTLY_COMPARED) * labels
                if is_compared and _is_explained(rates):
                    yield _composition_finding(one, group, metric, name, found)
                elif not _excludes_one(rates.adjusted):
                    yield _undecided_finding(one, group, metric, name, found, labels=labels)


def small_groups(inputs: AuditInputs) -> Iterator[Finding]:
    """Find groups with too few labels for a claim about their rates, once a set."""
    for name, one in {each.set: each for each in reversed(inputs.evaluations)}.items():
        small = {
            f"{group} {rate}": {"labels": size.labels, "needed": size.needed}
            for group, found in one.evaluation.groups.items()
            for rate, size in (("FPR", found.negatives), ("FNR", found.positives))
            if size.too_small
        }
        if small:
            words = [
                f"{which} ({size['labels']:,} labels, {size['needed']:,} needed)"
                for which, size in small.items()
            ]
            yield Finding(
                check="small_groups",
                subject=name,
                severity="note",
                message=f"On {name} there are too few labels for a claim about {listed(words)}.",
                evidence={"rates": small},
                remedy="Label more rows of these groups before comparing or promising their rates.",
            )


def no_scores(inputs: AuditInputs) -> Iterator[Finding]:
    """Find evaluations that have decisions only."""
    for one in inputs.evaluations:
        reason = one.evaluation.metrics.roc_auc.reason
        if reason in ("no_scores", "some_scores_missing"):
            some = "only some rows have a score" if reason != "no_scores" else "there are no scores"
            yield Finding(
                check="no_scores",
                subject=one.subject,
                severity="warning",
                message=(
                    f"{one.model} on {one.set}: {some}, so neither threshold nor calibration can "
                    "be tuned or measured."
                ),
                evidence={"method": one.evaluation.method, "reason": reason},
                remedy="Score the label strings (`evenhand evaluate --method score`).",
            )


def nothing_learned(inputs: AuditInputs) -> Iterator[Finding]:
    """Find models that were not shown to rank hate above normal."""
    for one in inputs.evaluations:
        if learned_nothing(one.evaluation):
            metrics = one.evaluation.metrics
            yield Finding(
                check="learned_nothing",
                subject=one.subject,
                severity="warning",
                message=(
                    f"{one.model} is not shown to rank hate above normal on {one.set}: "
                    f"{_ranking(metrics.roc_auc, metrics.recall, metrics.fpr)}."
                ),
                evidence={
                    name: getattr(metrics, name).model_dump(mode="json")
                    for name in ("roc_auc", "recall", "fpr")
                },
                remedy="Look at the training's losses and at the labels, or use more rows.",
            )


def _ranking(auc: MetricValue, recall: MetricValue, fpr: MetricValue) -> str:
    if auc.value is not None:
        ends = "" if auc.low is None or auc.high is None else f" [{auc.low:.3f}, {auc.high:.3f}]"
        return f"ROC AUC {auc.value:.3f}{ends}"
    return f"recall {decimal(recall.value)} and FPR {decimal(fpr.value)}"


def _groups_with_lower_fpr(
    own: Evaluation, baseline: BaselineEvaluation
) -> list[tuple[str, tuple[float, float]]]:
    """Return (group, (baseline's FPR, the model's)) where the intervals lie apart."""
    found = []
    for group, item in baseline.groups.items():
        mine = own.groups.get(group)
        if mine is None or item.fpr.value is None or mine.fpr.value is None:
            continue
        if item.fpr.high is not None and mine.fpr.low is not None and item.fpr.high < mine.fpr.low:
            found.append((group, (item.fpr.value, mine.fpr.value)))
    return found


def _is_explained(rates: RateRatio) -> bool:
    """Whether a gap loses half or more once like is compared with like."""
    return rates.explained is not None and rates.explained >= MOSTLY_EXPLAINED


def _excludes_one(value: MetricValue) -> bool:
    return value.low is not None and value.high is not None and not value.low <= 1.0 <= value.high


def _composition_finding(
    one: AuditEvaluation, group: str, metric: str, name: str, found: Composition
) -> Finding:
    rates: RateRatio = getattr(found, metric)
    strata = _strata(one.evaluation, group, metric)
    heavy = [
        f"{each['fine_label']} ({percent(each['share_of_group'])} of its rows against "
        f"{percent(each['share_of_others'])} of the others', {name} {percent(each['rate'])})"
        for each in strata
        if each["rate"] is not None and each["share_of_group"] > each["share_of_others"]
    ]
    words = f"; it has more of {listed(heavy)}" if heavy else ""
    assert rates.explained is not None
    share = f" ({percent(min(rates.explained, 1.0))})"
    return Finding(
        check="composition",
        subject=f"{one.subject} / {group} {name}",
        severity="warning",
        message=(
            f"On {one.set} {group}'s {name} is {ratio(rates.crude)} times that of the other rows, "
            f"and {ratio(rates.adjusted)} times among rows of the same "
            f"{listed([each.replace('_', ' ') for each in found.by])}: much of the gap{share} is "
            f"which kinds of posts the group has{words}."
        ),
        evidence={
            "by": list(found.by),
            "crude": rates.crude.model_dump(mode="json"),
            "mantel_haenszel": rates.adjusted.model_dump(mode="json"),
            "explained": rates.explained,
            "strata": strata,
        },
        remedy=(
            "Review how these kinds of posts are labelled before calling the gap bias of the "
            "model, and before adding training data."
        ),
    )


def _undecided_finding(
    one: AuditEvaluation, group: str, metric: str, name: str, found: Composition, *, labels: int
) -> Finding:
    rates: RateRatio = getattr(found, metric)
    adjusted = rates.adjusted
    if adjusted.value is None:
        said = f"the adjusted ratio is undefined ({adjusted.reason})"
    elif adjusted.low is None or adjusted.high is None:
        said = f"the adjusted ratio is {ratio(adjusted)}, without an interval"
    else:
        said = f"the adjusted ratio spans {adjusted.low:.2f} to {adjusted.high:.2f}"
    return Finding(
        check="composition",
        subject=f"{one.subject} / {group} {name}",
        severity="note",
        message=(
            f"On {one.set} {group}'s {name} is {ratio(rates.crude)} times that of the other rows. "
            "Whether that is which kinds of posts the group has, one cannot tell: "
            f"{said}; {rates.left_out:,} of {rows(labels)} had no counterpart of the same "
            f"{listed([each.replace('_', ' ') for each in found.by])}."
        ),
        evidence={
            "by": list(found.by),
            "crude": rates.crude.model_dump(mode="json"),
            "mantel_haenszel": adjusted.model_dump(mode="json"),
            "explained": rates.explained,
            "labels": labels,
            "left_out": rates.left_out,
        },
        remedy="Label more rows of the same kinds inside and outside the group.",
    )


def _labels_in_group(evaluation: Evaluation, group: str, metric: str) -> int:
    """Return the group's rows of the class that a rate is over."""
    part = evaluation.groups.get(group)
    if part is None:
        return 0
    return part.confusion.negatives if metric == "fpr" else part.confusion.positives


def _strata(evaluation: Evaluation, group: str, metric: str) -> list[dict[str, Any]]:
    """Return, per fine label, its share of the group's rows of the class, of the others', its rate.

    The class is normal for FPR, hate for FNR.
    """
    side = "negatives" if metric == "fpr" else "positives"
    inside: dict[str, int] = {}
    everyone: dict[str, tuple[int, float | None]] = {}
    for part in evaluation.slices:
        keys: Mapping[str, str] = part.keys
        labels: int = getattr(part.confusion, side)
        if set(keys) == {"group", "fine_label"} and keys["group"] == group:
            inside[keys["fine_label"]] = labels
        elif set(keys) == {"fine_label"}:
            everyone[keys["fine_label"]] = (labels, getattr(part, metric).value)
    in_group = sum(inside.values())
    outside = sum(labels for labels, _ in everyone.values()) - in_group
    if in_group == 0 or outside <= 0:
        return []
    return [
        {
            "fine_label": fine_label,
            "labels_in_group": inside.get(fine_label, 0),
            "share_of_group": inside.get(fine_label, 0) / in_group,
            "share_of_others": (labels - inside.get(fine_label, 0)) / outside,
            "rate": rate,
        }
        for fine_label, (labels, rate) in everyone.items()
        if labels
    ]
