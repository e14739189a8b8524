"""The gate: an evaluation against criteria, and what follows for the deployment.

A criterion that is judged on the point passes or fails by the estimate. Judged on an end of the 95%
interval it passes where the whole interval meets the bound, fails where none of it does, and is
undecided otherwise; rows without an answer count as answered wrongly then.

PASS: every required criterion passes, and every condition. PASS WITH CONDITIONS: a condition does
not pass, so its duty is due. REVIEW: a required criterion is undecided or could not be evaluated.
FAIL: a required criterion fails. Stretch criteria are reported only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from evenhand.config.criteria import EACH, Criteria, Criterion, Duty
from evenhand.core.decisions import (
    Binding,
    CriterionPart,
    CriterionResult,
    Deployment,
    DeploymentStatus,
    GateVerdict,
    Outcome,
    Status,
)
from evenhand.core.evaluation import Evaluation, MetricValue
from evenhand.decide.figures import (
    CONSTANTS,
    Constant,
    baseline_figure,
    constant_figure,
    difference,
    figure_of,
    labels_behind,
    unscored_limits,
)
from evenhand.decide.notes import criterion_note, other_words, required_words

_TOLERANCE = 1e-9
_WORST_FIRST: tuple[Status, ...] = ("fail", "undecided", "not_evaluated", "pass")


@dataclass(frozen=True)
class Basis:
    """What a gate judges by.

    Attributes:
        evaluation: the model on the set in question.
        references: other evaluations, by the set's name, for criteria ``against`` a set.
        stated: figures that nobody could check, by ``SET.metric`` or ``SET.group.metric``; used
            where there is no evaluation.
    """

    evaluation: Evaluation
    references: Mapping[str, Evaluation]
    stated: Mapping[str, float]


@dataclass(frozen=True)
class _Other:
    """The figure that a criterion is against, and what it is."""

    value: MetricValue
    is_stated: bool = False


def judge(
    evaluation: Evaluation,
    criteria: Criteria,
    *,
    references: Mapping[str, Evaluation],
    stated: Mapping[str, float],
    binding: Binding,
    today: date,
) -> GateVerdict:
    """Judge an evaluation against criteria.

    Each constant classifier (always hate, always normal) is judged by the same criteria on the same
    rows, by its estimate; one that meets all required ones makes the gate vacuous.

    Args:
        evaluation: the model on the set in question.
        criteria: from :func:`evenhand.config.criteria.load_criteria`.
        references: other evaluations, by the name that criteria give them.
        stated: figures that nobody could check, by ``SET.metric`` or ``SET.group.metric``; used
            where a reference is missing, and called so.
        binding: the model that the verdict belongs to.
        today: the day from which duties run.
    """
    basis = Basis(evaluation, references, stated)
    results = tuple(_judge_one(one, basis, today) for one in criteria.criteria)
    required = [one for one in results if one.role == "required"]
    vacuous = tuple(name for name in CONSTANTS if all(name in one.constants for one in required))
    return GateVerdict(
        outcome=_outcome(results),
        set=evaluation.name,
        n=evaluation.n,
        n_scored=evaluation.n_scored,
        criteria_name=criteria.name,
        criteria_sha256=criteria.sha256,
        results=results,
        vacuous=vacuous,
        threshold=evaluation.threshold,
        binding=binding,
        created=today.isoformat(),
    )


def deploy(verdict: GateVerdict, *, model: str, today: date) -> Deployment:
    """Return the deployment record that follows from a verdict; a vacuous gate approves nothing."""
    conditions = tuple(
        {"criterion": one.name, **one.duty} for one in verdict.results if one.duty is not None
    )
    next_action, due = _next_action(verdict, conditions)
    return Deployment(
        status=_DEPLOYMENTS["REVIEW" if verdict.vacuous else verdict.outcome],
        date=today.isoformat(),
        model=model,
        set=verdict.set,
        outcome=verdict.outcome,
        threshold=verdict.threshold,
        binding=verdict.binding,
        conditions=conditions,
        next_action=next_action,
        due=due,
    )


_DEPLOYMENTS: Mapping[Outcome, DeploymentStatus] = {
    "PASS": "approved",
    "PASS WITH CONDITIONS": "approved_with_conditions",
    "REVIEW": "needs_review",
    "FAIL": "rejected",
}


def _outcome(results: tuple[CriterionResult, ...]) -> Outcome:
    required = {one.status for one in results if one.role == "required"}
    if "fail" in required:
        return "FAIL"
    if required != {"pass"}:
        return "REVIEW"
    conditions = {one.status for one in results if one.role == "condition"}
    return "PASS" if conditions <= {"pass"} else "PASS WITH CONDITIONS"


def _next_action(
    verdict: GateVerdict, conditions: tuple[Mapping[str, str], ...]
) -> tuple[str | None, str | None]:
    required = [one for one in verdict.results if one.role == "required"]
    failed = [one.name for one in required if one.status == "fail"]
    open_ones = [one for one in required if one.status in ("undecided", "not_evaluated")]
    if verdict.vacuous:
        return "Replace the criteria: a constant classifier meets every required one.", None
    if failed:
        return f"Do not deploy. Not met: {'; '.join(failed)}.", None
    if open_ones:
        labels = [one.labels_needed for one in open_ones if one.labels_needed is not None]
        more = f" About {max(labels):,} labels would settle the widest." if labels else ""
        return f"Settle before deploying: {'; '.join(o.name for o in open_ones)}.{more}", None
    if conditions:
        first = min(conditions, key=lambda one: one["due"])
        return first["action"], first["due"]
    return None, None


def _judge_one(criterion: Criterion, basis: Basis, today: date) -> CriterionResult:
    subjects = _subjects(criterion, basis)
    parts = {group: _judge_part(criterion, basis, group) for group in subjects} or {None: _NO_PART}
    group = min(parts, key=lambda name: _severity(criterion, parts[name]))
    worst = parts[group]
    constants = _constants(criterion, basis)
    labels = [one.labels_needed for one in parts.values() if one.labels_needed is not None]
    other = None if criterion.against is None else _other(criterion, basis, group)
    own = figure_of(basis.evaluation, metric=criterion.metric, group=group)
    return CriterionResult(
        name=criterion.name,
        definition=criterion.definition,
        metric=criterion.metric,
        group=group,
        role=criterion.role,
        measured=worst.measured,
        against=None if other is None else other_words(criterion, is_stated=other.is_stated),
        required=required_words(criterion),
        judged_on=criterion.judged_on,
        status=worst.status,
        note=criterion_note(
            criterion,
            basis.evaluation,
            {name: part for name, part in parts.items() if name is not None} or {"": worst},
            compared=None if other is None else (own, other.value, other.is_stated),
        ),
        labels_needed=max(labels) if labels and worst.status == "undecided" else None,
        constants=constants,
        duty=None if worst.status == "pass" else _due(criterion.duty, today),
        parts={name: part for name, part in parts.items() if name is not None}
        if criterion.group == EACH
        else {},
    )


def _subjects(criterion: Criterion, basis: Basis) -> list[str | None]:
    """The groups that are judged one by one, or the one thing that is judged."""
    return [*basis.evaluation.groups] if criterion.group == EACH else [criterion.group]


_NO_PART = CriterionPart(
    status="not_evaluated", measured=MetricValue(reason="no_groups"), labels_needed=None
)


def _severity(criterion: Criterion, part: CriterionPart) -> tuple[int, float]:
    value = part.measured.value
    margin = math.inf if value is None else _margin(criterion, value)
    return _WORST_FIRST.index(part.status), margin


def _due(duty: Duty | None, today: date) -> Mapping[str, str] | None:
    if duty is None:
        return None
    due = today + timedelta(days=duty.due_days)
    return {
        "monitor": duty.monitor,
        "owner": duty.owner,
        "action": duty.action,
        "due": due.isoformat(),
    }


def _judge_part(criterion: Criterion, basis: Basis, group: str | None) -> CriterionPart:
    measured = figure_of(basis.evaluation, metric=criterion.metric, group=group)
    shift = _unscored_shift(criterion, basis.evaluation, measured, group)
    if criterion.against is not None:
        measured = difference(measured, _other(criterion, basis, group).value)
    status = _status(criterion, measured, shift)
    needed = None
    if status == "undecided" and _status(criterion, measured, (0.0, 0.0)) == "undecided":
        labels = labels_behind(basis.evaluation, measured, metric=criterion.metric, group=group)
        needed = _labels_needed(criterion, measured, labels)
    return CriterionPart(status=status, measured=measured, labels_needed=needed)


def _unscored_shift(
    criterion: Criterion, evaluation: Evaluation, measured: MetricValue, group: str | None
) -> tuple[float, float]:
    """How far unscored rows could move a figure, against the criterion and in favour of it."""
    limits = unscored_limits(evaluation, metric=criterion.metric, group=group)
    if limits is None or measured.value is None:
        return 0.0, 0.0
    worst, best = limits
    return abs(worst - measured.value), abs(best - measured.value)


def _status(criterion: Criterion, measured: MetricValue, shift: tuple[float, float]) -> Status:
    if measured.value is None:
        return "not_evaluated"
    if criterion.judged_on == "point":
        return "pass" if _margin(criterion, measured.value) >= -_TOLERANCE else "fail"
    if measured.low is None or measured.high is None:
        return "not_evaluated"
    ends = _margin(criterion, measured.low), _margin(criterion, measured.high)
    if min(ends) - shift[0] >= -_TOLERANCE:
        return "pass"
    return "fail" if max(ends) + shift[1] < -_TOLERANCE else "undecided"


def _margin(criterion: Criterion, value: float) -> float:
    """How far a figure is on the right side of the bound; negative on the wrong one."""
    return value - criterion.bound if criterion.at_most is None else criterion.bound - value


def _labels_needed(criterion: Criterion, measured: MetricValue, labels: int) -> int | None:
    """About how many labels shrink the interval, at this figure, to one side of the bound.

    An interval's width goes with the square root of the labels. None where the figure is at the
    bound, which no number of labels would settle.
    """
    assert measured.value is not None and measured.low is not None and measured.high is not None
    margin = _margin(criterion, measured.value)
    if abs(margin) < _TOLERANCE:
        return None
    towards_low = (margin > 0) == (criterion.at_most is None)
    reach = measured.value - measured.low if towards_low else measured.high - measured.value
    return math.ceil(labels * (reach / margin) ** 2)


def _other(criterion: Criterion, basis: Basis, group: str | None) -> _Other:
    """The figure that a criterion is against."""
    against, metric = criterion.against, criterion.metric
    assert against is not None
    if against.set is not None:
        found = basis.references.get(against.set)
        if found is not None:
            return _Other(figure_of(found, metric=metric, group=group))
        key = ".".join(part for part in (against.set, group, metric) if part is not None)
        if key in basis.stated:
            value = MetricValue(value=basis.stated[key], reason="stated_not_verified")
            return _Other(value, is_stated=True)
        return _Other(MetricValue(reason="no_reference"))
    for constant in CONSTANTS:
        if against.baseline == constant:
            value = constant_figure(constant, basis.evaluation, metric=metric, group=group)
            if value is None:
                return _Other(MetricValue(reason="undefined_for_the_constant"))
            return _Other(MetricValue(value=value, low=value, high=value, method="computed"))
    baseline = basis.evaluation.baselines.get(str(against.baseline))
    if baseline is None:
        return _Other(MetricValue(reason="no_baseline"))
    return _Other(baseline_figure(baseline, metric=metric, group=group))


def _constants(criterion: Criterion, basis: Basis) -> dict[str, float]:
    """The constant classifiers that meet the criterion by their estimate, with their figures."""
    found = {}
    for constant in CONSTANTS:
        values = []
        for group in _subjects(criterion, basis):
            value = constant_figure(
                constant, basis.evaluation, metric=criterion.metric, group=group
            )
            if value is not None and criterion.against is not None:
                value = _constant_difference(constant, value, criterion, basis, group)
            values.append(value)
        known = [value for value in values if value is not None]
        if known and len(known) == len(values):
            worst = min(known, key=lambda value: _margin(criterion, value))
            if _margin(criterion, worst) >= -_TOLERANCE:
                found[constant] = worst
    return found


def _constant_difference(
    constant: Constant, value: float, criterion: Criterion, basis: Basis, group: str | None
) -> float | None:
    """A constant's figure minus what the criterion is against; None where that is not known."""
    against, metric = criterion.against, criterion.metric
    other = _other(criterion, basis, group)
    reference = None if against is None else basis.references.get(against.set or "")
    if reference is not None:
        # A constant generalises: its figure moves only with the share of hate.
        there = constant_figure(constant, reference, metric=metric, group=group)
        return None if there is None else value - there
    if other.is_stated:
        return 0.0  # the same share of hate is assumed, since the rows are not there
    return None if other.value.value is None else value - other.value.value
