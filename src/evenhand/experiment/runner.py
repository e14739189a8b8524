"""``evenhand run``: every stage of an experiment in order, each done once for the same inputs."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evenhand.config.load import LoadedExperiment, ResolvedPhase
from evenhand.core.evaluation import Evaluation
from evenhand.core.records import Dataset, Row
from evenhand.experiment.inputs import TrainingInputs
from evenhand.experiment.plan import Plan, plan_experiment
from evenhand.experiment.production import BOOK, count_use, describe_use
from evenhand.experiment.runs import Run, find_run, hold, open_run, set_aside
from evenhand.experiment.stages import Session, evaluate_run, skip_warnings, train_run
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
    command: str | None


def run_experiment(
    experiment: LoadedExperiment,
    out: Path,
    *,
    all_phases: bool = False,
    session: Session | None = None,
) -> ExperimentResult:
    """Train and evaluate every phase, choose one on validation data, run it on production data.

    What stands in ``out`` for the same inputs is not done again; what was interrupted goes on from
    its last checkpoint; a run whose inputs have changed is renamed, not deleted. With
    ``all_phases`` every phase is run on the production sets, which the record calls reuse.

    Raises:
        ConfigError: with everything in any phase or file that would stop the experiment.
        DeviceError, ModelError, StorageError, TrainingError: as their names say.
    """
    session = session or Session()
    plan = plan_experiment(experiment)
    with hold(out, world=session.world):
        return _run_plan(experiment, plan, out, all_phases=all_phases, session=session)


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


def _run_plan(
    experiment: LoadedExperiment, plan: Plan, out: Path, *, all_phases: bool, session: Session
) -> ExperimentResult:
    for warning in skip_warnings(plan.datasets):
        session.say(f"warning: {warning}")
    results: dict[str, PhaseResult] = {}
    for number, phase in enumerate(experiment.phases, start=1):
        session.say(f"phase {number} of {len(experiment.phases)}: {phase.name}")
        inputs = plan.inputs[phase.name]
        if phase.continue_from is not None:
            inputs = inputs.continuing(results[phase.continue_from].run.path / "adapter")
        results[phase.name] = _run_phase(experiment, phase, inputs, plan.sets, out, session)
        gc.collect()  # the last model is let go before the next one is loaded
    selection = select(experiment, results)
    session.say(f"chosen: {selection.chosen} ({selection.reason})")
    used = list(results) if all_phases else [selection.chosen]
    notes: list[str] = []
    for one in experiment.sets_of("production"):
        data = plan.sets[one.name]
        # Counted first: an evaluation that is interrupted has touched the rows all the same.
        runs = [results[name].run for name in used]
        uses = count_use(out / BOOK, data, runs, world=session.world)
        notes.append(describe_use(data.name, uses))
        for name in used:
            result = results[name]
            found = evaluate_run(result.run, data, train_rows=result.train_rows, session=session)
            evaluations = {**result.evaluations, data.name: found}
            results[name] = dataclasses.replace(result, evaluations=evaluations)
    phases = tuple(results.values())
    return ExperimentResult(experiment, plan.sets, phases, selection, tuple(notes), session.command)


def _run_phase(
    experiment: LoadedExperiment,
    phase: ResolvedPhase,
    inputs: TrainingInputs,
    sets: Mapping[str, Dataset],
    out: Path,
    session: Session,
) -> PhaseResult:
    path = out / "runs" / phase.name
    changed = _make_way(path, inputs) if session.world.is_first else None
    for said in filter(None, session.world.gather(changed)):
        session.say(f"  {said}")
    classifier = train_run(inputs, path, resume=True, session=session)
    run = open_run(path)
    rows = None
    if experiment.config.baselines and inputs.train is not None:
        rows = draw_train_rows(inputs.train.rows, inputs.config)
    evaluations = {
        one.name: evaluate_run(
            run, sets[one.name], classifier=classifier, train_rows=rows, session=session
        )
        for one in experiment.sets
        if one.role in ("validation", "test")
    }
    return PhaseResult(phase, run, rows, evaluations, tuple(run.manifest["warnings"]))


def _make_way(path: Path, inputs: TrainingInputs) -> str | None:
    """Set a run aside that was made from other inputs, and say so."""
    run = find_run(path)
    changed = [] if run is None or run.is_empty else run.differences(inputs)
    if not changed:
        return None
    kept = set_aside(path)
    return f"{', '.join(changed)} changed; the earlier run is kept as {kept.name}"
