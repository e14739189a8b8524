from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest

from evenhand.core.evaluation import Evaluation
from evenhand.core.predictions import predictions_from_rows
from evenhand.core.records import Row
from evenhand.measure.classification import evaluate
from evenhand.report.comparison import comparison_table
from evenhand.report.records import PhaseReport, Selection, SetReport, Summary
from evenhand.report.summary import render_digest, render_summary

CONFIG = {
    "model_name_or_path": "tiny",
    "tuning": "lora",
    "lora_r": 32,
    "lora_target_modules": ["q_proj", "v_proj"],
    "learning_rate": 2e-4,
    "num_train_epochs": 3,
    "output_dir": None,
}
TRAINING = {
    "rows": 2686,
    "validation_rows": 55,
    "effective_batch_size": 64,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 4,
    "processes": 4,
    "steps_per_epoch": 42,
    "total_steps": 126,
    "trainable_parameters": 7962624,
    "total_parameters": 20914757184,
    "trainable_percent": 0.038,
    "runtime_seconds": 825.39,
    "rows_per_second": 9.763,
    "train_loss": 1.5196,
    "final_epoch": 3.0,
    "final_eval_loss": 0.528,
    "device": "cpu",
    "dtype": "float32",
    "objective": "label",
    "layout": "packed",
    "truncated_rows": 0,
    "best_checkpoint": "checkpoint-126",
    "stopped_early": False,
    "warmup_steps": 100,
    "checkpoints": [
        {"checkpoint": "checkpoint-42", "epoch": 1.0, "step": 42, "eval_loss": 1.3383},
        {"checkpoint": "checkpoint-84", "epoch": 2.0, "step": 84, "eval_loss": 0.5454},
        {
            "checkpoint": "checkpoint-126",
            "epoch": 3.0,
            "step": 126,
            "eval_loss": 0.528,
            "best": True,
        },
    ],
}


def evaluation(
    n: int, *, lift: float, name: str, unparseable: int = 0, groups: bool = True
) -> Evaluation:
    label = np.arange(n) % 9 < 4
    rows = [
        Row(
            id=f"{i:04}",
            text="t",
            label="hate" if hate else "normal",
            groups=(("alpha", "beta")[i % 7 < 1],) if groups else (),
            source="s|t",
            fine_label="plain",
        )
        for i, hate in enumerate(label)
    ]
    noise = np.random.default_rng(n).normal(size=n)
    score = 1 / (1 + np.exp(-(noise + lift * (label - 0.5))))
    score[:unparseable] = np.nan
    statuses = ["unparseable"] * unparseable + ["ok"] * (n - unparseable)
    constant = predictions_from_rows(rows, scores=np.ones(n))
    return evaluate(
        predictions_from_rows(rows, scores=score, statuses=statuses),
        name=name,
        rng=np.random.default_rng(0),
        n_bootstrap=200,
        baselines={"always_hate": constant},
        dataset_sha256="ab" * 32,
    )


def phase(name: str, evaluations: dict[str, Evaluation], **changes: object) -> PhaseReport:
    config = CONFIG | dict(changes.pop("config", {}))
    values = {
        "hypothesis": None,
        "config_source": f"{name}.json",
        "run_dir": f"runs/{name}",
        "training": TRAINING,
        "warnings": (),
    } | changes
    return PhaseReport(name=name, config=config, evaluations=evaluations, **values)


@pytest.fixture(scope="module")
def summary() -> Summary:
    phases = (
        phase(
            "weak",
            {"val": evaluation(120, lift=0.0, name="val")},
            hypothesis="rank 32 | is enough",
            warnings=("load_in_4bit has no effect on this device",),
        ),
        phase(
            "strong",
            {
                "val": evaluation(120, lift=2.0, name="val", unparseable=3),
                "production": evaluation(400, lift=1.5, name="production"),
            },
            config={"lora_r": 64, "num_train_epochs": 5},
        ),
        phase(
            "further",
            {"val": evaluation(120, lift=2.2, name="val")},
            parent="strong",
            config_source=None,
        ),
        phase(
            "as_it_came",
            {"val": evaluation(120, lift=0.1, name="val", groups=False)},
            training=None,
            config={"tuning": "none"},
        ),
    )
    f1 = {item.name: item.evaluations["val"].metrics.f1.value for item in phases}
    return Summary(
        name="toy",
        description="A toy experiment.",
        created="2026-01-02",
        phases=phases,
        sets=(
            SetReport("val", "validation", "val.json", "ab" * 32, 120, 54, {"alpha": 103}),
            SetReport("production", "production", "p.json", None, 400, 178, {"alpha": 343}),
        ),
        selection=Selection("val", "f1", "strong", f1, "the highest F1."),
        prompt={"file": "prompt.json", "strategy": "baseline", "sha256": "cd" * 32},
        machine={"device": "cpu", "gpu": None},
        command="evenhand run toy.json",
        notes=("A note.",),
    )


def tables(text: str) -> list[list[list[str]]]:
    found, current = [], []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            current.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif current:
            found.append(current)
            current = []
    return found


def section(text: str, title: str) -> str:
    start = text.index(f"\n## {title}\n")
    end = text.find("\n## ", start + 1)
    return text[start : end if end > 0 else None]


def test_every_part_of_the_reference_form_is_there(summary: Summary) -> None:
    text = render_summary(summary)
    for title in (
        "Contents",
        "Evaluation Sets",
        "Phase 1: weak",
        "Phase 2: strong",
        "Comparison Summary",
        "Chosen Phase",
        "Production Validation",
        "Findings",
        "Not Done",
        "Notes",
    ):
        assert f"\n## {title}\n" in text
    strong = section(text, "Phase 2: strong")
    for title in (
        "Configuration Details",
        "Training Statistics",
        "Training Results",
        "Training Progression",
        "Validation Results: val (validation)",
    ):
        assert f"### {title}\n" in strong
    assert "64 (4 per device x 4 processes x 4 accumulation)" in strong
    assert "7,962,624 (0.038% of 20,914,757,184)" in strong
    assert "100 (79.4% of the steps)" in strong
    assert "| checkpoint-84 | 2.0 | 84 | 0.5454 | down 59.2% relative |" in strong
    assert "| checkpoint-126 (BEST) |" in strong
    assert "rank 32 \\| is enough" in section(text, "Phase 1: weak")
    assert "Nothing was trained" in section(text, "Phase 4: as_it_came")
    assert "lora_r" not in section(text, "Phase 4: as_it_came")


def test_tables_are_well_formed(summary: Summary) -> None:
    text = render_summary(summary)
    found = tables(text)
    assert len(found) > 20
    for header, rule, *body in found:
        assert set("".join(rule)) <= set(":-")
        assert body
        assert all(len(row) == len(header) == len(rule) for row in body)
        assert all(cell for row in [header, *body] for cell in row)


def test_nothing_undefined_leaks_into_the_text(summary: Summary) -> None:
    for text in (render_summary(summary), render_digest(summary)):
        assert not re.search(r"\b(nan|None|null|inf|True|False)\b", text)
        assert "{{" not in text
        assert "object at" not in text
        assert "\n\n\n" not in text


def test_the_contents_link_to_the_headings(summary: Summary) -> None:
    text = render_summary(summary)
    links = re.findall(r"^\d+\. \[(.+)\]\(#(.+)\)$", text, flags=re.MULTILINE)
    headings = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    assert [title for title, _ in links] == [title for title in headings if title != "Contents"]
    assert ("Phase 1: weak", "phase-1-weak") in links


def test_printed_numbers_are_the_evaluations_rounded(summary: Summary) -> None:
    text = render_summary(summary)
    item = summary.phases[1].evaluations["val"]
    performance = next(t for t in tables(section(text, "Phase 2: strong")) if t[2][0] == "F1")
    by_name = {row[0]: row for row in performance[2:]}
    for key, title in (("f1", "F1"), ("roc_auc", "ROC AUC"), ("fpr", "FPR"), ("ece", "ECE")):
        value = getattr(item.metrics, key)
        assert by_name[title][1] == f"{value.value:.3f}"
        assert by_name[title][2] == f"[{value.low:.3f}, {value.high:.3f}]"
    fpr = item.metrics.fpr
    assert by_name["FPR"][3] == f"{fpr.numerator} of {fpr.denominator}"
    before = summary.phases[0].evaluations["val"].metrics.f1.value
    assert by_name["F1"][4] == f"{100 * (item.metrics.f1.value - before):+.1f} pp"
    bias = next(t for t in tables(text) if t[0][0] == "Target group" and len(t[0]) == 10)
    alpha = item.groups["alpha"]
    assert bias[2][:3] == ["alpha", str(alpha.n), f"{100 * alpha.fpr.value:.1f}%"]
    assert bias[2][4] == str(alpha.confusion.negatives)


def test_baselines_and_intervals_stand_in_the_comparison(summary: Summary) -> None:
    compared = section(render_summary(summary), "Comparison Summary")
    performance = next(t for t in tables(compared) if t[0][0] == "Model")
    assert [row[0] for row in performance[2:]] == [
        "weak",
        "strong",
        "further",
        "as_it_came",
        "baseline: always_hate",
    ]
    assert all("[" in row[1] for row in performance[2:])
    assert "### further against its parent strong on val" in compared


def test_learned_nothing_is_said_in_the_phase_and_in_the_comparison(summary: Summary) -> None:
    text = render_summary(summary)
    assert "**learned nothing**" in section(text, "Phase 1: weak")
    assert "**learned nothing**" not in section(text, "Phase 2: strong")
    assert "**learned nothing**: weak and as_it_came." in section(text, "Comparison Summary")
    assert "weak **learned nothing**" in section(text, "Findings")


def test_findings_are_computed(summary: Summary) -> None:
    found = section(render_summary(summary), "Findings")
    assert "treat differences as undecided" in found
    assert "too few labels for a claim about beta FPR" in found
    assert "strong left 3 of 120 rows of val unscored" in found
    assert "strong differs from weak in lora_r and num_train_epochs" in found
    assert "Warm-up takes 79.4% of the steps of weak" in found
    assert "weak: load_in_4bit has no effect on this device" in found
    alone = dataclasses.replace(summary, phases=summary.phases[1:2])
    assert "learned nothing" not in render_summary(alone)
    assert "strong differs from" not in render_summary(alone)


def test_other_data_under_the_same_name_is_a_finding(summary: Summary) -> None:
    first, *others = summary.phases
    moved = first.evaluations["val"].model_copy(update={"dataset_sha256": "00"})
    changed = dataclasses.replace(first, evaluations={"val": moved})
    text = render_summary(dataclasses.replace(summary, phases=(changed, *others)))
    assert "do not compare them on it" in text
    assert "do not compare them on it" not in render_summary(summary)


def test_the_production_section_belongs_to_the_chosen_phase(summary: Summary) -> None:
    text = render_summary(summary)
    production = section(text, "Production Validation")
    assert "### strong on production" in production
    assert "Validation Results: production" not in text
    f1 = summary.phases[1].evaluations["production"].metrics.f1.value
    assert f"| F1 | {f1:.3f} |" in production
    assert "source: s\\|t" in production
    without = dataclasses.replace(summary, phases=summary.phases[:1], selection=None)
    text = render_summary(without)
    assert "No production set was evaluated" in text
    assert "No production validation was run" in text
    assert "No phase was chosen" in text


def test_an_empty_summary_renders() -> None:
    text = render_summary(Summary("empty", None, "2026-01-02", (), (), None, {}, {}, None))
    assert "No phase was evaluated." in text
    assert not re.search(r"\b(nan|None)\b", text)
    assert "chosen: none" in render_digest(
        Summary("empty", None, "2026-01-02", (), (), None, {}, {}, None)
    )


def test_a_training_record_with_gaps_renders(summary: Summary) -> None:
    sparse = dataclasses.replace(
        summary.phases[0], training={"rows": 5, "train_loss": float("nan"), "checkpoints": []}
    )
    text = render_summary(dataclasses.replace(summary, phases=(sparse,), selection=None))
    assert "not recorded" in text
    assert not re.search(r"\b(nan|None)\b", text)


def test_names_cannot_break_the_markdown(summary: Summary) -> None:
    named = dataclasses.replace(summary.phases[0], name="a|b\n## x <b>")
    text = render_summary(dataclasses.replace(summary, phases=(named,), selection=None))
    assert "\n## x" not in text
    assert "<b>" not in text
    for header, _, *body in tables(text):
        assert all(len(row) == len(header) for row in body)


def test_the_digest_is_short(summary: Summary) -> None:
    text = render_digest(summary)
    lines = text.splitlines()
    assert len(lines) <= 15
    assert "LEARNED NOTHING" in lines[1]
    assert "worst group FPR" in text
    assert "chosen: strong, by F1 on val" in text
    assert any(line.startswith("production: strong") for line in lines)


def test_the_comparison_is_plain_data(summary: Summary) -> None:
    content = comparison_table(summary)
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    f1 = summary.phases[0].evaluations["val"].metrics.f1.value
    assert content["sets"]["val"]["phases"]["weak"]["metrics"]["f1"]["value"] == f1
    assert content["sets"]["val"]["phases"]["weak"]["learned_nothing"] is True
    assert content["sets"]["val"]["baselines"]["always_hate"]["metrics"]["fpr"]["value"] == 1.0
    assert set(content["sets"]["production"]["phases"]) == {"strong"}
    assert content["phases"]["further"]["parent"] == "strong"
    assert content["phases"]["as_it_came"]["training"] is None
