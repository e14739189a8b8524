"""The table of checks, the audit that makes them, and the acceptance of what it found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from evenhand.core.decisions import Audit, Finding, Severity
from evenhand.core.registry import suggest
from evenhand.decide.audit import bars, data, imported, prompts, results, targets, training
from evenhand.decide.audit.inputs import AuditInputs

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
ACCEPTS_NOTHING = "accepts_nothing"


@dataclass(frozen=True, slots=True)
class Check:
    """One check: ``find`` yields findings, ``lacks`` says what input is missing, or None."""

    find: Callable[[AuditInputs], Iterator[Finding]]
    lacks: Callable[[AuditInputs], str | None]


def audit(inputs: AuditInputs) -> Audit:
    """Make every check that has its input; the findings come sorted by severity.

    >>> audit(AuditInputs()).findings
    ()
    """
    skipped = {name: why for name, one in CHECKS.items() if (why := one.lacks(inputs)) is not None}
    made = tuple(name for name in CHECKS if name not in skipped)
    findings = [finding for name in made for finding in CHECKS[name].find(inputs)]
    return Audit(findings=_sorted(findings), checks=made, skipped=skipped)


def accept(audit: Audit, accepted: Mapping[str, str]) -> Audit:
    """Mark findings as accepted, by ``check`` or ``check:subject``, each with its reason.

    A subject may be one of its parts: ``exact_overlap:canned`` accepts that of ``train / canned``.
    An acceptance that matches nothing is a finding itself, unless its check was not made.
    """
    used: set[str] = set()
    findings = []
    for finding in audit.findings:
        key = next((key for key in accepted if _matches(key, finding)), None)
        used |= {key for key in accepted if _matches(key, finding)}
        given = None if key is None else accepted[key]
        findings.append(
            finding if given is None else finding.model_copy(update={"accepted": given})
        )
    idle = [key for key in accepted if key not in used and _check_of(key) not in audit.skipped]
    findings += [_accepts_nothing(key, audit) for key in idle]
    return audit.model_copy(update={"findings": _sorted(findings)})


def _no_pair(inputs: AuditInputs) -> str | None:
    if not inputs.training_sets:
        return "no training rows are known"
    return None if inputs.evaluation_sets else "no evaluation rows are known"


def _few_roles(inputs: AuditInputs) -> str | None:
    roles = {one.role for one in inputs.evaluation_sets}
    return None if len(roles) > 1 else "there are no two evaluation sets of different roles"


def _no_sets(inputs: AuditInputs) -> str | None:
    return None if inputs.sets else "no data files are known"


def _no_chats(inputs: AuditInputs) -> str | None:
    chats = any(row.messages for one in inputs.training_sets for row in one.data.rows[:1])
    return None if chats else "no training file has chats"


def _no_prompt(inputs: AuditInputs) -> str | None:
    if all(phase.prompt is None for phase in inputs.phases):
        return "the evaluation's prompt is not known"
    return _no_chats(inputs)


def _no_schedule(inputs: AuditInputs) -> str | None:
    if any(phase.schedule for phase in inputs.phases):
        return None
    if any(phase.config or phase.training for phase in inputs.phases):
        return (
            "the updates are not known: they take the training's statistics, or its batch size, "
            "accumulation, epochs, warm-up, rows and processes"
        )
    return "neither configuration nor statistics of a training are known"


def _one_phase(inputs: AuditInputs) -> str | None:
    configured = [phase for phase in inputs.phases if phase.config]
    return None if len(configured) > 1 else "there are no two phases with a configuration"


def _few_trainings(inputs: AuditInputs) -> str | None:
    done = [phase for phase in inputs.phases if (phase.training or {}).get("dtype")]
    return None if len(done) > 1 else "there are no two finished trainings of a known number format"


def _nothing_stated(inputs: AuditInputs) -> str | None:
    stated = (phase for phase in inputs.phases if phase.stated)
    checkable = any(set(phase.stated) & set(phase.counted) for phase in stated)
    return None if checkable else "no parameter count is stated, or it cannot be counted"


def _no_flops(inputs: AuditInputs) -> str | None:
    for phase in inputs.phases:
        if (phase.training or {}).get("total_flos"):
            return None if inputs.trained_on(phase) else "the training rows are not known"
    return "no training recorded its FLOPs"


def _no_bars(inputs: AuditInputs) -> str | None:
    if inputs.verdicts or (inputs.targets and (inputs.evaluations or inputs.sets)):
        return None
    return "no criteria were judged and no target is named"


def _no_uses(inputs: AuditInputs) -> str | None:
    return (
        None
        if inputs.uses
        else "no experiment recorded a use of production rows, and no imported set is one"
    )


def _no_evaluations(inputs: AuditInputs) -> str | None:
    return None if inputs.evaluations else "nothing was evaluated yet"


def _no_baselines(inputs: AuditInputs) -> str | None:
    if any(one.evaluation.baselines for one in inputs.evaluations):
        return None
    return _no_evaluations(inputs) or "no baseline was evaluated"


def _no_composition(inputs: AuditInputs) -> str | None:
    if any(one.evaluation.composition for one in inputs.evaluations):
        return None
    if any(one.evaluation.groups for one in inputs.evaluations):
        return "the rows have groups, but neither source nor fine label"
    return _no_evaluations(inputs) or "the rows have no groups"


def _not_imported(inputs: AuditInputs) -> str | None:
    return None if inputs.imported else "nothing was imported"


def _nothing_stated_of_import(inputs: AuditInputs) -> str | None:
    stated = any(facts.get("stated") for facts in inputs.imported.values())
    return None if stated else "no figures are stated of an imported run"


CHECKS: Mapping[str, Check] = {
    "exact_overlap": Check(data.exact_overlap, _no_pair),
    "near_overlap": Check(data.near_overlap, _no_pair),
    "evaluation_overlap": Check(data.evaluation_overlap, _few_roles),
    "conflicting_labels": Check(data.conflicting_labels, _no_sets),
    "format_predicts_label": Check(targets.format_predicts_label, _no_chats),
    "prompt_drift": Check(prompts.prompt_drift, _no_prompt),
    "label_word_drift": Check(prompts.label_word_drift, _no_prompt),
    "warmup_share": Check(training.warmup_share, _no_schedule),
    "confounded_phases": Check(training.confounded_phases, _one_phase),
    "mixed_number_formats": Check(training.mixed_number_formats, _few_trainings),
    "wrong_parameter_count": Check(training.wrong_parameter_count, _nothing_stated),
    "padding_waste": Check(training.padding_waste, _no_flops),
    "constant_passes": Check(bars.constant_passes, _no_bars),
    "baseline_not_beaten": Check(results.baseline_not_beaten, _no_baselines),
    "test_reuse": Check(bars.test_reuse, _no_uses),
    "unparseable_answers": Check(results.unparseable_answers, _no_evaluations),
    "contradicted_responses": Check(imported.contradicted_responses, _not_imported),
    "contradicted_figures": Check(imported.contradicted_figures, _nothing_stated_of_import),
    "composition": Check(results.composition, _no_composition),
    "small_groups": Check(results.small_groups, _no_evaluations),
    "no_scores": Check(results.no_scores, _no_evaluations),
    "learned_nothing": Check(results.nothing_learned, _no_evaluations),
}
"""Every check by its public name, in the order in which equally severe findings are listed."""


def _sorted(findings: list[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda one: SEVERITIES.index(one.severity)))


def _matches(key: str, finding: Finding) -> bool:
    check, _, subject = key.partition(":")
    if check != finding.check:
        return False
    return not subject or subject == finding.subject or subject in finding.subject.split(" / ")


def _check_of(key: str) -> str:
    return key.partition(":")[0]


def _accepts_nothing(key: str, audit: Audit) -> Finding:
    check, _, subject = key.partition(":")
    if check not in CHECKS:
        why = f"there is no check of that name{suggest(check, CHECKS)}"
    elif subject and (found := [one.subject for one in audit.findings if one.check == check]):
        why = f"it was found for {', '.join(found)} only{suggest(subject, found)}"
    else:
        why = "the check found nothing"
    return Finding(
        check=ACCEPTS_NOTHING,
        subject=key,
        severity="warning",
        message=f'The acceptance of "{key}" matches no finding: {why}.',
        evidence={},
        remedy="Take it out, or correct its name; names are check, or check:subject.",
    )
