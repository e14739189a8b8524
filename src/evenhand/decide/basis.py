"""What a criterion is judged on: the model's figure, or its difference to another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from evenhand.config.criteria import Criterion
from evenhand.core.evaluation import Evaluation, MetricValue
from evenhand.decide.figures import difference, figure_of
from evenhand.decide.rivals import Rivals


@dataclass(frozen=True)
class Basis:
    """What a gate judges by.

    Attributes:
        evaluation: the model on the set in question.
        references: other evaluations, by the name that criteria give them, for criteria ``against``
            a set.
        stated: figures that nobody could check, by ``SET.metric`` or ``SET.group.metric``; used
            where a reference is missing, and called so.
        rivals: the baselines that criteria are against, from
            :func:`evenhand.decide.rivals.rivals_of`.
    """

    evaluation: Evaluation
    references: Mapping[str, Evaluation] = field(default_factory=dict)
    stated: Mapping[str, float] = field(default_factory=dict)
    rivals: Rivals = field(default_factory=Rivals)


@dataclass(frozen=True)
class Figures:
    """The figure that is judged; for a criterion ``against`` one, what it is made of too.

    ``other_set`` names the evaluation set of the other figure, if it comes from one.
    """

    judged: MetricValue
    own: MetricValue
    other: MetricValue | None = None
    other_set: str | None = None
    is_stated: bool = False


def figures_of(criterion: Criterion, basis: Basis, group: str | None) -> Figures:
    """Return what a criterion is judged on over all rows (None), in a group or over the groups.

    A difference to a baseline is the paired comparison's where that has the metric, so that both
    figures are of the same rows; one to another set takes the two as independent.
    """
    against, metric = criterion.against, criterion.metric
    own = figure_of(basis.evaluation, metric=metric, group=group)
    if against is None:
        return Figures(own, own)
    if against.baseline is not None:
        return _against_baseline(against.baseline, own, criterion, basis, group)
    name = str(against.set)
    found = basis.references.get(name)
    if found is not None:
        other = figure_of(found, metric=metric, group=group)
        return Figures(difference(own, other), own, other, name)
    key = ".".join(part for part in (name, group, metric) if part is not None)
    if key in basis.stated:
        other = MetricValue(value=basis.stated[key], reason="stated_not_verified")
        return Figures(difference(own, other), own, other, name, is_stated=True)
    return Figures(difference(own, MetricValue(reason="no_reference")), own)


def _against_baseline(
    baseline: str, own: MetricValue, criterion: Criterion, basis: Basis, group: str | None
) -> Figures:
    test = basis.rivals.test(baseline, metric=criterion.metric, group=group)
    if test is not None and test.first is not None and test.second is not None:
        # The comparison has the FNR, of which the recall is the rest.
        is_rest = criterion.metric == "recall"
        first, second = (1 - x if is_rest else x for x in (test.first, test.second))
        judged = _negative(test.difference) if is_rest else test.difference
        return Figures(judged, _plain(second), _plain(first))
    measured = basis.rivals.evaluations.get(baseline)
    if measured is not None:
        other = figure_of(measured, metric=criterion.metric, group=group)
        return Figures(difference(own, other), own, other)
    reason = "no_baseline" if test is None else test.difference.reason
    return Figures(difference(own, MetricValue(reason=reason)), own)


def _plain(value: float) -> MetricValue:
    return MetricValue(value=value, reason="see_the_difference")


def _negative(value: MetricValue) -> MetricValue:
    if value.value is None or value.low is None or value.high is None:
        return value.model_copy(update={"value": None if value.value is None else -value.value})
    ends = {"value": -value.value, "low": -value.high, "high": -value.low}
    return value.model_copy(update=ends)
