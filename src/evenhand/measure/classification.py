"""From predictions to an evaluation: overall, per target group, per slice, beside baselines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
)
from evenhand.core.predictions import Predictions
from evenhand.measure.calibration import reliability
from evenhand.measure.composition import composition
from evenhand.measure.counts import CountBootstrap
from evenhand.measure.intervals import CONFIDENCE, newcombe
from evenhand.measure.metrics import (
    false_negative_rate,
    false_positive_rate,
    measure_metrics,
    sample_size,
    unscored_bounds,
)
from evenhand.measure.operating import reachable
from evenhand.measure.ranking import bias_aucs
from evenhand.measure.sample import Sample, group_masks, ordered_frame, sample_from_frame
from evenhand.measure.slices import DEFAULT_SLICES, Crossing
from evenhand.measure.slices import slices as slices_of


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
    slices: Sequence[Crossing] = DEFAULT_SLICES,
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
        slices: columns of the predictions, or keys of their ``extra``, to slice by; crossed where
            several stand together.

    Raises:
        DataError: rows have no label, or no score where one is needed, or no row has a column that
            is asked for in ``slices``.
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
    sample = sample_from_frame(frame, threshold=decided_at)
    members = group_masks(frame)
    cut = slices_of(frame, sample, members, by=slices)
    counts = CountBootstrap(sample, members, n_bootstrap=n_bootstrap, rng=own_rng)
    totals: dict[str, Any] = {**sample.counts()}
    return Evaluation(
        name=name,
        method=method,
        threshold=decided_at,
        dataset_sha256=dataset_sha256,
        confidence=CONFIDENCE,
        n_bootstrap=n_bootstrap,
        **totals,
        n_clusters=None if sample.clusters is None else len(np.unique(sample.clusters)),
        confusion=sample.confusion(),
        metrics=measure_metrics(
            sample, f1=counts.value("f1"), n_bootstrap=n_bootstrap, rng=own_rng
        ),
        bounds=unscored_bounds(sample),
        groups=dict(_groups(sample, members, counts, n_bootstrap=n_bootstrap, rng=own_rng)),
        gaps={
            group: _gap(sample.where(mask), sample.where(~mask)) for group, mask in members.items()
        },
        slices=cut,
        composition=composition(frame, sample, members),
        reachable=reachable(sample, members),
        bias_aucs=bias_aucs(sample, members),
        reliability=reliability(sample),
        agreement=_agreement(frame, members),
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


def _groups(
    sample: Sample,
    members: Mapping[str, np.ndarray],
    counts: CountBootstrap,
    *,
    n_bootstrap: int,
    rng: np.random.Generator,
) -> Iterator[tuple[str, GroupEvaluation]]:
    for name, mask in members.items():
        part = sample.where(mask)
        f1 = counts.value("f1", group=name)
        metrics = measure_metrics(part, f1=f1, n_bootstrap=n_bootstrap, rng=rng)
        fields: dict[str, Any] = {**dict(metrics), **part.counts()}
        yield (
            name,
            GroupEvaluation(
                **fields,
                confusion=part.confusion(),
                bounds=unscored_bounds(part),
                negatives=sample_size(metrics.fpr),
                positives=sample_size(metrics.fnr),
            ),
        )


def _gap(group: Sample, rest: Sample) -> Gap:
    return Gap(
        fpr=newcombe(false_positive_rate(group), false_positive_rate(rest)),
        fnr=newcombe(false_negative_rate(group), false_negative_rate(rest)),
        rest=rest.confusion(),
    )


def _agreement(frame: pd.DataFrame, members: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the mean annotator agreement of all rows ("") and of each group, where known."""
    given = [extra.get("agreement") for extra in frame["extra"]]
    share = pd.to_numeric(pd.Series(given, dtype=object), errors="coerce").to_numpy(dtype=float)
    known = np.isfinite(share)
    parts = {"": known, **{name: known & mask for name, mask in members.items()}}
    return {name: float(share[part].mean()) for name, part in parts.items() if part.any()}


def _baseline(
    predictions: Predictions, *, n_bootstrap: int, rng: np.random.Generator
) -> BaselineEvaluation:
    frame = ordered_frame(predictions)
    sample = sample_from_frame(frame, threshold=0.5)
    groups = {}
    members = group_masks(frame)
    counts = CountBootstrap(sample, members, n_bootstrap=n_bootstrap, rng=rng)
    for group, mask in members.items():
        part = sample.where(mask)
        groups[group] = BaselineGroup(
            n=len(part),
            confusion=part.confusion(),
            fpr=false_positive_rate(part),
            fnr=false_negative_rate(part),
        )
    return BaselineEvaluation(
        confusion=sample.confusion(),
        metrics=measure_metrics(sample, f1=counts.value("f1"), n_bootstrap=n_bootstrap, rng=rng),
        groups=groups,
        reachable=reachable(sample, members),
    )
