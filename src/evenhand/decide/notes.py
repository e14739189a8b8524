"""The words of a criterion's row: its bound, what it is against, and what is to be said of it."""

from __future__ import annotations

from collections.abc import Mapping

from evenhand.config.criteria import EACH, RANGE, Criterion
from evenhand.core.decisions import CriterionPart, CriterionUnit
from evenhand.core.evaluation import Evaluation, MetricValue
from evenhand.core.registry import suggest
from evenhand.decide.figures import figure_of, unscored_range
from evenhand.measure.intervals import MIN_LABELS

_SHARES = ("accuracy", "precision", "recall", "fpr", "fnr")


def required_words(criterion: Criterion) -> str:
    """Return the bound in words.

    >>> required_words(Criterion(name="Recall", metric="recall", at_least=0.75))
    '>= 75%'
    """
    sign = ">=" if criterion.at_most is None else "<="
    if _is_difference(criterion):
        text = f"{sign} {100 * criterion.bound:+g} pp" if criterion.bound else f"{sign} 0 pp"
    elif criterion.metric in _SHARES:
        text = f"{sign} {100 * criterion.bound:g}%"
    else:
        text = f"{sign} {criterion.bound:g}"
    if criterion.group == EACH:
        text += " for each group"
    elif criterion.group == RANGE:
        text = f"{sign} {100 * criterion.bound:g} pp over the groups"
    elif criterion.group is not None:
        text += f" for {criterion.group}"
    return text if criterion.against is None else f"{text} against {_against(criterion)}"


def unit_of(criterion: Criterion) -> CriterionUnit:
    """Return how a criterion's figure is printed.

    >>> unit_of(Criterion(name="Stable", metric="fnr", group="range", at_most=0.1))
    'points'
    """
    if _is_difference(criterion) or criterion.group == RANGE:
        return "points"
    return "share" if criterion.metric in _SHARES else "plain"


def noun_of(criterion: Criterion) -> str:
    """Return what a criterion's figure is."""
    if criterion.against is not None:
        return "difference"
    if criterion.metric in ("fpr_gap", "fnr_gap"):
        return "gap"
    return "rate" if criterion.metric in _SHARES else "figure"


def other_words(criterion: Criterion, *, is_stated: bool) -> str:
    """Return what a criterion is against, and whether that figure is only stated."""
    return _against(criterion) + (" (stated, not verified)" if is_stated else "")


def criterion_note(
    criterion: Criterion,
    evaluation: Evaluation,
    parts: Mapping[str, CriterionPart],
    *,
    compared: tuple[MetricValue, MetricValue, bool] | None,
) -> str:
    """Return what is to be said of a criterion beside its figure and status.

    Args:
        criterion: what was asked.
        evaluation: the model on the set in question.
        parts: how it was judged, by group; under "" where there is one figure.
        compared: for a criterion against a figure: the model's, the other one, and whether that
            one is only stated.
    """
    sentences = []
    if compared is not None and compared[0].value is not None and compared[1].value is not None:
        own, other, is_stated = compared
        sentences.append(
            f"{_figure(criterion, own.value)} against {_figure(criterion, other.value)} of "
            f"{other_words(criterion, is_stated=is_stated)}."
        )
    sentences += [*_part_sentences(criterion, evaluation, parts)]
    unscored = _unscored_sentence(criterion, evaluation)
    if unscored is not None:
        sentences.append(unscored)
    return " ".join(sentences)


def _part_sentences(
    criterion: Criterion, evaluation: Evaluation, parts: Mapping[str, CriterionPart]
) -> list[str]:
    sentences = []
    words = {"fail": "not met by", "undecided": "undecided for"}
    for status, heading in words.items():
        named = [
            f"{name} ({_figure(criterion, part.measured.value, of_bound=True)})"
            for name, part in parts.items()
            if part.status == status and name and part.measured.value is not None
        ]
        if named and criterion.group == EACH:
            sentences.append(f"{heading[0].upper()}{heading[1:]} {', '.join(named)}.")
    for name, part in parts.items():
        if part.status == "not_evaluated":
            sentences.append(_missing_sentence(criterion, evaluation, name, part))
    small = [
        f"{'the smallest group' if name == RANGE else name or 'all'} ({part.labels} "
        f"{part.label_unit})"
        for name, part in parts.items()
        if part.labels is not None and part.labels < MIN_LABELS and part.status in ("pass", "fail")
    ]
    if small:
        sentences.append(f"Too few labels for a claim: {', '.join(small)}.")
    return sentences


def _missing_sentence(
    criterion: Criterion, evaluation: Evaluation, name: str, part: CriterionPart
) -> str:
    reason = part.measured.reason or "no_figure"
    against = criterion.against
    if reason == "no_such_group":
        near = suggest(str(criterion.group), evaluation.groups)
        return f'Not evaluated: no row is of the group "{criterion.group}"{near}.'
    if reason == "no_reference" and against is not None:
        return f"Not evaluated: no evaluation on {against.set}, and no figure stated for it."
    if reason == "no_baseline" and against is not None:
        return f"Not evaluated: the evaluation has no baseline {against.baseline}."
    if part.measured.value is not None:
        return f"Not evaluated: there is no interval to judge on ({reason.replace('_', ' ')})."
    return f"Not evaluated{_of(name)}: {reason.replace('_', ' ')}."


def _of(name: str) -> str:
    return f" of {name}" if name else ""


def _unscored_sentence(criterion: Criterion, evaluation: Evaluation) -> str | None:
    """Say so where the rows without an answer could turn a pass into a failure."""
    if criterion.group in (EACH, RANGE) or criterion.against is not None:
        return None
    ends = unscored_range(evaluation, metric=criterion.metric, group=criterion.group)
    if ends is None:
        return None
    own = figure_of(evaluation, metric=criterion.metric, group=criterion.group).value
    sign, worst = (1, ends[0]) if criterion.at_most is None else (-1, ends[1])
    if own is None or not sign * worst < sign * criterion.bound <= sign * own:
        return None
    return f"{_figure(criterion, worst, of_bound=True)} if every row without an answer were wrong."


def _is_difference(criterion: Criterion) -> bool:
    return criterion.against is not None or criterion.metric in ("fpr_gap", "fnr_gap")


def _against(criterion: Criterion) -> str:
    assert criterion.against is not None
    return str(criterion.against.set or criterion.against.baseline)


def _figure(criterion: Criterion, value: float | None, *, of_bound: bool = False) -> str:
    """Return a figure in the unit of the metric, or (``of_bound``) in that of the bound."""
    assert value is not None
    if of_bound and unit_of(criterion) == "points":
        return f"{100 * value:+.1f} pp"
    return f"{100 * value:.1f}%" if criterion.metric in _SHARES else f"{value:.4f}"
