from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from evenhand.core.predictions import Predictions, predictions_from_rows
from evenhand.core.records import Row

GROUPS = ("alpha", "beta", "gamma")


def make_rows(n: int, *, seed: int = 0, clusters: int | None = None) -> list[Row]:
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        member = tuple(group for group in GROUPS if rng.random() < 0.4)
        rows.append(
            Row(
                id=f"row-{i:05}",
                text=f"text {i}",
                label="hate" if rng.random() < 0.45 else "normal",
                groups=member,
                source=("one", "two")[i % 2],
                fine_label=("plain", "offensive", None)[i % 3],
                cluster=None if clusters is None else f"c{i % clusters}",
            )
        )
    return rows


def make_scores(rows: list[Row], *, seed: int = 1, lift: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    logit = rng.normal(size=len(rows)) + lift * np.array([row.label == "hate" for row in rows])
    return 1 / (1 + np.exp(-(logit - lift / 2)))


@pytest.fixture(scope="session")
def make_predictions() -> Callable[..., Predictions]:
    def make(n: int, *, seed: int = 0, clusters: int | None = None) -> Predictions:
        rows = make_rows(n, seed=seed, clusters=clusters)
        return predictions_from_rows(rows, scores=make_scores(rows, seed=seed + 1))

    return make
