from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
from tests.report.built import build_summary, section

from evenhand.core.predictions import predictions_from_rows
from evenhand.core.records import Row
from evenhand.measure.classification import evaluate
from evenhand.report.comparison import chance_phases, comparison_table
from evenhand.report.records import Summary
from evenhand.report.remarks import chance_remark
from evenhand.report.summary import render_digest, render_summary


@pytest.fixture(scope="module")
def summary() -> Summary:
    return build_summary()


def tables(text: str) -> list[list[list[str]]]:
    found, current = [], []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            current.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif current:
            found.append(current)
            current = []
    return found


def test_every_part_of_the_reference_form_is_there(summary: Summary) -> None:
    text = render_summary(summary)
    for title in (
        "Contents",
        "Evaluation Sets",
        "Phase 1: weak - COMPLETED",
        "Phase 2: strong - COMPLETED",
        "Comparison Summary",
        "Chosen Phase",
        "Production Validation",
        "Threshold and Calibration",
        "Slices and Composition",
        "Production Readiness Assessment",
        "Recommendations",
        "Experimental Conclusions",
        "Not Done",
        "Notes",
        "Deployment Status",
        "Reproduction",
    ):
        assert f"\n## {title}\n" in text
    strong = section(text, "Phase 2: strong - COMPLETED")
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
    assert "rank 32 \\| is enough" in section(text, "Phase 1: weak - COMPLETED")
    assert "Nothing was trained" in section(text, "Phase 4: as_it_came - COMPLETED")
    assert "lora_r" not in section(text, "Phase 4: as_it_came - COMPLETED")


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
    assert ("Phase 1: weak - COMPLETED", "phase-1-weak---completed") in links


def test_printed_numbers_are_the_evaluations_rounded(summary: Summary) -> None:
    text = render_summary(summary)
    item = summary.phases[1].evaluations["val"]
    performance = next(
        t for t in tables(section(text, "Phase 2: strong - COMPLETED")) if t[2][0] == "F1"
    )
    by_name = {row[0]: row for row in performance[2:]}
    for key, title in (("f1", "F1"), ("roc_auc", "ROC AUC"), ("fpr", "FPR"), ("ece", "ECE")):
        value = getattr(item.metrics, key)
        assert by_name[title][1].split()[0] == f"{value.value:.4f}"
        assert by_name[title][2] == f"[{value.low:.3f}, {value.high:.3f}]"
    fpr = item.metrics.fpr
    assert float(by_name["FPR"][1].partition("(")[2].rstrip("%)")) == pytest.approx(
        100 * fpr.value, abs=0.005
    )
    assert by_name["FPR"][3] == f"{fpr.numerator} of {fpr.denominator}"
    before = summary.phases[0].evaluations["val"].metrics.f1.value
    after = item.metrics.f1.value
    share = (after - before) / before
    assert by_name["F1"][4] == f"{100 * (after - before):+.2f} pp ({share:+.1%} relative)"
    assert by_name["F1"][5] == "not tested"
    bias = next(t for t in tables(text) if t[0][0] == "Target group" and len(t[0]) == 11)
    alpha = item.groups["alpha"]
    assert bias[2][:2] == ["alpha", str(alpha.n)]
    assert float(bias[2][2].rstrip("%")) == pytest.approx(100 * alpha.fpr.value, abs=0.005)
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
    assert "Change from strong" in section(render_summary(summary), "Phase 3: further - COMPLETED")


def test_what_is_not_shown_to_beat_chance_is_said_once_per_phase(summary: Summary) -> None:
    text = render_summary(summary)
    weak = section(text, "Phase 1: weak - COMPLETED")
    words = "not shown to rank better than chance"
    assert weak.count(f"This phase is {words}: its ROC AUC on val is ") == 1
    assert words not in section(text, "Phase 2: strong - COMPLETED")
    assert text.count(words) == 2
    efficiency = next(t for t in tables(text) if t[0][0] == "Phase")
    assert [row[-1] for row in efficiency[2:]] == [
        "not shown to beat chance",
        "chosen",
        "complete",
        "not shown to beat chance",
    ]


def test_decisions_and_sets_of_one_class_are_not_called_scores_or_faults(summary: Summary) -> None:
    rows = [
        Row(id=str(number), text="t", label="hate" if number < 20 else "normal")
        for number in range(40)
    ]
    decided = predictions_from_rows(rows, decisions=["hate", "normal"] * 20)
    normal = predictions_from_rows(rows[20:], scores=np.full(20, 0.2))
    remarks = [
        chance_remark(
            evaluate(one, name="val", rng=np.random.default_rng(0), n_bootstrap=100, method=method)
        )
        for one, method in ((decided, "import"), (normal, "score"))
    ]
    assert remarks[0] is not None and "its decisions on val are hate for 50.0%" in remarks[0]
    assert "score" not in remarks[0]
    assert remarks[1] == (
        "Whether this phase ranks better than chance cannot be told: val has no hate rows."
    )
    item = evaluate(normal, name="val", rng=np.random.default_rng(0), n_bootstrap=100)
    alone = dataclasses.replace(summary.phases[2], parent=None, evaluations={"val": item})
    built = dataclasses.replace(summary, phases=(alone,), selection=None)
    assert chance_phases(built) == ()
    assert comparison_table(built)["sets"]["val"]["phases"]["further"]["learned_nothing"] is None


def test_remarks_stand_where_they_belong(summary: Summary) -> None:
    text = render_summary(summary)
    strong = section(text, "Phase 2: strong - COMPLETED")
    assert "Too few labels for a claim about beta FPR" in strong
    assert "3 of 120 rows have no decision (3 unparseable, 0 in error): F1 lies between" in strong
    assert "strong differs from weak in lora_r and num_train_epochs" in strong
    assert "load_in_4bit has no effect on this device" in section(text, "Phase 1: weak - COMPLETED")
    production = section(text, "Production Validation")
    assert "on val, where the phase was chosen" in production
    assert "A value on the set that chose is optimistic." in production
    alone = dataclasses.replace(summary, phases=summary.phases[1:2])
    assert "better than chance" not in render_summary(alone)
    assert "strong differs from" not in render_summary(alone)


def test_what_an_import_does_not_state_is_not_filled_in(summary: Summary) -> None:
    first, *others = summary.phases
    origin = {"evaluations": {}}
    bare = dataclasses.replace(first, config={}, config_source=None, imported=origin)
    text = render_summary(dataclasses.replace(summary, phases=(bare, *others)))
    weak = section(text, "Phase 1: weak - COMPLETED")
    assert "- **Config**: not recorded" in weak
    assert "### Configuration Details\n\nNot recorded." in weak
    assert "strong differs from" not in text
    stated = dataclasses.replace(first, config={"lora_r": 32}, imported=origin)
    text = render_summary(dataclasses.replace(summary, phases=(stated, *others)))
    assert 'json\n{\n  "lora_r": 32\n}\n' in text
    # One key is known to differ; of the other, which only one of the two states, nothing is said.
    assert "strong differs from" not in text
    efficiency = next(t for t in tables(text) if t[0][0] == "Phase")
    assert efficiency[2][2:4] == ["32", "not recorded"]


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
    assert f"| F1 | {f1:.4f} |" in production
    assert "source: s\\|t" in section(text, "Slices and Composition")
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
    digest = render_digest(dataclasses.replace(summary, phases=(named,), selection=None))
    assert any(line.startswith("  a|b ## x <b>  F1 ") for line in digest.splitlines())
    for header, _, *body in tables(text):
        assert all(len(row) == len(header) for row in body)


def test_the_digest_is_short(summary: Summary) -> None:
    text = render_digest(summary)
    lines = text.splitlines()
    assert len(lines) <= 18
    assert "NOT SHOWN TO BEAT CHANCE" in lines[1]
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
