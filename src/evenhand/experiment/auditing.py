"""Audits of experiments, of run folders and of bare files: gathers what the checks look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from evenhand.config.criteria import load_criteria
from evenhand.config.files import shown
from evenhand.config.load import LoadedExperiment
from evenhand.config.schema import PhaseConfig
from evenhand.core.decisions import Audit, GateVerdict
from evenhand.core.errors import ConfigError, DataError, InputError, Problem
from evenhand.core.paths import read_json
from evenhand.core.records import Dataset
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
from evenhand.experiment.inputs import DataSource, TrainingInputs, rows_sha256
from evenhand.experiment.phase_facts import COUNTED, PhaseFacts, audit_phase
from evenhand.experiment.plan import Plan, own_sources, set_source
from evenhand.experiment.production import BOOK, read_uses
from evenhand.experiment.results import Results
from evenhand.prompts.template import PromptTemplate, load_prompt

_TRAIN = "train"
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
    phases = []
    for entry, phase in zip(experiment.config.phases, experiment.phases, strict=True):
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
                    prompt=None if inputs is None else inputs.prompt,
                    stated=entry.stated,
                    training=None if run is None else run.training,
                    processes=processes,
                )
            )
        )
    targets, more = _gate_targets(experiment)
    made = audit(
        AuditInputs(
            sets=sets,
            phases=tuple(phases),
            evaluations=_evaluations(results),
            verdict=verdict,
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
        if prompt is not None:
            phases[phase.name] = TrainingInputs(
                config=phase.config,
                provenance=phase.provenance,
                prompt=prompt,
                train=sets.get(train_set.name) if train_set else own.get("train_file"),
                train_source=None,
                validation=own.get("validation_file", sets.get(experiment.selection_set.name)),
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
    document = read_json(results.path / "config.json")
    known = [*sets, *_recorded_sets(results, document, roles or {}, taken=sets)]
    train = next((one for one in known if one.role == "train"), None)
    imported = results.manifest.get("imported")
    stated = {
        key: results.stated[key]["value"]
        for key in (*COUNTED, "processes")
        if key in results.stated
    }
    # Of a training elsewhere the updates cannot be planned before its processes are known.
    plannable = imported is None or "processes" in stated
    phase = audit_phase(
        PhaseFacts(
            name=results.name,
            config=_config(results),
            train=None if train is None or not plannable else train.data,
            prompt=prompt or _recorded_prompt(results),
            stated=stated,
            training=results.training,
            trains_on_file=True if imported is not None else None,
        )
    )
    facts = {} if imported is None else {results.name: {**imported, "stated": results.stated}}
    book = results.path.resolve().parent.parent / BOOK
    return audit(
        AuditInputs(
            sets=tuple(known),
            phases=(phase,),
            evaluations=_evaluations([results]),
            verdict=results.decisions.verdict,
            targets=tuple(targets),
            uses=tuple(read_uses(book)),
            imported=facts,
        )
    )


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


def _key(data: Dataset) -> tuple[Path | None, str | None, int]:
    """Tell data sets apart by what was read, not by what they are called."""
    return data.path, data.sha256, len(data)


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


def _config(results: Results) -> PhaseConfig | None:
    """Return a run's configuration; None where an import knows too little of it."""
    if results.config is None:
        return None
    try:
        return PhaseConfig.model_validate(results.config)
    except ValidationError:
        return None


def _roles(results: Results, given: Mapping[str, Role]) -> dict[str, Role]:
    named: dict[str, Role] = {role: role for role in ROLES if role in results.evaluation_names}
    return {**named, **given}


def _recorded_sets(
    results: Results,
    document: Mapping[str, Any],
    roles: Mapping[str, Role],
    *,
    taken: Sequence[AuditSet],
) -> list[AuditSet]:
    """Read the data files of a run folder again, those that are there and unchanged."""
    found: list[AuditSet] = []
    source = document.get("train_source")
    if source is not None and all(one.role != "train" for one in taken):
        data = _read_again(DataSource.from_json(source).read, _TRAIN)
        recorded = (results.manifest.get("data") or {}).get("train") or {}
        if data is not None and data.sha256 == recorded.get("sha256"):
            found.append(AuditSet(_TRAIN, "train", data))
    known = _roles(results, roles)
    for name in results.evaluation_names:
        origin = results.inputs(name)
        data = _recorded_evaluation_set(name, origin)
        if data is not None and all(one.name != name for one in taken):
            found.append(AuditSet(name, known.get(name, "test"), data))
    return found


def _recorded_evaluation_set(name: str, origin: Mapping[str, Any]) -> Dataset | None:
    recorded = origin.get("data") or {}
    file = recorded.get("file")
    if file is None or not Path(file).is_file():
        return None
    data = _read_again(DataSource(Path(file), on_bad_row="skip").read, name)
    same = data is not None and rows_sha256(data) == origin["inputs"].get("rows")
    return data if same else None


def _read_again(read: Callable[[str], Dataset], name: str) -> Dataset | None:
    try:
        return read(name)
    except DataError:
        return None


def _recorded_prompt(results: Results) -> PromptTemplate | None:
    file = results.path / "prompt.json"
    return load_prompt(file) if file.is_file() else None
