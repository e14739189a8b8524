"""What a finished run folder holds for the stages after training, whoever made it.

:class:`evenhand.experiment.runs.Run` is a run as training sees it, and needs Evenhand's own
configuration and prompt. :class:`Results` asks for less: evaluations and what is known of their
origin. So an imported run, of which only predictions exist, can be compared, tuned, gated and
reported like any other.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar

from pydantic import ValidationError

from evenhand.core.decisions import (
    Binding,
    Deployment,
    GateVerdict,
    Threshold,
    ThresholdReport,
)
from evenhand.core.errors import ConfigError, DataError, Problem, StorageError
from evenhand.core.evaluation import Evaluation, Record, read_evaluation, write_evaluation
from evenhand.core.paths import atomic_dir, read_json, write_json
from evenhand.core.predictions import Predictions, read_predictions, write_predictions
from evenhand.core.registry import suggest
from evenhand.experiment.runs import open_run

_R = TypeVar("_R", bound=Record)
_SHOWN = 5
_AGAIN = "run the same `evenhand import` commands again"
_NEW_IMPORT = "remove the folder, then run the same `evenhand import` commands again"
_NEW_CONFIG = "remove the file if it is there, then run the same `evenhand import` commands again"
_NEW_MANIFEST = (
    "for a training: remove the file, and `evenhand train CONFIG.json --out RUN --resume` writes "
    "it again; for an import: remove the folder and run the same `evenhand import` again"
)
_EVALUATION_FILES = ("evaluation.json", "predictions.parquet", "inputs.json")


@dataclass(frozen=True)
class Decisions:
    """What was decided on a run: each None where it was not, or not yet.

    ``warnings`` says of each record that was left out why it does not hold any more.
    """

    threshold: Threshold | None
    threshold_report: ThresholdReport | None
    verdict: GateVerdict | None
    deployment: Deployment | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Results:
    """A finished run folder, trained here or imported.

    Attributes:
        path: the folder.
        config: the phase's configuration by key: whole where it was trained here; of an import the
            keys that its files state, None where there are no such files.
        training: the content of ``training.json``; None where nothing is known of a training.
        manifest: the content of ``manifest.json``; ``manifest["imported"]`` marks an import.
    """

    path: Path
    config: Mapping[str, Any] | None
    training: Mapping[str, Any] | None
    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The folder's name, which stands for the run in tables."""
        return self.path.resolve().name

    @property
    def is_imported(self) -> bool:
        """Whether the results were made elsewhere."""
        return "imported" in self.manifest

    @property
    def stated(self) -> Mapping[str, Any]:
        """Figures that an import was told and that no file proves, by name."""
        return self.manifest.get("stated", {})

    @property
    def binding(self) -> Binding:
        """The hashes that a threshold or a verdict on this run is bound to."""
        prompt, base = self.manifest.get("prompt"), self.manifest.get("base")
        return Binding(
            run=self.manifest["inputs_sha256"],
            adapter=self.manifest.get("adapter_sha256"),
            prompt=None if prompt is None else prompt["sha256"],
            base=None if base is None else base["model"],
        )

    @cached_property
    def evaluation_names(self) -> tuple[str, ...]:
        """The evaluation sets, by name.

        Raises:
            StorageError: an evaluation's folder has lost one of its files.
        """
        found = [path for path in self.path.glob("evaluations/*") if path.is_dir()]
        # What begins with a dot is being written, or was left by a command cut short.
        folders = sorted(path for path in found if not path.name.startswith("."))
        for folder in folders:
            lost = [name for name in _EVALUATION_FILES if not (folder / name).is_file()]
            if lost:
                raise StorageError(
                    f"{folder} is damaged: no {' and no '.join(lost)}",
                    hint=self._again(folder.name),
                )
        return tuple(folder.name for folder in folders)

    def evaluation(self, name: str) -> Evaluation:
        """Return the evaluation on a set.

        Raises:
            ConfigError: the run was not evaluated on a set of that name.
            StorageError: its file is damaged.
        """
        with self._telling_remedy(name):
            return read_evaluation(self._folder(name) / "evaluation.json")

    def predictions(self, name: str) -> Predictions:
        """Return the predictions on a set; raises as :meth:`evaluation`."""
        with self._telling_remedy(name):
            return _readable(self._folder(name) / "predictions.parquet")

    def baselines(self, name: str) -> Mapping[str, Predictions]:
        """Return the baselines' predictions on a set, by name; empty where there are none."""
        found = sorted((self._folder(name) / "baselines").glob("*.parquet"))
        with self._telling_remedy(name):
            return {path.stem: _readable(path) for path in found}

    def inputs(self, name: str) -> Mapping[str, Any]:
        """Return what an evaluation was made from: ``inputs`` (hashes) and ``data`` (the file)."""
        file = self._folder(name) / "inputs.json"
        with self._telling_remedy(name):
            document = read_json(file)
            hashes = document.get("inputs") if isinstance(document, dict) else None
            if not isinstance(hashes, dict) or "rows" not in hashes:
                raise StorageError(f"{file} is damaged: it has no hashes of what was evaluated")
        return document

    @property
    def decisions(self) -> Decisions:
        """What ``threshold.json``, ``gate.json`` and their companions say.

        Some of it may be of an earlier state of the run;
        :func:`evenhand.experiment.deciding.read_decisions` leaves that out.
        """
        return Decisions(
            threshold=read_record(Threshold, self.path / "threshold.json"),
            threshold_report=read_record(ThresholdReport, self.path / "threshold_report.json"),
            verdict=read_record(GateVerdict, self.path / "gate.json"),
            deployment=read_record(Deployment, self.path / "deployment.json"),
        )

    @property
    def history(self) -> tuple[Mapping[str, Any], ...]:
        """The lines of ``history.jsonl``; empty where there is none."""
        file = self.path / "history.jsonl"
        if not file.is_file():
            return ()
        try:
            return tuple(json.loads(line) for line in file.read_text("utf-8").splitlines() if line)
        except (OSError, ValueError) as error:
            hint = _NEW_IMPORT if self.is_imported else "remove it: the run is whole without it"
            raise StorageError(f"{file} is damaged: {error}", hint=hint) from error

    def _folder(self, name: str) -> Path:
        if name not in self.evaluation_names:
            known = ", ".join(self.evaluation_names) or "none"
            message = f'has no evaluation "{name}"{suggest(name, self.evaluation_names)}'
            problem = Problem(name, f"{message}; it has: {known}")
            raise ConfigError(str(self.path), [problem])
        return self.path / "evaluations" / name

    def _again(self, name: str) -> str:
        """Say with which command an evaluation is made anew."""
        if self.is_imported:
            return f"import it again: `evenhand import --name {name} --out {self.path} ...`"
        return f"make it again: `evenhand evaluate {self.path} --name {name} --data FILE`"

    @contextlib.contextmanager
    def _telling_remedy(self, name: str) -> Iterator[None]:
        """Give an evaluation's unreadable file the remedy that fits the run."""
        try:
            yield
        except StorageError as error:
            raise StorageError(error.message, hint=self._again(name)) from error


def open_results(path: Path) -> Results:
    """Return the results in a finished run folder, trained or imported.

    Raises:
        ConfigError: no run there, or one whose training has not ended.
        StorageError: the run's own files are damaged.
    """
    manifest = read_manifest(path)
    if manifest is None or "imported" not in manifest:
        run = open_run(path)  # which says what there is, where there is no finished run
        return Results(path, run.config.model_dump(mode="json"), run.training, run.manifest)
    config = read_imported_config(path)["config"]
    training = path / "training.json"
    stated = _document(training, hint=_NEW_IMPORT) if training.is_file() else None
    return Results(path, config, stated, manifest)


def read_manifest(path: Path) -> dict[str, Any] | None:
    """Return a run folder's manifest; None where there is none, as before the end of a training.

    Raises:
        StorageError: it is damaged, or the folder is of an import and has lost it.
    """
    file = path / "manifest.json"
    was_imported = _began_as_import(path)
    if not file.is_file():
        if was_imported:
            raise StorageError(f"{path} is damaged: no manifest.json", hint=_AGAIN)
        return None
    hint = _NEW_IMPORT if was_imported else _NEW_MANIFEST
    manifest = _document(file, hint=hint)
    if was_imported and "imported" not in manifest:
        raise StorageError(f'{file} is damaged: "imported" is missing', hint=hint)
    _check_manifest(file, manifest, hint=_NEW_IMPORT if "imported" in manifest else hint)
    return manifest


def read_imported_config(path: Path) -> dict[str, Any]:
    """Return ``config.json`` of an imported run, with ``config`` as far as files state it.

    Raises:
        StorageError: it is damaged or gone.
    """
    file = path / "config.json"
    document = _document(file, hint=_NEW_CONFIG)
    kinds = {"config": (dict, NoneType), "train_source": (dict, NoneType), "inputs": dict}
    wrong = [key for key, kind in kinds.items() if not isinstance(document.get(key, 0), kind)]
    if wrong:
        message = f"{file} is damaged: {_quoted(wrong)} missing or of another kind"
        raise StorageError(message, hint=_NEW_CONFIG)
    return document


def save_evaluation(
    folder: Path,
    predictions: Predictions,
    evaluation: Evaluation,
    *,
    baselines: Mapping[str, Predictions],
    origin: Mapping[str, Any],
) -> None:
    """Write one evaluation's folder in one step: answers, metrics and origin belong together.

    ``origin`` is what ``inputs.json`` holds: ``inputs`` (the hashes that the answers depend on),
    ``data`` (the file), ``created``, ``command``, and ``measured`` where it was made here.
    """
    with atomic_dir(folder) as staging:
        write_predictions(predictions, staging / "predictions.parquet")
        for name, answers in baselines.items():
            write_predictions(answers, staging / "baselines" / f"{name}.parquet")
        write_evaluation(evaluation, staging / "evaluation.json")
        write_json(staging / "inputs.json", dict(origin))


def read_record(kind: type[_R], path: Path) -> _R | None:
    """Return a record that lies as JSON in a file; None where there is no file.

    Raises:
        StorageError: the file is damaged; names the values that do not fit.
    """
    if not path.is_file():
        return None
    try:
        return kind.model_validate(read_json(path))
    except ValidationError as error:
        wrong = [
            f"{'.'.join(map(str, one['loc'])) or 'the document'} ({one['msg']})"
            for one in error.errors()
        ]
        more = "" if len(wrong) <= _SHOWN else f"; and {len(wrong) - _SHOWN} more"
        raise StorageError(
            f"{path} is damaged; these values do not fit: {'; '.join(wrong[:_SHOWN])}{more}",
            hint="remove it and run the command that wrote it again",
        ) from error
    except StorageError as error:
        hint = "remove it and run the command that wrote it again"
        raise StorageError(error.message, hint=hint) from error


def _began_as_import(path: Path) -> bool:
    """Whether ``config.json`` is one that an import writes, whatever has become of the manifest."""
    try:
        document = read_json(path / "config.json")
        return "predictions" in document["inputs"]
    except (StorageError, KeyError, TypeError):
        return False


def _document(file: Path, *, hint: str) -> dict[str, Any]:
    """Read a JSON object of the run folder."""
    if not file.is_file():
        raise StorageError(f"{file.parent} is damaged: no {file.name}", hint=hint)
    try:
        document = read_json(file)
    except StorageError as error:
        raise StorageError(error.message, hint=hint) from error
    if not isinstance(document, dict):
        raise StorageError(f"{file} is damaged: it is not a JSON object", hint=hint)
    return document


def _check_manifest(file: Path, manifest: Mapping[str, Any], *, hint: str) -> None:
    """Refuse a manifest without what every reader takes from it."""
    needed: list[tuple[Mapping[str, Any], str, type]] = [(manifest, "inputs_sha256", str)]
    if "imported" in manifest:
        needed += [(manifest, "imported", dict), (manifest, "stated", dict)]
        if isinstance(manifest["imported"], dict):
            needed.append((manifest["imported"], "evaluations", dict))
            needed.append((manifest["imported"], "derived", dict))
    for key, part in (("prompt", "sha256"), ("base", "model")):
        if manifest.get(key) is not None:
            needed.append((manifest[key] if isinstance(manifest[key], dict) else {}, part, object))
    wrong = [
        key for part, key, kind in needed if key not in part or not isinstance(part[key], kind)
    ]
    if wrong:
        message = f"{file} is damaged: {_quoted(wrong)} missing or of another kind"
        raise StorageError(message, hint=hint)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _readable(path: Path) -> Predictions:
    try:
        return read_predictions(path)
    except DataError as error:
        first = error.problems[0]
        raise StorageError(f"{path} is damaged: {first.place}: {first.message}") from error
