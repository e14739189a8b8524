"""What a finished run folder holds for the stages after training, whoever made it.

:class:`evenhand.experiment.runs.Run` is a run as training sees it, and needs Evenhand's own
configuration and prompt. :class:`Results` asks for less: evaluations and what is known of their
origin. So an imported run, of which only predictions exist, can be compared, tuned, gated and
reported like any other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from evenhand.core.decisions import (
    Binding,
    Deployment,
    GateVerdict,
    Threshold,
    ThresholdReport,
)
from evenhand.core.errors import ConfigError, Problem, StorageError
from evenhand.core.evaluation import Evaluation, Record, read_evaluation, write_evaluation
from evenhand.core.paths import atomic_dir, read_json, write_json
from evenhand.core.predictions import Predictions, read_predictions, write_predictions
from evenhand.core.registry import suggest
from evenhand.experiment.runs import open_run

_R = TypeVar("_R", bound=Record)


@dataclass(frozen=True)
class Decisions:
    """What was decided on a run: each None where it was not, or not yet."""

    threshold: Threshold | None
    threshold_report: ThresholdReport | None
    verdict: GateVerdict | None
    deployment: Deployment | None


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
        """The evaluation sets, by name."""
        found = self.path.glob("evaluations/*/evaluation.json")
        return tuple(sorted(path.parent.name for path in found))

    def evaluation(self, name: str) -> Evaluation:
        """Return the evaluation on a set.

        Raises:
            ConfigError: the run was not evaluated on a set of that name.
        """
        return read_evaluation(self._folder(name) / "evaluation.json")

    def predictions(self, name: str) -> Predictions:
        """Return the predictions on a set; raises as :meth:`evaluation`."""
        return read_predictions(self._folder(name) / "predictions.parquet")

    def baselines(self, name: str) -> Mapping[str, Predictions]:
        """Return the baselines' predictions on a set, by name; empty where there are none."""
        found = sorted((self._folder(name) / "baselines").glob("*.parquet"))
        return {path.stem: read_predictions(path) for path in found}

    def inputs(self, name: str) -> Mapping[str, Any]:
        """Return what an evaluation was made from: ``inputs`` (hashes) and ``data`` (the file)."""
        return read_json(self._folder(name) / "inputs.json")

    @property
    def decisions(self) -> Decisions:
        """What ``threshold.json``, ``gate.json`` and their companions hold."""
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
        return tuple(json.loads(line) for line in file.read_text("utf-8").splitlines() if line)

    def _folder(self, name: str) -> Path:
        if name not in self.evaluation_names:
            known = ", ".join(self.evaluation_names) or "none"
            message = f'has no evaluation "{name}"{suggest(name, self.evaluation_names)}'
            problem = Problem(name, f"{message}; it has: {known}")
            raise ConfigError(str(self.path), [problem])
        return self.path / "evaluations" / name


def open_results(path: Path) -> Results:
    """Return the results in a finished run folder, trained or imported.

    Raises:
        ConfigError: no run there, or one whose training has not ended.
    """
    manifest = path / "manifest.json"
    if manifest.is_file():
        document = read_json(manifest)
        if "imported" in document:
            config = read_json(path / "config.json")["config"]
            return Results(path, config, _training(path), document)
    run = open_run(path)
    return Results(path, run.config.model_dump(mode="json"), run.training, run.manifest)


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
    """Return a record that lies as JSON in a file; None where there is no file."""
    if not path.is_file():
        return None
    try:
        return kind.model_validate(read_json(path))
    except ValidationError as error:
        raise StorageError(
            f"{path} is damaged: {error.error_count()} of its values do not fit",
            hint="remove it and run the command that wrote it again",
        ) from error


def _training(path: Path) -> Mapping[str, Any] | None:
    file = path / "training.json"
    return read_json(file) if file.is_file() else None
