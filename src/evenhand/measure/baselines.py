"""Baselines that every model must beat: two constants, and TF-IDF with logistic regression."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from evenhand.core.errors import DataError, Problem
from evenhand.core.predictions import Predictions, predictions_from_rows
from evenhand.core.records import HATE, Row

INVERSE_REGULARISATION = 10.0
"""C of the logistic regression, fixed: the best F1 of 1, 3, 10 and 30 in five-fold cross-validation
on the 2,686 training rows of the reference experiment; no evaluation set had a say."""


def baseline_predictions(
    train_rows: Sequence[Row], evaluation_rows: Sequence[Row], *, seed: int
) -> dict[str, Predictions]:
    """Return ``always_hate``, ``always_normal`` and ``tfidf_logreg`` on the evaluation rows.

    ``tfidf_logreg`` is fitted on the training rows: words and word pairs, sublinear term
    frequency, L2 logistic regression with C = 10.

    Raises:
        DataError: training rows have no label, or all have the same.
    """
    scores = _tfidf_logreg(train_rows, evaluation_rows, seed=seed)
    return {
        **constant_predictions(evaluation_rows),
        "tfidf_logreg": predictions_from_rows(evaluation_rows, scores=scores),
    }


def constant_predictions(evaluation_rows: Sequence[Row]) -> dict[str, Predictions]:
    """Return ``always_hate`` and ``always_normal`` on the evaluation rows.

    >>> answers = constant_predictions([Row("a", "A post", "hate")])
    >>> [one.frame["decision"].item() for one in answers.values()]
    ['hate', 'normal']
    """
    n = len(evaluation_rows)
    constants = {"always_hate": np.ones(n), "always_normal": np.zeros(n)}
    return {
        name: predictions_from_rows(evaluation_rows, scores=scores)
        for name, scores in constants.items()
    }


def _tfidf_logreg(train: Sequence[Row], evaluation: Sequence[Row], *, seed: int) -> np.ndarray:
    unlabelled = sum(row.label is None for row in train)
    hate = np.array([row.label == HATE for row in train])
    problems = []
    if unlabelled:
        problems.append(Problem("label", f"{unlabelled} training rows have no label; add it"))
    elif hate.all() or not hate.any():
        problems.append(Problem("label", "the training rows need both hate and normal"))
    if problems:
        raise DataError("training rows", problems)
    if not evaluation:
        return np.empty(0)
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(C=INVERSE_REGULARISATION, max_iter=1000, random_state=seed),
    )
    model.fit([row.text for row in train], hate)
    return model.predict_proba([row.text for row in evaluation])[:, 1]
