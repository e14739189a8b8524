"""The parts of a summary as finished text: facts, and tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from evenhand.config.files import shown
from evenhand.core.evaluation import Evaluation, Slice
from evenhand.report.analysis import analyse_phase, analyse_production
from evenhand.report.comparison import evaluated, judging_set
from evenhand.report.composed import composition_words
from evenhand.report.configuration import (
    config_place,
    configuration_json,
    reference_phase,
)
from evenhand.report.decided import imported_words, stated_table
from evenhand.report.diagnostics import (
    agreement_table,
    bias_auc_table,
    composition_table,
    reliability_table,
    slices_table,
    suite_table,
)
from evenhand.report.records import ErrorExample, PhaseReport, Setting, Summary
from evenhand.report.remarks import (
    chance_remark,
    composition_remark,
    small_groups_remark,
    unscored_remark,
)
from evenhand.report.tables import (
    Reference,
    bounds_table,
    confusion_table,
    gaps_table,
    groups_table,
    performance_table,
    progression_table,
    reference_for,
)
from evenhand.report.training import training_results, training_statistics
from evenhand.report.wording import (
    cell,
    count,
    counted,
    decimal,
    listed,
    literal,
    plain_table,
)

_SMALLEST_SUITE = 3
"""Fewer functionalities are ordinary fine labels rather than a functional suite."""


@dataclass(frozen=True)
class AnalysisText:
    """Escaped sentences under a heading each."""

    worked: tuple[str, ...]
    did_not: tuple[str, ...]
    undecided: tuple[str, ...]


@dataclass(frozen=True)
class EvaluationSection:
    """One evaluation of one phase."""

    set: str
    role: str
    decided: str
    counts: str
    performance: str
    confusion: str
    bounds: str | None
    unscored: str | None
    groups: str | None
    small: str | None
    gaps: str | None
    bias_aucs: str | None
    examples: str | None


@dataclass(frozen=True)
class PhaseSection:
    """One phase: configuration, training, evaluations, what they show."""

    title: str
    name: str
    config: str
    run_dir: str
    seeds: str | None
    hypothesis: str | None
    parent: str | None
    imported: str | None
    configuration: str | None
    statistics: tuple[tuple[str, str], ...]
    results: str | None
    progression: str | None
    best: str | None
    warnings: tuple[str, ...]
    evaluations: tuple[EvaluationSection, ...]
    chance: str | None
    stated: str | None
    analysis: AnalysisText


@dataclass(frozen=True)
class ProductionSection:
    """The production validation of one phase."""

    phase: str
    set: str
    composition: str | None
    evaluation: EvaluationSection
    analysis: AnalysisText


@dataclass(frozen=True)
class SlicesSection:
    """What lies behind the rates of one evaluation."""

    phase: str
    set: str
    by: str
    composition: str | None
    composition_words: tuple[str, ...]
    agreement: str | None
    reliability: str | None
    slices: str | None


@dataclass(frozen=True)
class SuiteSection:
    """A functional suite: accuracy per functionality, and the groups it says nothing about."""

    phase: str
    set: str
    clusters: str
    functions: str
    uncovered: str


def phase_sections(summary: Summary) -> Iterator[PhaseSection]:
    """Yield a section for each setting; production evaluations have sections of their own."""
    for number, setting in enumerate(summary.settings, start=1):
        yield _phase_section(summary, setting, number)


def _phase_section(summary: Summary, setting: Setting, number: int) -> PhaseSection:
    phase, *others = setting.phases
    judged = judging_set(summary)
    item = phase.evaluations.get(judged or "")
    training = phase.training
    found = analyse_phase(summary, phase)
    other = reference_phase(summary, phase)
    weak = None if item is None else chance_remark(item)
    return PhaseSection(
        title=f"Phase {number}: {cell(setting.name)} - {_status(phase)}",
        name=cell(phase.name),
        config=cell(config_place(phase)),
        run_dir=cell(shown(Path(phase.run_dir))),
        seeds=_seeds(phase, others),
        hypothesis=None if phase.hypothesis is None else cell(phase.hypothesis),
        parent=None if phase.parent is None else cell(phase.parent),
        imported=None if phase.imported is None else cell(imported_words(phase.imported)),
        configuration=configuration_json(phase.config) if phase.config else None,
        statistics=() if training is None else training_statistics(phase, training),
        results=None if training is None else training_results(training),
        progression=None if training is None else progression_table(training),
        best=_optional((training or {}).get("best_checkpoint")),
        warnings=tuple(
            cell(text) for text in dict.fromkeys(w for one in setting.phases for w in one.warnings)
        ),
        evaluations=tuple(
            evaluation_section(
                summary, phase, name, other=reference_for(summary, phase, name, other)
            )
            for name in summary.set_names()
            if name in phase.evaluations and summary.role(name) != "production"
        ),
        chance=None if weak is None else cell(weak),
        stated=stated_table(phase),
        analysis=AnalysisText(
            _escaped(found.worked), _escaped(found.did_not), _escaped(found.undecided)
        ),
    )


def evaluation_section(
    summary: Summary, phase: PhaseReport, set_name: str, *, other: Reference | None
) -> EvaluationSection:
    """Return one evaluation's tables, with the change from ``other`` where there is one."""
    item = phase.evaluations[set_name]
    return EvaluationSection(
        set=cell(set_name),
        role=cell(summary.role(set_name)),
        decided=decided_by(item),
        counts=row_counts(item),
        performance=performance_table(item, other),
        confusion=confusion_table(item),
        bounds=None if item.bounds is None else bounds_table(item),
        unscored=_optional(unscored_remark(item)),
        groups=groups_table(item, other) if item.groups else None,
        small=_optional(small_groups_remark(item)),
        gaps=gaps_table(item) if len(item.groups) > 0 else None,
        bias_aucs=bias_auc_table(item),
        examples=examples_table(phase.examples.get(set_name, ())),
    )


def production_sections(summary: Summary) -> Iterator[ProductionSection]:
    """Yield every production evaluation, the chosen phase's first."""
    selection = summary.selection
    for phase, name, item in production_runs(summary):
        before = phase.evaluations.get(selection.set) if selection else None
        other = None
        if selection is not None and before is not None and selection.set != name:
            # Other rows than those of the set: an unpaired change, which analyse_production judges.
            other = Reference(selection.set, before, None)
        found = analyse_production(summary, phase, name)
        yield ProductionSection(
            phase=cell(phase.name),
            set=cell(name),
            composition=cell(composition_remark(item)) if item.groups else None,
            evaluation=evaluation_section(summary, phase, name, other=other),
            analysis=AnalysisText(
                _escaped(found.worked), _escaped(found.did_not), _escaped(found.undecided)
            ),
        )


def production_runs(summary: Summary) -> Iterator[tuple[PhaseReport, str, Evaluation]]:
    """Yield every production evaluation, the chosen phase's first."""
    chosen = summary.chosen
    for phase in sorted(summary.phases, key=lambda phase: phase is not chosen):
        for name in summary.set_names():
            if summary.role(name) == "production" and name in phase.evaluations:
                yield phase, name, phase.evaluations[name]


def slices_section(phase: PhaseReport, set_name: str) -> SlicesSection:
    """Return slices, composition and calibration of one evaluation."""
    item = phase.evaluations[set_name]
    crossings = dict.fromkeys(" x ".join(part.keys) for part in item.slices)
    return SlicesSection(
        phase=cell(phase.name),
        set=cell(set_name),
        by=cell(", ".join(crossings).replace("_", " ")),
        composition=composition_table(item),
        composition_words=tuple(
            cell(f"{group} FPR: {composition_words(item, group)}.") for group in item.composition
        ),
        agreement=agreement_table(item),
        reliability=reliability_table(item),
        slices=slices_table(item.slices) if item.slices else None,
    )


def suite_sections(summary: Summary) -> Iterator[SuiteSection]:
    """Yield the functional suites: clustered sets whose every fine label has one class only."""
    everywhere = {
        group
        for phase in summary.phases
        for item in phase.evaluations.values()
        for group in item.groups
    }
    chosen = summary.chosen
    for set_name in summary.set_names():
        models = evaluated(summary, set_name)
        name = (
            chosen.name if chosen is not None and chosen.name in models else next(iter(models), "")
        )
        functions = _functions(models[name]) if name else []
        if not functions:
            continue
        item = models[name]
        missing = sorted(everywhere - item.groups.keys())
        yield SuiteSection(
            phase=cell(name),
            set=cell(set_name),
            clusters=counted(item.n_clusters or 0, "template"),
            functions=suite_table(functions),
            uncovered=cell(", ".join(missing)),
        )


def examples_table(examples: Sequence[ErrorExample]) -> str | None:
    """Return confident errors by id, with the post, escaped, where it is there; None without."""
    if not examples:
        return None
    with_text = any(one.text is not None for one in examples)
    rows = [
        [
            cell(one.group) or "-",
            cell(one.id),
            one.label,
            one.decision,
            cell(one.fine_label or "-"),
            "-" if one.score is None else decimal(one.score),
            *([literal(one.text or "") or "-"] if with_text else []),
        ]
        for one in examples
    ]
    header = ["Target group", "Id", "Label", "Decided", "Fine label", "p(hate)"]
    return plain_table(header + (["Post"] if with_text else []), rows)


def decided_by(item: Evaluation) -> str:
    """Say how the decisions came about."""
    if item.threshold is not None:
        return f"hate where p(hate) is at least {item.threshold:g}"
    return {"generate": "the model's generated answer"}.get(item.method, "as imported")


def row_counts(item: Evaluation) -> str:
    """Say how many rows there are, and how many count."""
    text = (
        f"{counted(item.n, 'row')}, {count(item.n_scored)} scored, "
        f"{count(item.n_unparseable)} unparseable, {count(item.n_error)} in error"
    )
    if item.n_clusters is not None:
        text += f"; intervals over {counted(item.n_clusters, 'cluster')} of dependent rows"
    return text


def _functions(item: Evaluation) -> list[Slice]:
    """Return the functionalities of a suite; nothing where the set is no functional suite."""
    parts = [part for part in item.slices if set(part.keys) == {"fine_label"}]
    one_class = all(
        part.confusion.positives == 0 or part.confusion.negatives == 0 for part in parts
    )
    is_suite = item.n_clusters is not None and one_class and len(parts) >= _SMALLEST_SUITE
    return parts if is_suite else []


def _seeds(phase: PhaseReport, others: Sequence[PhaseReport]) -> str | None:
    """Say which seed is shown in full, and where the others stand; None where there is one."""
    if not others:
        return None
    return cell(
        f"This section is {phase.name}'s; {listed(one.name for one in others)} "
        f"{'stands' if len(others) == 1 else 'stand'} beside it under Comparison Summary. "
        "evenhand report gives each in full."
    )


def _status(phase: PhaseReport) -> str:
    """Return how far a phase came: trained or imported phases that are evaluated are complete."""
    return "COMPLETED" if phase.evaluations else "NOT EVALUATED"


def _optional(sentence: str | None) -> str | None:
    return None if sentence is None else cell(sentence)


def _escaped(sentences: Sequence[str]) -> tuple[str, ...]:
    return tuple(cell(sentence) for sentence in sentences)
