"""Results that were made elsewhere, brought into a run folder.

The folder is like one that training leaves, as far as files prove its content: predictions and
evaluation always; configuration, training statistics and history where there are files of them.
``manifest.json`` has, beside what every run has::

    "imported": {"evaluations": {NAME: {"predictions": {"file", "sha256", "rows"}, "columns",
                 "strategy", "other_strategies", "rows", "unparseable", "error",
                 "parser_failures", "matching": {...} or null, "responses": {...} or null}},
                 "config": file or null, "config_sha256",
                 "history": {"folder", "files"} or null, "derived": {STATISTIC: how}}
    "stated": {KEY: {"value", "status", "found", "source"}}
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evenhand.config.load import load_phase
from evenhand.config.schema import PhaseConfig
from evenhand.config.values import FOLDER_NAME
from evenhand.core.errors import ConfigError, InputError, Problem
from evenhand.core.evaluation import Evaluation, read_evaluation
from evenhand.core.paths import read_json, sha256_json, write_json, write_text
from evenhand.core.predictions import Predictions
from evenhand.core.records import Dataset
from evenhand.core.seeding import rng_for
from evenhand.experiment.answered import Answered, AnswerSource, read_answered
from evenhand.experiment.history import read_history
from evenhand.experiment.inputs import DataSource, rows_sha256
from evenhand.experiment.origins import Origin, find_origin
from evenhand.experiment.results import save_evaluation
from evenhand.experiment.runs import hold, machine, now
from evenhand.experiment.stages import Session, skip_warnings
from evenhand.experiment.stated import Evidence, check_stated, parse_stated, read_stated
from evenhand.measure.baselines import baseline_predictions
from evenhand.measure.classification import evaluate

_ORIGIN = ("config_sha256", "history")
_SEED: int = PhaseConfig.model_fields["seed"].default


@dataclass(frozen=True)
class ImportRequest:
    """What to import.

    Attributes:
        name: the evaluation's name in the run.
        answers: the predictions and what belongs to them.
        train: the rows that the model was trained on, for the baselines.
        config: the phase's configuration file.
        history: the folder that training left.
        stated: figures that are to be held against the files, as (key, text).
        stated_files: files of such figures.
    """

    name: str
    answers: AnswerSource
    train: DataSource | None = None
    config: Path | None = None
    history: Path | None = None
    stated: tuple[tuple[str, str], ...] = ()
    stated_files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Imported:
    """What an import wrote: the evaluation, its facts, the figures that were stated."""

    evaluation: Evaluation
    facts: Mapping[str, Any]
    stated: Mapping[str, Mapping[str, Any]]
    warnings: tuple[str, ...]


def import_results(request: ImportRequest, out: Path, *, session: Session) -> Imported:
    """Read results that were made elsewhere and write them to a run folder.

    A further import into the folder adds an evaluation under another name; the same import again
    measures it anew.

    Raises:
        ConfigError, DataError: files that cannot be used, or a folder that holds something else;
            all problems at once, and nothing is written.
    """
    answered, phase, past, train, stated, _ = _gather(
        lambda: read_answered(request.answers, name=request.name),
        lambda: request.config and load_phase(request.config, check_files=False),
        lambda: request.history and read_history(request.history),
        lambda: None if request.train is None else request.train.read("train"),
        lambda: _stated(request),
        lambda: _check_name(request.name),
    )
    origin = find_origin(phase, past)
    manifest = _manifest(out, request.name, answered, origin)
    seed = _SEED if origin.config is None else origin.config.get("seed", _SEED)
    evaluation, baselines = _measure(answered, train, seed=seed)
    warnings = _warnings(answered, origin, train)
    made = {"created": now(), "command": session.command}
    inputs = {
        "inputs": _inputs(manifest, answered),
        "measured": {"baselines": train is not None},
        "data": _described(answered.data),
        **made,
    }
    with hold(out, world=session.world):
        folder = out / "evaluations" / request.name
        save_evaluation(
            folder, answered.predictions, evaluation, baselines=baselines, origin=inputs
        )
        imported = manifest["imported"]
        if not _has_origin(manifest):
            imported = {**imported, **origin.facts}
            _write_training(out, origin)
        _write_config(out, origin, request.train, inputs=manifest["inputs"])
        evaluations = {**imported["evaluations"], request.name: dict(answered.facts)}
        earlier = {key: one["value"] for key, one in manifest["stated"].items()}
        checked = _check({**earlier, **stated}, out, request.name, imported["derived"])
        write_json(  # last, as by training: it marks the run as whole
            out / "manifest.json",
            {
                **made,
                **manifest,
                "imported": {**imported, "evaluations": evaluations},
                "stated": checked,
                "data": manifest["data"] if train is None else {"train": _described(train)},
                "prompt": _prompt_facts(answered) or manifest["prompt"],
                "warnings": list(dict.fromkeys([*manifest["warnings"], *warnings])),
            },
        )
    return Imported(evaluation, answered.facts, checked, tuple(warnings))


def _prompt_facts(answered: Answered) -> dict[str, str] | None:
    prompt = answered.prompt
    if prompt is None:
        return None
    return {"sha256": prompt.sha256, "origin": prompt.origin, "strategy": prompt.strategy}


def _gather(*readers: Callable[[], Any]) -> list[Any]:
    """Read everything, so that the problems of all files are told at once."""
    found, errors = [], []
    for read in readers:
        try:
            found.append(read())
        except InputError as error:
            errors.append(error)
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
    return found


def _check_name(name: str) -> None:
    """The name becomes a folder of the run."""
    if re.fullmatch(FOLDER_NAME, name) is None:
        message = f'"{name}" must be letters, digits, _ and -, a letter or digit first'
        raise _refusal(Path("the command"), "--name", message)


def _stated(request: ImportRequest) -> dict[str, Any]:
    stated: dict[str, Any] = {}
    for path in request.stated_files:
        stated |= read_stated(path, strategy=request.answers.strategy)
    return stated | parse_stated(request.stated)


def _manifest(out: Path, name: str, answered: Answered, origin: Origin) -> dict[str, Any]:
    """Return the folder's manifest, or a new one; refuse what would replace something else."""
    if not (out / "manifest.json").is_file():
        if out.is_file() or (out / "prompt.json").is_file():
            kind = "is a file" if out.is_file() else "holds a training that has not ended"
            raise _refusal(out, "--out", f"{kind}; choose another folder")
        return _new_manifest(name, answered, origin)
    manifest = read_json(out / "manifest.json")
    if "imported" not in manifest:
        message = "holds a run that was trained here; choose another folder for imported results"
        raise _refusal(out, "--out", message)
    before = out / "evaluations" / name / "inputs.json"
    if before.is_file():
        stored, wanted = read_json(before)["inputs"], _inputs(manifest, answered)
        differ = [key for key in wanted if stored.get(key) != wanted[key]]
        if differ:
            message = f"holds an evaluation with other {' and '.join(differ)}; choose another name"
            raise _refusal(before.parent, "--name", message)
    if _has_origin(manifest):
        known = manifest["imported"]
        differ = [
            f"--{key.partition('_')[0]}"
            for key in _ORIGIN
            if origin.facts.get(key) is not None
            and _content(origin.facts[key]) != _content(known[key])
        ]
        if differ:
            message = "is not what the run was first imported with; choose another folder"
            raise _refusal(out, " and ".join(differ), message)
    return manifest


def _has_origin(manifest: Mapping[str, Any]) -> bool:
    """Whether the phase behind the run is known already."""
    return any(manifest["imported"][key] is not None for key in _ORIGIN)


def _new_manifest(name: str, answered: Answered, origin: Origin) -> dict[str, Any]:
    hashes = {
        "predictions": {name: answered.facts["predictions"]["sha256"]},
        "config": origin.facts.get("config_sha256"),
        "history": _content(origin.facts.get("history")),
    }
    return {
        "imported": {
            "evaluations": {},
            "config": None,
            "config_sha256": None,
            "history": None,
            "derived": {},
        },
        "inputs": hashes,
        "inputs_sha256": sha256_json(hashes),
        "machine": machine(),
        "data": {},
        "stated": {},
        "prompt": None,
        "adapter_sha256": None,
        "base": None,
        "warnings": [],
    }


def _content(history: Any) -> Any:
    """Return what of an origin's facts does not depend on where its files lie."""
    return history["files"] if isinstance(history, Mapping) else history


def _inputs(manifest: Mapping[str, Any], answered: Answered) -> dict[str, Any]:
    frame = answered.predictions.frame
    answers = [
        [name, decision, None if score != score else score, status]
        for name, decision, score, status in zip(
            frame["id"], frame["decision"], frame["score"], frame["status"], strict=True
        )
    ]
    return {
        "run": manifest["inputs_sha256"],
        "rows": rows_sha256(answered.data),
        "method": "import",
        "answers": sha256_json(answers),
    }


def _measure(
    answered: Answered, train: Dataset | None, *, seed: int
) -> tuple[Evaluation, dict[str, Predictions]]:
    data = answered.data
    baselines = {} if train is None else baseline_predictions(train.rows, data.rows, seed=seed)
    evaluation = evaluate(
        answered.predictions,
        name=data.name,
        rng=rng_for(seed, f"evaluate {data.name}"),
        baselines=baselines,
        dataset_sha256=None if answered.facts["matching"] is None else data.sha256,
        method="import",
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
    document = read_json(path) if path.is_file() else {}
    if origin.config is not None and document.get("config") is None:
        document |= {"config": dict(origin.config), "provenance": dict(origin.provenance)}
    if train is not None:
        document["train_source"] = train.to_json()
    empty = {"config": None, "provenance": {}, "train_source": None, "inputs": dict(inputs)}
    write_json(path, {**empty, **document})


def _check(
    stated: Mapping[str, Any], out: Path, name: str, derived: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Hold every figure that was ever stated against what the folder proves by now."""
    training = out / "training.json"
    found = {path.parent.name: path for path in out.glob("evaluations/*/evaluation.json")}
    evidence = Evidence(
        name=name,
        evaluations={one: read_evaluation(path) for one, path in sorted(found.items())},
        training=read_json(training) if training.is_file() else {},
        derived=derived,
        config=read_json(out / "config.json")["config"] or {},
    )
    return check_stated(stated, evidence)


def _warnings(answered: Answered, origin: Origin, train: Dataset | None) -> list[str]:
    """Return what a reader of the figures should know, one line each."""
    facts = answered.facts
    lines = [*origin.warnings, *skip_warnings([one for one in (train, answered.data) if one])]
    name = answered.data.name
    for strategy, rows in facts["other_strategies"].items():
        lines.append(f"{name}: {rows} rows of strategy {strategy} were not imported")
    if facts["parser_failures"]:
        lines.append(
            f"{name}: the predictions' own parser failed on {facts['parser_failures']} of "
            f"{facts['predictions']['rows']} responses"
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


def _described(data: Dataset) -> dict[str, Any]:
    return {
        "file": str(data.path),
        "sha256": data.sha256,
        "rows": len(data),
        "rows_used": len(data),
        "skipped_rows": [{"line": row.line, "reason": row.reason} for row in data.skipped],
        "skipped": len(data.skipped),
    }


def _refusal(folder: Path, place: str, message: str) -> ConfigError:
    return ConfigError(str(folder), [Problem(place, message)], consequence="nothing was imported")
