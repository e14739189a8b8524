"""The faults of the reference experiment, each found on its own files."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evenhand.config.load import load_experiment
from evenhand.core.decisions import Audit, Finding
from evenhand.experiment.auditing import (
    audit_experiment,
    audit_files,
    audit_runs,
    named_sets,
    read_for_audit,
)
from evenhand.experiment.inputs import DataSource
from evenhand.experiment.results import open_results

OWN_FILES = {"train_file": None, "validation_file": None}


def of(audit: Audit, check: str) -> dict[str, Finding]:
    assert check in audit.checks, audit.skipped
    return {one.subject: one for one in audit.findings if one.check == check}


def reference_experiment(folder: Path, shared_data: Path, **changes: Any) -> Path:
    """The three configurations as the reference ran them: verbatim chats, four processes."""
    stated = {"default": 7_962_624, "high_capacity": 15_925_248, "k_proj_full_capacity": 23_887_872}
    document = {
        "name": "as_it_was",
        "data_dir": str(shared_data),
        "phases": [
            {
                "name": name,
                "config": str(shared_data / f"reference_configs/{name}.json"),
                "overrides": {**OWN_FILES, "objective": "full_sequence"},
                "stated": {"trainable_parameters": count, "processes": 4},
            }
            for name, count in stated.items()
        ],
        "sets": [
            {"name": "train", "role": "train", "file": "finetune/train.jsonl"},
            {"name": "validation", "role": "validation", "file": "finetune/validation.jsonl"},
            {"name": "canned", "role": "test", "file": "canned/canned_100_size_varied.json"},
            {"name": "production", "role": "production", "file": "unified/unified_test.json"},
        ],
        "prompt": {"file": "prompts/baseline_v1.json", "strategy": "baseline_standard"},
        "selection": {"set": "validation", "metric": "f1"},
        "gate": {"criteria": "reference"},
        **changes,
    }
    path = folder / "experiment.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def planned(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Audit:
    path = reference_experiment(
        tmp_path_factory.mktemp("reference"),
        shared_data,
        accept={"exact_overlap:canned": "to reproduce the published comparison"},
    )
    experiment = load_experiment(path)
    return audit_experiment(experiment, read_for_audit(experiment))


def command(*args: object) -> tuple[int, str]:
    """Run a command line as a user would; return its exit code and what it printed."""
    from evenhand.cli.main import run

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = run([str(one) for one in args])
    return code, printed.getvalue()


def audit_run(out: Path, *options: object) -> Audit:
    code, printed = command("audit", out, "--json", *options)
    document = json.loads(printed)
    assert code == (5 if document.pop("n_errors") else 0)
    return Audit.model_validate(document)


@pytest.fixture(scope="module")
def imported(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Import one of the reference's runs as a user would, once."""
    folder = tmp_path_factory.mktemp("imports")
    runs = {
        "phase1_default": ("canned/canned_100_size_varied.json", "canned", "default"),
        "production_high_capacity": ("unified/unified_test.json", "production", "high_capacity"),
    }

    def import_run(name: str) -> Path:
        data, evaluation, config = runs[name]
        source = shared_data / "reference_runs" / name
        out = folder / name
        if not out.is_dir():
            [predictions] = source.glob("strategy_unified_results_*.csv")
            [responses] = source.glob("intermediate_results_*.jsonl")
            history = ["--history", source] if name == "phase1_default" else []
            code, _ = command(
                *("import", "--predictions", predictions, "--responses", responses, *history),
                *("--config", shared_data / f"reference_configs/{config}.json"),
                *("--prompt-file", shared_data / "prompts/baseline_v1.json"),
                *("--strategy", "baseline_standard"),
                *("--train", shared_data / "finetune/train.jsonl", "--data", shared_data / data),
                *("--name", evaluation, "--out", out, "--json"),
            )
            assert code == 0
        return out

    return import_run


@pytest.fixture(scope="module")
def phase_1(imported: Callable[[str], Path]) -> Audit:
    return audit_run(imported("phase1_default"))


@pytest.fixture(scope="module")
def production(imported: Callable[[str], Path]) -> Audit:
    return audit_run(imported("production_high_capacity"), "--target", "f1=0.615")


class TestBeforeTraining:
    def test_1_leakage(self, planned: Audit) -> None:
        found = of(planned, "exact_overlap")
        assert found["train / canned"].evidence["rows"] == 73
        assert found["train / canned"].accepted == "to reproduce the published comparison"
        assert found["train / production"].evidence["rows"] == 1
        assert {one.severity for one in found.values()} == {"error"}
        assert "train / canned" not in {one.subject for one in planned.errors}

    def test_3_the_format_tells_the_label(self, planned: Audit) -> None:
        finding = of(planned, "format_predicts_label")["train"]
        assert finding.severity == "error" and finding.evidence["trained_verbatim"]
        best = finding.evidence["forms"][0]
        assert best["accuracy"] == 1.0
        assert best["values"] == {"{{": {"normal": 1417}, '{"': {"hate": 1269}}

    def test_4_prompts_and_label_words_drift(self, planned: Audit) -> None:
        finding = of(planned, "prompt_drift")["train / baseline_standard"]
        assert finding.severity == "error"
        assert finding.evidence["rows"] == {
            "another system prompt": 2686,
            "another user turn": 2686,
            "a Persona line in training only": 2686,
        }
        words = of(planned, "label_word_drift")["train / baseline_standard"].evidence
        assert words["training"]["normal"] == {"not_hate": 1417}
        assert words["evaluation"]["normal"] == "normal"

    def test_5_a_bar_that_a_constant_passes(self, planned: Audit) -> None:
        finding = of(planned, "constant_passes")["production / always_hate"]
        assert finding.evidence["values"]["f1 >= 0.615"] == pytest.approx(0.6216, abs=5e-5)

    def test_8_confounded_phases_and_the_warm_up(self, planned: Audit) -> None:
        found = of(planned, "confounded_phases")
        second = found["default / high_capacity"]
        assert second.evidence["changes"] == {"lora_r": [32, 64], "num_train_epochs": [3.0, 5.0]}
        assert "the schedule (warm-up 79% of the updates, then 48%)" in second.message
        assert "high_capacity / k_proj_full_capacity" in found
        warmup = of(planned, "warmup_share")
        evidence = warmup["default"].evidence
        assert (evidence["warmup_steps"], evidence["total_steps"]) == (100, 126)
        assert evidence["effective_batch_size"] == 64
        assert set(warmup) == {"default", "k_proj_full_capacity"}

    def test_9_the_wrong_parameter_count(self, planned: Audit) -> None:
        [finding] = of(planned, "wrong_parameter_count").values()
        assert finding.subject == "k_proj_full_capacity / trainable_parameters"
        assert finding.evidence == {"stated": 23_887_872, "counted": 21_135_360}

    def test_no_post_is_in_the_record(self, planned: Audit, shared_data: Path) -> None:
        document = planned.model_dump_json()
        rows = json.loads((shared_data / "canned/canned_100_size_varied.json").read_text("utf-8"))
        assert not any(json.dumps(row["text"])[1:-1] in document for row in rows)


class TestImportedRuns:
    """The same faults, found by `evenhand audit RUN` on what `evenhand import` made."""

    def test_1_leakage(self, phase_1: Audit, production: Audit) -> None:
        assert of(phase_1, "exact_overlap")["train / canned"].evidence["rows"] == 73
        assert of(production, "exact_overlap")["train / production"].evidence["rows"] == 1

    def test_2_the_parser(self, production: Audit) -> None:
        subject = "production_high_capacity / production"
        lost = of(production, "unparseable_answers")[subject].evidence
        assert (lost["n_unparseable"], lost["n_scored"]) == (12, 997)
        assert sum(lost["groups"].values()) == 12
        stored = of(production, "contradicted_responses")[subject].evidence
        assert stored["parser_failures"] == 999
        assert stored["responses"]["differ"] + stored["responses"]["label_without_reading"] >= 8

    def test_3_the_format_tells_the_label(self, phase_1: Audit) -> None:
        finding = of(phase_1, "format_predicts_label")["train"]
        assert finding.severity == "error" and finding.evidence["trained_verbatim"]

    def test_4_prompts_and_label_words_drift(self, phase_1: Audit, production: Audit) -> None:
        for audit in (phase_1, production):
            drift = of(audit, "prompt_drift")["train / baseline_standard"]
            assert drift.severity == "error"
            assert set(drift.evidence["rows"]) == {
                "another system prompt",
                "another user turn",
                "a Persona line in training only",
            }
            words = of(audit, "label_word_drift")["train / baseline_standard"]
            assert words.severity == "error"
            assert words.evidence["training"]["normal"] == {"not_hate": 1417}
            assert words.evidence["evaluation"]["normal"] == "normal"

    def test_5_a_bar_that_a_constant_passes(self, production: Audit) -> None:
        finding = of(production, "constant_passes")["production / always_hate"]
        assert finding.severity == "error"
        assert finding.evidence["values"]["f1 >= 0.615"] == pytest.approx(0.6216, abs=5e-5)

    def test_5_the_baseline_is_not_beaten(self, production: Audit) -> None:
        found = of(production, "baseline_not_beaten")
        evidence = found["production_high_capacity / production / tfidf_logreg"].evidence
        assert evidence["f1"]["baseline"] > evidence["f1"]["model"] == pytest.approx(0.66918)
        assert evidence["group_fpr"]["lgbtq"]["model"] == pytest.approx(0.6)
        assert evidence["group_fpr"]["lgbtq"]["baseline"] < 0.25

    def test_6_composition(self, production: Audit) -> None:
        finding = of(production, "composition")["production_high_capacity / production / lgbtq FPR"]
        adjusted = finding.evidence["mantel_haenszel"]
        assert [round(adjusted[key], 2) for key in ("value", "low", "high")] == [1.09, 0.92, 1.30]
        rates = {one["fine_label"]: round(one["rate"], 2) for one in finding.evidence["strata"]}
        assert rates == {"offensive": 0.91, "normal": 0.61, "benign_implicit": 0.14}

    def test_7_small_samples(self, phase_1: Audit) -> None:
        small = of(phase_1, "small_groups")["canned"].evidence
        assert small["rates"]["mexican FPR"]["labels"] == 10

    def test_8_the_warm_up(self, phase_1: Audit) -> None:
        assert of(phase_1, "warmup_share")["phase1_default"].evidence["share"] == 100 / 126

    def test_8_confounded_phases(self, imported: Callable[[str], Path]) -> None:
        names = ("phase1_default", "production_high_capacity")
        audit = audit_runs([open_results(imported(name)) for name in names])
        [finding] = of(audit, "confounded_phases").values()
        assert finding.subject == " / ".join(names)
        assert finding.evidence["changes"] == {"lora_r": [32, 64], "num_train_epochs": [3.0, 5.0]}
        # What the runs share is one set and found once; what is each one's own stays so.
        assert set(of(audit, "format_predicts_label")) == {"train"}
        assert set(of(audit, "exact_overlap")) == {"train / canned", "train / production"}
        assert set(of(audit, "warmup_share")) == {"phase1_default"}
        assert not of(audit, "test_reuse")

    def test_10_waste_and_no_scores(self, phase_1: Audit, production: Audit) -> None:
        waste = of(phase_1, "padding_waste")["phase1_default"].evidence
        assert waste["tokens_per_row"] == pytest.approx(512, rel=0.005)
        assert waste["mean_post_words"] < 30
        assert "production_high_capacity / production" in of(production, "no_scores")


def test_the_whole_training_corpus_holds_the_canned_set(shared_data: Path) -> None:
    train = DataSource(shared_data / "unified/unified_train.json", on_bad_row="skip").read()
    canned = DataSource(shared_data / "canned/canned_100_size_varied.json").read()
    audit = audit_files(named_sets([("train", train), ("test", canned)]))
    [finding] = of(audit, "exact_overlap").values()
    assert finding.evidence["rows"] == 100


def test_9_the_wrong_parameter_count_stated_of_an_import(shared_data: Path, tmp_path: Path) -> None:
    [predictions] = (shared_data / "reference_runs/phase1_default").glob("strategy_unified*.csv")
    out = tmp_path / "phase3"
    code, _ = command(
        *("import", "--predictions", predictions, "--name", "validation", "--out", out),
        *("--config", shared_data / "reference_configs/k_proj_full_capacity.json"),
        *("--train", shared_data / "finetune/train.jsonl"),
        *("--stated", "trainable_parameters=23887872", "--stated", "processes=4"),
        *("--stated", "f1=0.6491", "--json"),
    )
    assert code == 0
    audit = audit_run(out)
    [finding] = of(audit, "wrong_parameter_count").values()
    assert finding.evidence == {"stated": 23_887_872, "counted": 21_135_360}
    assert "validation.f1" in of(audit, "contradicted_figures")["phase3"].evidence["figures"]
    assert of(audit, "warmup_share")["phase3"].evidence["total_steps"] == 168
