"""Audits of experiments, of run folders and of bare files: gathers what the checks look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from evenhand.config.criteria import load_criteria
from evenhand.config.files import shown
from evenhand.config.load import LoadedExperiment
from evenhand.config.resolve import AUGMENT_CORPUS
from evenhand.core.decisions import Audit, GateVerdict
from evenhand.core.errors import ConfigError, InputError, Problem
from evenhand.core.records import Dataset
from evenhand.data.policy import apply_label_policy
from evenhand.decide.audit.checks import accept, audit
from evenhand.decide.audit.inputs import (
    ROLES,
    TARGET_METRICS,
    AuditEvaluation,
    AuditInputs,
    AuditPhase,
    AuditSet,
    Role,
    Target,
)
from evenhand.experiment.inputs import (
    Plan,
    TrainingInputs,
    own_sources,
    rows_sha256,
    set_source,
)
from evenhand.experiment.phase_facts import PhaseFacts, audit_phase
from evenhand.experiment.recorded import audit_inputs
from evenhand.experiment.results import Results
from evenhand.experiment.training_rows import RowMaker
from evenhand.prompts.template import PromptTemplate, load_prompt

_T = TypeVar("_T")


def audit_experiment(
    experiment: LoadedExperiment,
    plan: Plan,
    *,
    results: Sequence[Results] = (),
    verdict: GateVerdict | None = None,
    uses: Sequence[Mapping[str, Any]] = (),
    processes: int = 1,
) -> Audit:
    """Audit an experiment, before any training (``plan`` alone) or with what came out of it.

    Args:
        experiment: its ``accept`` marks findings as accepted.
        plan: the data as read, and each phase's inputs.
        results: the finished run folders, called after their phases.
        verdict: what the gate said of the chosen phase.
        uses: the record of what was evaluated on production rows.
        processes: training processes, unless a phase states them.
    """
    found = {one.name: one for one in results}
    sets = _experiment_sets(experiment, plan)
    names = {_key(one.data): one.name for one in sets}
    stated = {entry.name: entry.stated for entry in experiment.config.phases}
    phases = []
    for phase in experiment.phases:
        inputs = plan.inputs.get(phase.name)
        run = found.get(phase.name)
        phases.append(
            audit_phase(
                PhaseFacts(
                    name=phase.name,
                    config=phase.config,
                    parent=phase.continue_from,
                    train=None if inputs is None else inputs.train,
                    train_name=None
                    if inputs is None or inputs.train is None
                    else names.get(_key(inputs.train)),
                    n_train=None
                    if inputs is None or inputs.made is None or not inputs.made.is_treated
                    else len(inputs.rows),
                    prompt=None if inputs is None else inputs.prompt,
                    stated=stated[phase.entry],
                    training=None if run is None else run.training,
                    processes=processes,
                )
            )
        )
    targets, more = _gate_targets(experiment)
    made = audit(
        AuditInputs(
            sets=(*(_decided(one, plan) for one in sets), *_added_sets(experiment, plan)),
            phases=tuple(phases),
            evaluations=_evaluations(results),
            verdicts=() if verdict is None else (verdict,),
            targets=() if verdict is not None else targets,
            more_required=more,
            uses=tuple(uses),
        )
    )
    return accept(made, experiment.config.accept)


def read_for_audit(experiment: LoadedExperiment) -> Plan:
    """Read an experiment's data and prompts, without looking at any model.

    Raises:
        ConfigError: with everything that is wrong with the files.
    """
    problems: list[Problem] = []

    def collect(read: Callable[[], _T], place: str) -> _T | None:
        try:
            return read()
        except InputError as error:
            problems.extend(Problem(f"{place}, {one.place}", one.message) for one in error.problems)
            return None

    sets = {}
    for one in experiment.sets:
        data = collect(partial(set_source(experiment, one).read, one.name), one.name)
        if data is not None:
            sets[one.name] = data
    train_set = experiment.train_set
    held_out = {one.name for one in experiment.sets if one.role != "train"}
    maker = RowMaker({name: data for name, data in sets.items() if name in held_out})
    files: dict[Path, Dataset | None] = {}
    phases: dict[str, TrainingInputs] = {}
    for phase in experiment.phases:
        own: dict[str, Dataset | None] = {}
        for key, source in own_sources(experiment, phase).items():
            if source.path not in files:
                files[source.path] = collect(source.read, shown(source.path))
            own[key] = files[source.path]
        load = partial(load_prompt, phase.files.get("prompt_file"), strategy=phase.config.strategy)
        prompt = collect(load, phase.name)
        train = sets.get(train_set.name) if train_set else own.get("train_file")
        made = None
        if train is not None and own.get(AUGMENT_CORPUS, train) is not None:
            made = collect(partial(maker.make, train, phase.config, own=own), phase.name)
        if prompt is not None:
            phases[phase.name] = TrainingInputs(
                config=phase.config,
                provenance=phase.provenance,
                prompt=prompt,
                train=train,
                train_source=None,
                validation=own.get("validation_file", sets.get(experiment.selection_set.name)),
                made=made,
            )
    if problems:
        raise ConfigError(shown(experiment.path), dict.fromkeys(problems))
    return Plan(sets, phases)


def audit_results(
    results: Results,
    *,
    sets: Sequence[AuditSet] = (),
    prompt: PromptTemplate | None = None,
    targets: Sequence[Target] = (),
    roles: Mapping[str, Role] | None = None,
) -> Audit:
    """Audit a finished run folder, trained here or imported.

    The data files that the folder names are read again where they are still there and unchanged.

    Args:
        results: the run.
        sets: further data files.
        prompt: the prompt of the evaluation, where the folder has none.
        targets: bars that the figures are held against.
        roles: what evaluation sets are for; a set whose name is a role has that one.
    """
    found = audit_inputs([results], sets=sets, prompt=prompt, roles=roles or {})
    return audit(replace(found, targets=tuple(targets)))


def audit_runs(results: Sequence[Results], roles: Mapping[str, Role] | None = None) -> Audit:
    """Audit finished runs together, so that they are held against each other too.

    ``results`` come in the order in which the runs were made; ``roles`` as for
    :func:`audit_results`.
    """
    return audit(audit_inputs(results, sets=(), prompt=None, roles=roles or {}))


def audit_files(
    sets: Sequence[AuditSet],
    *,
    prompt: PromptTemplate | None = None,
    targets: Sequence[Target] = (),
) -> Audit:
    """Audit training files against evaluation files, and against a prompt if one is given.

    Whoever trains on the files is taken to train on them as they stand.
    """
    phases = () if prompt is None else (AuditPhase("the training files", prompt=prompt),)
    return audit(AuditInputs(sets=tuple(sets), phases=phases, targets=tuple(targets)))


def named_sets(data: Sequence[tuple[Role, Dataset]]) -> tuple[AuditSet, ...]:
    """Return data sets under their names; those of equal names are told apart by their folders."""
    names = [one.name for _, one in data]
    found: list[AuditSet] = []
    for role, one in data:
        name = one.name
        if names.count(name) > 1 and one.path is not None:
            name = f"{one.path.parent.name}/{name}"
        taken = [each.name for each in found]
        if name in taken:
            name = f"{name}#{taken.count(name) + 1}"
        found.append(AuditSet(name, role, one))
    return tuple(found)


def _experiment_sets(experiment: LoadedExperiment, plan: Plan) -> tuple[AuditSet, ...]:
    """Return the experiment's sets, and the files that its phases name themselves."""
    found = [
        AuditSet(one.name, role, plan.sets[one.name])
        for role in ROLES
        for one in experiment.sets_of(role)
        if one.name in plan.sets
    ]
    seen = {_key(one.data) for one in found}
    own: list[tuple[Role, Dataset]] = []
    for inputs in plan.inputs.values():
        files: list[tuple[Role, Dataset | None]] = [
            ("train", inputs.train),
            ("validation", inputs.validation),
        ]
        for role, data in files:
            if data is not None and _key(data) not in seen:
                seen.add(_key(data))
                own.append((role, data))
    taken = {one.name for one in found}
    for one in named_sets(own):
        name = f"{one.role} file {one.name}" if one.name in taken else one.name
        found.append(AuditSet(name, one.role, one.data))
    return tuple(found)


def _decided(one: AuditSet, plan: Plan) -> AuditSet:
    """Return a training set as the label policy leaves it, if all that train on it have the same.

    Where phases have different policies, or only some have one, the set is audited as read.
    """
    policies = [
        inputs.config.label_policy
        for inputs in plan.inputs.values()
        if inputs.made is not None and inputs.train is one.data and inputs.config.tuning != "none"
    ]
    if one.role != "train" or not policies or any(other != policies[0] for other in policies):
        return one
    policy = policies[0]
    if policy is None:
        return one
    rows = apply_label_policy(one.data.rows, policy)
    return replace(one, data=replace(one.data, rows=rows))


def _added_sets(experiment: LoadedExperiment, plan: Plan) -> tuple[AuditSet, ...]:
    """Return the rows that augmentation adds, each as a set of its own, equal ones once.

    Beside the file's rows rather than with them, since what is wrong with those is told already.
    """
    sets: dict[str, AuditSet] = {}
    seen: set[str] = set()
    for phase in experiment.phases:
        inputs = plan.inputs.get(phase.name)
        if inputs is None or inputs.made is None or not inputs.made.added:
            continue
        data = Dataset("added", inputs.made.added)
        sha256 = rows_sha256(data)
        if sha256 not in seen:
            seen.add(sha256)
            name = f"rows added to {phase.entry}"
            name = f"rows added to {phase.name}" if name in sets else name
            sets[name] = AuditSet(name, "train", data)
    return tuple(sets.values())


def _key(data: Dataset) -> tuple[Path | None, str | None, tuple[str, ...]]:
    """Tell data sets apart by what was read, not by what they are called."""
    return data.path, data.sha256, tuple(row.id for row in data.rows)


def _gate_targets(experiment: LoadedExperiment) -> tuple[tuple[Target, ...], bool]:
    """Return the bars that can be checked before training, and whether there are more."""
    gate, production = experiment.config.gate, experiment.sets_of("production")
    if gate is None or not production:
        return (), False
    criteria = load_criteria(gate.criteria, base=experiment.path.parent).criteria
    required = [one for one in criteria if one.role == "required"]
    simple = [
        Target(metric, one.at_least, production[0].name)
        for one in required
        for metric in TARGET_METRICS
        if metric == one.metric
        and one.at_least is not None
        and one.group is None
        and one.against is None
    ]
    return tuple(simple), len(simple) < len(required)


def _evaluations(results: Sequence[Results]) -> tuple[AuditEvaluation, ...]:
    return tuple(
        AuditEvaluation(one.name, name, one.evaluation(name))
        for one in results
        for name in one.evaluation_names
    )
