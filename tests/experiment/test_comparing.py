"""Which runs, seeds and baselines are paired."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from evenhand.core.predictions import Predictions, predictions_from_rows
from evenhand.core.records import Row
from evenhand.experiment.comparing import BASELINE, compare_runs
from evenhand.experiment.results import Results

ROWS = [Row(id=f"r{i}", text="-", label=("hate", "normal")[i % 2]) for i in range(40)]


def answers(seed: int) -> Predictions:
    return predictions_from_rows(ROWS, scores=np.random.default_rng(seed).random(40))


@dataclass
class Fake:
    """As much of a run as a comparison reads."""

    name: str
    baseline: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)

    def predictions(self, _: str) -> Predictions:
        return answers(len(self.name))

    def baselines(self, _: str) -> dict[str, Predictions]:
        return {} if self.baseline is None else {"tfidf_logreg": answers(self.baseline)}


def pairs(*runs: Fake) -> list[tuple[str, str]]:
    found = compare_runs(cast("list[Results]", list(runs)), on="test")
    return [(pair.first, pair.second) for pair in found.pairs]


def run(name: str, baseline: int | None = None, **config: Any) -> Fake:
    return Fake(name, baseline, {"note": name, "seed": 1, **config})


def test_runs_whose_baselines_answer_alike_share_one() -> None:
    assert pairs(run("a", 5), run("bb", 5)) == [("a", "bb"), (BASELINE, "a"), (BASELINE, "bb")]
    assert pairs(run("a"), run("bb", 5)) == [("a", "bb"), (BASELINE, "bb")]


def test_each_run_is_paired_with_the_baseline_of_its_own_rows() -> None:
    assert pairs(run("a", 5), run("bb", 6)) == [
        ("a", "bb"),
        (f"{BASELINE} of a", "a"),
        (f"{BASELINE} of bb", "bb"),
    ]


def test_seeds_with_baselines_of_their_own_are_paired_with_all_of_those() -> None:
    seeds = [run(f"s{'x' * seed}", seed, note="s", seed=seed) for seed in (1, 2)]
    (pair,) = pairs(*seeds)
    assert pair == (f"{BASELINE} of {pair[1]}", "sx (2 seeds)")


def test_where_a_file_lies_matters_only_without_its_hash() -> None:
    def seeds(**manifest: Any) -> list[Fake]:
        found = [run(f"s{'x' * n}", 5, note="s", seed=n, train_file=f"{n}.csv") for n in (1, 2)]
        for one in found:
            one.manifest = manifest
        return found

    assert pairs(*seeds(inputs={"train": "same", "config": "any"})) == [(BASELINE, "sx (2 seeds)")]
    assert len(pairs(*seeds())) == 3
