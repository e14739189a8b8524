"""What was decided, as text: audit, threshold, calibration, gate, deployment, stated figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evenhand.core.decisions import (
    Audit,
    Calibration,
    CriterionResult,
    Deployment,
    Finding,
    GateVerdict,
    PairedTest,
    Threshold,
    ThresholdReport,
)
from evenhand.core.evaluation import Confusion
from evenhand.report.records import PhaseReport, Summary
from evenhand.report.tables import verdict_words
from evenhand.report.wording import (
    UNKNOWN,
    cell,
    count,
    decimal,
    is_number,
    listed,
    metric_name,
    percent,
    points,
    points_with_interval,
    rate,
    table,
    with_interval,
)

STATUS_WORDS = {
    "pass": "PASS",
    "fail": "FAIL",
    "undecided": "UNDECIDED",
    "not_evaluated": "NOT EVALUATED",
}
DEPLOYMENT_WORDS = {
    "approved": "APPROVED",
    "approved_with_conditions": "APPROVED WITH CONDITIONS",
    "needs_review": "NEEDS REVIEW",
    "rejected": "REJECTED",
}
_SEVERITIES = ("error", "warning", "note")
_SHARES = ("accuracy", "precision", "recall", "fpr", "fnr")
_LISTED = 8
_EVIDENCE_SHOWN = 300
"""Characters of a finding's evidence in the summary; all of it is in ``audit.json``."""


@dataclass(frozen=True)
class FindingText:
    """One finding of the audit as escaped text."""

    severity: str
    check: str
    subject: str
    message: str
    evidence: str
    remedy: str
    accepted: str | None


def audit_texts(audit: Audit) -> list[FindingText]:
    """Return the findings, errors first."""
    ordered = sorted(audit.findings, key=lambda one: _SEVERITIES.index(one.severity))
    return [_finding(one) for one in ordered]


def audit_summary(audit: Audit) -> str:
    """Say in one sentence how many findings there are, and how many were accepted."""
    parts = []
    for severity in _SEVERITIES:
        found = [one for one in audit.findings if one.severity == severity]
        accepted = sum(one.accepted is not None for one in found)
        note = f" ({accepted} accepted)" if accepted else ""
        parts.append(f"{len(found)} {severity}{'' if len(found) == 1 else 's'}{note}")
    return f"{listed(parts)}, from {len(audit.checks)} checks."


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
        ("Fitted on", cell(f"{fitted.set}{part} ({count(fitted.n)} rows)")),
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
            name.replace("_", " "),
            _four(report.calibration_before[name]),
            _four(report.calibration_after[name]),
        ]
        for name in names
    ]
    return table(["Measure", "Before", "After"], rows) if rows else None


def gate_table(verdict: GateVerdict) -> str:
    """Return the readiness assessment: each criterion with what was measured and its status."""
    return table(
        ["Criterion", "Role", "Required", "Measured", "Judged on", "Status", "Notes"],
        [
            [
                one.name,
                one.role,
                one.required,
                measured_words(one),
                one.judged_on,
                STATUS_WORDS[one.status],
                _criterion_note(one),
            ]
            for one in verdict.results
        ],
    )


def measured_words(one: CriterionResult) -> str:
    """Return what a criterion was judged on, in its metric's unit."""
    if one.against is not None or one.metric in ("fpr_gap", "fnr_gap") or one.group == "range":
        return points_with_interval(one.measured)
    return with_interval(one.measured, as_percent=one.metric in _SHARES)


def gate_definitions(verdict: GateVerdict) -> list[tuple[str, str]]:
    """Return what the criteria mean, for those that say so."""
    return [(cell(one.name), cell(one.definition)) for one in verdict.results if one.definition]


def gate_duties(verdict: GateVerdict) -> list[str]:
    """Return the duties of the conditions that did not pass, one sentence each."""
    return [
        cell(f"{one.name}: {mapping_words(one.duty)}")
        for one in verdict.results
        if one.duty is not None and one.status != "pass"
    ]


def gate_warnings(verdict: GateVerdict) -> list[str]:
    """Return what makes the gate itself doubtful."""
    if not verdict.vacuous:
        return []
    verb = "meets" if len(verdict.vacuous) == 1 else "meet"
    return [
        cell(
            f"{listed(verdict.vacuous)} {verb} every required criterion: a classifier that reads "
            "nothing would be let through, so passing says nothing about the model."
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
                    f"{STATUS_WORDS[by_name[name].status]} ({measured_words(by_name[name])})"
                    if name in by_name
                    else "-"
                    for name in names
                ),
                verdict.outcome,
            ]
        )
    return table(["Phase", "Set", *names, "Verdict"], rows)


def deployment_facts(deployment: Deployment) -> list[tuple[str, str]]:
    """Return the deployment record as facts."""
    facts = [
        ("Model", cell(deployment.model)),
        ("Status", DEPLOYMENT_WORDS[deployment.status]),
        ("Verdict", f"{deployment.outcome} on {cell(deployment.set)}"),
        ("Date", cell(deployment.date)),
    ]
    if deployment.threshold is not None:
        facts.append(("Threshold", decimal(deployment.threshold, digits=4)))
    facts += [("Condition", cell(mapping_words(one))) for one in deployment.conditions]
    due = "" if deployment.due is None else f" (due {deployment.due})"
    facts.append(("Next action", cell(f"{deployment.next_action or 'none recorded'}{due}")))
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
                f" ({count(responses['responses'])} raw responses: "
                f"{count(responses.get('agree'))} agree with the stored label, "
                f"{count(responses.get('differ'))} say another)"
            )
        parts.append(text)
    return "; ".join(parts) or "made elsewhere"


def mapping_words(mapping: Mapping[str, Any] | None) -> str:
    """Return a mapping as ``key: value`` pairs in a sentence.

    >>> mapping_words({"monitor": "lgbtq FPR", "due_date": "2026-01-01"})
    'monitor: lgbtq FPR; due date: 2026-01-01'
    """
    pairs = (mapping or {}).items()
    return "; ".join(f"{key.replace('_', ' ')}: {_value_words(value)}" for key, value in pairs)


def _finding(one: Finding) -> FindingText:
    return FindingText(
        severity=one.severity,
        check=cell(one.check),
        subject=cell(one.subject),
        message=cell(one.message),
        evidence=cell(_shortened(mapping_words(one.evidence))),
        remedy=cell(one.remedy),
        accepted=None if one.accepted is None else cell(one.accepted),
    )


def _shortened(text: str) -> str:
    if len(text) <= _EVIDENCE_SHOWN:
        return text
    return f"{text[:_EVIDENCE_SHOWN].rpartition(' ')[0]} ... (the rest is in audit.json)"


def _criterion_note(one: CriterionResult) -> str:
    parts = [one.note]
    if one.labels_needed is not None:
        parts.append(f"About {count(one.labels_needed)} labels would settle it.")
    if one.constants:
        named = listed(f"{name} ({_four(value)})" for name, value in one.constants.items())
        parts.append(f"Met by {named}.")
    return " ".join(part for part in parts if part)


def _cells(confusion: Confusion) -> list[str]:
    return [count(confusion.tp), count(confusion.tn), count(confusion.fp), count(confusion.fn)]


def _four(value: float | None) -> str:
    return decimal(value, digits=4)


def _value_words(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, Mapping):
        return "{" + mapping_words(value) + "}"
    if isinstance(value, (list, tuple)):
        shown = ", ".join(_value_words(item) for item in value[:_LISTED])
        more = len(value) - _LISTED
        return f"{shown} and {count(more)} more" if more > 0 else shown
    if isinstance(value, int):
        return count(value)
    if is_number(value):
        return f"{value:.6g}"
    return str(value)
