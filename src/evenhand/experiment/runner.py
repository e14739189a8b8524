"""``evenhand run``: every stage of an experiment in order, each done once for the same inputs."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evenhand.config.load import LoadedExperiment, ResolvedPhase
from evenhand.config.resolve import ResolvedSet
from evenhand.core.errors import ConfigError, InputError, Problem
from evenhand.core.evaluation import Evaluation
from evenhand.core.paths import read_json, write_json
from evenhand.core.records import Dataset, Row
from evenhand.experiment.inputs import DataSource, TrainingInputs, prompt_of, rows_sha256
from evenhand.experiment.runs import Run, find_run, now, open_run, set_aside
from evenhand.experiment.stages import Session, evaluate_run, train_run
from evenhand.finetune.train import draw_train_rows
from evenhand.report.records import Selection


@dataclass(frozen=True)
class PhaseResult:
    """A phase that was trained and evaluated; ``train_rows`` fit its baselines."""

    phase: ResolvedPhase
    run: Run
    train_rows: tuple[Row, ...] | None
    evaluations: Mapping[str, Evaluation]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class ExperimentResult:
    """All that the summary is written from."""

    experiment: LoadedExperiment
    sets: Mapping[str, Dataset]
    phases: tuple[PhaseResult, ...]
    selection: Selection
    notes: tuple[str, ...]
    command: str


def run_experiment(
    experiment: LoadedExperiment, out: Path, *, all_phases: bool = False, session: Session
) -> ExperimentResult:
    """Train and evaluate every phase, choose one on validation data, run it on production data.

    What stands in ``out`` for the same inputs is not done again; what was interrupted goes on from
    its last checkpoint; a run whose inputs have changed is renamed, not deleted. With
    ``all_phases`` every phase is run on the production sets, which the record calls reuse.

    Raises:
        ConfigError: data files that cannot be used, every one of them named.
        DeviceError, ModelError, StorageError, TrainingError: as their names say.
    """
    sets = read_sets(experiment)
    results: dict[str, PhaseResult] = {}
    for number, phase in enumerate(experiment.phases, start=1):
        session.say(f"phase {number} of {len(experiment.phases)}: {phase.name}")
        parent = results.get(phase.continue_from) if phase.continue_from else None
        inputs = training_inputs(experiment, phase, sets, parent=parent)
        results[phase.name] = _run_phase(experiment, inputs, phase, sets, out, session)
        gc.collect()  # the last model is let go before the next one is loaded
    selection = select(experiment, results)
    session.say(f"chosen: {selection.chosen} ({selection.reason})")
    notes: list[str] = []
    for one in experiment.sets_of("production"):
        data = sets[one.name]
        chosen = list(results) if all_phases else [selection.chosen]
        for name in chosen:
            result = results[name]
            evaluation = evaluate_run(
                result.run, data, train_rows=result.train_rows, session=session
            )
            evaluations = {**result.evaluations, data.name: evaluation}
            results[name] = dataclasses.replace(result, evaluations=evaluations)
        runs = [results[name].run for name in chosen]
        notes.append(_count_use(out / "production.json", data, runs, session))
    result = tuple(results.values())
    return ExperimentResult(experiment, sets, result, selection, tuple(notes), session.command)


def read_sets(experiment: LoadedExperiment) -> dict[str, Dataset]:
    """Read every data set of an experiment.

    Raises:
        ConfigError: with the problems of all files.
    """
    found: dict[str, Dataset] = {}
    problems: list[Problem] = []
    for one in experiment.sets:
        try:
            found[one.name] = source_of(experiment, one).read(one.name)
        except InputError as error:
            problems += [
                Problem(f"sets.{one.name} {problem.place}", problem.message)
                for problem in error.problems
            ]
    if problems:
        hint = 'mend the files, or set "on_bad_row": "skip" to count, list and skip such rows'
        raise ConfigError(str(experiment.path), problems, hint=hint)
    return found


def source_of(experiment: LoadedExperiment, one: ResolvedSet) -> DataSource:
    """Return how a set of an experiment is read."""
    if one.path is None:
        raise ConfigError(str(experiment.path), [Problem(f"sets.{one.name}", "was not found")])
    return DataSource(
        path=one.path,
        format=one.format,
        columns=one.columns.chosen(),
        labels=one.labels,
        on_bad_row=experiment.config.on_bad_row,
        max_rows=one.max_rows,
    )


def training_inputs(
    experiment: LoadedExperiment,
    phase: ResolvedPhase,
    sets: Mapping[str, Dataset],
    *,
    parent: PhaseResult | None,
) -> TrainingInputs:
    """Return what a phase's training depends on."""
    config = phase.config
    train_set = experiment.train_set
    if train_set is not None:
        source, train = source_of(experiment, train_set), sets[train_set.name]
    else:
        source = _own_file(experiment, phase, "train_file")
        train = None if source is None else source.read()
    validation = _own_file(experiment, phase, "validation_file")
    adapter = None
    if parent is not None:
        adapter = parent.run.path / "adapter"
    elif "init_adapter" in phase.files:
        adapter = phase.files["init_adapter"]
    if adapter is not None:
        config = config.model_copy(update={"init_adapter": str(adapter)})
    return TrainingInputs(
        config=config,
        provenance=phase.provenance,
        prompt=prompt_of(config, phase.files),
        train=train,
        train_source=source,
        validation=validation.read() if validation else sets[experiment.selection_set.name],
        init_adapter=adapter,
        inside_experiment=True,
        has_train_set=train_set is not None,
    )


def select(experiment: LoadedExperiment, results: Mapping[str, PhaseResult]) -> Selection:
    """Choose the phase with the best value of the selection's metric; the first among equals."""
    wanted = experiment.config.selection
    values = {
        name: getattr(result.evaluations[wanted.set].metrics, wanted.metric).value
        for name, result in results.items()
    }
    known = {name: value for name, value in values.items() if value is not None}
    chosen = max(known, key=lambda name: known[name]) if known else next(iter(results))
    reason = (
        f"highest {wanted.metric} on {wanted.set}"
        if known
        else f"{wanted.metric} on {wanted.set} is undefined for every phase; the first was taken"
    )
    return Selection(wanted.set, wanted.metric, chosen, values, reason)


def _own_file(experiment: LoadedExperiment, phase: ResolvedPhase, key: str) -> DataSource | None:
    path = phase.files.get(key)
    if path is None:
        return None
    config = experiment.config
    return DataSource(
        path=path,
        columns=config.columns.chosen(),
        labels=config.labels,
        on_bad_row=config.on_bad_row,
    )


def _run_phase(
    experiment: LoadedExperiment,
    inputs: TrainingInputs,
    phase: ResolvedPhase,
    sets: Mapping[str, Dataset],
    out: Path,
    session: Session,
) -> PhaseResult:
    path = out / "runs" / phase.name
    state = session.world.gather(_prepare_folder(path, inputs) if session.world.is_first else "")
    classifier = None
    if state[0] == "finished":
        session.say("  unchanged, not trained again")
    else:
        if state[0]:
            session.say(f"  {state[0]}")
        classifier = train_run(inputs, path, resume=True, session=session)
    run = open_run(path)
    rows = None
    if experiment.config.baselines and inputs.train is not None:
        rows = draw_train_rows(inputs.train.rows, inputs.config)
    evaluated = [one for one in experiment.sets if one.role in ("validation", "test")]
    evaluations = {
        one.name: evaluate_run(
            run, sets[one.name], classifier=classifier, train_rows=rows, session=session
        )
        for one in evaluated
    }
    return PhaseResult(phase, run, rows, evaluations, tuple(run.manifest["warnings"]))


def _prepare_folder(path: Path, inputs: TrainingInputs) -> str:
    """Return ``finished``, or what happens to what stands in the folder (nothing: empty)."""
    run = find_run(path)
    if run is None:
        return ""
    if dict(run.inputs) != inputs.hashes:
        changed = [key for key, value in inputs.hashes.items() if run.inputs.get(key) != value]
        kept = set_aside(path)
        return f"{', '.join(changed)} changed; the earlier run is kept as {kept.name}"
    return (
        "finished" if run.is_finished else "interrupted before; going on from its last checkpoint"
    )


def _count_use(path: Path, data: Dataset, runs: list[Run], session: Session) -> str:
    """Record that runs were evaluated on production rows, and say how often that happened."""
    uses = read_json(path) if path.is_file() else []
    known = {(use["rows"], use["run"]) for use in uses}
    rows = rows_sha256(data)
    uses += [
        {
            "set": data.name,
            "rows": rows,
            "run": run.inputs_sha256,
            "phase": run.path.name,
            "at": now(),
        }
        for run in runs
        if (rows, run.inputs_sha256) not in known
    ]
    if session.world.is_first:
        write_json(path, uses)
    count = len({use["run"] for use in uses if use["rows"] == rows})
    if count == 1:
        return f"{data.name} was used once, for the chosen phase."
    return (
        f"{data.name} was used for {count} models: its figures are no longer those of a test set "
        "that nothing was chosen on."
    )
