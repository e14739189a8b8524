"""``evenhand run``: every stage of an experiment in order, each done once for the same inputs.

Audit, training, evaluation, selection on validation rows, threshold, production, paired comparison,
gate, and the audit once more with all results.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evenhand.config.criteria import load_criteria
from evenhand.config.files import shown
from evenhand.config.load import LoadedExperiment, ResolvedPhase
from evenhand.core.acceptance import Acceptance
from evenhand.core.decisions import Audit, Comparison
from evenhand.core.errors import AuditError
from evenhand.core.evaluation import Evaluation
from evenhand.core.records import Dataset, Row
from evenhand.decide.threshold import threshold_rule
from evenhand.experiment.accepting import accept_phases, write_acceptances
from evenhand.experiment.auditing import audit_experiment
from evenhand.experiment.comparing import compare_phases
from evenhand.experiment.deciding import clear_decisions, judge_run, tune
from evenhand.experiment.inputs import TrainingInputs, set_source
from evenhand.experiment.plan import Plan, plan_experiment
from evenhand.experiment.production import BOOK, count_use, describe_use, read_uses
from evenhand.experiment.results import Results, open_results
from evenhand.experiment.runs import Run, find_run, hold, open_run, set_aside
from evenhand.experiment.stages import Session, evaluate_run, skip_warnings, train_run
from evenhand.report.records import Selection

_TUNED = ("threshold.json", "threshold_report.json")
_JUDGED = ("gate.json", "deployment.json")


@dataclass(frozen=True)
class PhaseResult:
    """A phase that was trained and evaluated; ``train_rows`` fit its baselines."""

    phase: ResolvedPhase
    run: Run
    train_rows: tuple[Row, ...] | None
    evaluations: Mapping[str, Evaluation]

    @property
    def results(self) -> Results:
        """The run folder as the later stages read it."""
        return open_results(self.run.path)


@dataclass(frozen=True)
class ExperimentResult:
    """All that the summary is written from."""

    experiment: LoadedExperiment
    sets: Mapping[str, Dataset]
    phases: tuple[PhaseResult, ...]
    selection: Selection
    audit: Audit
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]
    command: str | None
    acceptances: tuple[Acceptance, ...] = ()

    @property
    def chosen(self) -> PhaseResult:
        """The phase that was chosen."""
        return next(one for one in self.phases if one.phase.name == self.selection.chosen)


def run_experiment(
    experiment: LoadedExperiment,
    out: Path,
    *,
    all_phases: bool = False,
    enforce: bool = False,
    session: Session | None = None,
) -> ExperimentResult:
    """Audit the plan, train and evaluate every phase, choose one, tune it, judge it.

    The choice and the threshold are made on validation rows; only the chosen phase is run on
    production rows. What stands in ``out`` for the same inputs is not done again; what was
    interrupted goes on from its last checkpoint; a run whose inputs have changed is renamed, not
    deleted. With ``all_phases`` every phase is run on the production sets, which the record calls
    reuse. With ``enforce`` an audit error that the experiment does not accept stops it before any
    training.

    Raises:
        AuditError: with ``enforce``, what the audit found.
        ConfigError: with everything in any phase or file that would stop the experiment.
        DeviceError, ModelError, StorageError, TrainingError: as their names say.
    """
    session = session or Session()
    plan = plan_experiment(experiment)
    with hold(out, world=session.world):
        _audit_first(experiment, plan, enforce=enforce, session=session)
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
            found = evaluate_run(
                result.run,
                data,
                train_rows=result.train_rows,
                slices=experiment.config.slices,
                source=set_source(experiment, one),
                session=session,
            )
            evaluations = {**result.evaluations, data.name: found}
            results[name] = dataclasses.replace(result, evaluations=evaluations)
    phases = tuple(results.values())
    session.world.wait()  # until the first process has written the last evaluation
    chosen = results[selection.chosen].results
    if session.world.is_first:
        notes += _decide(experiment, [one.results for one in phases], chosen, session=session)
    session.world.wait()
    finished = [one.results for one in phases]
    audit = audit_experiment(
        experiment,
        plan,
        results=finished,
        verdict=chosen.decisions.verdict,
        uses=read_uses(out / BOOK),
        processes=session.world.size,
    )
    evaluated = [one.name for one in experiment.sets if one.role != "train"]
    comparisons = compare_phases(
        finished,
        sets=evaluated,
        control=experiment.control_phases,
        entries={one.name: one.entry for one in experiment.phases},
    )
    acceptances = accept_phases(experiment, finished)
    if session.world.is_first:
        write_acceptances(acceptances, out)
    return ExperimentResult(
        experiment=experiment,
        sets=plan.sets,
        phases=phases,
        selection=selection,
        audit=audit,
        comparisons=comparisons,
        notes=tuple(notes),
        command=session.command,
        acceptances=acceptances,
    )


def _audit_first(
    experiment: LoadedExperiment, plan: Plan, *, enforce: bool, session: Session
) -> None:
    """Say what is wrong before hours are spent on it, and stop there if that was asked for."""
    audit = audit_experiment(experiment, plan, processes=session.world.size)
    open_findings = [found for found in audit.findings if found.accepted is None]
    for found in open_findings:
        if found.severity != "note":
            session.say(f"audit {found.severity}: {found.check}: {found.message}")
    if enforce and audit.errors:
        errors = ", ".join(f"{found.check}:{found.subject}" for found in audit.errors)
        raise AuditError(
            f"{shown(experiment.path)}: the audit found errors, so nothing was trained: {errors}",
            hint="`evenhand audit` explains each; mend it, or accept it by name with a reason",
        )


def _decide(
    experiment: LoadedExperiment, phases: Sequence[Results], chosen: Results, *, session: Session
) -> list[str]:
    """Tune the chosen phase's threshold and judge it; return what the summary should note.

    What an earlier run decided on a phase that is not chosen now, or by a section that is gone, is
    removed: it would be read as this run's.
    """
    for one in phases:
        if one.path != chosen.path:
            clear_decisions(one)
    notes = _tune(experiment, phases, chosen)
    gate, production = experiment.config.gate, experiment.sets_of("production")
    if gate is not None and production:
        criteria = load_criteria(gate.criteria, base=experiment.path.parent)
        validation = experiment.config.selection.set
        verdict, _ = judge_run(
            chosen, on=production[0].name, criteria=criteria, validation=validation
        )
        outcome = "no verdict, a constant meets it" if verdict.vacuous else verdict.outcome
        notes.append(f"Gate {criteria.name} on {verdict.set}: {outcome}.")
    else:
        clear_decisions(chosen, keep=_TUNED)
    for note in notes:
        session.say(note)
    return notes


def _tune(experiment: LoadedExperiment, phases: Sequence[Results], chosen: Results) -> list[str]:
    wanted, fit_on = experiment.config.threshold, experiment.config.selection.set
    if wanted is None:
        clear_decisions(chosen, keep=_JUDGED)
        return []
    report_on = [*experiment.sets_of("production"), *experiment.sets_of("test")]
    if not report_on:
        return ["The threshold was not tuned: there is no production or test set to report it on."]
    rule = threshold_rule(**wanted.model_dump(), n_candidates=_candidates(phases))
    tuned = tune(chosen, fit_on=fit_on, report_on=report_on[0].name, rule=rule)
    if tuned.threshold is not None:
        return [f"Threshold {tuned.threshold.value:.3f}, fitted on {fit_on}."]
    clear_decisions(chosen, keep=_JUDGED)
    return [
        f"No threshold satisfies the limits on {fit_on}, so the default of 0.5 stays; "
        f"`evenhand threshold {shown(chosen.path)} ...` says how many labels one takes."
    ]


def _candidates(phases: Sequence[Results]) -> int:
    """Return among how many models the selection's rows have chosen: phases and checkpoints."""
    return sum(
        1
        if one.config is None or one.config["validation_file"] is not None
        else max(1, len((one.training or {}).get("checkpoints", ())))
        for one in phases
    )


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
    slices = experiment.config.slices
    rows = inputs.rows if experiment.config.baselines and inputs.train is not None else None
    evaluations = {
        one.name: evaluate_run(
            run,
            sets[one.name],
            classifier=classifier,
            train_rows=rows,
            slices=slices,
            source=set_source(experiment, one),
            session=session,
        )
        for one in experiment.sets
        if one.role in ("validation", "test")
    }
    return PhaseResult(phase, run, rows, evaluations)


def _make_way(path: Path, inputs: TrainingInputs) -> str | None:
    """Set a run aside that was made from other inputs, and say so."""
    run = find_run(path)
    changed = [] if run is None or run.is_empty else run.differences(inputs)
    if not changed:
        return None
    kept = set_aside(path)
    return f"{', '.join(changed)} changed; the earlier run is kept as {kept.name}"
