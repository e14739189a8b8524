"""The baselines that a gate's criteria are against, on the rows that the model answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from evenhand.config.criteria import EACH, Criteria
from evenhand.core.decisions import Pair, PairedTest
from evenhand.core.evaluation import Evaluation
from evenhand.core.predictions import Predictions
from evenhand.core.records import HATE, NORMAL
from evenhand.decide.compare import compare
from evenhand.decide.figures import CONSTANTS
from evenhand.measure.classification import evaluate

_PAIRED_OVER_ALL_ROWS = ("f1", "accuracy")
_PAIRED = (*_PAIRED_OVER_ALL_ROWS, "fpr", "fnr", "recall")
_MODEL = "model"


@dataclass(frozen=True)
class Rivals:
    """Baselines on the rows that the model answered.

    Attributes:
        pairs: baseline (first) against model (second), by the baseline's name and the group whose
            rows are compared; None for all rows.
        evaluations: the baselines, by name, for metrics that have no paired test.
    """

    pairs: Mapping[tuple[str, str | None], Pair] = field(default_factory=dict)
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)

    def test(self, baseline: str, *, metric: str, group: str | None) -> PairedTest | None:
        """Return the paired test of a metric, of the FNR for ``recall``; None without one."""
        name = "fnr" if metric == "recall" else metric
        whole = self.pairs.get((baseline, None))
        found = None if whole is None else whole.test(name, group)
        if found is None and group is not None:
            part = self.pairs.get((baseline, group))
            found = None if part is None else part.test(name)
        return found


def rivals_of(
    predictions: Predictions,
    baselines: Mapping[str, Predictions],
    criteria: Criteria,
    *,
    set_name: str,
    rng: np.random.Generator,
) -> Rivals:
    """Measure the baselines that criteria are against; the constants need no predictions.

    Args:
        predictions: the model's, with the decisions that are judged.
        baselines: the baselines' on the same rows, by name.
        criteria: only what they ask for is computed.
        set_name: the evaluation set.
        rng: draws the resamples.

    Raises:
        DataError: a baseline's rows are not the model's.
    """
    known = {**baselines, **{name: constant_answers(predictions, name) for name in CONSTANTS}}
    asked = [
        (one.against.baseline, one)
        for one in criteria.criteria
        if one.against is not None and one.against.baseline in known
    ]
    groups = sorted({group for row in predictions.frame["group"] for group in row})
    wanted: dict[str | None, list[str]] = {None: [n for n, one in asked if one.metric in _PAIRED]}
    for group in groups:
        # A comparison of all rows has each group's FPR and FNR, but not its F1 and accuracy.
        wanted[group] = [
            name
            for name, one in asked
            if one.group in (EACH, group) and one.metric in _PAIRED_OVER_ALL_ROWS
        ]
    pairs: dict[tuple[str, str | None], Pair] = {}
    for group, names in wanted.items():
        chosen = [name for name in known if name in names]
        if not chosen:
            continue
        models = {name: _within(answers, group) for name, answers in known.items()}
        found = compare(
            {**{name: models[name] for name in chosen}, _MODEL: _within(predictions, group)},
            set_name=set_name,
            rng=rng,
            pairs=[(name, _MODEL) for name in chosen],
        )
        pairs.update({(pair.first, group): pair for pair in found.pairs})
    answered = set(predictions.frame["id"][predictions.frame["status"] == "ok"])
    evaluations = {
        name: evaluate(
            _rows(known[name], known[name].frame["id"].isin(answered).to_numpy(dtype=bool)),
            name=set_name,
            rng=rng,
            slices=(),
        )
        for name in dict.fromkeys(name for name, one in asked if one.metric not in _PAIRED)
    }
    return Rivals(pairs, evaluations)


def constant_answers(predictions: Predictions, name: str) -> Predictions:
    """Return ``always_hate`` or ``always_normal`` on the rows of some predictions."""
    says_hate = name == "always_hate"
    frame = predictions.frame.assign(
        decision=HATE if says_hate else NORMAL,
        score=1.0 if says_hate else 0.0,
        status="ok",
        raw_response=None,
    )
    return Predictions(frame)


def _within(predictions: Predictions, group: str | None) -> Predictions:
    if group is None:
        return predictions
    inside = [group in groups for groups in predictions.frame["group"]]
    return _rows(predictions, np.array(inside, dtype=bool))


def _rows(predictions: Predictions, which: np.ndarray) -> Predictions:
    return Predictions(predictions.frame[which])
