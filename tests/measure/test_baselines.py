from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evenhand.core.errors import DataError
from evenhand.core.records import Row
from evenhand.data.sources import read_dataset
from evenhand.measure.baselines import baseline_predictions
from evenhand.measure.classification import evaluate, learned_nothing

WORDS = {"hate": "bad awful terrible", "normal": "good fine lovely"}


def rows(n: int) -> list[Row]:
    labels = ["hate" if i % 2 else "normal" for i in range(n)]
    return [Row(id=f"{i}", text=f"{WORDS[x]} {i}", label=x) for i, x in enumerate(labels)]


def test_constants_and_text_baseline() -> None:
    baselines = baseline_predictions(rows(40), rows(20), seed=0)
    assert list(baselines) == ["always_hate", "always_normal", "tfidf_logreg"]
    result = evaluate(
        baselines["tfidf_logreg"],
        name="toy",
        rng=np.random.default_rng(0),
        n_bootstrap=100,
        baselines=baselines,
    )
    assert result.metrics.f1.value == 1.0
    assert not learned_nothing(result)
    always_hate, always_normal = (result.baselines[k] for k in ("always_hate", "always_normal"))
    assert always_hate.metrics.fpr.value == 1.0
    assert always_hate.metrics.recall.value == 1.0
    assert always_normal.metrics.f1.value == 0.0
    assert always_normal.metrics.precision.reason == "no_positive_decisions"
    assert always_normal.metrics.roc_auc.value == 0.5


def test_the_same_seed_gives_the_same_scores() -> None:
    first, second = (
        baseline_predictions(rows(40), rows(20), seed=3)["tfidf_logreg"] for _ in range(2)
    )
    assert first.frame["score"].equals(second.frame["score"])


def test_training_rows_need_two_labels() -> None:
    with pytest.raises(DataError, match="training rows"):
        baseline_predictions(rows(40)[::2], rows(4), seed=0)
    with pytest.raises(DataError, match="training rows"):
        baseline_predictions([Row(id="a", text="t"), *rows(4)], rows(4), seed=0)


def test_known_figures_on_the_real_data(shared_data: Path) -> None:
    train = read_dataset(shared_data / "finetune" / "train.jsonl").rows
    production = read_dataset(shared_data / "unified" / "unified_test.json").rows
    baselines = baseline_predictions(train, production, seed=0)
    result = evaluate(
        baselines["tfidf_logreg"],
        name="production",
        rng=np.random.default_rng(0),
        n_bootstrap=200,
        baselines=baselines,
    )
    assert result.n_scored == 1009
    assert result.baselines["always_hate"].metrics.f1.value == pytest.approx(0.6216, abs=5e-5)
    # The known figures are 0.702 and 18%; C moves them by about as much as is allowed here.
    assert result.metrics.f1.value == pytest.approx(0.702, abs=0.02)
    assert result.groups["lgbtq"].fpr.value == pytest.approx(0.18, abs=0.03)
    assert result.metrics.f1.low < 0.702 < result.metrics.f1.high
