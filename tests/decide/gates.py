"""Criteria, and the evaluations that a gate judges by them, in a line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

import numpy as np
from tests.decide.synthetic import Counts, counted, measured

from evenhand.config.criteria import Criteria, Criterion
from evenhand.core.decisions import Binding, CriterionResult, GateVerdict
from evenhand.core.evaluation import Evaluation
from evenhand.core.predictions import Predictions
from evenhand.decide.basis import Basis
from evenhand.decide.gate import judge
from evenhand.decide.rivals import rivals_of

TODAY = date(2026, 11, 22)
BINDING = Binding(run="r", adapter=None, prompt=None, base=None)


def criterion(**keys: Any) -> Criterion:
    return Criterion.model_validate({"name": "it", **keys})


def verdict_of(
    evaluation: Evaluation,
    *criteria: Criterion,
    references: Mapping[str, Evaluation] | None = None,
    stated: Mapping[str, float] | None = None,
    rows: Predictions | None = None,
    baselines: Mapping[str, Predictions] | None = None,
) -> GateVerdict:
    named = tuple(
        one.model_copy(update={"name": f"{one.name} {index}"}) for index, one in enumerate(criteria)
    )
    asked = Criteria(name="test", criteria=named)
    return judge(
        basis(evaluation, asked, rows, baselines, references=references, stated=stated),
        asked,
        binding=BINDING,
        today=TODAY,
    )


def basis(
    evaluation: Evaluation,
    criteria: Criteria,
    rows: Predictions | None = None,
    baselines: Mapping[str, Predictions] | None = None,
    *,
    references: Mapping[str, Evaluation] | None = None,
    stated: Mapping[str, float] | None = None,
) -> Basis:
    """What is judged; without the rows those that have the evaluation's counts are made up."""
    if rows is None:
        cells = {
            name: (one.confusion.tp, one.confusion.tn, one.confusion.fp, one.confusion.fn)
            for name, one in evaluation.groups.items()
        }
        rows = counted(cells, unparseable=evaluation.n - evaluation.n_scored)
    return Basis(
        evaluation,
        references=references or {},
        stated=stated or {},
        rivals=rivals_of(
            rows,
            baselines or {},
            criteria,
            set_name=evaluation.name,
            rng=np.random.default_rng(0),
        ),
    )


def result_of(evaluation: Evaluation, one: Criterion, **more: Any) -> CriterionResult:
    always = criterion(metric="accuracy", at_least=0.0)
    return verdict_of(evaluation, one, always, **more).results[0]


def answered(groups: Mapping[str, Counts], is_wrong: Callable[[int], bool]) -> Predictions:
    """A baseline on the rows of ``counted(groups)``, wrong on the rows that are named."""
    frame = counted(groups).frame
    decisions = [
        label if not is_wrong(i) else {"hate": "normal", "normal": "hate"}[label]
        for i, label in enumerate(frame["label"])
    ]
    scores = [{"hate": 0.9, "normal": 0.1}[one] for one in decisions]
    return Predictions(frame.assign(decision=decisions, score=scores))


def one_group(tp: int, tn: int, fp: int, fn: int, **more: Any) -> Evaluation:
    return measured({"a": (tp, tn, fp, fn)}, **more)
