"""Short plain text for a terminal: one evaluation, or a whole experiment."""

from __future__ import annotations

from collections.abc import Iterator

from evenhand.core.decisions import GateVerdict, ThresholdReport
from evenhand.core.evaluation import Evaluation
from evenhand.measure.intervals import MIN_LABELS
from evenhand.report.audited import audit_digest
from evenhand.report.comparison import (
    chance_phases,
    evaluated,
    judging_set,
    unranked_words,
    worst_group_fpr,
)
from evenhand.report.conclusions import main_lessons
from evenhand.report.decided import outcome_words as verdict_words
from evenhand.report.mitigations import mitigations_in_short, outcome_words
from evenhand.report.records import PhaseReport, Selection, Summary
from evenhand.report.sections import decided_by, production_runs, row_counts
from evenhand.report.tables import bounds_table, gaps_table, groups_table, performance_table
from evenhand.report.wording import (
    cell,
    count,
    counted,
    decimal,
    estimate,
    interval,
    listed,
    metric_name,
    one_line,
    points_with_interval,
    rate,
    signs,
    table,
    terminal,
    with_interval,
)


def render_evaluation(evaluation: Evaluation) -> str:
    """Return one evaluation for a terminal: counts, metrics, groups, gaps, baselines."""
    parts = [
        f"{cell(evaluation.name)}: {row_counts(evaluation)}; {decided_by(evaluation)}",
        performance_table(evaluation, None),
    ]
    if evaluation.bounds is not None:
        parts.append(bounds_table(evaluation))
    if evaluation.groups:
        parts += [groups_table(evaluation, None), gaps_table(evaluation)]
    rows = [
        [name, estimate(item.metrics.f1), interval(item.metrics.f1), estimate(item.metrics.roc_auc)]
        for name, item in evaluation.baselines.items()
    ]
    if rows:
        parts.append(table(["Baseline", "F1", "95% interval", "ROC AUC"], rows))
    return terminal("\n\n".join(parts))


def render_digest(summary: Summary) -> str:
    """Return plain lines: phases, choice, production, decisions, audit, what was learned."""
    name = judging_set(summary)
    phases = counted(len(summary.phases), "phase")
    lines = [f"{summary.name}: {phases}" + (f", on {name}" if name else "")]
    models = evaluated(summary, name) if name else {}
    width = max((len(phase.name) for phase in summary.phases), default=0)
    weak = chance_phases(summary)
    for phase in summary.phases:
        item = models.get(phase.name)
        text = "not evaluated" if item is None else _line(item)
        note = "  NOT SHOWN TO BEAT CHANCE" if phase.name in weak else ""
        lines.append(f"  {phase.name:<{width}}  {text}{note}")
    lines.append(f"chosen: {_choice(summary.selection)}")
    for phase, set_name, item in production_runs(summary):
        lines.append(f"{set_name}: {phase.name}  {_line(item)}")
    for phase in summary.phases:
        lines += _decisions(phase)
    lines += _mitigations(summary)
    if summary.audit is not None:
        lines.append(f"audit: {signs(audit_digest(summary.audit))}")
    return "\n".join(one_line(line) for line in [*lines, *_learned(summary)])


def _mitigations(summary: Summary) -> Iterator[str]:
    yield from (f"mitigations: {line}" for line in mitigations_in_short(summary))
    yield from (f"  {outcome_words(one)}" for one in summary.acceptances)


def _choice(selection: Selection | None) -> str:
    if selection is None:
        return "none"
    how = (
        f"by {metric_name(selection.metric)} on {selection.set}"
        if selection.set
        else selection.reason
    )
    return f"{selection.chosen}, {how}"


def _decisions(phase: PhaseReport) -> Iterator[str]:
    report = phase.threshold_report
    if report is not None:
        yield (
            f"{report.set}, tuned: {phase.name}  {_tuned(report)}  at the threshold "
            f"{decimal(report.value, digits=4)} ({counted(report.n, 'row')} it was not fitted on)"
        )
    elif phase.threshold is not None:
        yield (
            f"threshold: {phase.name}  {decimal(phase.threshold.value, digits=4)}, not reported on "
            "rows it was not fitted on"
        )
    if phase.verdict is not None:
        yield (
            f"gate: {phase.name}  {verdict_words(phase.verdict)} on {phase.verdict.set}"
            + "".join(
                f"; {words}: {listed(names)}" for words, names in _open_criteria(phase.verdict)
            )
        )


def _open_criteria(verdict: GateVerdict) -> Iterator[tuple[str, list[str]]]:
    """Yield what does not pass, by kind; the page says what would settle or mend it."""
    required = [one for one in verdict.results if one.role == "required"]
    due = [one for one in verdict.results if one.role == "condition" and one.duty is not None]
    kinds = {
        "not met": [one.name for one in required if one.status == "fail"],
        "undecided": [one.name for one in required if one.status not in ("pass", "fail")],
        "conditions": [f"{one.name} (by {one.duty['due']})" for one in due if one.duty],
    }
    yield from ((words, names) for words, names in kinds.items() if names)


def _tuned(report: ThresholdReport) -> str:
    """Return F1 and the highest group FPR at a tuned threshold, each with its change."""
    tests = [test for pair in report.comparison.pairs for test in pair.tests]
    shown = [test for test in tests if (test.metric, test.group) == ("f1", None)]
    rates = [
        (test.second, place)
        for place, test in enumerate(tests)
        if test.metric == "fpr" and test.group is not None and test.n >= MIN_LABELS
        if test.second is not None
    ]
    if rates:
        shown.append(tests[max(rates)[1]])
    parts = []
    for test in shown:
        value = decimal(test.second, digits=4) if test.metric == "f1" else rate(test.second)
        name = "F1" if test.group is None else f"worst group FPR {test.group}"
        parts.append(f"{name} {value} ({points_with_interval(test.difference)})")
    return "  ".join(parts)


def _learned(summary: Summary) -> Iterator[str]:
    """Yield the first conclusions."""
    found = main_lessons(summary)
    if found:
        yield "what was learned:"
    for text in found:
        yield f"- {text}"


def _line(item: Evaluation) -> str:
    parts = [f"F1 {with_interval(item.metrics.f1)}"]
    if item.metrics.roc_auc.value is not None:
        parts.append(f"AUC {with_interval(item.metrics.roc_auc)}")
    worst = worst_group_fpr(item)
    if worst is not None:
        parts.append(
            f"worst group FPR {worst[0]} {with_interval(worst[1], as_percent=True)}"
            f"{unranked_words(item)}"
        )
    if item.n_scored < item.n:
        parts.append(
            f"{count(item.n - item.n_scored)} of {counted(item.n, 'row')} without a decision"
        )
    return "  ".join(parts)
