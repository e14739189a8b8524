"""Phases laid side by side: what is compared with what, and ``comparison.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evenhand.core.decisions import GateVerdict
from evenhand.core.evaluation import (
    BaselineEvaluation,
    BaselineGroup,
    Confusion,
    Evaluation,
    GroupEvaluation,
    Metrics,
    MetricValue,
)
from evenhand.measure.classification import learned_nothing
from evenhand.report.records import PhaseReport, Summary
from evenhand.report.wording import listed

TRAINING_KEYS = (
    "rows",
    "total_steps",
    "trainable_parameters",
    "trainable_percent",
    "runtime_seconds",
    "rows_per_second",
    "train_loss",
    "final_epoch",
    "final_eval_loss",
    "best_checkpoint",
    "stopped_early",
)


NO_VERDICT = "NO VERDICT"
BASELINE_PREFIX = "baseline: "
"""Before the name of a baseline where it stands among phases."""


def comparison_table(summary: Summary) -> dict[str, Any]:
    """Return phases x sets x metrics as plain data, unrounded: the content of ``comparison.json``.

    >>> empty = Summary("none", None, "2026-01-01", (), (), None, {}, {}, None)
    >>> comparison_table(empty)["sets"]
    {}
    """
    chosen = summary.selection
    return {
        "name": summary.name,
        "created": summary.created,
        "selection": None
        if chosen is None
        else {
            "set": chosen.set,
            "metric": chosen.metric,
            "chosen": chosen.chosen,
            "values": dict(chosen.values),
            "reason": chosen.reason,
        },
        "phases": {phase.name: _phase(phase) for phase in summary.phases},
        "comparisons": [one.model_dump(mode="json") for one in summary.comparisons],
        "acceptances": [one.model_dump(mode="json") for one in summary.acceptances],
        "sets": {
            name: _set(summary, name) for name in summary.set_names() if evaluated(summary, name)
        },
    }


def evaluated(summary: Summary, set_name: str) -> dict[str, Evaluation]:
    """Return the evaluations on a set, by phase."""
    return {
        phase.name: phase.evaluations[set_name]
        for phase in summary.phases
        if set_name in phase.evaluations
    }


def set_baselines(summary: Summary, set_name: str) -> dict[str, BaselineEvaluation]:
    """Return the baselines on a set; one that differs between phases is named after its phase.

    Where it differs between settings only, not between their seeds, it is named after the setting.
    """
    found: dict[str, dict[str, BaselineEvaluation]] = {}
    for phase, evaluation in evaluated(summary, set_name).items():
        for name, baseline in evaluation.baselines.items():
            found.setdefault(name, {})[phase] = baseline
    rows: dict[str, BaselineEvaluation] = {}
    for name, by_phase in found.items():
        if _alike([*by_phase.values()]):
            rows[name] = next(iter(by_phase.values()))
            continue
        for setting in summary.settings:
            own = {one.name: by_phase[one.name] for one in setting.phases if one.name in by_phase}
            if own and _alike([*own.values()]):
                own = {setting.name: next(iter(own.values()))}
            rows |= {f"{name} (trained as {phase})": item for phase, item in own.items()}
    return rows


def _alike(baselines: Sequence[BaselineEvaluation]) -> bool:
    """Whether all of them answer alike, as far as counts tell."""
    first, *others = baselines
    return all(_same_answers(first, other) for other in others)


def own_baselines(
    summary: Summary, phase: PhaseReport, set_name: str
) -> Mapping[str, BaselineEvaluation]:
    """Return the baselines beside a phase's evaluation; where it has none, those of the set."""
    return phase.evaluations[set_name].baselines or set_baselines(summary, set_name)


def model_words(name: str) -> str:
    """Return the name of a phase or baseline as it stands in a sentence.

    >>> model_words("baseline: tfidf_logreg"), model_words("q_v")
    ('the baseline tfidf_logreg', 'q_v')
    """
    rest = name.removeprefix(BASELINE_PREFIX)
    return name if rest == name else f"the baseline {rest}"


def judging_set(summary: Summary) -> str | None:
    """Return the set on which phases are judged: the selection's, else the first evaluated."""
    if summary.selection is not None and evaluated(summary, summary.selection.set):
        return summary.selection.set
    names = [name for name in summary.set_names() if evaluated(summary, name)]
    unspent = [name for name in names if summary.role(name) != "production"]
    return next(iter(unspent or names), None)


def main_set(summary: Summary, phase: PhaseReport) -> str | None:
    """Return the set that a phase is looked into on: production, else where it is judged."""
    names = [name for name in summary.set_names() if name in phase.evaluations]
    production = [name for name in names if summary.role(name) == "production"]
    judged = judging_set(summary)
    return next(iter([*production, *(name for name in names if name == judged), *names]), None)


def beats_chance(evaluation: Evaluation) -> bool | None:
    """Return whether a model is shown to rank better than chance; None on rows of one class."""
    cells = evaluation.confusion
    if cells.positives == 0 or cells.negatives == 0:
        return None
    return not learned_nothing(evaluation)


def chance_phases(summary: Summary) -> tuple[str, ...]:
    """Return the phases that are not shown to rank better than chance where they are judged."""
    name = judging_set(summary)
    if name is None:
        return ()
    found = evaluated(summary, name)
    return tuple(phase for phase, item in found.items() if beats_chance(item) is False)


def outcome_word(verdict: GateVerdict) -> str:
    """Return a gate's outcome; a gate whose required criteria a constant meets has none."""
    return NO_VERDICT if verdict.vacuous else verdict.outcome


def group_names(evaluations: Mapping[str, Evaluation]) -> tuple[str, ...]:
    """Return every group of some evaluations, sorted."""
    return tuple(sorted({group for item in evaluations.values() for group in item.groups}))


def worst_group_fpr(evaluation: Evaluation) -> tuple[str, MetricValue] | None:
    """Return the highest FPR of the groups with enough labels, or None where none has."""
    ranked = [
        (group.fpr.value, name)
        for name, group in evaluation.groups.items()
        if group.fpr.value is not None and not group.negatives.too_small
    ]
    if not ranked:
        return None
    name = max(ranked)[1]
    return name, evaluation.groups[name].fpr


def unranked_words(evaluation: Evaluation) -> str:
    """Name in brackets the groups with too few normal rows to be ranked; empty without any."""
    small = [name for name, group in evaluation.groups.items() if group.negatives.too_small]
    return f" (not ranked, too few normal rows: {listed(small)})" if small else ""


def _same_answers(first: BaselineEvaluation, other: BaselineEvaluation) -> bool:
    return first.confusion == other.confusion and all(
        first.groups[name].confusion == other.groups[name].confusion
        for name in first.groups.keys() & other.groups.keys()
    )


def _phase(phase: PhaseReport) -> dict[str, Any]:
    training = phase.training
    return {
        "parent": phase.parent,
        "config_source": phase.config_source,
        "run_dir": phase.run_dir,
        "threshold": None if phase.threshold is None else phase.threshold.value,
        "verdict": None if phase.verdict is None else outcome_word(phase.verdict),
        "training": None
        if training is None
        else {key: training[key] for key in TRAINING_KEYS if key in training},
    }


def _set(summary: Summary, name: str) -> dict[str, Any]:
    report = summary.set_report(name)
    return {
        "role": summary.role(name),
        "sha256": None if report is None else report.sha256,
        "phases": {
            phase: {
                **_model(item.confusion, item.metrics, item.groups),
                "n": item.n,
                "n_unparseable": item.n_unparseable,
                "n_error": item.n_error,
                "threshold": item.threshold,
                "learned_nothing": None if beats_chance(item) is None else not beats_chance(item),
            }
            for phase, item in evaluated(summary, name).items()
        },
        "baselines": {
            baseline: _model(item.confusion, item.metrics, item.groups)
            for baseline, item in set_baselines(summary, name).items()
        },
    }


def _model(
    confusion: Confusion,
    metrics: Metrics,
    groups: Mapping[str, GroupEvaluation] | Mapping[str, BaselineGroup],
) -> dict[str, Any]:
    return {
        "confusion": confusion.model_dump(),
        "metrics": metrics.model_dump(),
        "groups": {
            name: {"n": group.n, "fpr": group.fpr.model_dump(), "fnr": group.fnr.model_dump()}
            for name, group in groups.items()
        },
    }
