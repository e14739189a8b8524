"""The experiment summary in Markdown: the one source of what a report says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from evenhand.report.audited import audit_summary, audit_text
from evenhand.report.comparison import (
    comparison_table,
    evaluated,
    main_set,
)
from evenhand.report.conclusions import lessons, not_done, open_questions, practices
from evenhand.report.decided import (
    achievement_table,
    calibration_table,
    deployment_facts,
    gate_definitions,
    gate_duties,
    gate_table,
    gate_warnings,
    judged_at,
    outcome_words,
    reported_calibration_table,
    threshold_facts,
    threshold_tables,
)
from evenhand.report.diagnostics import agreement_table, reachable_table
from evenhand.report.digest import render_digest, render_evaluation
from evenhand.report.mitigations import mitigation_section, mitigations_in_short
from evenhand.report.paired import comparison_section
from evenhand.report.recommendations import Recommendation, immediate_action, recommendations
from evenhand.report.records import PhaseReport, Summary
from evenhand.report.remarks import other_rows_remark
from evenhand.report.sections import (
    phase_sections,
    production_sections,
    slices_section,
    suite_sections,
)
from evenhand.report.tables import efficiency_table, performance_comparison, sets_table
from evenhand.report.wording import (
    UNKNOWN,
    cell,
    count,
    counted,
    decimal,
    ended,
    listed,
    metric_name,
    one_line,
    table,
)

__all__ = ["comparison_table", "render_digest", "render_evaluation", "render_summary"]


def render_summary(summary: Summary, *, figures: Mapping[str, str] | None = None) -> str:
    """Return the experiment summary as Markdown, in the order of the reference's summary.

    Args:
        summary: what to write down.
        figures: descriptions of the plots by name; ``figures/NAME.svg`` is referred to for each.
    """
    environment = Environment(
        loader=PackageLoader("evenhand.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    context = _context(summary) | {"figures": _figure_links(figures or {})}
    text = environment.get_template("summary.md.j2").render(**context)
    return _with_contents(re.sub(r"\n{3,}", "\n\n", text).strip() + "\n")


def heading_slug(title: str) -> str:
    """Return the anchor of a heading, as GitHub makes it.

    >>> heading_slug("Phase 1: k_proj (r=64)")
    'phase-1-k_proj-r64'
    """
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _context(summary: Summary) -> dict[str, Any]:
    selection = summary.selection
    return {
        "name": cell(summary.name),
        "description": None if summary.description is None else cell(summary.description),
        "created": cell(summary.created),
        "in_short": [cell(line) for line in _in_short(summary)],
        "sets": sets_table(summary.sets) if summary.sets else None,
        "audit": None if summary.audit is None else audit_text(summary.audit),
        "phases": list(phase_sections(summary)),
        "efficiency": efficiency_table(summary) if summary.phases else None,
        "comparisons": list(_set_comparisons(summary)),
        "achievement": achievement_table(summary),
        "mitigations": mitigation_section(summary),
        "selection": None
        if selection is None
        else {
            "set": cell(selection.set),
            "chosen": cell(selection.chosen),
            "metric": metric_name(selection.metric),
            "reason": cell(ended(selection.reason)),
            "table": None
            if not selection.values
            else table(
                ["Phase", metric_name(selection.metric)],
                [
                    [name, "undefined" if value is None else decimal(value, digits=4)]
                    for name, value in selection.values.items()
                ],
            ),
        },
        "production": list(production_sections(summary)),
        "thresholds": [
            _threshold(phase)
            for phase in _chosen_first(summary)
            if phase.threshold is not None or phase.threshold_report is not None
        ],
        "slices": list(_slices(summary)),
        "suites": list(suite_sections(summary)),
        "gates": [_gate(phase) for phase in _chosen_first(summary) if phase.verdict is not None],
        "action": [cell(line) for line in immediate_action(summary)],
        "options": [_option(one) for one in recommendations(summary)],
        "lessons": [cell(text) for text in lessons(summary)],
        "practices": [cell(text) for text in practices(summary)],
        "questions": [cell(text) for text in open_questions(summary)],
        "not_done": [cell(text) for text in not_done(summary)],
        "prompt": _facts(summary.prompt),
        "machine": ", ".join(f"{key} {value}" for key, value in _facts(summary.machine)),
        "deployments": [
            deployment_facts(phase.deployment, phase.verdict)
            for phase in _chosen_first(summary)
            if phase.deployment is not None
        ],
        "commands": [" ".join(one_line(line).split()) for line in _commands(summary)],
        "notes": [cell(note) for note in summary.notes],
        "n_bootstrap": _bootstrap_sizes(summary),
    }


def _in_short(summary: Summary) -> Iterator[str]:
    chosen = summary.chosen
    if chosen is not None:
        yield (
            f"Chosen phase: {chosen.name}."
            if summary.selection is not None
            else f"No phase was chosen; {chosen.name} is looked into further."
        )
        if chosen.verdict is not None:
            yield f"Gate on {chosen.verdict.set}: {outcome_words(chosen.verdict)}."
    if summary.audit is not None:
        yield f"Audit: {audit_summary(summary.audit)}"
    names = summary.own_models
    for comparison in summary.comparisons:
        own = [pair for pair in comparison.pairs if {pair.first, pair.second} <= names]
        apart = sum(pair.verdict in ("better", "worse") for pair in own)
        if own:
            yield (
                f"Phases on {comparison.set}: {apart} of {counted(len(own), 'pair')} "
                f"{'differs' if apart == 1 else 'differ'} in F1 by a paired test."
            )
    yield from mitigations_in_short(summary)


def _set_comparisons(summary: Summary) -> Iterator[dict[str, Any]]:
    for name in summary.set_names():
        models = evaluated(summary, name)
        if not models:
            continue
        agreements = (agreement_table(item) for item in models.values())
        yield {
            "set": cell(name),
            "figure": name,
            "role": cell(summary.role(name)),
            "performance": performance_comparison(summary, name),
            "warning": other_rows_remark(summary, name),
            "reachable": reachable_table(summary, name),
            "agreement": next((found for found in agreements if found is not None), None),
            "paired": [
                comparison_section(one, level=5).partition("\n\n#####")
                for one in summary.comparisons
                if one.set == name
            ],
        }


def _threshold(phase: PhaseReport) -> dict[str, Any]:
    fitted, report = phase.threshold, phase.threshold_report
    return {
        "phase": cell(phase.name),
        "facts": [] if fitted is None else threshold_facts(fitted),
        "calibration": None
        if fitted is None or fitted.calibration is None
        else {
            "temperature": decimal(fitted.calibration.temperature),
            "rows": counted(fitted.calibration.n, "validation row"),
            "table": calibration_table(fitted.calibration),
        },
        "set": "" if report is None else cell(report.set),
        "rows": "" if report is None else counted(report.n, "row"),
        "tables": [] if report is None else threshold_tables(report),
        "after": None if report is None else reported_calibration_table(report),
    }


def _slices(summary: Summary) -> Iterator[Any]:
    """Yield what lies behind the chosen phase's rates; every phase's where none was chosen."""
    phases = [summary.chosen] if summary.chosen is not None else summary.phases
    for phase in phases:
        name = main_set(summary, phase)
        if name is not None:
            yield slices_section(phase, name)


def _gate(phase: PhaseReport) -> dict[str, Any]:
    verdict = phase.verdict
    assert verdict is not None
    return {
        "phase": cell(phase.name),
        "set": cell(verdict.set),
        "at": judged_at(verdict),
        "criteria": cell(verdict.criteria_name),
        "sha256": verdict.criteria_sha256[:12],
        "table": gate_table(verdict),
        "outcome": cell(outcome_words(verdict)),
        "definitions": gate_definitions(verdict),
        "duties": gate_duties(verdict),
        "warnings": gate_warnings(verdict),
    }


def _option(one: Recommendation) -> dict[str, Any]:
    return {
        "title": cell(one.title),
        "facts": [
            ("Purpose", cell(one.purpose)),
            ("Method", cell(one.method)),
            ("Current", cell(one.current)),
            ("Expected", cell(one.expected)),
            ("Time", cell(one.time)),
            ("Status", cell(one.status)),
        ],
    }


def _chosen_first(summary: Summary) -> Sequence[PhaseReport]:
    return sorted(summary.phases, key=lambda phase: phase is not summary.chosen)


def _commands(summary: Summary) -> Sequence[str]:
    command = () if summary.command is None else (summary.command,)
    return tuple(dict.fromkeys([*summary.commands, *command]))


def _figure_links(figures: Mapping[str, str]) -> dict[str, str]:
    return {name: f"![{_one_line_alt(text)}](figures/{name}.svg)" for name, text in figures.items()}


def _one_line_alt(text: str) -> str:
    return cell(text).replace("[", "(").replace("]", ")")


def _facts(mapping: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (cell(str(key).replace("_", " ")), UNKNOWN if value is None else cell(value))
        for key, value in mapping.items()
    ]


def _bootstrap_sizes(summary: Summary) -> str:
    sizes = {item.n_bootstrap for phase in summary.phases for item in phase.evaluations.values()}
    return listed(count(size) for size in sorted(sizes))


def _with_contents(text: str) -> str:
    """Put a table of contents of the second-level headings in place of its marker."""
    seen: dict[str, int] = {}
    entries = []
    for marks, title in re.findall(r"^(#{1,6}) (.+)$", _without_code(text), flags=re.MULTILINE):
        slug = heading_slug(title)
        again = seen.get(slug, 0)
        seen[slug] = again + 1
        if len(marks) == 2 and title != "Contents":
            entries.append((title, f"{slug}-{again}" if again else slug))
    contents = "\n".join(f"{i}. [{title}](#{slug})" for i, (title, slug) in enumerate(entries, 1))
    return text.replace("<!-- contents -->", contents, 1)


def _without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
