"""A run's training rows, made again from what its folder says of them; it holds no posts itself."""

from __future__ import annotations

from evenhand.core.records import Dataset
from evenhand.experiment.inputs import training_sha256
from evenhand.experiment.runs import Run
from evenhand.experiment.training_rows import TrainingRows, make_training_rows


class ChangedRowsError(ValueError):
    """What can be made now are not the rows that the run was trained on."""


def remake(run: Run) -> tuple[Dataset, TrainingRows]:
    """Return the training file's rows as read, and the rows that the run was trained on.

    Raises:
        ChangedRowsError: a file has changed, or none is known.
        ConfigError: the configuration does not allow the rows that the files have now.
        DataError: a file cannot be read.
    """
    source, recipe = run.train_source, run.recipe
    if source is None:
        raise ChangedRowsError("its training file is not known")
    train = source.read()
    evaluation, corpus = {}, None
    if recipe is not None:
        evaluation = {name: one.read(name) for name, one in recipe.evaluation.items()}
        corpus = None if recipe.corpus is None else recipe.corpus.read()
    made = make_training_rows(train, run.config, evaluation=evaluation, corpus=corpus)
    if training_sha256(train, made) != run.inputs["train"]:
        others = (
            "" if recipe is None else ", or a file that its rows were augmented with or against,"
        )
        raise ChangedRowsError(f"{source.path}{others} has changed")
    return train, made
