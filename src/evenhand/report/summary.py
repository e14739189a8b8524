"""The experiment summary in Markdown, and its digest for a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from evenhand.core.evaluation import BaselineEvaluation, Evaluation, MetricValue
from evenhand.report.comparison import (
    comparison_table,
    evaluated,
    group_names,
    judging_set,
    learned_nothing_phases,
    set_baselines,
    worst_group_fpr,
)
from evenhand.report.findings import findings, not_done
from evenhand.report.records import PhaseReport, Summary
from evenhand.report.sections import (
    EvaluationSection,
    bounds_table,
    decided_by,
    difference_table,
    evaluation_section,
    gaps_table,
    groups_table,
    performance_table,
    phase_section,
    row_counts,
    sets_table,
)
from evenhand.report.wording import (
    UNKNOWN,
    cell,
    count,
    decimal,
    estimate,
    interval,
    listed,
    metric_name,
    percent,
    table,
    with_interval,
)

__all__ = ["comparison_table", "render_digest", "render_evaluation", "render_summary"]

_COMPARED = ("f1", "precision", "recall", "accuracy", "roc_auc")
_DIFFERENCES = ("f1", "accuracy", "precision", "recall", "roc_auc", "fpr", "fnr")


@dataclass(frozen=True)
class _Production:
    """The production validation of one phase."""

    phase: str
    set: str
    composition: str | None
    evaluation: EvaluationSection
    against: str | None


def render_summary(summary: Summary) -> str:
    """Return the experiment summary as Markdown, in the order of the reference's summary."""
    environment = Environment(
        loader=PackageLoader("evenhand.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = environment.get_template("summary.md.j2").render(**_context(summary))
    return _with_contents(re.sub(r"\n{3,}", "\n\n", text).strip() + "\n")


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
    """Return about a dozen plain lines: phases, choice, production, what was found."""
    name = judging_set(summary)
    lines = [f"{summary.name}: {len(summary.phases)} phases" + (f", on {name}" if name else "")]
    models = evaluated(summary, name) if name else {}
    width = max((len(phase.name) for phase in summary.phases), default=0)
    weak = learned_nothing_phases(summary)
    for phase in summary.phases:
        item = models.get(phase.name)
        text = "not evaluated" if item is None else _digest_line(item)
        note = "  LEARNED NOTHING" if phase.name in weak else ""
        lines.append(f"  {phase.name:<{width}}  {text}{note}")
    chosen = summary.selection
    if chosen is None:
        lines.append("chosen: none")
    else:
        lines.append(f"chosen: {chosen.chosen}, by {metric_name(chosen.metric)} on {chosen.set}")
    for phase, set_name, item in _production_runs(summary):
        lines.append(f"{set_name}: {phase.name}  {_digest_line(item)}")
    return "\n".join([*lines, *_digest_findings(summary, limit=5)])


def _digest_findings(summary: Summary, *, limit: int) -> Iterator[str]:
    found = [text.replace("**", "") for text in findings(summary)]
    for text in found[:limit]:
        yield f"- {text}"
    if len(found) > limit:
        yield f"- and {len(found) - limit} more findings in the summary"


def _digest_line(item: Evaluation) -> str:
    parts = [f"F1 {with_interval(item.metrics.f1)}", f"AUC {with_interval(item.metrics.roc_auc)}"]
    worst = worst_group_fpr(item)
    if worst is not None:
        parts.append(f"worst group FPR {worst[0]} {with_interval(worst[1], as_percent=True)}")
    if item.n_scored < item.n:
        parts.append(f"{item.n - item.n_scored} rows not scored")
    return "  ".join(parts)


def _context(summary: Summary) -> dict[str, Any]:
    selection = summary.selection
    return {
        "name": cell(summary.name),
        "description": None if summary.description is None else cell(summary.description),
        "created": cell(summary.created),
        "sets": sets_table(summary.sets) if summary.sets else None,
        "phases": [phase_section(summary, index) for index in range(len(summary.phases))],
        "efficiency": _efficiency_table(summary) if summary.phases else None,
        "comparisons": [
            (cell(name), cell(summary.role(name)), _performance_comparison(summary, name))
            for name in summary.set_names()
            if evaluated(summary, name)
        ],
        "parents": list(_parent_comparisons(summary)),
        "learned_nothing": listed(cell(name) for name in learned_nothing_phases(summary)),
        "judging_set": cell(judging_set(summary) or ""),
        "selection": None
        if selection is None
        else {
            "set": cell(selection.set),
            "chosen": cell(selection.chosen),
            "metric": metric_name(selection.metric),
            "reason": cell(selection.reason),
            "table": table(
                ["Phase", metric_name(selection.metric)],
                [
                    [name, "undefined" if value is None else decimal(value, digits=4)]
                    for name, value in selection.values.items()
                ],
            ),
        },
        "slices": _chosen_slices(summary),
        "production": list(_production(summary)),
        "findings": [_one_line(text) for text in findings(summary)],
        "not_done": [_one_line(text) for text in not_done(summary)],
        "prompt": _facts(summary.prompt),
        "machine": _facts(summary.machine),
        "command": None if summary.command is None else _one_line(summary.command),
        "notes": [_one_line(note) for note in summary.notes],
        "n_bootstrap": _bootstrap_sizes(summary),
    }


def _efficiency_table(summary: Summary) -> str:
    judged = judging_set(summary)
    models = evaluated(summary, judged) if judged else {}
    rows = []
    for phase in summary.phases:
        training = phase.training or {}
        config = phase.config
        item = models.get(phase.name)
        trainable, total = training.get("trainable_parameters"), training.get("total_parameters")
        share = f" ({percent(trainable / total, digits=3)})" if trainable and total else ""
        adapted = config.get("tuning", "lora") == "lora" and phase.training is not None
        modules = config.get("lora_target_modules") if adapted else None
        runtime = training.get("runtime_seconds")
        rows.append(
            [
                phase.name,
                phase.config_source or "inline",
                count(config.get("lora_r")) if adapted else "-",
                ", ".join(modules) if isinstance(modules, (list, tuple)) else str(modules or "-"),
                count(trainable) + share if phase.training is not None else "-",
                f"{runtime / 60:.1f} min" if runtime is not None else "-",
                decimal(_best_loss(training), digits=4) if phase.training is not None else "-",
                "-" if item is None else with_interval(item.metrics.f1),
                _status(summary, phase.name),
            ]
        )
    header = ["Phase", "Config", "Rank", "Modules", "Trainable parameters", "Run time"]
    header += ["Best eval loss", f"F1 ({judged})" if judged else "F1", "Status"]
    return table(header, rows)


def _best_loss(training: Mapping[str, Any]) -> float | None:
    for item in training.get("checkpoints") or ():
        if item.get("best"):
            return item.get("eval_loss")
    return training.get("final_eval_loss")


def _status(summary: Summary, phase: str) -> str:
    status = []
    if summary.selection is not None and summary.selection.chosen == phase:
        status.append("chosen")
    if phase in learned_nothing_phases(summary):
        status.append("learned nothing")
    return ", ".join(status) or "complete"


def _performance_comparison(summary: Summary, set_name: str) -> str:
    models = evaluated(summary, set_name)
    groups = group_names(models)
    header = ["Model", *(metric_name(metric) for metric in _COMPARED)]
    header += [f"{group} FPR" for group in groups]
    rows = [_comparison_row(phase, item, groups) for phase, item in models.items()]
    rows += [
        _comparison_row(f"baseline: {name}", item, groups)
        for name, item in set_baselines(summary, set_name).items()
    ]
    return table(header, rows)


def _comparison_row(
    name: str, item: Evaluation | BaselineEvaluation, groups: tuple[str, ...]
) -> list[str]:
    values: list[MetricValue] = [getattr(item.metrics, metric) for metric in _COMPARED]
    rates = [
        with_interval(item.groups[group].fpr, as_percent=True) if group in item.groups else "-"
        for group in groups
    ]
    return [name, *(with_interval(value) for value in values), *rates]


def _parent_comparisons(summary: Summary) -> Iterator[tuple[str, str, str, str]]:
    """Yield (phase, parent, set, table) for each phase that continued another's adapter."""
    for phase in summary.phases:
        parent = summary.phase(phase.parent) if phase.parent else None
        if parent is None:
            continue
        for name in summary.set_names():
            before, after = parent.evaluations.get(name), phase.evaluations.get(name)
            if before is not None and after is not None:
                compared = difference_table(
                    (parent.name, before.metrics),
                    (phase.name, after.metrics),
                    metrics=_DIFFERENCES,
                )
                yield cell(phase.name), cell(parent.name), cell(name), compared


def _production_runs(summary: Summary) -> Iterator[tuple[PhaseReport, str, Evaluation]]:
    """Yield every production evaluation, the chosen phase's first."""
    chosen = summary.selection.chosen if summary.selection else None
    for phase in sorted(summary.phases, key=lambda phase: phase.name != chosen):
        for name in summary.set_names():
            if summary.role(name) == "production" and name in phase.evaluations:
                yield phase, name, phase.evaluations[name]


def _production(summary: Summary) -> Iterator[_Production]:
    selection = summary.selection
    for phase, name, item in _production_runs(summary):
        before = phase.evaluations.get(selection.set) if selection else None
        listed_set = summary.set_report(name)
        total = listed_set.rows if listed_set else 0
        composition = None
        if listed_set is not None and listed_set.groups and total:
            parts = (
                f"{group} {count(n)} ({percent(n / total)})"
                for group, n in listed_set.groups.items()
            )
            composition = cell(", ".join(parts))
        yield _Production(
            phase=cell(phase.name),
            set=cell(name),
            composition=composition,
            evaluation=evaluation_section(summary, phase, name, reference=None, with_slices=True),
            against=None
            if before is None or selection is None
            else difference_table(
                (selection.set, before.metrics), (name, item.metrics), metrics=_DIFFERENCES
            ),
        )


def _chosen_slices(summary: Summary) -> str | None:
    """Return the slices of the chosen phase where it was chosen."""
    selection = summary.selection
    phase = summary.phase(selection.chosen) if selection else None
    if phase is None or selection is None or selection.set not in phase.evaluations:
        return None
    return evaluation_section(
        summary, phase, selection.set, reference=None, with_slices=True
    ).slices


def _facts(mapping: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (cell(str(key).replace("_", " ")), UNKNOWN if value is None else cell(value))
        for key, value in mapping.items()
    ]


def _bootstrap_sizes(summary: Summary) -> str:
    sizes = {item.n_bootstrap for phase in summary.phases for item in phase.evaluations.values()}
    return listed(count(size) for size in sorted(sizes))


def _one_line(text: str) -> str:
    return " ".join(text.replace("<", "&lt;").split())


def _with_contents(text: str) -> str:
    """Put a table of contents of the second-level headings in place of its marker."""
    seen: dict[str, int] = {}
    entries = []
    for title in re.findall(r"^#{1,6} (.+)$", _without_code(text), flags=re.MULTILINE):
        slug = _slug(title)
        again = seen.get(slug, 0)
        seen[slug] = again + 1
        entries.append((title, f"{slug}-{again}" if again else slug))
    second_level = set(re.findall(r"^## (.+)$", _without_code(text), flags=re.MULTILINE))
    shown = [entry for entry in entries if entry[0] in second_level and entry[0] != "Contents"]
    contents = "\n".join(f"{i}. [{title}](#{slug})" for i, (title, slug) in enumerate(shown, 1))
    return text.replace("<!-- contents -->", contents, 1)


def _without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def _slug(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
