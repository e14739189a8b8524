"""Which mitigations were accepted against their control, and why not, in words and tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from evenhand.core.acceptance import Acceptance, Condition
from evenhand.report.records import Summary
from evenhand.report.tables import p_value_words
from evenhand.report.wording import (
    about,
    cell,
    count,
    counted,
    decimal,
    listed,
    metric_name,
    percent,
    points,
    points_with_interval,
    reason_words,
    signs,
    table,
)

METHODS = ("augment", "row_weights", "counterfactual_pairing", "label_policy")
"""The keys of a phase that mitigate a group's false positives."""

_OUTCOMES = {True: "accepted", False: "not accepted"}
_FEW = 3
_FAMILIES = {"identity": "identity cases", "counter_speech": "counter-speech cases"}


def condition_name(one: Condition) -> str:
    """Return a condition as it is named in a table.

    >>> from evenhand.core.evaluation import MetricValue
    >>> nothing = MetricValue(reason="no_negatives")
    >>> one = Condition(kind="fpr_falls", subject="women", metric="fpr", control=None, treated=None,
    ...     difference=nothing, confidence=0.95, margin=None, n=0, label_unit="normal rows",
    ...     n_clusters=None, status="undecided")
    >>> condition_name(one)
    'FPR of women falls'
    """
    return f"{_subject(one)} {'falls' if one.kind == 'fpr_falls' else 'holds'}"


def condition_table(acceptance: Acceptance) -> str:
    """Return the conditions as rows: values, difference, what is allowed, status."""
    return table(
        [
            "Condition",
            "Control",
            "Treated",
            "Difference [interval]",
            "Interval",
            "Allowed",
            "p after Holm",
            "Labels",
            "Status",
        ],
        [
            [
                condition_name(one),
                _value(one.metric, one.control),
                _value(one.metric, one.treated),
                points_with_interval(one.difference),
                percent(one.confidence, digits=0),
                _allowed(one),
                "-" if one.p_holm is None else p_value_words(one.p_holm).removeprefix("= "),
                f"{count(one.n)} {one.label_unit}",
                _status(one),
            ]
            for one in acceptance.conditions
        ],
    )


def acceptance_sentence(acceptance: Acceptance) -> str:
    """Return the outcome with its effect, and what is violated or undecided, in plain text.

    Many conditions of one status are named without their figures, which the table has.
    """
    parts = [f"{outcome_words(acceptance)}."]
    if not acceptance.falls:
        word = "that group" if len(acceptance.groups) == 1 else "any targeted group"
        parts.append(f"The FPR of {word} is not shown to fall.")
    for status, words in (("violated", "Violated"), ("undecided", "Undecided")):
        found = _open(acceptance, status)
        if found:
            few = len(found) <= _FEW
            named = [f"{_subject(one)} ({_figures(one)})" for one in found]
            parts.append(f"{words}: {listed(named) if few else _subjects(found)}.")
    return " ".join(parts)


def outcome_words(acceptance: Acceptance) -> str:
    """Return the outcome with its effect: the FPRs that fall, else the nearest to it, and F1."""
    subject = f"{acceptance.treated} against {acceptance.control} on {acceptance.set}"
    effect = listed([*map(_effect, _leading(acceptance)), _effect(*acceptance.of("f1_holds"))])
    return f"{subject}: {_OUTCOMES[acceptance.accepted]} ({effect})"


def render_acceptance(acceptance: Acceptance) -> str:
    """Return one acceptance as Markdown: outcome, remarks, every condition."""
    title = f"### {cell(acceptance.treated)} against {cell(acceptance.control)}"
    sentences = cell(" ".join([acceptance_sentence(acceptance), *_remarks(acceptance)]))
    return f"{title}\n\n{sentences}\n\n{condition_table(acceptance)}"


def outcome_table(acceptances: Iterable[Acceptance]) -> str:
    """Return a line for each treated model: its outcome, and what keeps it from being accepted."""
    return table(
        ["Treated", "Outcome", "FPR", "F1", "Violated", "Undecided"],
        [
            [
                one.treated,
                _OUTCOMES[one.accepted],
                "; ".join(map(_effect, _leading(one)))
                + ("" if one.falls else ": not shown to fall"),
                points_with_interval(one.of("f1_holds")[0].difference),
                *(_in_short(_open(one, status)) for status in ("violated", "undecided")),
            ]
            for one in acceptances
        ],
    )


def mitigation_section(summary: Summary) -> dict[str, Any] | None:
    """Return what the summary's section on mitigations holds; None where none was judged."""
    if not summary.acceptances:
        return None
    return {
        "table": outcome_table(summary.acceptances),
        "each": [
            {
                "title": f"{cell(one.treated)} against {cell(one.control)}",
                "sentence": cell(acceptance_sentence(one)),
                "remarks": cell(" ".join(_remarks(one))),
                "table": condition_table(one),
            }
            for one in summary.acceptances
        ],
    }


def mitigations_in_short(summary: Summary) -> Iterator[str]:
    """Say which of the mitigations that were tried are accepted, and whether the chosen one is."""
    if not summary.acceptances:
        return
    accepted = [one.treated for one in summary.acceptances if one.accepted]
    named = f": {listed(accepted)}" if accepted else ""
    tried = counted(len(summary.acceptances), "mitigation")
    yield f"Accepted {len(accepted)} of {tried} on held-out rows{named}."
    chosen = None if summary.chosen is None else summary.chosen.name
    for one in summary.acceptances:
        if not one.accepted and chosen in one.replicates.get(one.treated, (one.treated,)):
            yield (
                f"{chosen} was chosen all the same: the choice does not ask whether {one.treated} "
                f"is accepted in the place of {one.control}."
            )


def tried_words(acceptances: Iterable[Acceptance]) -> tuple[str, str]:
    """Return the status and the measured effects of what was tried, the accepted ones first."""
    ranked = sorted(acceptances, key=lambda one: not one.accepted)
    named = {
        outcome: [one.treated for one in ranked if one.accepted == outcome]
        for outcome in (True, False)
    }
    status = " ".join(
        f"{words}: {listed(named[outcome])}."
        for outcome, words in ((True, "Accepted"), (False, "Tried and not accepted"))
        if named[outcome]
    )
    return status, "; ".join(map(outcome_words, ranked))


def _open(acceptance: Acceptance, status: str) -> list[Condition]:
    """Return the conditions that have to hold and are violated, or undecided."""
    return [one for one in acceptance.missing if one.status == status and one.kind != "fpr_falls"]


def _in_short(found: Sequence[Condition]) -> str:
    if not found:
        return "none"
    return _subjects(found) if len(found) <= _FEW else f"{count(len(found))} conditions"


def _subjects(found: Sequence[Condition]) -> str:
    """Name conditions, those of one metric together: "F1, FPR of asian and black"."""
    named: dict[str, list[str]] = {}
    for one in found:
        metric, _, subject = _subject(one).partition(" of ")
        named.setdefault(metric, []).extend([subject] if subject else [])
    return "; ".join(
        f"{metric} of {listed(groups)}" if groups else metric for metric, groups in named.items()
    )


def _leading(acceptance: Acceptance) -> list[Condition]:
    """Return the groups whose FPR falls; without any the targeted one that fell the most."""
    falls = acceptance.of("fpr_falls")
    shown = [one for one in falls if one.subject in acceptance.falls]
    known = [one for one in falls if one.difference.value is not None]
    return shown or sorted(known, key=lambda one: one.difference.value or 0.0)[:1]


def _subject(one: Condition) -> str:
    if one.kind == "functional_holds":
        return f"accuracy on {_FAMILIES.get(one.subject or '', one.subject)}"
    return metric_name(one.metric) + ("" if one.subject is None else f" of {one.subject}")


def _effect(one: Condition) -> str:
    return f"{_subject(one)} {points_with_interval(one.difference)}"


def _figures(one: Condition) -> str:
    text = points_with_interval(one.difference)
    if one.margin is not None:
        text += f", allowed: {_allowed(one)}"
    settled = _settling(one)
    return f"{text}; {settled}" if settled else text


def _allowed(one: Condition) -> str:
    if one.margin is None:
        return "below 0"
    if one.metric in ("f1", "accuracy"):
        return signs(f">= {points(-one.margin)}")
    return signs(f"<= {points(one.margin)}")


def _status(one: Condition) -> str:
    settled = _settling(one)
    return f"{one.status}: {settled}" if settled else one.status


def _settling(one: Condition) -> str:
    """Say what would settle an undecided condition; empty where nothing can be said."""
    if one.status != "undecided":
        return ""
    if one.depends_on_unanswered:
        return "rows without an answer could decide it either way"
    if one.labels_needed is not None:
        return f"{about(one.labels_needed)} {one.label_unit} in all would settle it"
    if one.difference.low is None:
        return reason_words(one.difference.reason)
    return "" if one.kind == "fpr_falls" else "more labels alone are unlikely to settle it"


def _value(metric: str, value: float | None) -> str:
    if value is None:
        return "-"
    return decimal(value, digits=4) if metric == "f1" else percent(value)


def _remarks(acceptance: Acceptance) -> Iterator[str]:
    yield f"Judged over {counted(acceptance.n, 'row')} of {acceptance.set}."
    if acceptance.n_left_out:
        left_out = counted(acceptance.n_left_out, "row")
        yield f"{left_out} without an answer from every run did not count, or counted as wrong."
    sides = {
        name: acceptance.replicates.get(name, (name,))
        for name in (acceptance.control, acceptance.treated)
    }
    used = {
        run: "as recorded, without a threshold" if value is None else f"at {value:.4g}"
        for runs in sides.values()
        for run in runs
        for value in (acceptance.thresholds.get(run),)
    }
    if acceptance.at_recall is not None:
        yield (
            f"Every run decides at the highest threshold that finds "
            f"{percent(acceptance.at_recall, digits=0)} of the hate of {acceptance.fitted_on}: "
            f"{listed(f'{name} {words}' for name, words in used.items())}."
        )
    elif len(set(used.values())) == 1:
        yield f"Every run decides {next(iter(used.values()))}."
    else:
        yield f"Decisions: {listed(f'{name} {words}' for name, words in used.items())}."
    for name, runs in sides.items():
        if len(runs) > 1:
            yield f"{name} is the mean over {listed(runs)}."
    most = max(map(len, sides.values()))
    if most == 1:
        yield (
            "One run stands on each side: this is about these two models, and whether the method "
            "does it again takes several seeds."
        )
    elif most == 2:
        yield "Two seeds say little about the spread between them: a third narrows the intervals."
    if acceptance.functional is None:
        yield "Functional cases were not judged, since no set of them was named."
