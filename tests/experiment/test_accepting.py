"""Which runs are judged against which control, and what is written of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from evenhand.config.experiment_schema import AcceptanceConfig
from evenhand.config.load import LoadedExperiment
from evenhand.core.acceptance import Acceptance
from evenhand.core.errors import ConfigError, DataError
from evenhand.core.predictions import Predictions, predictions_from_rows
from evenhand.core.records import Row
from evenhand.experiment.accepting import accept_phases, accept_runs, write_acceptances
from evenhand.experiment.results import Results
from evenhand.report.mitigations import render_acceptance

ROWS = [
    Row(id=f"r{i:03}", text="-", label=("hate", "normal")[i % 2], groups=("ab"[i % 4 // 2],))
    for i in range(400)
]
CASES = [
    Row(
        id=f"f{i:03}",
        text="-",
        label="normal",
        groups=("a",),
        fine_label=("pride", "negated_hate")[i % 2],
        cluster=f"t{i % 80}",
    )
    for i in range(240)
]


def answers(rows: list[Row], flagged: float, *, seed: int) -> Predictions:
    """Find all hate, and flag a share of A's normal rows."""
    luck = np.random.default_rng(seed).random(len(rows))
    scores = [
        row.label == "hate" or ("a" in row.groups and x < flagged)
        for row, x in zip(rows, luck, strict=True)
    ]
    return predictions_from_rows(rows, scores=np.array(scores, dtype=float))


@dataclass
class Fake:
    """As much of a run as an acceptance reads; it flags a share of the normal rows of group A."""

    name: str
    flagged: float
    config: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    threshold: float = 0.5
    cases_flagged: float = 0.0
    evaluation_names: tuple[str, ...] = ("test", "cases")

    def predictions(self, name: str) -> Predictions:
        if name == "cases":
            return answers(CASES, self.cases_flagged, seed=1)
        return answers(ROWS, self.flagged, seed=self.config["seed"])

    def evaluation(self, _: str) -> Any:
        return SimpleNamespace(threshold=self.threshold)


def seeds(name: str, flagged: float, **changes: Any) -> list[Fake]:
    return [
        Fake(f"{name}-seed{n}", flagged, {"seed": n, "note": name}, **changes) for n in (1, 2, 3)
    ]


def judged(runs: list[Fake], control: list[str], **rule: Any) -> tuple[Acceptance, ...]:
    found = cast("list[Results]", runs)
    return accept_runs(found, control=control, rule=AcceptanceConfig(set="test", **rule))


def test_each_configuration_is_judged_against_the_control() -> None:
    runs = [*seeds("plain", 0.8), *seeds("mended", 0.3), *seeds("same", 0.8, threshold=0.62)]
    found = judged(runs, ["plain-seed1"], groups=("a",), functional="cases")
    assert [(one.control, one.treated, one.accepted) for one in found] == [
        ("plain (3 seeds)", "mended (3 seeds)", True),
        ("plain (3 seeds)", "same (3 seeds)", False),
    ]
    assert found[0].falls == ("a",) and found[0].functional == "cases"
    assert found[1].thresholds["same-seed2"] == 0.62
    assert judged(runs, ["plain-seed1"], groups=("a",), functional="cases") == found


def test_functional_cases_that_do_not_hold_are_refused() -> None:
    runs = [Fake("plain", 0.8, {"seed": 1}), Fake("b", 0.2, {"seed": 1}, cases_flagged=0.5)]
    (alone,) = judged(runs, ["plain"])
    (strict,) = judged(runs, ["plain"], functional="cases")
    assert alone.accepted and alone.functional is None and not strict.accepted
    assert {part.kind for part in strict.missing} == {"functional_holds"}


@dataclass
class Scored(Fake):
    """A run with scores between 0 and 1, raised to a power: another scale, the same ranking."""

    power: float = 1.0
    evaluation_names: tuple[str, ...] = ("val", "test", "cases")

    def predictions(self, name: str) -> Predictions:
        rows = CASES if name == "cases" else ROWS
        rng = np.random.default_rng([len(name), len(rows)])
        hate = np.array([row.label == "hate" for row in rows])
        scores = 1 / (1 + np.exp(-(2.0 * hate - 1.0 + rng.normal(size=len(rows)))))
        found = predictions_from_rows(rows, scores=scores**self.power)
        return Predictions(found.frame.assign(score=np.nan)) if name == "unscored" else found


def test_at_equal_recall_another_scale_of_the_scores_changes_nothing() -> None:
    control, treated = Scored("plain", 0.0), Scored("scaled", 0.0, power=3.0)
    (as_it_is,) = judged([control, treated], ["plain"], groups=("a",))
    assert as_it_is.falls == ("a",)  # the scores are lower, so less is flagged at 0.5
    assert as_it_is.of("fnr_holds")[0].status == "violated"
    rule = {"groups": ("a",), "functional": "cases", "at_recall": 0.75, "fitted_on": "val"}
    (found,) = judged([control, treated], ["plain"], **rule)
    assert {one.difference.value for one in found.conditions} == {0.0}
    assert not found.accepted and (found.at_recall, found.fitted_on) == (0.75, "val")
    validation = control.predictions("val").frame
    scores = validation.loc[validation["label"] == "hate", "score"].to_numpy(float)
    threshold = found.thresholds["plain"]
    assert threshold is not None
    assert (scores >= threshold).mean() == 0.75
    assert found.thresholds["scaled"] == pytest.approx(threshold**3)
    assert (
        "Every run decides at the highest threshold that finds 75% of the hate of val: plain at"
        in render_acceptance(found)
    )


@pytest.mark.parametrize("name", [None, "test", "unscored"])
def test_thresholds_need_rows_of_their_own_with_scores(name: str | None) -> None:
    runs: list[Fake] = [Scored("plain", 0.0), Scored("scaled", 0.0, power=3.0)]
    with pytest.raises((ConfigError, DataError)) as caught:
        judged(runs, ["plain"], at_recall=0.75, fitted_on=name)
    assert [one.place for one in caught.value.problems] == [
        "score" if name == "unscored" else "fitted_on"
    ]


@pytest.mark.parametrize(
    ("control", "message"),
    [
        (["plian"], '"plian" is not among the runs; did you mean "plain"?'),
        (["plain", "other"], "plain and other differ in more than their seed"),
    ],
)
def test_a_control_that_cannot_be_one(control: list[str], message: str) -> None:
    runs = [Fake(name, 0.5, {"seed": 1, "note": name}) for name in ("plain", "other", "third")]
    with pytest.raises(ConfigError) as caught:
        judged(runs, control)
    assert message in caught.value.problems[0].message


def test_a_control_alone() -> None:
    with pytest.raises(ConfigError) as caught:
        judged([Fake("plain", 0.5, {"seed": 1})], ["plain"])
    assert "no other run" in caught.value.problems[0].message


def experiment(acceptance: AcceptanceConfig | None, runs: list[Fake]) -> LoadedExperiment:
    phases = [SimpleNamespace(name=one.name, entry=one.name.rpartition("-")[0]) for one in runs]
    control = tuple(one.name for one in phases if one.entry == "plain")
    config = SimpleNamespace(acceptance=acceptance)
    return cast(
        "LoadedExperiment", SimpleNamespace(config=config, phases=phases, control_phases=control)
    )


def test_the_phases_of_an_experiment_are_judged_where_it_asks_for_it(tmp_path: Path) -> None:
    runs = [*seeds("plain", 0.8), *seeds("mended", 0.3)]
    for one in runs:  # rows that every seed draws for itself
        one.manifest = {"inputs": {"train": one.name}}
    results = cast("list[Results]", runs)
    assert accept_phases(experiment(None, runs), results) == ()
    found = accept_phases(experiment(AcceptanceConfig(set="test"), runs), results)
    assert [(one.treated, one.accepted) for one in found] == [("mended (3 seeds)", True)]
    write_acceptances(found, tmp_path)
    (document,) = json.loads((tmp_path / "acceptance.json").read_text(encoding="utf-8"))
    assert Acceptance.model_validate(document) == found[0]
    write_acceptances((), tmp_path)
    assert not any(tmp_path.iterdir())
