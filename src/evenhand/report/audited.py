"""What an audit found, as text: by severity and check, with the first offending rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evenhand.core.decisions import Audit, Finding, Severity
from evenhand.report.wording import cell, count, counted, listed, signs

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
_IDS_SHOWN = 5
_LISTED_ONE_BY_ONE = 6
_RUNS_NAMED = 5


@dataclass(frozen=True)
class FindingText:
    """One finding as escaped text; ``remedy`` is None where the findings beside it share one.

    ``alike`` says of which further runs the same was found, None of none.
    """

    subject: str
    message: str
    alike: str | None
    rows: str | None
    remedy: str | None
    accepted: str | None


@dataclass(frozen=True)
class CheckText:
    """The ``n`` findings of one check and severity; those of several runs may stand as one."""

    check: str
    n: int
    findings: tuple[FindingText, ...]
    remedy: str


@dataclass(frozen=True)
class SeverityText:
    """The findings of one severity, by check."""

    title: str
    checks: tuple[CheckText, ...]


@dataclass(frozen=True)
class AuditText:
    """An audit as escaped text; evidence beyond the first rows is left to ``audit.json``."""

    summary: str
    severities: tuple[SeverityText, ...]
    checks: str
    n_checks: int
    skipped: tuple[tuple[str, str], ...]


def audit_text(audit: Audit) -> AuditText:
    """Return an audit's findings, errors first, those of one check together."""
    severities = []
    for severity in SEVERITIES:
        found = [one for one in audit.findings if one.severity == severity]
        if found:
            names = dict.fromkeys(one.check for one in found)
            severities.append(
                SeverityText(
                    title=f"{severity.capitalize()}s ({len(found)})",
                    checks=tuple(
                        _check([one for one in found if one.check == name]) for name in names
                    ),
                )
            )
    return AuditText(
        summary=cell(audit_summary(audit)),
        severities=tuple(severities),
        checks=cell(listed(name.replace("_", " ") for name in audit.checks)),
        n_checks=len(audit.checks),
        skipped=tuple(
            (cell(name.replace("_", " ")), cell(reason)) for name, reason in audit.skipped.items()
        ),
    )


def audit_summary(audit: Audit) -> str:
    """Say in one sentence how many findings there are, and how many were accepted."""
    parts = []
    for severity in SEVERITIES:
        found = [one for one in audit.findings if one.severity == severity]
        accepted = sum(one.accepted is not None for one in found)
        note = f" ({accepted} accepted)" if accepted else ""
        parts.append(f"{counted(len(found), severity)}{note}")
    return f"{listed(parts)}, from {counted(len(audit.checks), 'check')}."


def audit_digest(audit: Audit) -> str:
    """Return the counts and the names of the checks whose errors nobody accepted."""
    names = dict.fromkeys(f"{one.check} ({one.subject})" for one in audit.errors)
    return audit_summary(audit) + (f" Errors: {listed(names)}." if names else "")


def first_rows(finding: Finding, *, rest: str = "") -> str | None:
    """Return the ids of a finding's first rows in one line, None where it names none.

    Args:
        finding: the finding.
        rest: where those stand that are left out, `` in audit.json`` for example.
    """
    rows = list(_rows(finding))
    left = len(rows) - _IDS_SHOWN
    more = f"; and {count(left)} more{rest}" if left > 0 else ""
    return "; ".join(rows[:_IDS_SHOWN]) + more if rows else None


def _rows(finding: Finding) -> Iterator[str]:
    for match in finding.evidence.get("matches", ()):
        sign = " = " if match.get("similarity", 1.0) == 1.0 else " ~ "
        yield sign.join(f"{name} {_ids(ids)}" for name, ids in match["rows"].items())
    for conflict in finding.evidence.get("conflicts", ()):
        yield ", ".join(
            f"{name} {row} {label}"
            for name, labels in conflict["rows"].items()
            for row, label in labels.items()
        )


def _ids(ids: Sequence[str]) -> str:
    return ids[0] if len(ids) == 1 else f"{ids[0]} (and {count(len(ids) - 1)} like it)"


def _check(found: Sequence[Finding]) -> CheckText:
    shared = len({one.remedy for one in found}) == 1
    texts = []
    for one, others in _folded(found):
        rows = first_rows(one, rest=" in audit.json")
        texts.append(
            FindingText(
                subject=cell(one.subject),
                message=cell(signs(one.message)),
                alike=cell(_alike(others)) if others else None,
                rows=None if rows is None else cell(rows),
                remedy=None if shared else cell(one.remedy),
                accepted=None if one.accepted is None else cell(one.accepted),
            )
        )
    return CheckText(
        cell(found[0].check), len(found), tuple(texts), cell(found[0].remedy) if shared else ""
    )


def _folded(found: Sequence[Finding]) -> list[tuple[Finding, list[Finding]]]:
    """Put findings that differ in the run alone behind the first of them, where there are many."""
    if len(found) <= _LISTED_ONE_BY_ONE:
        return [(one, []) for one in found]
    folded: dict[tuple[str | None, ...], tuple[Finding, list[Finding]]] = {}
    for one in found:
        place = one.subject.partition(" / ")[2]
        key = (place or one.subject, one.remedy, one.accepted, first_rows(one))
        if key in folded:
            folded[key][1].append(one)
        else:
            folded[key] = (one, [])
    return list(folded.values())


def _alike(others: Sequence[Finding]) -> str:
    runs = [one.subject.partition(" / ")[0] for one in others]
    named = runs if len(runs) <= _RUNS_NAMED else [f"{count(len(runs))} more runs"]
    return f"The same was found of {listed(named)}; the figures are in audit.json."
