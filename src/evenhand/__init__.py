"""Fine-tune hate-speech classifiers and decide whether they are good and fair enough to deploy.

The names below are the library's public surface: the stages as functions on records, so that a
notebook can do what the commands do. They are imported when they are first used, so that
``import evenhand`` is quick and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evenhand.config.experiment_schema import ExperimentConfig
    from evenhand.config.load import load_experiment, load_phase
    from evenhand.config.schema import PhaseConfig
    from evenhand.core.errors import EvenhandError
    from evenhand.core.evaluation import Evaluation
    from evenhand.core.predictions import Predictions, predictions_from_rows, read_predictions
    from evenhand.core.records import Dataset, Row
    from evenhand.data.describe import describe
    from evenhand.data.sources import read_dataset
    from evenhand.data.split import split_rows
    from evenhand.data.starter import generate
    from evenhand.experiment.runner import run_experiment
    from evenhand.experiment.runs import open_run
    from evenhand.finetune.classifier import Classifier, load_classifier
    from evenhand.finetune.params import count_parameters
    from evenhand.finetune.train import train_phase
    from evenhand.measure.baselines import baseline_predictions
    from evenhand.measure.classification import evaluate
    from evenhand.prompts.template import PromptTemplate, load_prompt

_HOMES = {
    "Classifier": "finetune.classifier",
    "Dataset": "core.records",
    "Evaluation": "core.evaluation",
    "EvenhandError": "core.errors",
    "ExperimentConfig": "config.experiment_schema",
    "PhaseConfig": "config.schema",
    "Predictions": "core.predictions",
    "PromptTemplate": "prompts.template",
    "Row": "core.records",
    "baseline_predictions": "measure.baselines",
    "count_parameters": "finetune.params",
    "describe": "data.describe",
    "evaluate": "measure.classification",
    "generate": "data.starter",
    "load_classifier": "finetune.classifier",
    "load_experiment": "config.load",
    "load_phase": "config.load",
    "load_prompt": "prompts.template",
    "open_run": "experiment.runs",
    "predictions_from_rows": "core.predictions",
    "read_dataset": "data.sources",
    "read_predictions": "core.predictions",
    "run_experiment": "experiment.runner",
    "split_rows": "data.split",
    "train_phase": "finetune.train",
}

__all__ = [
    "Classifier",
    "Dataset",
    "Evaluation",
    "EvenhandError",
    "ExperimentConfig",
    "PhaseConfig",
    "Predictions",
    "PromptTemplate",
    "Row",
    "baseline_predictions",
    "count_parameters",
    "describe",
    "evaluate",
    "generate",
    "load_classifier",
    "load_experiment",
    "load_phase",
    "load_prompt",
    "open_run",
    "predictions_from_rows",
    "read_dataset",
    "read_predictions",
    "run_experiment",
    "split_rows",
    "train_phase",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'evenhand' has no attribute {name!r}")
    return getattr(importlib.import_module(f"evenhand.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
