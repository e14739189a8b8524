from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from evenhand.core.predictions import Predictions
from evenhand.measure.intervals import wilson
from evenhand.measure.operating import reachable
from evenhand.measure.sample import Sample, group_masks, ordered_frame, sample_from_frame


def build(score: np.ndarray, hate: np.ndarray, *, flagged: np.ndarray | None = None) -> Sample:
    n = len(score)
    every = np.ones(n, dtype=bool)
    decided = score >= 0.5 if flagged is None else flagged
    return Sample(hate=hate, flagged=decided, ok=every, failed=~every, score=score, clusters=None)


# Scores on a coarse grid, so that ties between and within the classes are common.
rows_strategy = st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=60)


@given(rows_strategy, st.sampled_from([0.1, 0.5, 0.75, 0.8, 1.0]))
def test_it_is_the_best_of_all_thresholds(rows: list[tuple[int, bool]], floor: float) -> None:
    score = np.array([s for s, _ in rows]) / 8
    hate = np.array([h for _, h in rows])
    member = np.arange(len(rows)) % 2 == 0
    found = reachable(build(score, hate), {"alpha": member}, floor=floor)
    if not hate.any():
        assert found is None
        return
    assert found is not None
    possible = [t for t in np.unique(score) if (score[hate] >= t).mean() >= floor]
    assert found.threshold == max(possible)
    assert found.recall.value == (score[hate] >= found.threshold).mean()
    for mask, value in ((hate | ~hate, found.fpr), (member, found.groups["alpha"])):
        normal = mask & ~hate
        if not normal.any():
            assert value.reason == "no_negatives"
            continue
        assert value.value == min((score[normal] >= t).mean() for t in possible)
        assert (value.low, value.high) == wilson(value.numerator or 0, value.denominator or 0)


def test_it_lies_on_scikit_learns_roc_curve(make_predictions: Callable[..., Predictions]) -> None:
    frame = ordered_frame(make_predictions(3000))
    sample = sample_from_frame(frame, threshold=0.5)
    found = reachable(sample, group_masks(frame))
    assert found is not None
    fpr, tpr, thresholds = roc_curve(sample.hate, sample.score, drop_intermediate=False)
    first = int(np.argmax(tpr >= 0.75))
    assert found.threshold == thresholds[first]
    assert found.fpr.value == pytest.approx(fpr[first])
    assert found.recall.value == pytest.approx(tpr[first])
    assert set(found.groups) == {"alpha", "beta", "gamma"}


def test_decisions_without_scores_are_the_only_point() -> None:
    hate = np.arange(40) < 20
    none = np.full(40, np.nan)
    member = np.arange(40) % 4 == 0
    flagged = (np.arange(40) < 16) | (np.arange(40) >= 36)
    found = reachable(build(none, hate, flagged=flagged), {"alpha": member})
    assert found is not None
    assert found.threshold is None
    assert (found.recall.value, found.fpr.value, found.groups["alpha"].value) == (0.8, 0.2, 0.2)
    short = reachable(build(none, hate, flagged=np.arange(40) < 14), {"alpha": member})
    assert short is not None
    assert short.threshold is None
    for value in (short.recall, short.fpr, short.groups["alpha"]):
        assert (value.value, value.reason) == (None, "recall_below_floor")


def test_constant_scores_flag_everything() -> None:
    hate = np.arange(10) < 5
    for constant in (0.0, 0.3, 1.0):
        found = reachable(build(np.full(10, constant), hate), {})
        assert found is not None
        assert (found.threshold, found.recall.value, found.fpr.value) == (constant, 1.0, 1.0)


def test_a_missing_score_leaves_the_decisions_and_unscored_rows_do_not_count() -> None:
    hate = np.array([True, True, True, False, False])
    score = np.array([0.9, 0.8, np.nan, 0.7, 0.2])
    sample = build(score, hate, flagged=np.array([True, True, True, False, False]))
    partly = reachable(sample, {})
    assert partly is not None
    assert (partly.threshold, partly.recall.value, partly.fpr.value) == (None, 1.0, 0.0)
    ok = ~np.isnan(score)
    scored = reachable(replace(sample, ok=ok, flagged=sample.flagged & ok), {})
    assert scored is not None
    assert (scored.threshold, scored.recall.denominator) == (0.8, 2)


@pytest.mark.parametrize(
    ("floor", "n", "needed"), [(0.07, 100, 7), (0.29, 100, 29), (0.1 + 0.2, 10, 4), (1.0, 7, 7)]
)
def test_rounding_does_not_move_the_floor(floor: float, n: int, needed: int) -> None:
    found = reachable(build(np.arange(n) / n, np.ones(n, dtype=bool)), {}, floor=floor)
    assert found is not None
    assert found.recall.numerator == needed


@pytest.mark.parametrize("floor", [0.0, -0.1, 1.1, float("nan")])
def test_a_floor_is_a_recall(floor: float) -> None:
    with pytest.raises(ValueError, match="floor is"):
        reachable(build(np.ones(2), np.ones(2, dtype=bool)), {}, floor=floor)
