"""The audit's findings as text."""

from __future__ import annotations

from evenhand.core.decisions import Audit, Finding
from evenhand.report.audited import audit_text


def _finding(subject: str, *, check: str = "composition", accepted: str | None = None) -> Finding:
    return Finding(
        check=check,
        subject=subject,
        severity="warning",
        message=f"Something of {subject}.",
        evidence={},
        remedy="Look at it.",
        accepted=accepted,
    )


def _checks(*found: Finding) -> list[list[tuple[str, str | None]]]:
    audit = Audit(findings=found, checks=("composition", "near_overlap"), skipped={})
    (severity,) = audit_text(audit).severities
    assert severity.title == f"Warnings ({len(found)})"
    assert sum(check.n for check in severity.checks) == len(found)
    return [[(one.subject, one.alike) for one in check.findings] for check in severity.checks]


def test_few_findings_are_listed_one_by_one() -> None:
    found = [_finding(f"run{n} / val / lgbtq FPR") for n in range(6)]
    assert _checks(*found) == [[(one.subject, None) for one in found]]


def test_what_many_runs_share_is_told_once() -> None:
    runs = [f"a-seed{n}" for n in range(3)] + ["b"]
    places = ("val / lgbtq FPR", "val / mexican FPR")
    found = [_finding(f"{run} / {place}") for run in runs for place in places]
    alike = "The same was found of a-seed1, a-seed2 and b; the figures are in audit.json."
    assert _checks(*found) == [[(f"a-seed0 / {place}", alike) for place in places]]


def test_an_accepted_finding_and_one_without_a_place_stand_alone() -> None:
    found = [_finding(f"run{n} / val") for n in range(8)]
    found[3] = _finding("run3 / val", accepted="known")
    more = [_finding("train", check="near_overlap"), _finding("val", check="near_overlap")]
    (folded, others) = _checks(*found, *more)
    assert folded == [
        ("run0 / val", "The same was found of 6 more runs; the figures are in audit.json."),
        ("run3 / val", None),
    ]
    assert others == [("train", None), ("val", None)]
