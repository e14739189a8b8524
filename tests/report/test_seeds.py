"""A summary of several seeds and a control: what is compared with what."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tests.report.built import TRAINING, build_summary, phase, predictions, section

from evenhand.core.predictions import Predictions
from evenhand.decide.compare import compare
from evenhand.measure.classification import evaluate
from evenhand.report.analysis import baseline_pairs
from evenhand.report.comparison import set_baselines
from evenhand.report.configuration import changed_keys, reference_phase
from evenhand.report.recommendations import recommendations
from evenhand.report.records import PhaseReport, Selection, Summary
from evenhand.report.summary import render_summary
from evenhand.report.tables import reference_for

SEEDS = (1, 2)
ENTRIES = {
    "plain": {},
    "swaps": {"augment": {"methods": ["swaps"]}},
    "weights": {"row_weights": "group_label"},
}


def _phase(name: str, answers: Predictions, baseline: Predictions, **config: object) -> PhaseReport:
    rng = np.random.default_rng(0)
    found = evaluate(
        answers, name="val", rng=rng, n_bootstrap=100, baselines={"tfidf_logreg": baseline}
    )
    return phase(name, {"val": found}, config=config)


@pytest.fixture(scope="module")
def summary() -> Summary:
    """Three entries of two seeds each, as the runner puts them: all of seed 1, then of seed 2."""
    lift = {"plain": 0.3, "swaps": 0.4, "weights": 2.5}
    models = {
        f"{entry}-seed{seed}": predictions(120, lift=lift[entry] + seed / 100)
        for seed in SEEDS
        for entry in ENTRIES
    }
    # Each run's baseline answers otherwise, as if it had been trained on other rows.
    baselines = {
        name: predictions(120, lift=2.0 + number / 2) for number, name in enumerate(models)
    }
    phases = tuple(
        _phase(f"{entry}-seed{seed}", models[name], baselines[name], **settings, seed=seed)
        for seed in SEEDS
        for entry, settings in ENTRIES.items()
        if (name := f"{entry}-seed{seed}")
    )
    seeds = {f"{entry} (2 seeds)": tuple(f"{entry}-seed{n}" for n in SEEDS) for entry in ENTRIES}
    control, *treated = seeds
    trained_as = f"baseline: tfidf_logreg of {control}"
    own = {f"baseline: tfidf_logreg of {run}": baselines[run] for run in seeds[control]}
    comparison = compare(
        models | own,
        set_name="val",
        rng=np.random.default_rng(1),
        n_bootstrap=100,
        replicates=seeds | {trained_as: tuple(own)},
        pairs=[*((control, name) for name in treated), (trained_as, control)],
    )
    f1 = {item.name: item.evaluations["val"].metrics.f1.value for item in phases}
    return dataclasses.replace(
        build_summary(),
        phases=phases,
        comparisons=(comparison,),
        selection=Selection("val", "f1", "weights-seed2", f1, "the highest F1."),
        control=seeds[control],
    )


def test_a_phase_is_compared_with_the_control_of_its_seed(summary: Summary) -> None:
    found = {one.name: reference_phase(summary, one) for one in summary.phases}
    assert {name: None if other is None else other.name for name, other in found.items()} == {
        "plain-seed1": None,
        "swaps-seed1": "plain-seed1",
        "weights-seed1": "plain-seed1",
        "plain-seed2": None,
        "swaps-seed2": "plain-seed2",
        "weights-seed2": "plain-seed2",
    }
    # A control that continues a parent is laid beside it; so is a phase where there is no control.
    first, second, *others = summary.phases
    continued = dataclasses.replace(first, parent="swaps-seed1")
    treated = dataclasses.replace(second, parent="weights-seed1")
    built = dataclasses.replace(summary, phases=(continued, treated, *others))
    assert reference_phase(built, continued) is treated
    assert reference_phase(built, treated) is continued
    free = dataclasses.replace(built, control=())
    assert reference_phase(free, treated) is others[0]
    free = dataclasses.replace(summary, control=())
    before = {one.name: reference_phase(free, one) for one in free.phases}
    assert before["plain-seed2"] is None
    assert before["weights-seed1"] is free.phase("swaps-seed1")


def test_a_section_shows_the_treatment_and_the_test_over_seeds(summary: Summary) -> None:
    text = section(render_summary(summary), "Phase 3: weights (2 seeds) - COMPLETED")
    assert '"row_weights": "group_label"' in text
    assert "Change from plain-seed2 | Paired test over seeds" in text
    assert "not tested" not in text.split("| F1 |")[1].split("\n")[0]
    assert "(weights (2 seeds) against plain (2 seeds) on val)" in text
    assert "p below 0.001 after Holm (weights" in text and "swaps" not in text
    assert "Not compared with" not in text
    other = section(render_summary(summary), "Phase 2: swaps (2 seeds) - COMPLETED")
    assert '"augment": {"methods": ["swaps"]}' in other


def test_a_phase_stands_beside_its_own_baseline(summary: Summary) -> None:
    text = section(render_summary(summary), "Phase 1: plain (2 seeds) - COMPLETED")
    own = summary.phases[0].evaluations["val"].baselines["tfidf_logreg"].metrics.f1.value
    assert text.count("of the baseline tfidf_logreg") == 1
    assert "of plain (2 seeds) is below" in text
    assert "of the baseline tfidf_logreg of plain (2 seeds) (paired test over" in text
    # That of the others was not tested: the values of the run that is told of stand side by side.
    swaps = section(render_summary(summary), "Phase 2: swaps (2 seeds) - COMPLETED")
    own = summary.phases[1].evaluations["val"].baselines["tfidf_logreg"].metrics.f1.value
    assert swaps.count("of the baseline tfidf_logreg") == 1
    assert f"is no higher than {own:.4f} of the baseline tfidf_logreg." in swaps


def test_a_set_that_fewer_seeds_were_evaluated_on_takes_no_setting_apart(summary: Summary) -> None:
    [comparison] = summary.comparisons
    runs = [one.name for one in summary.phases if one.name != "plain-seed2"]
    few = compare(
        {name: predictions(120, lift=1.0 + number) for number, name in enumerate(runs)},
        set_name="other",
        rng=np.random.default_rng(2),
        n_bootstrap=100,
        replicates={"weights (both)": ("weights-seed1", "weights-seed2")},
        pairs=[("plain-seed1", "weights (both)"), ("plain-seed1", "swaps-seed1")],
    )
    phases = tuple(
        dataclasses.replace(
            one,
            evaluations={
                **one.evaluations,
                "other": one.evaluations["val"].model_copy(update={"name": "other"}),
            },
        )
        for one in summary.phases
    )
    built = dataclasses.replace(summary, phases=phases, comparisons=(comparison, few))
    assert [one.name for one in built.settings] == [f"{entry} (2 seeds)" for entry in ENTRIES]
    assert "weights (both)" in built.own_models
    swaps, plain = (built.phase(f"{name}-seed1") for name in ("swaps", "plain"))
    assert swaps is not None and plain is not None
    on_val, on_other = (reference_for(built, swaps, name, plain) for name in ("val", "other"))
    assert on_val is not None and on_val.over_seeds
    assert on_other is not None and not on_other.over_seeds
    assert ("f1", None) in (on_other.tests or {})
    assert [*baseline_pairs(built, "other", "weights-seed2")] == []


def test_the_seed_is_no_difference_and_equal_size_must_be_known(summary: Summary) -> None:
    plain, _, weights = summary.phases[:3]
    other = dataclasses.replace(weights, config=weights.config | {"seed": 7, "lora_r": 4})
    assert changed_keys(summary, plain, other) == ["lora_r"]
    plain = dataclasses.replace(plain, config=plain.config | {"lora_alpha": 32})
    layers = {"lora_r": 16, "lora_alpha": 16, "lora_target_modules": ["o_proj"]}
    changed = []
    for size in (TRAINING["trainable_parameters"], 7, None):
        training = {**TRAINING, "trainable_parameters": size}
        one = dataclasses.replace(plain, config=plain.config | layers, training=training)
        changed.append(changed_keys(summary, plain, one))
    assert changed == [
        ["lora_target_modules"],
        ["lora_r", "lora_target_modules"],
        ["lora_r", "lora_target_modules"],
    ]


def test_a_baseline_that_only_settings_differ_in_stands_once_a_setting(summary: Summary) -> None:
    shared = {
        entry: summary.phase(f"{entry}-seed1").evaluations["val"].baselines for entry in ENTRIES
    }
    phases = tuple(
        dataclasses.replace(
            one,
            evaluations={
                "val": one.evaluations["val"].model_copy(
                    update={"baselines": shared[one.name.partition("-")[0]]}
                )
            },
        )
        for one in summary.phases
    )
    assert len(set_baselines(summary, "val")) == 6
    assert [*set_baselines(dataclasses.replace(summary, phases=phases), "val")] == [
        f"tfidf_logreg (trained as {entry} (2 seeds))" for entry in ENTRIES
    ]


@pytest.mark.parametrize(
    ("tuning", "current", "method"),
    [
        ("full", "trains every weight, of all modules.", "Train anew with two more epochs"),
        ("none", "was not trained.", "Train an adapter first"),
    ],
)
def test_without_an_adapter_none_is_spoken_of(
    summary: Summary, tuning: str, current: str, method: str
) -> None:
    phases = tuple(
        dataclasses.replace(one, config={"tuning": tuning, "seed": one.config["seed"]})
        for one in summary.phases
    )
    options = recommendations(dataclasses.replace(summary, phases=phases))
    modules, continued = (
        next(one for one in options if one.title.startswith(f"Option {letter}")) for letter in "CD"
    )
    assert modules.current == f"weights-seed2 {current}"
    assert "lora_target_modules" not in modules.method
    assert continued.method.startswith(method)


def test_other_modules_are_told_of_once_a_setting(summary: Summary) -> None:
    layers = {"plain": ["q_proj"], "swaps": ["q_proj"], "weights": ["q_proj", "o_proj"]}
    ranks = {"plain": 64, "swaps": 64, "weights": 32}
    phases = tuple(
        dataclasses.replace(
            one,
            config=one.config
            | {
                "lora_target_modules": layers[entry],
                "lora_r": ranks[entry],
                "lora_alpha": ranks[entry],
                "augment": None,
            },
        )
        for one in summary.phases
        if (entry := one.name.partition("-")[0])
    )
    changed = dataclasses.replace(summary, phases=phases)
    [option] = [one for one in recommendations(changed) if one.title.startswith("Option C")]
    assert option.expected.count("plain (2 seeds) (q_proj") == 1
    assert "as many trainable parameters" in option.expected
    assert "F1 on val" in option.expected
    assert option.status == "Tried in plain (2 seeds) and swaps (2 seeds)."
