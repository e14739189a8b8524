"""Fine-tune hate-speech classifiers and decide whether they are good and fair enough to deploy.

The names below are the library's public surface: the stages as functions on records, so that a
notebook can do what the commands do. They are imported when they are first used, so that
``import evenhand`` is quick and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evenhand.config.criteria import load_criteria
    from evenhand.config.experiment_schema import ExperimentConfig
    from evenhand.config.load import load_experiment, load_phase
    from evenhand.config.schema import PhaseConfig
    from evenhand.core.errors import EvenhandError
    from evenhand.core.evaluation import Evaluation
    from evenhand.core.predictions import Predictions, predictions_from_rows
    from evenhand.core.records import Dataset, Row
    from evenhand.data.sources import read_dataset
    from evenhand.data.starter import generate
    from evenhand.decide.compare import compare
    from evenhand.decide.threshold import fit_threshold
    from evenhand.experiment.auditing import audit_files
    from evenhand.experiment.deciding import judge_run
    from evenhand.experiment.results import open_results
    from evenhand.experiment.runner import run_experiment
    from evenhand.experiment.runs import open_run
    from evenhand.finetune.classifier import load_classifier
    from evenhand.finetune.train import train_phase
    from evenhand.measure.baselines import baseline_predictions
    from evenhand.measure.classification import evaluate
    from evenhand.prompts.template import load_prompt

_HOMES = {
    "Dataset": "core.records",
    "Evaluation": "core.evaluation",
    "EvenhandError": "core.errors",
    "ExperimentConfig": "config.experiment_schema",
    "PhaseConfig": "config.schema",
    "Predictions": "core.predictions",
    "Row": "core.records",
    "audit_files": "experiment.auditing",
    "baseline_predictions": "measure.baselines",
    "compare": "decide.compare",
    "evaluate": "measure.classification",
    "fit_threshold": "decide.threshold",
    "generate": "data.starter",
    "judge_run": "experiment.deciding",
    "load_classifier": "finetune.classifier",
    "load_criteria": "config.criteria",
    "load_experiment": "config.load",
    "load_phase": "config.load",
    "load_prompt": "prompts.template",
    "open_results": "experiment.results",
    "open_run": "experiment.runs",
    "predictions_from_rows": "core.predictions",
    "read_dataset": "data.sources",
    "run_experiment": "experiment.runner",
    "train_phase": "finetune.train",
}

__all__ = [
    "Dataset",
    "Evaluation",
    "EvenhandError",
    "ExperimentConfig",
    "PhaseConfig",
    "Predictions",
    "Row",
    "audit_files",
    "baseline_predictions",
    "compare",
    "evaluate",
    "fit_threshold",
    "generate",
    "judge_run",
    "load_classifier",
    "load_criteria",
    "load_experiment",
    "load_phase",
    "load_prompt",
    "open_results",
    "open_run",
    "predictions_from_rows",
    "read_dataset",
    "run_experiment",
    "train_phase",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'evenhand' has no attribute {name!r}")
    return getattr(importlib.import_module(f"evenhand.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
