"""From run folders to the summary's content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evenhand.config.files import shown
from evenhand.core.acceptance import Acceptance
from evenhand.core.decisions import Audit, Comparison
from evenhand.core.predictions import Predictions
from evenhand.core.records import HATE, NORMAL, Dataset
from evenhand.experiment.deciding import read_decisions
from evenhand.experiment.results import Results
from evenhand.experiment.runs import machine, now
from evenhand.report.records import (
    ErrorExample,
    PhaseReport,
    ScoredRows,
    Selection,
    SetReport,
    Summary,
)

if TYPE_CHECKING:
    from evenhand.experiment.runner import ExperimentResult, PhaseResult

_EXAMPLES_PER_GROUP = 5
_ROLES = ("train", "validation", "test", "production")


@dataclass(frozen=True)
class About:
    """What is known of a phase beside its run folder."""

    hypothesis: str | None = None
    parent: str | None = None
    config_source: str | None = None


@dataclass(frozen=True)
class Context:
    """What is known of an experiment beside its run folders.

    Attributes:
        texts: posts by evaluation set and row id; empty unless posts are to be shown.
    """

    name: str
    description: str | None = None
    notes: tuple[str, ...] = ()
    command: str | None = None
    commands: tuple[str, ...] = ()
    audit: Audit | None = None
    comparisons: tuple[Comparison, ...] = ()
    acceptances: tuple[Acceptance, ...] = ()
    control: tuple[str, ...] = ()
    texts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def summarise(result: ExperimentResult, *, include_posts: bool = False) -> Summary:
    """Return the summary's content for an experiment that was run."""
    experiment = result.experiment
    prompted = [one for one in result.phases if one.run.config.task == "causal_lm"]
    skipped = [
        f"{name}: {len(data.skipped)} of {len(data) + len(data.skipped)} rows could not be used"
        for name, data in result.sets.items()
        if data.skipped
    ]
    context = Context(
        name=experiment.config.name,
        description=experiment.config.description,
        notes=(*result.notes, *skipped, *_other_prompts(prompted)),
        command=result.command,
        commands=() if result.command is None else (result.command,),
        audit=result.audit,
        comparisons=result.comparisons,
        acceptances=result.acceptances,
        control=experiment.control_phases,
        texts={name: {row.id: row.text for row in data.rows} for name, data in result.sets.items()}
        if include_posts
        else {},
    )
    phases = tuple(
        _phase(
            one.results,
            About(one.phase.hypothesis, one.phase.continue_from, shown(one.phase.path)),
            sets=[named.name for named in experiment.sets],
            context=context,
        )
        for one in result.phases
    )
    sets = tuple(_set(one.name, one.role, result.sets[one.name]) for one in experiment.sets)
    return _summary(
        context, phases, sets, selection=result.selection, prompt=_prompt(result.phases[0].results)
    )


def summary_of(
    results: Sequence[Results],
    *,
    context: Context,
    roles: Mapping[str, str] | None = None,
    chosen: str | None = None,
) -> Summary:
    """Return the summary's content for run folders that no experiment holds together.

    An evaluation set has the role that ``roles`` gives it, or that its name is, or ``validation``.
    """
    named = dict.fromkeys(name for one in results for name in one.evaluation_names)
    role_of = {
        name: (roles or {}).get(name) or (name if name in _ROLES else "validation")
        for name in named
    }
    phases = tuple(
        _phase(one, About(config_source=_config_source(one)), sets=list(named), context=context)
        for one in results
    )
    sets = tuple(
        _evaluated_set(name, role, next(r for r in results if name in r.evaluation_names))
        for name, role in sorted(role_of.items(), key=lambda item: _ROLES.index(item[1]))
    )
    selection = None
    if chosen is not None:
        selection = Selection("", "", chosen, {}, "named by the user")
    return _summary(context, phases, sets, selection=selection, prompt=_prompt(results[0]))


def _summary(
    context: Context,
    phases: tuple[PhaseReport, ...],
    sets: tuple[SetReport, ...],
    *,
    selection: Selection | None,
    prompt: Mapping[str, Any],
) -> Summary:
    return Summary(
        name=context.name,
        description=context.description,
        created=now()[:10],
        phases=phases,
        sets=sets,
        selection=selection,
        prompt=prompt,
        machine=machine(),
        command=context.command,
        notes=context.notes,
        audit=context.audit,
        comparisons=context.comparisons,
        acceptances=context.acceptances,
        commands=context.commands,
        control=context.control,
    )


def _phase(results: Results, about: About, *, sets: Sequence[str], context: Context) -> PhaseReport:
    names = [name for name in sets if name in results.evaluation_names]
    predictions = {name: results.predictions(name) for name in names}
    decided = read_decisions(results)
    return PhaseReport(
        name=results.name,
        hypothesis=about.hypothesis,
        config=results.config or {},
        config_source=about.config_source,
        run_dir=str(results.path),
        training=results.training,
        evaluations={name: results.evaluation(name) for name in names},
        warnings=(*results.manifest["warnings"], *decided.warnings),
        parent=about.parent,
        threshold=decided.threshold,
        threshold_report=decided.threshold_report,
        verdict=decided.verdict,
        deployment=decided.deployment,
        stated=results.stated,
        imported=results.manifest.get("imported"),
        history=results.history,
        scored={
            name: scored
            for name, answers in predictions.items()
            if (scored := _scored(answers)) is not None
        },
        examples={
            name: _examples(answers, context.texts.get(name, {}))
            for name, answers in predictions.items()
        },
    )


def _scored(predictions: Predictions) -> ScoredRows | None:
    frame = predictions.frame[predictions.frame["score"].notna()]
    if frame.empty:
        return None
    return ScoredRows((frame["label"] == HATE).to_numpy(dtype=bool), frame["score"].to_numpy(float))


def _examples(predictions: Predictions, texts: Mapping[str, str]) -> tuple[ErrorExample, ...]:
    """Return each group's most confident false positives; without scores, the first by id."""
    frame = predictions.frame
    wrong = frame[(frame["label"] == NORMAL) & (frame["decision"] == HATE)]
    wrong = wrong.assign(order=-wrong["score"].fillna(0.0)).sort_values(["order", "id"])
    seen: Counter[str] = Counter()
    found = []
    for row in wrong.to_dict("records"):
        for group in row["group"]:
            seen[group] += 1
            if seen[group] <= _EXAMPLES_PER_GROUP:
                found.append(
                    ErrorExample(
                        id=row["id"],
                        group=group,
                        label=row["label"],
                        decision=row["decision"],
                        fine_label=row["fine_label"],
                        score=None if np.isnan(row["score"]) else row["score"],
                        text=texts.get(row["id"]),
                    )
                )
    return tuple(sorted(found, key=lambda one: one.group))


def _prompt(results: Results) -> Mapping[str, Any]:
    prompt = results.manifest.get("prompt")
    if (results.config or {}).get("task") == "sequence_classification":
        return {"file": "none; a sequence classifier reads the bare text"}
    if prompt is None:
        return {"file": None}
    return {
        "file": prompt["origin"],
        "strategy": prompt["strategy"],
        "sha256": prompt["sha256"],
    }


def _other_prompts(prompted: Sequence[PhaseResult]) -> list[str]:
    """Name the phases whose prompt is not the first one's."""
    return [
        f"{one.phase.name} has another prompt ({one.run.manifest['prompt']['origin']}) than "
        f"{prompted[0].phase.name}: they differ in more than their configuration."
        for one in prompted
        if one.run.prompt.sha256 != prompted[0].run.prompt.sha256
    ]


def _config_source(results: Results) -> str | None:
    imported = results.manifest.get("imported")
    return None if imported is None else imported.get("config")


def _set(name: str, role: str, data: Dataset) -> SetReport:
    return SetReport(
        name=name,
        role=role,
        file="" if data.path is None else shown(data.path),
        sha256=data.sha256,
        rows=len(data),
        n_hate=sum(row.label == HATE for row in data.rows),
        groups=Counter(group for row in data.rows for group in row.groups),
    )


def _evaluated_set(name: str, role: str, results: Results) -> SetReport:
    evaluation, frame = results.evaluation(name), results.predictions(name).frame
    return SetReport(
        name=name,
        role=role,
        file=shown(Path(results.inputs(name)["data"]["file"])),
        sha256=evaluation.dataset_sha256,
        rows=evaluation.n,
        n_hate=int((frame["label"] == HATE).sum()),
        groups={group: item.n for group, item in evaluation.groups.items()},
    )
