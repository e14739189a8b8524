"""Two stages on a run folder: train it, evaluate it on a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evenhand.config.effects import Situation, ineffective_keys
from evenhand.config.files import shown
from evenhand.core.errors import ConfigError, Problem
from evenhand.core.evaluation import Evaluation, Method, read_evaluation
from evenhand.core.paths import read_json, sha256_file, sha256_json, write_json
from evenhand.core.predictions import Predictions, predictions_from_rows, read_predictions
from evenhand.core.records import Dataset, Row
from evenhand.core.seeding import rng_for
from evenhand.experiment.inputs import DataSource, TrainingInputs, absolute, rows_sha256
from evenhand.experiment.releasing.golden import keep_golden
from evenhand.experiment.releasing.hashes import weights_sha256
from evenhand.experiment.results import save_evaluation
from evenhand.experiment.runs import Run, find_run, machine, now, start_run
from evenhand.finetune.classifier import Classifier, load_classifier
from evenhand.finetune.devices import choose_device
from evenhand.finetune.models import hash_model, inspect_model
from evenhand.finetune.processes import World
from evenhand.finetune.train import train_phase
from evenhand.measure.baselines import baseline_predictions
from evenhand.measure.classification import DEFAULT_SLICES, evaluate

_MEASURES = 3
"""Raised when an evaluation holds more than before: it is then measured again, not scored again."""


def _silent(line: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Session:
    """Who does the work: this process among others, the command it serves, how it reports."""

    world: World = field(default_factory=World)
    command: str | None = None
    say: Callable[[str], None] = _silent


def train_run(
    inputs: TrainingInputs, path: Path, *, resume: bool, session: Session
) -> Classifier | None:
    """Train a phase into a run folder; the manifest, written last, marks it as finished.

    Returns the trained model, or None where the folder's training was finished already.

    Raises:
        ConfigError: the folder holds a run and ``resume`` is not set, or its inputs differ.
    """
    world = session.world
    run = world.gather(find_run(path) if world.is_first else None)[0]
    if run is not None and not run.is_empty:
        _check_same(run, inputs, resume=resume)
        if run.is_finished:
            session.say("  unchanged, not trained again")
            return None
        session.say("  interrupted before; going on from its last checkpoint")
    train, validation = inputs.train, inputs.validation
    warnings = [*key_warnings(inputs), *([] if inputs.made is None else inputs.made.warnings)]
    skipped = skip_warnings(inputs.datasets)
    # An experiment tells of skipped rows once, before its first phase.
    for warning in warnings if inputs.inside_experiment else [*warnings, *skipped]:
        session.say(f"warning: {warning}")
    if world.is_first:
        start_run(path, inputs)
    world.wait()
    trained = train_phase(
        inputs.config,
        inputs.rows,
        () if validation is None else validation.rows,
        inputs.prompt,
        run=path,
        resume=resume,
    )
    if world.is_first:
        manifest = _manifest(inputs, trained.classifier, path, session)
        rows = {
            "train": None if train is None else _describe_training(train, inputs),
            "validation": None if validation is None else describe_data(validation),
        }
        write_json(
            path / "manifest.json", {**manifest, "data": rows, "warnings": [*warnings, *skipped]}
        )
    world.wait()
    return trained.classifier


def _manifest(
    inputs: TrainingInputs, classifier: Classifier, path: Path, session: Session
) -> dict[str, Any]:
    adapter = path / "adapter" / "adapter_model.safetensors"
    prompt, device = inputs.prompt, classifier.device
    return {
        "created": now(),
        "command": session.command,
        "inputs": inputs.hashes,
        "inputs_sha256": sha256_json(inputs.hashes),
        "prompt": {"sha256": prompt.sha256, "origin": prompt.origin, "strategy": prompt.strategy},
        "base": hash_model(classifier.base),
        "adapter_sha256": sha256_file(adapter) if adapter.is_file() else None,
        "weights_sha256": weights_sha256(path / "model"),
        "seeds": {"seed": inputs.config.seed},
        "device": {
            "name": device.name,
            "dtype": device.dtype_name,
            "reason": device.reason,
            "processes": session.world.size,
        },
        "machine": machine(),
    }


def key_warnings(inputs: TrainingInputs) -> list[str]:
    """Return a line for each configuration key that was set and has no effect."""
    config = inputs.config
    device = choose_device(config.device, dtype=config.dtype, bf16=config.bf16)
    facts = inspect_model(config)
    situation = Situation(
        device.name,
        model_type=facts.model_type,
        is_prequantized=facts.is_prequantized,
        bf16_is_fast=device.is_bf16_fast,
        inside_experiment=inputs.inside_experiment,
        has_train_set=inputs.has_train_set,
    )
    found = ineffective_keys(config, situation, explicit=inputs.explicit)
    return [f"{one.key} has no effect: {one.reason}" for one in found]


def skip_warnings(data: Iterable[Dataset]) -> list[str]:
    """Return a line for each data set with skipped rows: how many, and the first few."""
    warnings = []
    for one in data:
        if one.skipped and one.path is not None:
            places = ", ".join(f"{row.line} ({row.reason})" for row in one.skipped[:5])
            more = "" if len(one.skipped) <= 5 else f" and {len(one.skipped) - 5} more"
            rows = "row" if len(one.skipped) == 1 else "rows"
            warnings.append(f"{shown(one.path)}: {len(one.skipped)} {rows} skipped: {places}{more}")
    return warnings


def evaluate_run(
    run: Run,
    data: Dataset,
    *,
    method: Method = "score",
    classifier: Classifier | None = None,
    train_rows: Sequence[Row] | None = None,
    slices: tuple[tuple[str, ...], ...] = (),
    source: DataSource | None = None,
    session: Session,
) -> Evaluation:
    """Evaluate a finished run on a data set, or return what stands there for the same inputs.

    ``train_rows`` fit the TF-IDF baseline; without them there are no baselines. ``slices`` are
    columns, or crossings of columns, beside the usual ones. ``classifier`` is the run's model if it
    is in memory already. ``source``, how the data was read, is recorded for later readers.
    """
    world, say = session.world, session.say
    folder = run.path / "evaluations" / data.name
    inputs = {"run": run.inputs_sha256, "rows": rows_sha256(data), "method": method}
    measured = {
        "version": _MEASURES,
        "baselines": train_rows is not None,
        "slices": [list(columns) for columns in slices],
    }
    before: Mapping[str, Any] = world.gather(_evaluated(folder))[0]
    same_answers = before.get("inputs") == inputs
    if same_answers and before.get("measured") == measured:
        say(f"  {run.path.name} on {data.name}: unchanged, not evaluated again")
        return read_evaluation(folder / "evaluation.json")
    if same_answers:
        say(f"  {run.path.name} on {data.name}: scored before, measured again")
        predictions = read_predictions(folder / "predictions.parquet")
    else:
        say(f"  {run.path.name} on {data.name}: {len(data)} rows")
        if classifier is None:
            classifier = load_classifier(run.path, run.config, run.prompt)
        predictions = _predict(classifier, data, method=method, world=world)
        keep_golden(run, classifier, world=world)
    baselines = None
    if train_rows is not None:
        baselines = baseline_predictions(train_rows, data.rows, seed=run.config.seed)
    evaluation = evaluate(
        predictions,
        name=data.name,
        rng=rng_for(run.config.seed, f"evaluate {data.name}"),
        baselines=baselines,
        dataset_sha256=data.sha256,
        method=method,
        slices=(*DEFAULT_SLICES, *slices),
    )
    if world.is_first:
        described = describe_data(data)
        if source is not None:
            described["source"] = source.to_json()
        made = {"created": now(), "command": session.command, "data": described}
        origin = {"inputs": inputs, "measured": measured, **made}
        save_evaluation(folder, predictions, evaluation, baselines=baselines or {}, origin=origin)
    world.wait()
    return evaluation


def _predict(classifier: Classifier, data: Dataset, *, method: Method, world: World) -> Predictions:
    if method == "generate":
        decisions, raw = classifier.answer(data.rows, world=world)
        return predictions_from_rows(data.rows, decisions=decisions, raw_responses=raw)
    return predictions_from_rows(data.rows, scores=classifier.score(data.rows, world=world))


def check_evaluation(run: Run, data: Dataset, *, method: Method) -> None:
    """Refuse to replace the run's evaluation of that name by one of other rows or method.

    Raises:
        ConfigError: an evaluation of that name stands there, made from something else.
    """
    before = _evaluated(run.path / "evaluations" / data.name).get("inputs")
    now_wanted = {"rows": rows_sha256(data), "method": method}
    differ = [key for key, value in now_wanted.items() if before and before.get(key) != value]
    if differ:
        message = f"holds an evaluation with other {' and '.join(differ)}; choose another --name"
        raise ConfigError(str(run.path / "evaluations" / data.name), [Problem("--name", message)])


def _evaluated(folder: Path) -> Mapping[str, Any]:
    """Return what the evaluation in a folder was made from; empty where there is none."""
    path = folder / "inputs.json"
    return read_json(path) if path.is_file() else {}


def _check_same(run: Run, inputs: TrainingInputs, *, resume: bool) -> None:
    """Refuse to go on with a run unless that was asked for and nothing has changed."""
    if not resume:
        message = "holds a run already; add --resume to go on with it, or choose another folder"
        raise ConfigError(str(run.path), [Problem("--out", message)])
    differ = run.differences(inputs)
    if differ:
        problems = [Problem(key, "differs from what this run was started with") for key in differ]
        hint = "choose another --out for the changed inputs, or undo the change"
        raise ConfigError(str(run.path), problems, hint=hint)


def _describe_training(train: Dataset, inputs: TrainingInputs) -> dict[str, object]:
    record = {} if inputs.made is None else inputs.made.record
    return {**describe_data(train, used=len(inputs.rows)), **record}


def describe_data(data: Dataset, *, used: int | None = None) -> dict[str, object]:
    """Return what a run folder records of a data file; ``used`` is the rows used, if not all."""
    return {
        "file": None if data.path is None else absolute(data.path),
        "sha256": data.sha256,
        "rows": len(data),
        "rows_used": len(data) if used is None else used,
        "skipped_rows": [{"line": row.line, "reason": row.reason} for row in data.skipped],
        "skipped": len(data.skipped),
    }
