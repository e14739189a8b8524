"""The reference's own files, imported: every figure of its summary that they contain.

A further phase in the same format is imported by the same code; the last test makes one up.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from evenhand.experiment.importing.answers import AnswerSource
from evenhand.experiment.importing.importer import Imported, ImportRequest, import_results
from evenhand.experiment.inputs import DataSource
from evenhand.experiment.results import Results, open_results
from evenhand.experiment.stages import Session

PHASE_1 = {
    "accuracy": 0.5152,
    "precision": 0.4881,
    "recall": 0.8913,
    "f1": 0.6308,
    "tp": 41,
    "tn": 10,
    "fp": 43,
    "fn": 5,
    "lgbtq.fpr": "93.33%",
    "lgbtq.fnr": "15.79%",
    "lgbtq.samples": 49,
    "mexican.fpr": "50.0%",
    "mexican.fnr": "9.09%",
    "mexican.samples": 22,
    "middle_east.fpr": "76.92%",
    "middle_east.fnr": "6.25%",
    "middle_east.samples": 29,
    "train_rows": "2,686",
    "validation_rows": 55,
    "effective_batch_size": 64,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 4,
    "processes": 4,
    "steps_per_epoch": 42,
    "total_steps": 126,
    "warmup_steps": 100,
    "trainable_parameters": "7,962,624",
    "trainable_percent": 0.038,
    "total_parameters": 20_914_757_184,
    "final_epoch": 3.0,
    "final_eval_loss": 0.5280,
    "train_loss": 1.5196,
    "runtime_seconds": 825.39,
    "rows_per_second": 9.763,
    "best_checkpoint": "checkpoint-126",
    "lora_r": 32,
    "lora_alpha": 32,
    "learning_rate": 2e-4,
    "lora_target_modules": "q_proj,v_proj",
}
PRODUCTION = {
    "accuracy": 0.6479,
    "precision": 0.5820,
    "recall": 0.7871,
    "f1": 0.6692,
    "tp": 355,
    "tn": 291,
    "fp": 255,
    "fn": 96,
    "n": 1009,
    "n_unparseable": 12,
    "lgbtq.fpr": "60.0%",
    "lgbtq.fnr": "22.35%",
    "lgbtq.samples": 494,
    "mexican.fpr": "21.18%",
    "mexican.fnr": "20.0%",
    "mexican.samples": 209,
    "middle_east.fpr": "31.91%",
    "middle_east.fnr": "21.12%",
    "middle_east.samples": 306,
}


@pytest.fixture(scope="module")
def runs(shared_data: Path) -> Path:
    return shared_data / "reference_runs"


@pytest.fixture(scope="module")
def phase_1(runs: Path, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = runs / "phase1_default"
    return bring(
        tmp_path_factory.mktemp("phase_1") / "default",
        name="canned",
        answers=AnswerSource(
            predictions=only(folder, "strategy_unified_results_*.csv"),
            responses=only(folder, "intermediate_results_*.jsonl"),
            data=DataSource(shared_data / "canned" / "canned_100_size_varied.json"),
            prompt_file=shared_data / "prompts" / "baseline_v1.json",
        ),
        config=shared_data / "reference_configs" / "default.json",
        history=folder,
        stated=tuple((key, str(value)) for key, value in PHASE_1.items()),
        stated_files=(only(folder, "performance_*.csv"), only(folder, "bias_*.csv")),
    )


@pytest.fixture(scope="module")
def production(runs: Path, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = runs / "production_high_capacity"
    claims = {**PRODUCTION, "validation.f1": "0.6852", "processes": "4"}
    return bring(
        tmp_path_factory.mktemp("production") / "high_capacity",
        name="production",
        answers=AnswerSource(
            predictions=only(folder, "strategy_unified_results_*.csv"),
            responses=only(folder, "intermediate_results_*.jsonl"),
            data=DataSource(shared_data / "unified" / "unified_test.json"),
        ),
        stated=tuple((key, str(value)) for key, value in claims.items()),
        stated_files=(only(folder, "performance_*.csv"), only(folder, "bias_*.csv")),
    )


class Made:
    def __init__(self, imported: Imported, results: Results) -> None:
        self.imported = imported
        self.results = results

    @property
    def statuses(self) -> Mapping[str, str]:
        return {key: one["status"] for key, one in self.results.stated.items()}


def bring(out: Path, **request: Any) -> Made:
    imported = import_results(ImportRequest(**request), out, session=Session())
    return Made(imported, open_results(out))


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def test_every_figure_of_phase_1_comes_out_of_its_files(phase_1: Made) -> None:
    wrong = {key: one for key, one in phase_1.statuses.items() if one != "verified"}
    assert not wrong
    # The stated figures, those of the two tables of metrics among them, are not few.
    assert len(phase_1.statuses) > 40
    item = phase_1.results.evaluation("canned")
    assert item.confusion.model_dump() == {"tp": 41, "tn": 10, "fp": 43, "fn": 5}
    assert (item.n, item.n_scored, item.n_unparseable, item.n_error) == (100, 99, 1, 0)
    assert item.bounds is not None
    assert item.method == "import"


def test_progression_of_phase_1(phase_1: Made) -> None:
    training = phase_1.results.training
    assert training is not None
    shown = [
        (one["checkpoint"], one["epoch"], round(one["eval_loss"], 4), one["best"])
        for one in training["checkpoints"]
    ]
    assert shown == [
        ("checkpoint-42", 1.0, 1.3383, False),
        ("checkpoint-84", 2.0, 0.5454, False),
        ("checkpoint-126", 3.0, 0.5280, True),
    ]
    changes = [one["relative_improvement"] for one in training["checkpoints"]]
    assert changes[0] is None
    # The reference says "Down 59.3%" and "Down 3.1%"; from its own unrounded losses it is these.
    assert changes[1:] == [pytest.approx(0.5925, abs=5e-5), pytest.approx(0.0319, abs=5e-5)]
    assert training["stopped_early"] is False
    assert training["total_flos"] == 5.039637015067361e17
    # What no file tells is absent.
    assert {"objective", "layout", "device", "truncated_rows"}.isdisjoint(training)


def test_history_of_phase_1_is_one_line_per_log(phase_1: Made) -> None:
    lines = phase_1.results.history
    losses = [line["step"] for line in lines if "loss" in line]
    assert losses == [*range(10, 121, 10)]
    assert [line["step"] for line in lines if "eval_loss" in line] == [42, 84, 126]
    assert lines[-1]["train_runtime"] == 825.3863
    assert all(set(line) >= {"step", "epoch"} for line in lines)


def test_what_follows_by_arithmetic_is_said_to(phase_1: Made) -> None:
    derived = phase_1.results.manifest["imported"]["derived"]
    assert set(derived) == {
        "rows",
        "validation_rows",
        "processes",
        "effective_batch_size",
        "steps_per_epoch",
        "total_steps",
        "stopped_early",
        "trainable_parameters",
        "total_parameters",
        "trainable_percent",
    }


def test_configuration_of_phase_1_is_what_its_files_state(phase_1: Made, shared_data: Path) -> None:
    config = phase_1.results.config
    assert config is not None
    file = shared_data / "reference_configs" / "default.json"
    stated = json.loads(file.read_text("utf-8"))
    # Beyond the file's own keys, the training arguments tell the seed; nothing tells an objective.
    assert set(config) == {*stated, "seed"}
    assert (config["lora_r"], config["num_train_epochs"], config["seed"]) == (32, 3, 42)
    document = json.loads((phase_1.results.path / "config.json").read_text("utf-8"))
    assert set(document["provenance"]) == set(config)
    assert document["provenance"]["lora_r"].endswith("default.json")
    assert document["provenance"]["seed"] == "the event file's training arguments"


def test_every_figure_of_production_comes_out_of_its_files(production: Made) -> None:
    statuses = dict(production.statuses)
    assert statuses.pop("validation.f1") == "stated, not verified"
    assert statuses.pop("processes") == "stated, not verified"
    assert set(statuses.values()) == {"verified"}
    item = production.results.evaluation("production")
    assert item.confusion.model_dump() == {"tp": 355, "tn": 291, "fp": 255, "fn": 96}
    assert (item.n, item.n_scored, item.n_unparseable) == (1009, 997, 12)
    groups = {name: (one.n, one.n_unparseable) for name, one in item.groups.items()}
    assert {name: n for name, (n, _) in groups.items()} == {
        "lgbtq": 494,
        "mexican": 209,
        "middle_east": 306,
    }
    assert sum(unparseable for _, unparseable in groups.values()) == 12
    assert production.results.training is None
    assert production.results.config is None


def test_constants_are_over_all_rows_of_production(production: Made) -> None:
    always_hate = production.results.evaluation("production").baselines["always_hate"]
    assert always_hate.metrics.f1.value == pytest.approx(0.6216, abs=5e-5)
    assert set(production.results.baselines("production")) == {"always_hate", "always_normal"}


def test_rows_are_those_of_the_data_set(production: Made, shared_data: Path) -> None:
    from evenhand.data.sources import read_dataset
    from evenhand.experiment.inputs import rows_sha256

    data = read_dataset(shared_data / "unified" / "unified_test.json")
    frame = production.results.predictions("production").frame
    assert frame["id"].tolist() == [row.id for row in data.rows]
    assert frame["fine_label"].tolist() == [row.fine_label for row in data.rows]
    made_from = production.results.inputs("production")
    assert made_from["inputs"]["rows"] == rows_sha256(data)
    assert made_from["data"]["sha256"] == data.sha256


def test_parser_failures_and_responses_of_production(production: Made) -> None:
    """The strict reader against what was stored.

    Of the 253 responses that are there, it reads 243; 7 of these contradict the stored label, and 7
    stored labels stand for a response that it does not read. A search for the key anywhere in the
    text, which takes misquoted and nested JSON as well, reads 248 to 250 and finds the same 7
    contradictions: a count of 8 has one more of the labels that no whole answer gives.
    """
    facts = production.imported.facts
    assert facts["parser_failures"] == 999
    report = facts["responses"]
    counts = ("responses", "rows_without_response", "read", "unreadable", "agree", "differ")
    assert [report[key] for key in counts] == [253, 756, 243, 10, 236, 7]
    assert (report["label_without_reading"], report["neither"]) == (7, 3)
    assert (report["stored_hate_read_normal"], report["stored_normal_read_hate"]) == (2, 5)
    frame = production.results.predictions("production").frame
    assert frame["raw_response"].notna().sum() == 253
    assert set(report["differing_rows"]) < set(frame["id"])


def test_parser_failures_and_responses_of_phase_1(phase_1: Made) -> None:
    facts = phase_1.imported.facts
    assert facts["parser_failures"] == 100
    report = facts["responses"]
    assert (report["responses"], report["read"], report["differ"]) == (25, 19, 3)
    assert (report["label_without_reading"], report["neither"]) == (5, 1)


def test_reparsed_labels_replace_the_stored_ones(runs: Path, tmp_path: Path) -> None:
    folder = runs / "production_high_capacity"
    made = bring(
        tmp_path / "run",
        name="production",
        answers=AnswerSource(
            predictions=only(folder, "strategy_unified_results_*.csv"),
            responses=only(folder, "intermediate_results_*.jsonl"),
            labels_from="reparsed",
        ),
    )
    item = made.results.evaluation("production")
    # 12 as stored; 7 stored labels have no reading. The 9 beyond the responses stay as they are.
    assert item.n_unparseable == 12 + 7
    assert made.imported.facts["responses"]["labels_from"] == "reparsed"


def test_no_post_is_written_but_in_responses(production: Made, runs: Path) -> None:
    path = only(runs / "production_high_capacity", "strategy_unified_results_*.csv")
    with path.open(encoding="utf-8", newline="") as stream:
        texts = [row["input_text"] for row in csv.DictReader(stream)]
    long = [text for text in texts if len(text) > 40]
    assert long
    for file in production.results.path.rglob("*.json"):
        content = file.read_text("utf-8")
        assert not [text for text in long if json.dumps(text, ensure_ascii=False)[1:-1] in content]


def test_a_further_phase_in_the_same_format(tmp_path: Path) -> None:
    """A made-up phase 3: files as the reference writes them, figures known by construction."""
    counts = {"lgbtq": (16, 6, 14, 4), "mexican": (9, 7, 2, 3), "middle_east": (13, 5, 7, 3)}
    cells = (("hate", "hate"), ("normal", "normal"), ("normal", "hate"), ("hate", "normal"))
    rows = [
        (group, *cells[kind], f"{group} post {kind} {number}")
        for group, numbers in counts.items()
        for kind, count in enumerate(numbers)
        for number in range(count)
    ]
    rows += [
        ("lgbtq", "hate", "unknown", "a post\nof two lines"),
        ("mexican", "normal", "", "null"),
    ]
    folder = tmp_path / "phase3"
    folder.mkdir()
    with (folder / "strategy_unified_results_1.csv").open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        names = ["strategy", "input_text", "true_label", "predicted_label", "response_time"]
        names += ["rationale", "target_group_norm", "persona_tag", "source_dataset", "status"]
        writer.writerow(names)
        for group, label, predicted, text in rows:
            cells = ["baseline_standard", text, label, predicted, "0.0", "JSON parse failed"]
            writer.writerow([*cells, group, group.upper(), "toxigen", "success"])
    with (folder / "intermediate_results_1.jsonl").open("w", encoding="utf-8") as out:
        for at, (group, label, predicted, text) in enumerate(rows[:10]):
            answer = f'final{{"classification": "{predicted}", "rationale": "so"}}'
            said = {"sample_id": at, "text": text, "true_label": label, "prediction": predicted}
            more = {"raw_response": answer, "response": answer, "strategy": "baseline_standard"}
            out.write(json.dumps({**said, **more, "target_group": group}) + "\n")
    tp, tn, fp, fn = (sum(numbers) for numbers in zip(*counts.values(), strict=True))
    f1 = 2 * tp / (2 * tp + fp + fn)
    bias = ["strategy,persona_tag,sample_count,false_positive_rate,false_negative_rate"]
    bias += [
        f"baseline_standard,{group},{sum(numbers) + (group != 'middle_east')},"
        f"{numbers[2] / (numbers[1] + numbers[2])},{numbers[3] / (numbers[0] + numbers[3])}"
        for group, numbers in counts.items()
    ]
    (folder / "bias_metrics_1.csv").write_text("\n".join(bias) + "\n")
    made = bring(
        tmp_path / "run",
        name="canned",
        answers=AnswerSource(
            predictions=folder / "strategy_unified_results_1.csv",
            responses=folder / "intermediate_results_1.jsonl",
        ),
        stated=(("f1", f"{f1:.4f}"), ("tp", str(tp)), ("fn", str(fn + 1))),
        stated_files=(folder / "bias_metrics_1.csv",),
    )
    item = made.results.evaluation("canned")
    assert item.confusion.model_dump() == {"tp": tp, "tn": tn, "fp": fp, "fn": fn}
    assert (item.n, item.n_unparseable) == (len(rows), 2)
    assert item.metrics.f1.value is not None and math.isclose(item.metrics.f1.value, f1)
    statuses = dict(made.statuses)
    assert statuses.pop("canned.fn") == "contradicted"
    assert len(statuses) == 11 and set(statuses.values()) == {"verified"}
    report = made.imported.facts["responses"]
    assert (report["responses"], report["agree"], report["differ"]) == (10, 10, 0)
