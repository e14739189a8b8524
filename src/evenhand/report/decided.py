"""What was decided, as text: threshold, calibration, gate, deployment, stated figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evenhand.core.decisions import (
    Calibration,
    CriterionResult,
    Deployment,
    GateVerdict,
    PairedTest,
    Threshold,
    ThresholdReport,
)
from evenhand.core.evaluation import Confusion
from evenhand.report.comparison import NO_VERDICT
from evenhand.report.records import PhaseReport, Summary
from evenhand.report.tables import verdict_words
from evenhand.report.wording import (
    UNKNOWN,
    capitalised,
    cell,
    count,
    counted,
    decimal,
    ended,
    is_number,
    listed,
    metric_name,
    percent,
    points,
    points_with_interval,
    rate,
    signs,
    table,
    with_interval,
)

_STATUS_WORDS = {
    "pass": "PASS",
    "fail": "FAIL",
    "undecided": "UNDECIDED",
    "not_evaluated": "NOT EVALUATED",
}
CONDITION_NOT_MET = "CONDITION NOT MET"
STATUSES = frozenset({*_STATUS_WORDS.values(), CONDITION_NOT_MET})
DEPLOYMENT_WORDS = {
    "approved": "APPROVED",
    "approved_with_conditions": "APPROVED WITH CONDITIONS",
    "needs_review": "NEEDS REVIEW",
    "rejected": "REJECTED",
}
_CALIBRATION_NAMES = {"nll": "NLL", "brier": "Brier", "ece": "ECE"}


def threshold_facts(threshold: Threshold) -> list[tuple[str, str]]:
    """Return what a threshold was asked for, and on which rows it was fitted."""
    rule, fitted = threshold.rule, threshold.fitted_on
    limits = []
    if rule.max_group_fpr is not None:
        limits.append(f"no group's FPR above {percent(rule.max_group_fpr)}")
    if rule.max_fpr_gap is not None:
        limits.append(
            f"no group's FPR more than {points(rule.max_fpr_gap)[1:]} above that of the other rows"
        )
    part = "" if fitted.share is None else f", {percent(fitted.share, digits=0)} of its rows"
    return [
        ("Threshold", f"hate where p(hate) is at least {decimal(threshold.value, digits=4)}"),
        (
            "Asked for",
            f"the highest {metric_name(rule.maximise)} with {listed(limits) or 'no limit'}",
        ),
        ("Guarantee", cell(f"{percent(rule.confidence, digits=0)} confidence: {rule.procedure}")),
        ("Fitted on", cell(f"{fitted.set}{part} ({counted(fitted.n, 'row')})")),
        ("Created", cell(threshold.created)),
    ]


def threshold_tables(report: ThresholdReport) -> list[str]:
    """Return before and after: the paired differences, then the confusion counts."""
    tests = [test for pair in report.comparison.pairs for test in pair.tests]
    names = (f"At {report.default:g}", f"At {decimal(report.value, digits=4)}")
    return [
        *([paired_table(tests, names)] if tests else []),
        table(
            ["Threshold", "TP", "TN", "FP", "FN"],
            [[names[0], *_cells(report.before)], [names[1], *_cells(report.after)]],
        ),
    ]


def paired_table(tests: list[PairedTest], names: tuple[str, str]) -> str:
    """Return paired tests as rows: both values, the difference with its interval, the verdict."""
    rows = []
    for test in tests:
        shown = rate if test.metric in ("fpr", "fnr") else _four
        subject = metric_name(test.metric) + ("" if test.group is None else f", {test.group}")
        rows.append(
            [
                subject,
                "undefined" if test.first is None else shown(test.first),
                "undefined" if test.second is None else shown(test.second),
                points_with_interval(test.difference),
                verdict_words(test),
            ]
        )
    return table(["Metric", *names, "Difference with 95% interval", "Verdict"], rows)


def calibration_table(calibration: Calibration) -> str:
    """Return negative log-likelihood, Brier score and ECE before and after temperature scaling."""
    return table(
        ["Measure", "Before", "After"],
        [
            ["NLL", _four(calibration.nll_before), _four(calibration.nll_after)],
            ["Brier", _four(calibration.brier_before), _four(calibration.brier_after)],
            ["ECE", _four(calibration.ece_before), _four(calibration.ece_after)],
        ],
    )


def reported_calibration_table(report: ThresholdReport) -> str | None:
    """Return the calibration measures on the report set before and after, or None."""
    names = [name for name in report.calibration_before if name in report.calibration_after]
    rows = [
        [
            _CALIBRATION_NAMES.get(name, name),
            _four(report.calibration_before[name]),
            _four(report.calibration_after[name]),
        ]
        for name in names
    ]
    return table(["Measure", "Before", "After"], rows) if rows else None


def gate_table(verdict: GateVerdict) -> str:
    """Return the readiness assessment: each criterion with what was measured and its status."""
    return table(
        ["Criterion", "Status", "Measured", "Required", "Role", "Judged on", "Notes"],
        [
            [
                signs(one.name),
                status_words(one),
                measured_words(one),
                signs(one.required),
                one.role,
                one.judged_on,
                signs(_criterion_note(one)),
            ]
            for one in verdict.results
        ],
    )


def judged_at(verdict: GateVerdict) -> str:
    """Say at which threshold a gate judged."""
    if verdict.threshold is None:
        return "with the decisions as they are"
    return f"at the threshold {decimal(verdict.threshold, digits=4)}"


def status_words(one: CriterionResult) -> str:
    """Return a status as it is printed; a condition does not fail, it is not met."""
    if one.role == "condition" and one.status == "fail":
        return CONDITION_NOT_MET
    return _STATUS_WORDS[one.status]


def measured_words(one: CriterionResult) -> str:
    """Return what a criterion was judged on, in its metric's unit."""
    group = "" if one.group in (None, "range") else f" ({one.group})"
    if one.unit == "points":
        return points_with_interval(one.measured) + group
    return with_interval(one.measured, as_percent=one.unit == "share") + group


def gate_definitions(verdict: GateVerdict) -> list[tuple[str, str]]:
    """Return what the criteria mean, for those that say so."""
    return [
        (cell(signs(one.name)), cell(signs(one.definition)))
        for one in verdict.results
        if one.definition
    ]


def gate_duties(verdict: GateVerdict) -> list[tuple[str, str]]:
    """Return the conditions that did not pass and what each asks for."""
    return [
        (cell(signs(one.name)), cell(capitalised(duty_words(one.duty))))
        for one in verdict.results
        if one.duty is not None and one.status != "pass"
    ]


def duty_words(duty: Mapping[str, str]) -> str:
    """Return a duty as a sentence.

    >>> duty_words({"monitor": "FPR", "action": "Tune it.", "due": "2026-12-06", "owner": "us"})
    'monitor FPR; by 2026-12-06, tune it (owner: us).'
    """
    action = (duty.get("action") or "act on it").rstrip(".")
    parts = [] if duty.get("monitor") is None else [f"monitor {duty['monitor']}"]
    due = "" if duty.get("due") is None else f"by {duty['due']}, "
    owner = "" if duty.get("owner") is None else f" (owner: {duty['owner']})"
    parts.append(ended(f"{due}{action[:1].lower()}{action[1:]}{owner}"))
    return "; ".join(parts)


def condition_words(condition: Mapping[str, str]) -> str:
    """Return a condition of a deployment as a sentence."""
    name = condition.get("criterion")
    return duty_words(condition) if name is None else f"{signs(name)}: {duty_words(condition)}"


def next_action_words(deployment: Deployment) -> str:
    """Return what a deployment's record says is to be done next, and until when."""
    action = (deployment.next_action or "none recorded").rstrip(". ")
    due = "" if deployment.due is None else f" (due {deployment.due})"
    return ended(f"{signs(action)}{due}")


def outcome_words(verdict: GateVerdict) -> str:
    """Return a gate's outcome, or why there is none.

    A gate whose required criteria a constant answer meets says nothing about the model.
    """
    if not verdict.vacuous:
        return verdict.outcome
    verb = "meets" if len(verdict.vacuous) == 1 else "meet"
    return f"{NO_VERDICT}: {listed(verdict.vacuous)} {verb} every required criterion"


def gate_warnings(verdict: GateVerdict) -> list[str]:
    """Return what makes the gate itself doubtful."""
    if not verdict.vacuous:
        return []
    verb = "meets" if len(verdict.vacuous) == 1 else "meet"
    return [
        cell(
            f"{listed(verdict.vacuous)} {verb} every required criterion: a classifier that reads "
            "nothing would be let through, so the results say nothing about the model."
        )
    ]


def achievement_table(summary: Summary) -> str | None:
    """Return which phase meets which criterion, or None where no gate was run."""
    judged = [(phase, phase.verdict) for phase in summary.phases if phase.verdict is not None]
    if not judged:
        return None
    names = list(dict.fromkeys(one.name for _, verdict in judged for one in verdict.results))
    rows = []
    for phase, verdict in judged:
        by_name = {one.name: one for one in verdict.results}
        rows.append(
            [
                phase.name,
                verdict.set,
                *(
                    f"{status_words(by_name[name])} ({measured_words(by_name[name])})"
                    if name in by_name
                    else "-"
                    for name in names
                ),
                outcome_words(verdict),
            ]
        )
    return table(["Phase", "Set", *(signs(name) for name in names), "Verdict"], rows)


def deployment_facts(
    deployment: Deployment, verdict: GateVerdict | None = None
) -> list[tuple[str, str]]:
    """Return the deployment record as facts; ``verdict`` is the one it was written from."""
    outcome = deployment.outcome if verdict is None else outcome_words(verdict)
    facts = [
        ("Model", cell(deployment.model)),
        ("Status", DEPLOYMENT_WORDS[deployment.status]),
        ("Verdict", f"{cell(outcome)} on {cell(deployment.set)}"),
        ("Date", cell(deployment.date)),
    ]
    if deployment.threshold is not None:
        facts.append(("Threshold", decimal(deployment.threshold, digits=4)))
    facts += [("Condition", cell(condition_words(one))) for one in deployment.conditions]
    facts.append(("Next action", cell(next_action_words(deployment))))
    return facts


def stated_table(phase: PhaseReport) -> str | None:
    """Return the figures that an import was told, and what the files say of each; or None."""
    rows = [
        [
            name,
            _value_words(item.get("value")),
            str(item.get("status", "stated, not verified")),
            "-" if item.get("found") is None else _value_words(item["found"]),
        ]
        for name, item in phase.stated.items()
    ]
    return table(["Figure", "Stated", "Status", "Found in the files"], rows) if rows else None


def imported_words(imported: Mapping[str, Any]) -> str:
    """Say which files an import's evaluations came from, and what their raw responses showed."""
    parts = []
    for name, item in imported.get("evaluations", {}).items():
        file = Path(str(item.get("predictions", {}).get("file", UNKNOWN))).name
        text = f"{name} from {file}"
        responses = item.get("responses") or {}
        if responses.get("responses"):
            text += (
                f" ({counted(responses['responses'], 'raw response')}: "
                f"{count(responses.get('agree'))} agree with the stored label, "
                f"{count(responses.get('differ'))} say another)"
            )
        parts.append(text)
    return "; ".join(parts) or "made elsewhere"


def _criterion_note(one: CriterionResult) -> str:
    parts = [one.note]
    if one.settling:
        parts.append(ended(capitalised(one.settling)))
    if one.constants:
        named = listed(f"{name} ({_figure(one, value)})" for name, value in one.constants.items())
        parts.append(f"Met by {named}.")
    return " ".join(part for part in parts if part)


def _figure(one: CriterionResult, value: float) -> str:
    """Return a figure in the unit of a criterion's metric."""
    if one.unit == "points":
        return points(value)
    return rate(value) if one.unit == "share" else _four(value)


def _cells(confusion: Confusion) -> list[str]:
    return [count(confusion.tp), count(confusion.tn), count(confusion.fp), count(confusion.fn)]


def _four(value: float | None) -> str:
    return decimal(value, digits=4)


def _value_words(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return count(value)
    return f"{value:.6g}" if is_number(value) else str(value)
