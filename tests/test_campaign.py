"""docs/results.md is what the committed record gives, and the record what run folders hold."""

from __future__ import annotations

import copy
import functools
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.campaign import catalogue, means, sections, words
from benchmarks.campaign.analyses import _composition, _f1_change
from benchmarks.campaign.catalogue import places
from benchmarks.campaign.collect import collect, with_earlier
from benchmarks.campaign.reading import read_experiment
from benchmarks.campaign.render import render, verdicts, with_answers
from sklearn.metrics import f1_score, roc_auc_score

from evenhand.config.load import load_experiment
from evenhand.config.schema import PhaseConfig
from evenhand.core.acceptance import Acceptance, Condition
from evenhand.core.evaluation import Evaluation, MetricValue, write_evaluation
from evenhand.core.paths import read_json, write_json
from evenhand.core.predictions import predictions_from_rows, write_predictions
from evenhand.core.records import Row
from evenhand.experiment.plan import plan_experiment
from evenhand.finetune.embedded import EMBEDDED, find_source
from evenhand.measure.classification import evaluate
from evenhand.prompts.template import load_prompt

FILES = sorted(catalogue.CONFIGS.glob("*.json"))
GROUPS = ("lgbtq", "mexican", "middle_east")
SEEDS = (42, 43)
# Of the shipped experiments so many entries are made up; of the others, every phase.
RUN = {
    "modules": ("qv_r64", "all_linear_r12"),
    "ranks": ("qv_r64", "qv_r8"),
    "continued": ("qv_r64", "continued", "one_go"),
    "mitigation": ("untreated", "swaps", "pairing"),
    "mitigation_policy": ("offensive_as_hate", "offensive_as_normal"),
    "mitigation_corpus": ("untreated", "corpus"),
    "small_models": ("minilm_full", "mpnet_lora"),
    "learning_curve": ("rows_336", "rows_all"),
}


def test_the_page_is_what_the_record_gives() -> None:
    record = read_json(catalogue.RECORD)
    page, plots = render(record)
    assert catalogue.PAGE.read_text(encoding="utf-8") == page, (
        "python -m benchmarks.campaign render"
    )
    for name in plots:
        assert catalogue.PAGE.with_suffix("").joinpath(f"{name}.svg").is_file()
    readme = catalogue.README.read_text(encoding="utf-8")
    assert verdicts(record) in readme
    assert with_answers(readme, record) == readme


def test_readme_has_the_final_models_figures() -> None:
    record, readme = read_json(catalogue.RECORD), catalogue.README.read_text(encoding="utf-8")
    finals = [name for name in record["experiments"] if name.startswith("final_")]
    assert len(finals) == 4
    for name in finals:
        [found] = record["experiments"][name]["entries"].values()
        own = found["sets"][catalogue.PRODUCTION]
        rates = [f"{own['groups'][group]['fpr']['value']:.1%}" for group in GROUPS]
        assert f"| {' | '.join([words.number(own['f1']), *rates])} |" in readme, name
    assert words.difference(words.as_test(record["finals"]["final_mpnet/mpnet"])) in readme


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shipped_files_load(path: Path) -> None:
    experiment = load_experiment(path, check_files=False)
    assert experiment.config.name == path.stem
    assert path.stem in catalogue.NAMES
    has_production = bool(experiment.sets_of("production"))
    assert has_production == path.stem.startswith("final_")
    assert experiment.selection_set.role == "validation"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shipped_files_plan(path: Path, shared_data: Path) -> None:
    assert shared_data.is_dir()
    one_seed = load_experiment(path, overrides=_one_seed(path))
    here = [phase for phase in one_seed.phases if _is_here(phase.config.model_name_or_path)]
    if not here:
        pytest.skip("the model is not fetched")
    # One phase a model: what differs between phases of a model is checked on loading.
    first = {phase.config.model_name_or_path: phase for phase in reversed(here)}
    plan = plan_experiment(replace(one_seed, phases=tuple(first.values())))
    assert len(plan.sets["unified_val"]) == 513
    if "held_out" in plan.sets:
        held = plan.sets["held_out"].rows
        assert len(held) == 937
        assert sum(row.label == "normal" and row.groups == ("lgbtq",) for row in held) == 260
        training = {row.text for row in plan.sets["train"].rows}
        assert not training & {row.text for row in held}


def test_the_adapters_of_equal_size_are() -> None:
    experiment = load_experiment(catalogue.CONFIGS / "modules.json", check_files=False)
    sizes: dict[str, float] = {}
    width, key_value, hidden = 576, 192, 1536
    shapes = {
        "q_proj": width + width,
        "k_proj": width + key_value,
        "v_proj": width + key_value,
        "o_proj": width + width,
        "gate_proj": width + hidden,
        "up_proj": width + hidden,
        "down_proj": hidden + width,
    }
    for phase in experiment.phases:
        targets = phase.config.lora_target_modules
        assert isinstance(targets, tuple)
        assert phase.config.lora_alpha == phase.config.lora_r
        sizes[phase.entry] = phase.config.lora_r * sum(shapes[target] for target in targets)
    for entry in ("qkv_r46", "qvo_r40", "qv_gate_r30", "all_linear_r12"):
        assert sizes[entry] / sizes["qv_r64"] == pytest.approx(1.0, abs=0.02)


def test_an_empty_campaign_says_so(tmp_path: Path) -> None:
    record = collect(places(experiments=tmp_path), experiments=tmp_path)
    page, plots = render(record)
    assert plots == {}
    assert page.count("**Not run yet.**") == 13
    assert "{{ " not in page


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folders with made-up scores, as the shipped files would leave them."""
    folder = tmp_path_factory.mktemp("campaign")
    for place in places(experiments=folder):
        experiment = load_experiment(place.config, check_files=False)
        sets = [one.name for one in experiment.sets if one.name not in ("train", "functional")]
        for number, phase in enumerate(experiment.phases):
            known = RUN.get(place.name)
            if known is not None and (phase.entry not in known or phase.config.seed not in SEEDS):
                continue
            _write_run(place.folder / "runs" / phase.name, phase.config, sets=sets, number=number)
    write_json(folder / "mitigation" / "acceptance.json", _acceptances())
    return folder


@pytest.fixture(scope="module", autouse=True)
def few_resamples() -> Iterator[None]:
    """Make-believe rows need no 2,000 resamples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(means, "N_BOOTSTRAP", 500)
        yield


@pytest.fixture(scope="module")
def record(campaign: Path) -> dict[str, Any]:
    return collect(places(experiments=campaign), experiments=campaign)


def test_the_record_is_the_same_every_time(campaign: Path, record: dict[str, Any]) -> None:
    only = [
        one for one in places(experiments=campaign) if one.name in ("continued", "final_minilm")
    ]
    again = collect(only, experiments=campaign)
    for one in only:
        assert again["experiments"][one.name] == record["experiments"][one.name]


def test_what_was_not_run_here_stays_as_it_was(campaign: Path, record: dict[str, Any]) -> None:
    here = campaign.parent / "one_experiment"
    shutil.copytree(campaign / "final_minilm", here / "final_minilm")
    alone = collect(places(experiments=here), experiments=here)
    assert "Not run yet." in render(alone)[0]
    merged = with_earlier(alone, record)
    # Without the recommended model's rows there is nothing to pair a final model's with.
    assert json.dumps({**merged, "finals": 0}) == json.dumps({**record, "finals": 0})
    assert {*record["finals"]} - {*merged["finals"]} == {"final_minilm/minilm"}
    earlier = copy.deepcopy(record)
    earlier["experiments"]["final_minilm"]["finished"] = 7
    earlier["tuned"]["final_minilm/minilm"] = earlier["speed"] = {"other": 1}
    merged = with_earlier(alone, earlier)
    assert merged["tuned"] == record["tuned"]
    assert merged["experiments"] == record["experiments"]
    assert merged["speed"] == {"other": 1}


def test_the_record_says_what_is_missing(record: dict[str, Any]) -> None:
    facts = record["experiments"]["small_models"]
    assert facts["finished"] == 4
    assert len(facts["missing"]) == 4 * 3 - 4
    assert facts["entries"]["minilm_full"]["seeds"] == [42, 43]
    assert "minilm_full (44)" in render(record)[0]


def test_runs_of_another_configuration_are_left_out(tmp_path: Path) -> None:
    (place,) = (one for one in places(experiments=tmp_path) if one.name == "ranks")
    (phase, *_) = load_experiment(place.config, check_files=False).phases
    other = phase.config.model_copy(update={"lora_r": 9})
    _write_run(place.folder / "runs" / phase.name, other, sets=["unified_val"], number=0)
    found = read_experiment(place)
    assert found.other == (phase.name,)
    assert not found.every_run


def test_figures_are_those_of_the_predictions(campaign: Path, record: dict[str, Any]) -> None:
    facts = record["experiments"]["modules"]["entries"]["qv_r64"]["sets"]["held_out"]
    (place,) = (one for one in places(experiments=campaign) if one.name == "modules")
    rows = read_experiment(place).rows("held_out")
    assert rows is not None
    scores = [rows.scores[f"qv_r64-seed{seed}"] for seed in SEEDS]
    assert facts["f1"]["value"] == pytest.approx(
        np.mean([f1_score(rows.hate, score >= 0.5) for score in scores]), abs=1e-6
    )
    assert facts["roc_auc"]["seeds"] == pytest.approx(
        [roc_auc_score(rows.hate, score) for score in scores], abs=1e-6
    )
    normal = rows.groups["lgbtq"] & ~rows.hate
    assert facts["groups"]["lgbtq"]["fpr"]["value"] == pytest.approx(
        np.mean([(score >= 0.5)[normal].mean() for score in scores]), abs=1e-6
    )
    for metric in ("f1", "roc_auc", "recall", "precision"):
        assert facts[metric]["low"] < facts[metric]["value"] < facts[metric]["high"]


def test_changes_of_roc_auc_are_between_the_same_seeds(
    campaign: Path, record: dict[str, Any]
) -> None:
    (place,) = (one for one in places(experiments=campaign) if one.name == "ranks")
    rows = read_experiment(place).rows("held_out")
    assert rows is not None
    aucs = {name: roc_auc_score(rows.hate, score) for name, score in rows.scores.items()}
    pairs = record["experiments"]["ranks"]["comparisons"]["held_out"]["pairs"]
    (found,) = (one["roc_auc"] for one in pairs if one["second"] == "qv_r8")
    wanted = [aucs[f"qv_r8-seed{seed}"] - aucs[f"qv_r64-seed{seed}"] for seed in SEEDS]
    assert found["seeds"] == pytest.approx(wanted, abs=1e-6)
    assert found["low"] < found["value"] < found["high"]
    verdict, table = sections.ranks(record)
    assert words.difference(words.as_test(found)) in table
    assert "ROC AUC" not in verdict  # two seeds are no claim
    apart = copy.deepcopy(record)
    for one in apart["experiments"]["ranks"]["entries"].values():
        one["seeds"] = [42, 43, 44]
    for one in apart["experiments"]["ranks"]["comparisons"]["held_out"]["pairs"]:
        one["roc_auc"] = {"value": -0.07, "low": -0.09, "high": -0.05}
    assert sections.ranks(apart)[0].endswith("with: qv_r8 (-7.0 pp [-9.0, -5.0]).")


def test_thresholds_are_found_on_validation_rows(campaign: Path, record: dict[str, Any]) -> None:
    (place,) = (one for one in places(experiments=campaign) if one.name == "final_minilm")
    rows = read_experiment(place).rows("unified_val")
    assert rows is not None
    score = rows.scores["minilm"]
    even = record["break_even"]["final_minilm/minilm"]
    flagged = score >= even["value"] - 1e-6
    assert flagged.sum() == rows.hate.sum()
    assert even["low"] <= even["value"] <= even["high"]
    own = even["sets"]["unified_val"]
    assert own["precision"]["value"] == pytest.approx(own["recall"]["value"])
    assert own["difference"]["value"] == pytest.approx(0.0, abs=1e-6)
    (threshold,) = record["recall_floor"]["final_minilm/minilm"]["thresholds"]
    found = (score >= threshold - 1e-6)[rows.hate].mean()
    assert 0.75 <= found < 0.75 + 1.5 / rows.hate.sum()


def test_production_is_read_of_final_models_only(record: dict[str, Any]) -> None:
    for name, facts in record["experiments"].items():
        for entry in facts["entries"].values():
            assert ("production" in entry["sets"]) == name.startswith("final_")


def test_the_page_answers_from_the_record(record: dict[str, Any]) -> None:
    page, plots = render(record)
    assert set(plots) == {"modules", "ranks", "mitigation", "recall_floor", "learning_curve"}
    for name, plot in plots.items():
        assert f"(results/{name}.svg)" in page
        assert plot.svg.startswith("<?xml")
    assert "pairing accepted of 2 at 0.5, " in page
    assert page.count("At 0.5 the largest fall") + page.count("At 0.5 LGBTQ+ FPR falls") == 3
    assert "- swaps (3 seeds) against untreated (3 seeds) on held_out: not accepted (FPR of" in page
    assert "Violated: F1 (-7.0 pp [-8.0, -6.0], allowed:" in page
    assert "rows F1 on validation rows changes by " in page
    assert "Not run yet." not in page
    assert "### Against a model without rows about the group" in page
    assert page.count("At equal recall: every run at the threshold that finds 75%") == 3
    assert page.count("Judged by one seed of each side, ") == 3
    assert page.count("run configs/experiments/campaign/mitigation_corpus.json --out") == 2
    test = words.find_test(
        next(
            pair
            for pair in record["experiments"]["continued"]["comparisons"]["held_out"]["pairs"]
            if pair["second"] == "qv_r64"
        ),
        "f1",
    )
    assert words.difference(words.turned(test)) in page


def test_tuning_that_loses_the_goal_is_not_called_short_of_it(record: dict[str, Any]) -> None:
    tuned = copy.deepcopy(record["tuned"])
    for one in tuned.values():
        for facts in one["sets"].values():
            facts["default"]["f1"]["value"], facts["tuned"]["f1"]["value"] = 0.72, 0.69
    verdict, _ = sections.option_a({**record, "tuned": tuned})
    n = sum("production" in one["sets"] for one in tuned.values())
    wanted = (
        f"F1 of 0.70 on production rows: reached by {n} of {n} models at 0.5 and by 0 after tuning"
    )
    assert verdict.startswith(wanted)


def test_the_record_holds_no_texts(record: dict[str, Any]) -> None:
    assert "made-up post" not in json.dumps(record)


def test_intervals_over_seeds_cover_rows_and_seeds() -> None:
    rng = np.random.default_rng(0)
    rows = [Row(id=f"r{n:04}", text="x", label=("hate", "normal")[n % 2]) for n in range(400)]
    truth = np.array([row.label == "hate" for row in rows])

    def runs(spread: float) -> means.Rows:
        wrong = (0.3 - spread, 0.3, 0.3 + spread)
        scores = [np.where(rng.random(400) < share, ~truth, truth).astype(float) for share in wrong]
        return means.read_rows(
            "test",
            {f"run{n}": predictions_from_rows(rows, scores=one) for n, one in enumerate(scores)},
        )

    def width(found: means.Rows) -> float:
        value = means.over_seeds(
            found, lambda run, w: means.f1(found, found.scores[run] >= 0.5, w), list(found.scores)
        )
        return value["high"] - value["low"]

    # 400 rows with three independent sets of errors; seeds that lie apart must widen it.
    assert 0.03 < width(runs(0.0)) < 0.2
    assert width(runs(0.15)) > 0.3


def test_what_changes_within_each_seed_is_compared_in_pairs() -> None:
    """Seeds that lie far apart do not blur a change that each of them makes alike."""
    rng = np.random.default_rng(1)
    rows = [Row(id=f"r{n:04}", text="x", label=("hate", "normal")[n % 2]) for n in range(400)]
    truth = np.array([row.label == "hate" for row in rows])
    scores = {}
    for n, share in enumerate((0.1, 0.25, 0.4)):
        score = np.where(rng.random(400) < share, ~truth, truth) * 0.8 + 0.1
        # As many hate rows of each run lie just below one half.
        score[np.flatnonzero(truth & (score > 0.5))[:30]] = 0.45
        scores[f"run{n}"] = predictions_from_rows(rows, scores=score)
    found = means.read_rows("test", scores)
    change = _f1_change(found, list(scores), dict.fromkeys(scores, 0.4))
    assert 0.02 < change["low"] < change["difference"] < change["high"] < 0.15


def test_the_composition_of_equal_seeds_is_that_of_one() -> None:
    rng = np.random.default_rng(2)
    rows = [
        Row(
            id=f"r{n:04}",
            text="x",
            label="normal",
            groups=(("lgbtq", "mexican")[n % 2],),
            fine_label=("offensive", "normal")[int(rng.random() < (0.3, 0.6)[n % 2])],
        )
        for n in range(600)
    ]
    share = [0.5 if row.fine_label == "offensive" else 0.2 for row in rows]
    score = (rng.random(600) < share).astype(float)
    same = {f"run{n}": predictions_from_rows(rows, scores=score) for n in range(3)}
    found = means.read_rows("test", same)
    at = dict.fromkeys(same, 0.5)
    one, three = _composition(found, ["run0"], at), _composition(found, list(same), at)
    assert one is not None and three is not None
    for kind in ("crude", "adjusted"):
        for end in ("value", "low", "high"):
            # Three copies are no more evidence than one.
            assert three[kind][end] == pytest.approx(one[kind][end], rel=0.03)
    assert three["explained"] == pytest.approx(one["explained"])


def test_a_rate_of_nought_has_an_interval() -> None:
    rows = [Row(id=f"r{n}", text="x", label="normal") for n in range(40)]
    zero = {f"run{n}": predictions_from_rows(rows, scores=np.zeros(40)) for n in range(2)}
    found = means.read_rows("test", zero)
    flagged = {run: score >= 0.5 for run, score in found.scores.items()}
    value = means.rate_over_seeds(found, flagged, ~found.hate, list(flagged))
    assert value["value"] == value["low"] == 0.0
    assert 0.05 < value["high"] < 0.15


def _is_here(name: str) -> bool:
    model = EMBEDDED.get(name)
    return model is not None and find_source(model) is not None


def _one_seed(path: Path) -> list[str]:
    return ["seeds=[42]"] if "seeds" in json.loads(path.read_text(encoding="utf-8")) else []


def _write_run(
    folder: Path, config: PhaseConfig, *, sets: list[str], number: int, n: int = 96
) -> None:
    """Write what a finished run folder holds, as far as the collector reads it."""
    write_json(folder / "prompt.json", load_prompt(None, strategy=None).to_json())
    document: Mapping[str, Any] = {
        "config": config.model_dump(mode="json"),
        "provenance": {},
        "train_source": None,
        "inputs": {},
    }
    write_json(folder / "config.json", document)
    training = {"rows": 100 + config.max_train_rows if config.max_train_rows else 5000}
    training |= {"total_steps": 128, "trainable_parameters": 1000 * config.lora_r}
    write_json(folder / "training.json", {**training, "total_parameters": 10**6})
    machine = {"processor": "made up", "cpus": 2, "python": "3.11", "torch": "2", "peft": "0"}
    write_json(
        folder / "manifest.json",
        {"inputs_sha256": "0" * 64, "created": "2026-01-02T03:04:05+00:00", "machine": machine}
        | {"device": {"name": "cpu"}},
    )
    for name in sets:
        rows = _rows(name, n)
        rng = np.random.default_rng([number, config.seed, len(name)])
        truth = np.array([row.label == "hate" for row in rows])
        score = 1 / (1 + np.exp(-(2.0 * truth - 1.0 + rng.normal(scale=1.2, size=n))))
        evaluation = folder / "evaluations" / name
        write_predictions(
            predictions_from_rows(rows, scores=score), evaluation / "predictions.parquet"
        )
        baseline = predictions_from_rows(rows, scores=np.roll(score, 7 * (number == 0)))
        write_predictions(baseline, evaluation / "baselines" / "tfidf_logreg.parquet")
        write_evaluation(_evaluation(), evaluation / "evaluation.json")
        write_json(evaluation / "inputs.json", {"inputs": {"rows": name}})


@functools.cache
def _evaluation() -> Evaluation:
    """Return one evaluation for all sets: only its threshold is read."""
    rows = _rows("any", 24)
    predictions = predictions_from_rows(rows, scores=np.linspace(0.0, 1.0, 24))
    rng = np.random.default_rng(0)
    return evaluate(predictions, name="any", rng=rng, n_bootstrap=100, slices=())


def _rows(name: str, n: int) -> list[Row]:
    fine = {"hate": ("hatespeech", "toxic_implicit"), "normal": ("offensive", "normal")}
    rows = []
    for number in range(n):
        label = ("hate", "normal")[number % 2]
        rows.append(
            Row(
                id=f"{name}-{number:04}",
                text=f"made-up post {number}",
                label=label,
                groups=(GROUPS[(number // 2) % 3],),
                source="made_up",
                fine_label=fine[label][(number // 6) % 2],
                cluster=f"t{number // 4}" if name in ("functional", "hatecheck") else None,
            )
        )
    return rows


def _acceptances() -> list[Any]:
    def condition(kind: Any, metric: str, value: float, **more: Any) -> Condition:
        known: dict[str, Any] = {"control": 0.4, "treated": 0.4 + value, "margin": 0.03}
        found = MetricValue(value=value, low=value - 0.01, high=value + 0.01, method="bootstrap")
        known |= {"difference": found, "confidence": 0.9, "n": 260, "n_clusters": None}
        return Condition(
            kind=kind, metric=metric, label_unit="rows", **{"subject": None, **known, **more}
        )

    def acceptance(treated: str, f1: Condition, *, accepted: bool) -> dict[str, Any]:
        falls = condition("fpr_falls", "fpr", -0.08, subject="lgbtq", margin=None, status="met")
        return Acceptance(
            set="held_out",
            functional="functional",
            control="untreated (3 seeds)",
            treated=treated,
            replicates={},
            thresholds={},
            groups=("lgbtq",),
            f1_margin=0.03,
            group_margin=0.1,
            target_fnr_margin=0.15,
            functional_margin=0.1,
            alpha=0.05,
            n=937,
            n_left_out=0,
            conditions=(falls, f1),
            falls=("lgbtq",),
            accepted=accepted,
        ).model_dump(mode="json")

    holds = condition("f1_holds", "f1", 0.01, status="met")
    fails = condition("f1_holds", "f1", -0.07, status="violated")
    return [
        acceptance("pairing (3 seeds)", holds, accepted=True),
        acceptance("swaps (3 seeds)", fails, accepted=False),
    ]
