"""Short plain text for a terminal: one evaluation, or a whole experiment."""

from __future__ import annotations

from collections.abc import Iterator

from evenhand.core.evaluation import Evaluation
from evenhand.report.comparison import (
    evaluated,
    judging_set,
    learned_nothing_phases,
    worst_group_fpr,
)
from evenhand.report.decided import audit_summary
from evenhand.report.findings import findings
from evenhand.report.paired import pair_sentence
from evenhand.report.records import PhaseReport, Summary
from evenhand.report.sections import decided_by, production_runs, row_counts
from evenhand.report.tables import bounds_table, gaps_table, groups_table, performance_table
from evenhand.report.wording import (
    decimal,
    estimate,
    interval,
    metric_name,
    table,
    with_interval,
)

_FINDINGS_SHOWN = 4


def render_evaluation(evaluation: Evaluation) -> str:
    """Return one evaluation for a terminal: counts, metrics, groups, gaps, baselines."""
    parts = [
        f"{evaluation.name}: {row_counts(evaluation)}; {decided_by(evaluation)}",
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
    return "\n\n".join(parts)


def render_digest(summary: Summary) -> str:
    """Return about a dozen plain lines: phases, choice, production, decisions, what was found."""
    name = judging_set(summary)
    lines = [f"{summary.name}: {len(summary.phases)} phases" + (f", on {name}" if name else "")]
    models = evaluated(summary, name) if name else {}
    width = max((len(phase.name) for phase in summary.phases), default=0)
    weak = learned_nothing_phases(summary)
    for phase in summary.phases:
        item = models.get(phase.name)
        text = "not evaluated" if item is None else _line(item)
        note = "  LEARNED NOTHING" if phase.name in weak else ""
        lines.append(f"  {phase.name:<{width}}  {text}{note}")
    chosen = summary.selection
    if chosen is None:
        lines.append("chosen: none")
    else:
        how = f"by {metric_name(chosen.metric)} on {chosen.set}" if chosen.set else chosen.reason
        lines.append(f"chosen: {chosen.chosen}, {how}")
    for phase, set_name, item in production_runs(summary):
        lines.append(f"{set_name}: {phase.name}  {_line(item)}")
    lines += _decisions(summary)
    return "\n".join([*lines, *_findings(summary)])


def _decisions(summary: Summary) -> Iterator[str]:
    if summary.audit is not None:
        yield f"audit: {audit_summary(summary.audit)}"
    for phase in summary.phases:
        yield from _phase_decisions(phase)
    names = {phase.name for phase in summary.phases}
    judged = judging_set(summary)
    for comparison in summary.comparisons:
        for pair in comparison.pairs:
            if comparison.set == judged and {pair.first, pair.second} <= names:
                yield f"- {pair_sentence(pair, comparison)}"


def _phase_decisions(phase: PhaseReport) -> Iterator[str]:
    if phase.threshold is not None:
        yield f"threshold: {phase.name}  {decimal(phase.threshold.value, digits=4)}"
    if phase.verdict is not None:
        yield f"gate: {phase.name}  {phase.verdict.outcome} on {phase.verdict.set}"


def _findings(summary: Summary) -> Iterator[str]:
    found = findings(summary)
    for text in found[:_FINDINGS_SHOWN]:
        yield f"- {text}"
    if len(found) > _FINDINGS_SHOWN:
        yield f"- and {len(found) - _FINDINGS_SHOWN} more findings in the summary"


def _line(item: Evaluation) -> str:
    parts = [f"F1 {with_interval(item.metrics.f1)}", f"AUC {with_interval(item.metrics.roc_auc)}"]
    worst = worst_group_fpr(item)
    if worst is not None:
        parts.append(f"worst group FPR {worst[0]} {with_interval(worst[1], as_percent=True)}")
    if item.n_scored < item.n:
        parts.append(f"{item.n - item.n_scored} rows not scored")
    return "  ".join(parts)
