"""Results that were made elsewhere, brought into a run folder.

The folder is like one that training leaves, as far as files prove its content: predictions and
evaluation always; prompt, configuration, training statistics and history where there are files of
them. The configuration has only the keys that a file states, never our defaults.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from evenhand.config.files import shown
from evenhand.config.load import load_phase
from evenhand.config.schema import PhaseConfig
from evenhand.config.values import FOLDER_NAME
from evenhand.core.errors import ConfigError, DataError, InputError, Problem, StorageError
from evenhand.core.evaluation import Evaluation, read_evaluation
from evenhand.core.paths import read_json, write_json, write_text
from evenhand.core.predictions import Predictions
from evenhand.core.records import Dataset
from evenhand.core.seeding import rng_for
from evenhand.experiment.importing.answers import Answered, AnswerSource, read_answered
from evenhand.experiment.importing.history import read_history
from evenhand.experiment.importing.manifest import (
    evaluation_inputs,
    has_origin,
    manifest_of,
    refusal,
)
from evenhand.experiment.importing.origin import Origin, find_origin
from evenhand.experiment.importing.stated import (
    Evidence,
    check_stated,
    parse_stated,
    read_stated,
)
from evenhand.experiment.importing.stated_keys import Claim, check_claims
from evenhand.experiment.inputs import DataSource
from evenhand.experiment.results import read_imported_config, read_manifest, save_evaluation
from evenhand.experiment.runs import hold, now
from evenhand.experiment.stages import Session, describe_data, skip_warnings
from evenhand.measure.baselines import baseline_predictions, constant_predictions
from evenhand.measure.classification import DEFAULT_SLICES, evaluate
from evenhand.measure.slices import Crossing, check_slices

_T = TypeVar("_T")
_SHOWN = 5
_SEED: int = PhaseConfig.model_fields["seed"].default


@dataclass(frozen=True)
class ImportRequest:
    """What to import.

    Attributes:
        name: the evaluation's name in the run.
        answers: the predictions and what belongs to them.
        train: the rows that the model was trained on, for the baselines and the audit; None: those
            that an earlier import into the folder has named, if any.
        config: the phase's configuration file.
        history: the folder that training left.
        slices: columns, or crossings of columns, to measure by beside the usual ones.
        stated: figures that are to be held against the files, as (key, text).
        stated_files: files of such figures.
    """

    name: str
    answers: AnswerSource
    train: DataSource | None = None
    config: Path | None = None
    history: Path | None = None
    slices: tuple[Crossing, ...] = ()
    stated: tuple[tuple[str, str], ...] = ()
    stated_files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Imported:
    """What an import wrote: the evaluation, its facts, the figures that were stated."""

    evaluation: Evaluation
    facts: Mapping[str, Any]
    stated: Mapping[str, Mapping[str, Any]]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Training:
    """The training rows, where they are known, and a warning where they no longer are."""

    data: Dataset | None = None
    warning: str | None = None


def import_results(request: ImportRequest, out: Path, *, session: Session) -> Imported:
    """Read results that were made elsewhere and write them to a run folder.

    A further import into the folder adds an evaluation under another name; the same import again
    measures it anew.

    Raises:
        ConfigError, DataError: files that cannot be used, or a folder that holds something else;
            all problems at once, and nothing is written.
    """
    reading = _Reading()
    answered = reading.read(lambda: read_answered(request.answers, name=request.name))
    config, history = request.config, request.history
    phase = config and reading.read(lambda: load_phase(config, check_files=False))
    past = history and reading.read(lambda: read_history(history))
    train = reading.read(lambda: _training(request, out))
    claims = _claims(request, reading)
    told = reading.read(lambda: _checked_claims(claims, request.name, answered, out))
    reading.read(lambda: _check_name(request.name))
    reading.stop()
    assert answered is not None and train is not None and told is not None
    origin = find_origin(phase, past)
    manifest = manifest_of(out, request.name, answered, origin)
    check_slices(answered.predictions.frame, request.slices)
    seed = _SEED if origin.config is None else origin.config.get("seed", _SEED)
    evaluation, baselines = _measure(answered, train.data, slices=request.slices, seed=seed)
    warnings = [*_warnings(answered, origin, train), *told]
    made = {"created": now(), "command": session.command}
    inputs = {
        "inputs": evaluation_inputs(manifest, answered),
        "measured": {
            "baselines": train.data is not None,
            "slices": [list(columns) for columns in request.slices],
        },
        "data": describe_data(answered.data),
        **made,
    }
    with hold(out, world=session.world):
        folder = out / "evaluations" / request.name
        save_evaluation(
            folder, answered.predictions, evaluation, baselines=baselines, origin=inputs
        )
        imported = manifest["imported"]
        if not has_origin(manifest):
            imported = {**imported, **origin.facts}
            _write_training(out, origin)
        _write_config(out, origin, request.train, inputs=manifest["inputs"])
        prompt = manifest["prompt"]
        if answered.prompt is not None and prompt is None:
            prompt = _write_prompt(out, answered)
        evaluations = {**imported["evaluations"], request.name: dict(answered.facts)}
        earlier = {key: one["value"] for key, one in manifest["stated"].items()}
        stated = {**earlier, **{claim.key: claim.value for claim in claims}}
        checked = _check(stated, out, request.name, imported["derived"])
        data = manifest["data"]
        if request.train is not None and train.data is not None:
            data = {"train": describe_data(train.data)}
        write_json(  # last, as by training: it marks the run as whole
            out / "manifest.json",
            {
                **made,
                **manifest,
                "imported": {**imported, "evaluations": evaluations},
                "stated": checked,
                "data": data,
                "prompt": prompt,
                "warnings": list(dict.fromkeys([*manifest["warnings"], *warnings])),
            },
        )
    return Imported(evaluation, answered.facts, checked, tuple(warnings))


class _Reading:
    """Reads everything, so that the problems of all files are told at once."""

    def __init__(self) -> None:
        self._errors: list[InputError] = []

    def read(self, read: Callable[[], _T]) -> _T | None:
        """Return what was read, or None where it cannot be."""
        try:
            return read()
        except InputError as error:
            self._errors.append(error)
            return None

    def stop(self) -> None:
        """Raise what was wrong, if anything was."""
        errors = self._errors
        if len(errors) == 1:
            raise errors[0]
        if errors:
            problems = [
                Problem(f"{error.source}: {one.place}", one.message)
                for error in errors
                for one in error.problems
            ]
            hint = next((error.hint for error in errors if error.hint), None)
            raise ConfigError("the import", problems, hint=hint, consequence="nothing was imported")


def _check_name(name: str) -> None:
    """The name becomes a folder of the run."""
    if re.fullmatch(FOLDER_NAME, name) is None:
        message = f'"{name}" must be letters, digits, _ and -, a letter or digit first'
        raise refusal(Path("the command"), "--name", message)


def _training(request: ImportRequest, out: Path) -> _Training:
    """Read the training rows: those of the request, else those that the folder names."""
    if request.train is not None:
        return _Training(request.train.read("train"))
    documents = (out / "config.json", out / "manifest.json")
    if not all(path.is_file() for path in documents):
        return _Training()
    manifest = read_manifest(out) or {}
    if "imported" not in manifest:  # refused below, when all else has been read
        return _Training()
    config = read_imported_config(out)
    if config["train_source"] is None:
        return _Training()
    source = DataSource.from_json(config["train_source"])
    recorded = (manifest.get("data") or {}).get("train") or {}
    try:
        data = source.read("train")
    except DataError:
        return _Training(
            warning=f"no TF-IDF baseline, since {shown(source.path)} cannot be read again"
        )
    if data.sha256 != recorded.get("sha256"):
        return _Training(
            warning=f"no TF-IDF baseline, since {shown(source.path)} has changed since the first "
            "import"
        )
    return _Training(data)


def _claims(request: ImportRequest, reading: _Reading) -> list[Claim]:
    """Return the stated figures, those of files first."""
    claims = []
    for path in request.stated_files:
        read = partial(read_stated, path, strategy=request.answers.strategy)
        found = (reading.read(read) or {}).items()
        is_table, place = path.suffix.lower() == ".csv", f"--stated-file {path.name}"
        claims += [Claim(place, key, value, is_column=is_table) for key, value in found]
    for pair in request.stated:
        claims += [Claim("--stated", key, value) for key, value in parse_stated([pair]).items()]
    return claims


def _checked_claims(
    claims: Sequence[Claim], name: str, answered: Answered | None, out: Path
) -> list[str]:
    """Return warnings about the stated figures; ``answered`` is None where it cannot be read."""
    groups = None
    if answered is not None:
        groups = {one: set(found.groups) for one, found in _evaluations(out).items()}
        groups[name] = {group for row in answered.data.rows for group in row.groups}
    problems, warnings = check_claims(claims, name=name, groups=groups)
    if problems:
        raise ConfigError("the stated figures", problems, consequence="nothing was imported")
    return warnings


def _measure(
    answered: Answered, train: Dataset | None, *, slices: tuple[Crossing, ...], seed: int
) -> tuple[Evaluation, dict[str, Predictions]]:
    data = answered.data
    if train is None:
        baselines = constant_predictions(data.rows)
    else:
        baselines = baseline_predictions(train.rows, data.rows, seed=seed)
    evaluation = evaluate(
        answered.predictions,
        name=data.name,
        rng=rng_for(seed, f"evaluate {data.name}"),
        baselines=baselines,
        dataset_sha256=None if answered.facts["matching"] is None else data.sha256,
        method="import",
        slices=(*DEFAULT_SLICES, *slices),
    )
    return evaluation, baselines


def _write_training(out: Path, origin: Origin) -> None:
    """Write what is known of the training, where training writes it."""
    if origin.training is not None:
        write_json(out / "training.json", dict(origin.training))
    if origin.lines:
        lines = [json.dumps(line, allow_nan=False) + "\n" for line in origin.lines]
        write_text(out / "history.jsonl", "".join(lines))


def _write_config(
    out: Path, origin: Origin, train: DataSource | None, *, inputs: Mapping[str, Any]
) -> None:
    """Write the configuration; what an earlier import has written stays where this one has none."""
    path = out / "config.json"
    document = read_imported_config(out) if path.is_file() else {}
    if origin.config is not None and document.get("config") is None:
        document |= {"config": dict(origin.config), "provenance": dict(origin.provenance)}
    if train is not None:
        document["train_source"] = train.to_json()
    empty = {"config": None, "provenance": {}, "train_source": None, "inputs": dict(inputs)}
    write_json(path, {**empty, **document})


def _write_prompt(out: Path, answered: Answered) -> dict[str, str]:
    """Write the prompt where training writes it, and return its facts for the manifest."""
    prompt = answered.prompt
    assert prompt is not None
    write_json(out / "prompt.json", prompt.to_json())
    return {"sha256": prompt.sha256, "origin": prompt.origin, "strategy": prompt.strategy}


def _check(
    stated: Mapping[str, Any], out: Path, name: str, derived: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Hold every figure that was ever stated against what the folder proves by now."""
    training = out / "training.json"
    evidence = Evidence(
        name=name,
        evaluations=_evaluations(out),
        training=read_json(training) if training.is_file() else {},
        derived=derived,
        config=read_json(out / "config.json")["config"] or {},
    )
    return check_stated(stated, evidence)


def _evaluations(out: Path) -> dict[str, Evaluation]:
    """Return the folder's evaluations; one that is damaged is to be imported again itself."""
    found = {}
    for path in sorted(out.glob("evaluations/*/evaluation.json")):
        with contextlib.suppress(StorageError):
            found[path.parent.name] = read_evaluation(path)
    return found


def _warnings(answered: Answered, origin: Origin, train: _Training) -> list[str]:
    """Return what a reader of the figures should know, one line each."""
    facts = answered.facts
    read = [one for one in (train.data, answered.data) if one is not None]
    lines = [*origin.warnings, *skip_warnings(read), *([train.warning] if train.warning else [])]
    name = answered.data.name
    for strategy, rows in facts["other_strategies"].items():
        lines.append(f"{name}: {rows:,} rows of strategy {strategy} were not imported")
    if facts["parser_failures"]:
        lines.append(
            f"{name}: the predictions' own parser failed on {facts['parser_failures']:,} of "
            f"{facts['predictions']['rows']:,} responses"
        )
    if facts["empty_texts"]:
        places = facts["empty_texts"]
        first = ", ".join(places[:_SHOWN])
        more = f" and {len(places) - _SHOWN:,} more" if len(places) > _SHOWN else ""
        lines.append(
            f"{name}: {len(places):,} rows of the predictions have an empty text ({first}{more})"
        )
    again = facts["responses"]
    if again is not None and again["differ"] + again["label_without_reading"]:
        lines.append(
            f"{name}: of {again['responses']} responses, {again['differ']} say another label than "
            f"the stored one and {again['label_without_reading']} say none that can be read, "
            "though one is stored"
        )
    matching = facts["matching"] or {"predictions_left_out": 0, "rows_without_prediction": 0}
    if matching["predictions_left_out"]:
        lines.append(
            f"{name}: {matching['predictions_left_out']} predictions of other rows were left out"
        )
    if matching["rows_without_prediction"]:
        lines.append(
            f"{name}: {matching['rows_without_prediction']} rows have no prediction and count as "
            "errors"
        )
    return lines
