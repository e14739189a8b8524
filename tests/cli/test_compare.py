from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import RunCli

from evenhand.core.paths import write_json
from evenhand.core.predictions import predictions_from_rows
from evenhand.core.records import Row
from evenhand.experiment.results import save_evaluation
from evenhand.measure.classification import evaluate

MakeRun = Callable[..., Path]
CONFIG = {"lora_r": 32, "lora_target_modules": ["q_proj"], "seed": 1}
TRAINING = {
    "trainable_parameters": 1000,
    "total_parameters": 50_000,
    "runtime_seconds": 90.0,
    "checkpoints": [{"checkpoint": "checkpoint-1", "eval_loss": 0.5, "best": True}],
}


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Write the folder of an imported run that is right so often on 120 rows."""

    def make(
        name: str,
        right: float,
        *,
        config: Mapping[str, Any] = CONFIG,
        rows: int = 120,
        seed: int = 0,
        group: str = "alpha",
    ) -> Path:
        run = tmp_path / name
        luck = np.random.default_rng(seed).random(rows)
        posts = [
            Row(id=f"r{i}", text="secret", label=("hate", "normal")[i % 2], groups=(group,))
            for i in range(rows)
        ]
        scores = [
            (x < right) == (post.label == "hate") for post, x in zip(posts, luck, strict=True)
        ]
        answers = predictions_from_rows(posts, scores=np.array(scores, dtype=float))
        document = {"config": dict(config), "train_source": None, "inputs": {}}
        write_json(run / "config.json", document)
        write_json(run / "training.json", TRAINING)
        imported = {"evaluations": {}, "derived": {}}
        manifest = {"imported": imported, "stated": {}, "inputs_sha256": "0" * 64, "warnings": []}
        write_json(run / "manifest.json", manifest)
        measured = evaluate(answers, name="test", rng=np.random.default_rng(0), n_bootstrap=100)
        save_evaluation(
            run / "evaluations" / "test",
            answers,
            measured,
            baselines={},
            origin={
                "inputs": {"rows": "0" * 64},
                "data": {"file": "test.csv", "sha256": None, "rows": rows},
            },
        )
        return run

    return make


def test_tables_and_sentences_for_a_reader(cli: RunCli, make_run: MakeRun) -> None:
    weak, strong = make_run("weak", 0.6), make_run("strong", 0.95, config={"lora_r": 64}, seed=1)
    done = cli("compare", weak, strong, "--on", "test")
    assert (done.exit_code, done.stderr) == (0, "")
    for part in (
        "## Training efficiency",
        "| weak | ",
        "1.5 min",
        "## Performance",
        "alpha FPR",
        "Over the same 120 rows of test.",
        "### strong against weak",
        "| FPR, alpha | ",
    ):
        assert part in re.sub(" +", " ", done.stdout)
    sentence = (
        r"- strong against weak on test: better in F1 \(\+[\d.]+ pp \[\+[\d.]+, \+[\d.]+\], p below"
    )
    assert re.search(sentence, done.stdout)
    assert "secret" not in done.stdout


def test_one_json_document(cli: RunCli, make_run: MakeRun) -> None:
    runs = [make_run("weak", 0.6), make_run("strong", 0.95, config={"lora_r": 64}, seed=1)]
    done = cli("compare", *runs, "--on", "test", "--json")
    document = json.loads(done.stdout)
    assert set(document) == {"set", "efficiency", "performance", "comparison", "sentences"}
    assert document["set"] == "test"
    assert [(one["run"], one["rank"]) for one in document["efficiency"]] == [
        ("weak", 32),
        ("strong", 64),
    ]
    assert document["efficiency"][0]["best_eval_loss"] == 0.5
    assert set(document["performance"]["phases"]) == {"weak", "strong"}
    (pair,) = document["comparison"]["pairs"]
    assert (pair["first"], pair["second"], pair["verdict"]) == ("weak", "strong", "better")
    assert pair["tests"][0]["difference"]["method"] == "paired_bootstrap"
    assert document["sentences"][0].startswith("strong against weak on test: better in F1")
    assert cli("compare", *runs, "--on", "test", "--json").stdout == done.stdout


def test_files_for_keeping(cli: RunCli, make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run("weak", 0.6), make_run("strong", 0.9, config={"lora_r": 64}, seed=1)]
    out = tmp_path / "out"
    done = cli("compare", *runs, "--on", "test", "--json", "--out", out)
    assert json.loads((out / "paired.json").read_text()) == json.loads(done.stdout)
    assert (out / "paired.md").read_text().startswith("# Comparison on test\n")


def test_seeds_are_compared_as_one(cli: RunCli, make_run: MakeRun) -> None:
    runs = [
        make_run(f"small-{n}", right, config={**CONFIG, "seed": n}, seed=n)
        for n, right in enumerate((0.6, 0.62, 0.64))
    ]
    runs.append(make_run("large", 0.9, config={"lora_r": 64, "seed": 0}, seed=9))
    done = cli("compare", *runs, "--on", "test", "--json")
    comparison = json.loads(done.stdout)["comparison"]
    assert comparison["models"] == ["small (3 seeds)", "large"]
    assert comparison["replicates"] == {"small (3 seeds)": ["small-0", "small-1", "small-2"]}
    text = cli("compare", *runs, "--on", "test").stdout
    assert "small (3 seeds) is the mean over small-0, small-1 and small-2." in text


def test_other_rows_are_refused(cli: RunCli, make_run: MakeRun) -> None:
    runs = [make_run("a", 0.7), make_run("b", 0.7, rows=122, config={"lora_r": 64})]
    done = cli("compare", *runs, "--on", "test", "--json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "has 122 rows and a has 120; 2 ids (r120, r121) only in b" in done.stderr


def test_an_evaluation_that_is_not_there(cli: RunCli, make_run: MakeRun) -> None:
    runs = [make_run("a", 0.7), make_run("b", 0.7, config={"lora_r": 64})]
    done = cli("compare", *runs, "--on", "tset")
    assert done.exit_code == 2
    assert 'has no evaluation "tset"; did you mean "test"?' in done.stderr


def test_names_that_cannot_be_told_apart(cli: RunCli, make_run: MakeRun) -> None:
    one = make_run("one/default", 0.7)
    other = make_run("other/default", 0.7)
    done = cli("compare", one, one, other, "--on", "test")
    assert done.exit_code == 2
    assert "is named twice; name it once" in done.stderr
    assert f"has the name of {one}; rename one of the two" in done.stderr
    assert "name two folders at least" in cli("compare", one, "--on", "test").stderr


def test_markup_in_a_group_stays_text(cli: RunCli, make_run: MakeRun, tmp_path: Path) -> None:
    group = "<b>|x*"
    runs = [make_run("a", 0.55, group=group)]
    runs.append(make_run("b", 0.97, group=group, config={"lora_r": 64}, seed=1))
    shown = cli("compare", *runs, "--on", "test", "--out", tmp_path / "out").stdout
    assert f"| {group} FPR |" in shown
    text = (tmp_path / "out" / "paired.md").read_text(encoding="utf-8")
    assert "<b>" not in text
    assert "&lt;b>\\|x\\*" in text


@pytest.fixture
def treated(make_run: MakeRun) -> list[Path]:
    """A control, and two treatments of it: one that mends half of its errors, one that does not."""
    plain = make_run("plain", 0.6, rows=400)
    mended = make_run("mended", 0.85, rows=400, config={"lora_r": 32, "augment": {}, "seed": 1})
    idle = make_run("idle", 0.61, rows=400, config={"lora_r": 32, "row_weights": "", "seed": 1})
    return [plain, mended, idle]


def test_acceptance_against_a_control(cli: RunCli, treated: list[Path], tmp_path: Path) -> None:
    asked = ("--on", "test", "--control", treated[0], "--accept")
    done = cli("compare", *treated, *asked, "--out", tmp_path / "out")
    assert (done.exit_code, done.stderr) == (0, "")
    shown = re.sub(" +", " ", done.stdout)
    assert re.search(r"mended against plain on test: accepted \(FPR of alpha -[\d.]+ pp \[", shown)
    assert re.search(r"idle against plain on test: not accepted \(FPR of alpha -[\d.]+ pp", shown)
    assert "The FPR of that group is not shown to fall." in shown
    assert "Every run decides" in shown and "takes several seeds" in shown
    assert "| FPR of alpha falls |" in shown and "| F1 holds |" in shown
    assert "secret" not in shown
    document = json.loads((tmp_path / "out" / "paired.json").read_text(encoding="utf-8"))
    asked_json = json.loads(cli("compare", *treated, *asked, "--json").stdout)
    assert asked_json == document
    assert [(one["treated"], one["accepted"]) for one in document["acceptance"]] == [
        ("mended", True),
        ("idle", False),
    ]
    assert [(p["first"], p["second"]) for p in document["comparison"]["pairs"]] == [
        ("plain", "mended"),
        ("plain", "idle"),
    ]


def test_a_control_may_be_given_by_name_and_margins_by_number(
    cli: RunCli, treated: list[Path]
) -> None:
    asked = ("--on", "test", "--control", "plain", "--json")
    assert "acceptance" not in json.loads(cli("compare", *treated, *asked).stdout)
    options = ("--accept", "--group", "alpha", "--f1-margin", "0.2", "--group-margin", "0.3")
    more = ("--target-fnr-margin", "0.4", "--alpha", "0.1")
    done = cli("compare", *treated, *asked, *options, *more)
    (one, _) = json.loads(done.stdout)["acceptance"]
    assert (one["groups"], one["f1_margin"], one["group_margin"]) == (["alpha"], 0.2, 0.3)
    assert one["alpha"] == 0.1 and one["functional"] is None
    assert {part["margin"] for part in one["conditions"]} == {None, 0.2, 0.3, 0.4}


def test_what_acceptance_needs(cli: RunCli, treated: list[Path]) -> None:
    def errors(*options: str) -> str:
        done = cli("compare", *treated, "--on", "test", *options)
        assert (done.exit_code, done.stdout) == (2, "")
        return re.sub(r"\s+", " ", done.stderr)

    assert "--group needs --accept" in errors("--group", "alpha")
    accept = ("--accept", "--control", "plain")
    assert "--at-recall goes with --fitted-on" in errors(*accept, "--at-recall", "0.75")
    assert "--accept needs --control: the untreated run" in errors("--accept")
    asked = ("--accept", "--control", "plain")
    assert "--f1-margin must be less than 1, not 3" in errors(*asked, "--f1-margin", "3")
    assert 'did you mean "plain"?' in errors("--accept", "--control", "plian")
    assert "no row of test is of this group" in errors(*asked, "--group", "women")
    assert 'has no evaluation "cases"' in errors(*asked, "--functional", "cases")
