"""From predictions to an evaluation: overall, per target group, per slice, beside baselines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from evenhand.core.evaluation import (
    BaselineEvaluation,
    BaselineGroup,
    Evaluation,
    Gap,
    GroupEvaluation,
    Method,
    Slice,
)
from evenhand.core.predictions import Predictions
from evenhand.measure.intervals import CONFIDENCE, newcombe
from evenhand.measure.metrics import (
    false_negative_rate,
    false_positive_rate,
    measure_metrics,
    sample_size,
    unscored_bounds,
)
from evenhand.measure.sample import Sample, ordered_frame, sample_from_frame

_MISSING = "(missing)"


def evaluate(
    predictions: Predictions,
    *,
    name: str,
    rng: np.random.Generator,
    threshold: float = 0.5,
    n_bootstrap: int = 2000,
    baselines: Mapping[str, Predictions] | None = None,
    dataset_sha256: str | None = None,
    method: Method = "score",
) -> Evaluation:
    """Measure predictions overall and per target group, every rate with its 95% interval.

    With ``method="score"`` a row is decided hate if and only if its score is at least
    ``threshold``; otherwise the decisions count as they are. Rows that are unparseable or in error
    are counted, and bounded by their worst and best case. The result does not depend on the order
    of the rows.

    Args:
        predictions: labelled predictions.
        name: the evaluation set's name.
        rng: drives the bootstrap; the baselines have streams of their own.
        threshold: the least p(hate) that is decided hate.
        n_bootstrap: bootstrap replicates, at least 100.
        baselines: predictions of baselines on the same rows, decided at 0.5.
        dataset_sha256: hash of the evaluation file, kept in the record.
        method: how the decisions came about.

    Raises:
        DataError: rows have no label, or no score where one is needed.
        ValueError: ``n_bootstrap`` or ``threshold`` is out of range.
    """
    if n_bootstrap < 100:
        raise ValueError(f"n_bootstrap is {n_bootstrap}; at least 100 are needed")
    if not 0.0 <= threshold <= 1.0:
        raise ValueError(f"threshold is {threshold}; it is a probability, from 0 to 1")
    compared = dict(baselines or {})
    own_rng, *baseline_rngs = rng.spawn(1 + len(compared))
    decided_at = threshold if method == "score" else None
    frame = ordered_frame(predictions)
    sample = sample_from_frame(frame, method=method, threshold=decided_at)
    members = _group_masks(frame)
    counts: dict[str, Any] = {**sample.counts()}
    return Evaluation(
        name=name,
        method=method,
        threshold=decided_at,
        dataset_sha256=dataset_sha256,
        confidence=CONFIDENCE,
        n_bootstrap=n_bootstrap,
        **counts,
        n_clusters=None if sample.clusters is None else len(np.unique(sample.clusters)),
        confusion=sample.confusion(),
        metrics=measure_metrics(sample, n_bootstrap=n_bootstrap, rng=own_rng),
        bounds=unscored_bounds(sample),
        groups={
            group: _group(sample.where(mask), n_bootstrap=n_bootstrap, rng=own_rng)
            for group, mask in members.items()
        },
        gaps={
            group: _gap(sample.where(mask), sample.where(~mask)) for group, mask in members.items()
        },
        slices=tuple(_slices(frame, sample, members)),
        baselines={
            key: _baseline(compared[key], n_bootstrap=n_bootstrap, rng=child)
            for key, child in zip(compared, baseline_rngs, strict=True)
        },
    )


def learned_nothing(evaluation: Evaluation) -> bool:
    """Return whether the scores were not shown to rank hate above normal.

    That is: the lower bound of the ROC AUC is not above 0.5. Where there are decisions but no
    scores, the decisions are a two-valued score, with AUC = (1 + TPR - FPR) / 2: then the lower
    bound of TPR - FPR must be above 0. An AUC that is undefined for another reason shows nothing.
    """
    metrics = evaluation.metrics
    if metrics.roc_auc.reason in ("no_scores", "some_scores_missing"):
        lift = newcombe(metrics.recall, metrics.fpr)
        return lift.low is None or lift.low <= 0.0
    return metrics.roc_auc.low is None or metrics.roc_auc.low <= 0.5


def _group_masks(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return each group's rows; a row of several groups is in each."""
    sets = [frozenset(groups) for groups in frame["group"]]
    names = sorted(frozenset().union(*sets))
    return {
        name: np.fromiter((name in groups for groups in sets), dtype=bool, count=len(sets))
        for name in names
    }


def _group(part: Sample, *, n_bootstrap: int, rng: np.random.Generator) -> GroupEvaluation:
    metrics = measure_metrics(part, n_bootstrap=n_bootstrap, rng=rng)
    fields: dict[str, Any] = {**dict(metrics), **part.counts()}
    return GroupEvaluation(
        **fields,
        confusion=part.confusion(),
        bounds=unscored_bounds(part),
        negatives=sample_size(metrics.fpr),
        positives=sample_size(metrics.fnr),
    )


def _gap(group: Sample, rest: Sample) -> Gap:
    return Gap(
        fpr=newcombe(false_positive_rate(group), false_positive_rate(rest)),
        fnr=newcombe(false_negative_rate(group), false_negative_rate(rest)),
        rest=rest.confusion(),
    )


def _slices(
    frame: pd.DataFrame, sample: Sample, members: Mapping[str, np.ndarray]
) -> Iterator[Slice]:
    sources = _value_masks(frame["source"])
    fine_labels = _value_masks(frame["fine_label"])
    for source, mask in sources.items():
        yield _slice({"source": source}, sample.where(mask))
    for fine_label, mask in fine_labels.items():
        yield _slice({"fine_label": fine_label}, sample.where(mask))
    for group, in_group in members.items():
        for fine_label, mask in fine_labels.items():
            both = in_group & mask
            if both.any():
                yield _slice({"group": group, "fine_label": fine_label}, sample.where(both))


def _value_masks(column: pd.Series) -> dict[str, np.ndarray]:
    """Return the rows of each value; nothing for a column that is empty throughout."""
    if column.isna().all():
        return {}
    values = column.where(column.notna(), _MISSING).astype(str).to_numpy(dtype=object)
    return {str(value): values == value for value in sorted(set(values))}


def _slice(keys: Mapping[str, str], part: Sample) -> Slice:
    fpr, fnr = false_positive_rate(part), false_negative_rate(part)
    return Slice(
        keys=keys,
        **part.counts(),
        confusion=part.confusion(),
        fpr=fpr,
        fnr=fnr,
        negatives=sample_size(fpr),
        positives=sample_size(fnr),
    )


def _baseline(
    predictions: Predictions, *, n_bootstrap: int, rng: np.random.Generator
) -> BaselineEvaluation:
    frame = ordered_frame(predictions)
    sample = sample_from_frame(frame, method="score", threshold=0.5)
    groups = {}
    for group, mask in _group_masks(frame).items():
        part = sample.where(mask)
        groups[group] = BaselineGroup(
            n=len(part),
            confusion=part.confusion(),
            fpr=false_positive_rate(part),
            fnr=false_negative_rate(part),
        )
    return BaselineEvaluation(
        confusion=sample.confusion(),
        metrics=measure_metrics(sample, n_bootstrap=n_bootstrap, rng=rng),
        groups=groups,
    )
