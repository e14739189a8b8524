"""The gate: an evaluation against criteria, and what follows for the deployment.

A criterion that is judged on the point passes or fails by the estimate. Judged on an end of the 95%
interval it passes where the whole interval meets the bound, fails where none of it does, and is
undecided otherwise; rows without an answer count as answered wrongly then, and fewer than 30 labels
of the class never pass.

A difference to a baseline is that of the paired comparison on the same rows; one to another
evaluation set takes the two as independent.

PASS: every required criterion passes, and every condition. PASS WITH CONDITIONS: a condition does
not pass, so its duty is due. REVIEW: a required criterion is undecided or could not be evaluated.
FAIL: a required criterion fails. Stretch criteria are reported only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
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
from evenhand.decide.basis import Basis, Figures, figures_of
from evenhand.decide.figures import (
    CONSTANTS,
    Constant,
    constant_figure,
    unscored_range,
)
from evenhand.decide.labels import (
    NO_LOWER_END,
    UNANSWERED,
    Reach,
    Settling,
    labels_behind,
    scarcest_labels,
    what_settles,
)
from evenhand.decide.notes import criterion_note, noun_of, other_words, required_words, unit_of
from evenhand.measure.intervals import MIN_LABELS

_TOLERANCE = 1e-9
_WORST_FIRST: tuple[Status, ...] = ("fail", "undecided", "not_evaluated", "pass")


def judge(basis: Basis, criteria: Criteria, *, binding: Binding, today: date) -> GateVerdict:
    """Judge an evaluation against criteria.

    Each constant classifier (always hate, always normal) is judged by the same criteria on the same
    rows, by its estimate; one that meets all required ones makes the gate vacuous.

    Args:
        basis: the model's evaluation, and what criteria compare it with.
        criteria: from :func:`evenhand.config.criteria.load_criteria`.
        binding: the model that the verdict belongs to.
        today: the day from which duties run.
    """
    evaluation = basis.evaluation
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
        named = [o.name + (f" ({o.settling})" if o.settling else "") for o in open_ones]
        return f"Settle before deploying: {'; '.join(named)}.", None
    if conditions:
        first = min(conditions, key=lambda one: one["due"])
        return first["action"], first["due"]
    return None, None


def _judge_one(criterion: Criterion, basis: Basis, today: date) -> CriterionResult:
    subjects = _subjects(criterion, basis)
    parts = {group: _judge_part(criterion, basis, group) for group in subjects} or {None: _NO_PART}
    group = min(parts, key=lambda name: _severity(criterion, parts[name]))
    worst = parts[group]
    figures = None if criterion.against is None else figures_of(criterion, basis, group)
    is_stated = figures is not None and figures.is_stated
    by_group = {name: part for name, part in parts.items() if name is not None}
    is_each = criterion.group == EACH
    return CriterionResult(
        name=criterion.name,
        definition=criterion.definition,
        metric=criterion.metric,
        unit=unit_of(criterion),
        group=group,
        role=criterion.role,
        measured=worst.measured,
        against=None if figures is None else other_words(criterion, is_stated=is_stated),
        required=required_words(criterion),
        judged_on=criterion.judged_on,
        status=worst.status,
        note=criterion_note(
            criterion,
            basis.evaluation,
            by_group or {"": worst},
            compared=None
            if figures is None or figures.other is None
            else (figures.own, figures.other, is_stated),
        ),
        labels=worst.labels,
        labels_needed=worst.labels_needed,
        label_unit=worst.label_unit,
        settling="; ".join(
            f"{name}: {part.settling}" if is_each else part.settling
            for name, part in parts.items()
            if part.settling and worst.status == "undecided"
        ),
        constants=_constants(criterion, basis),
        duty=None if worst.status == "pass" else _due(criterion.duty, today),
        parts=by_group if is_each else {},
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
    figures = figures_of(criterion, basis, group)
    measured, metric = figures.judged, criterion.metric
    behind = labels_behind(basis.evaluation, metric=metric, group=group)
    scarcest = scarcest_labels(basis.evaluation, metric=metric, group=group)
    shift = _unscored_shift(criterion, basis.evaluation, figures.own, group)
    status = _status(criterion, measured, shift)
    is_small = criterion.judged_on != "point" and scarcest.n < MIN_LABELS
    if status == "pass" and is_small:
        status = "undecided"
    settling = Settling("")
    if status == "undecided":
        margin = 0.0 if measured.value is None else _margin(criterion, measured.value)
        if not is_small and _status(criterion, measured, (0.0, 0.0)) != "undecided":
            settling = Settling(UNANSWERED)
        elif metric == "ece" and figures.other is None and margin < 0:
            settling = Settling(NO_LOWER_END)
        else:
            settling = what_settles(
                abs(margin),
                _reach(criterion, figures),
                behind=behind,
                scarcest=scarcest,
                noun=noun_of(criterion),
            )
    shown = scarcest if is_small else behind
    return CriterionPart(
        status=status,
        measured=measured,
        labels=shown.n,
        labels_needed=None if settling.needed is None else settling.needed.n,
        label_unit=shown.unit,
        settling=settling.words,
    )


def _unscored_shift(
    criterion: Criterion, evaluation: Evaluation, own: MetricValue, group: str | None
) -> tuple[float, float]:
    """How far unscored rows could move a figure, against the criterion and in favour of it."""
    ends = unscored_range(evaluation, metric=criterion.metric, group=group)
    if ends is None or own.value is None:
        return 0.0, 0.0
    down, up = max(0.0, own.value - ends[0]), max(0.0, ends[1] - own.value)
    return (down, up) if criterion.at_most is None else (up, down)


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


def _reach(criterion: Criterion, figures: Figures) -> Reach:
    """How far the interval reaches towards the bound, and what of it labels here would shorten."""
    measured, own, other = figures.judged, figures.own, figures.other
    assert measured.value is not None and measured.low is not None and measured.high is not None
    towards_low = (_margin(criterion, measured.value) > 0) == (criterion.at_most is None)
    half_width = (measured.high - measured.low) / 2
    if other is None or figures.other_set is None:
        return Reach(_arm(measured, towards_low=towards_low), half_width)
    return Reach(
        _arm(own, towards_low=towards_low),
        half_width,
        other=_arm(other, towards_low=not towards_low),
        other_set=figures.other_set,
    )


def _arm(value: MetricValue, *, towards_low: bool) -> float:
    assert value.value is not None and value.low is not None and value.high is not None
    return value.value - value.low if towards_low else value.high - value.value


def _margin(criterion: Criterion, value: float) -> float:
    """How far a figure is on the right side of the bound; negative on the wrong one."""
    return value - criterion.bound if criterion.at_most is None else criterion.bound - value


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
    assert against is not None
    reference = basis.references.get(against.set or "")
    if reference is not None:
        # A constant generalises: its figure moves only with the share of hate.
        there = constant_figure(constant, reference, metric=metric, group=group)
        return None if there is None else value - there
    figures = figures_of(criterion, basis, group)
    if figures.is_stated:
        return 0.0  # the same share of hate is assumed, since the rows are not there
    here = constant_figure(
        constant, basis.evaluation, metric=metric, group=group, is_scored_only=True
    )
    if figures.other is None or figures.other.value is None or here is None:
        return None
    return here - figures.other.value
