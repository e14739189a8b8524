"""Which runs, seeds and baselines are paired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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


def pairs(
    *runs: Fake, control: Sequence[str] = (), entries: Mapping[str, str] | None = None
) -> list[tuple[str, str]]:
    results = cast("list[Results]", list(runs))
    found = compare_runs(results, on="test", control=control, entries=entries)
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


def test_a_baseline_that_is_the_same_with_every_seed_borrows_no_variance() -> None:
    seeds = [run(f"s{'x' * 4 * seed}", 1, note="s", seed=seed) for seed in (1, 2)]

    def width(*runs: Fake) -> float:
        found = compare_runs(cast("list[Results]", list(runs)), on="test")
        (pair,) = found.pairs
        assert pair.first == BASELINE
        test = pair.test("accuracy")
        assert test is not None
        assert test.test == "t_rows_and_seeds"
        assert test.difference.low is not None
        assert test.difference.high is not None
        return test.difference.high - test.difference.low

    assert width(*seeds) < width(seeds[0], replace(seeds[1], baseline=None))


def test_where_a_file_lies_matters_only_without_its_hash() -> None:
    def seeds(**manifest: Any) -> list[Fake]:
        found = [run(f"s{'x' * n}", 5, note="s", seed=n, train_file=f"{n}.csv") for n in (1, 2)]
        for one in found:
            one.manifest = manifest
        return found

    assert pairs(*seeds(inputs={"train": "same", "config": "any"})) == [(BASELINE, "sx (2 seeds)")]
    assert len(pairs(*seeds())) == 3


def test_with_a_control_only_it_and_the_baselines_are_compared_with() -> None:
    runs = [run("a", 5), run("bb", 5), run("ccc", 5)]
    assert pairs(*runs, control=["bb"]) == [
        ("bb", "a"),
        ("bb", "ccc"),
        *((BASELINE, name) for name in ("a", "bb", "ccc")),
    ]


def test_one_seed_of_the_control_stands_for_all() -> None:
    runs = [run(f"s{'x' * n}", note="s", seed=n) for n in (1, 2)]
    runs += [run("other"), run("further")]
    assert pairs(*runs, control=["sx"]) == [
        ("sx (2 seeds)", "other"),
        ("sx (2 seeds)", "further"),
    ]


def test_a_key_that_an_older_run_does_not_have_makes_no_other_setting() -> None:
    seeds = [run("s", note="s", seed=1), run("st", note="s", seed=2, augment=None), run("else")]
    assert pairs(*seeds) == [("s (2 seeds)", "else")]
    assert len(pairs(*seeds[:1], run("st", note="s", seed=2, augment={}), seeds[2])) == 3


def test_seeds_of_one_entry_may_have_other_inputs() -> None:
    runs = [run("s", note="s", seed=1), run("st", note="s", seed=2), run("else", note="e")]
    for one in runs:
        one.manifest = {"inputs": {"init_adapter": one.name}}
    assert len(pairs(*runs)) == 3
    entries = {"s": "child", "st": "child", "else": "parent"}
    assert pairs(*runs, entries=entries) == [("s (2 seeds)", "else")]
