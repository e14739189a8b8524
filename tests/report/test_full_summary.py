"""What a summary says of decisions: nothing that their intervals and tests do not support."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from tests.report.built import build_full_summary, build_summary
from tests.report.test_summary import section, tables

from evenhand.core.decisions import Comparison, Pair, PairedTest
from evenhand.core.evaluation import Composition, Evaluation, Gap, MetricValue, RateRatio
from evenhand.core.predictions import predictions_from_rows
from evenhand.core.records import Row
from evenhand.measure.classification import evaluate
from evenhand.report.analysis import analyse_phase
from evenhand.report.comparison import comparison_table, unranked_words, worst_group_fpr
from evenhand.report.composed import composition_words, read_gap
from evenhand.report.conclusions import open_questions, practices
from evenhand.report.figures import draw_pictures
from evenhand.report.recommendations import immediate_action, recommendations
from evenhand.report.records import Summary
from evenhand.report.summary import render_digest, render_summary


@pytest.fixture(scope="module")
def summary() -> Summary:
    return build_full_summary()


def paired(metric: str, difference: float, verdict: str, *, spread: float = 0.01) -> PairedTest:
    return PairedTest(
        metric=metric,
        group=None,
        first=0.6,
        second=0.6 + difference,
        difference=MetricValue(
            value=difference, low=difference - spread, high=difference + spread, method="b"
        ),
        test="t",
        p_value=0.01,
        p_holm=0.02,
        n=120,
        n_discordant=9,
        minimum_detectable=0.04,
        verdict=verdict,
    )


def compared(*tests: PairedTest, first: str = "weak", second: str = "strong") -> Comparison:
    pair = Pair(first=first, second=second, tests=tests, verdict=tests[0].verdict)
    return Comparison(
        set="val",
        n=120,
        n_left_out=0,
        n_clusters=None,
        models=(first, second),
        replicates={},
        alpha=0.05,
        n_bootstrap=200,
        pairs=(pair,),
    )


def with_comparison(comparison: Comparison) -> Summary:
    return dataclasses.replace(build_summary(), comparisons=(comparison,))


def test_the_audit_stands_before_the_phases_with_what_was_accepted(summary: Summary) -> None:
    text = render_summary(summary)
    audit = section(text, "Audit Findings")
    assert text.index("## Audit Findings") < text.index("## Phase 1")
    assert audit.index("### Errors (2)") < audit.index("### Notes (1)")
    assert "2 errors (1 accepted), 0 warnings and 1 note, from 2 checks." in audit
    assert "Accepted: it is the reference's own leak" in audit
    assert "- **exact_overlap**, 2 times:\n  - train / val: 73 of 100 rows" in audit
    assert (
        "    - Rows: train row-0 = val 0; train row-1 = val 1; train row-2 = val 2; "
        "train row-3 = val 3; train row-4 = val 4; and 68 more in audit.json\n"
    ) in audit
    assert audit.count("Remedy: Take them out.") == 1
    assert "row-5" not in audit
    assert "similarity" not in audit
    assert "Not checked: prompt drift (the prompt is not known)" in audit


def test_seeds_of_a_phase_share_a_section_led_by_the_chosen_one() -> None:
    comparison = compared(paired("f1", 0.05, "better"), first="plain", second="bold")
    seeds = {"bold": ("weak", "strong"), "plain": ("further", "as_it_came")}
    summary = with_comparison(comparison.model_copy(update={"replicates": seeds}))
    weak, *others = summary.phases
    weak = dataclasses.replace(weak, warnings=("only the other seed warned",))
    summary = dataclasses.replace(summary, phases=(weak, *others))
    text = render_summary(summary)
    titles = re.findall(r"^## (Phase .*)$", text, flags=re.MULTILINE)
    assert titles == ["Phase 1: bold - COMPLETED", "Phase 2: plain - COMPLETED"]
    bold = section(text, "Phase 1: bold - COMPLETED")
    assert "- **Run folder**: runs/strong\n- **Seeds**: This section is strong's" in bold
    assert "Warning: only the other seed warned" in bold
    assert "This section is further's; as_it_came" in section(text, "Phase 2: plain - COMPLETED")
    assert "- Phases on val: 1 of 1 pair differs in F1 by a paired test." in text
    assert "bold against plain on val: better in F1" in text
    beside = tables(section(text, "Comparison Summary"))[0]
    assert {row[0] for row in beside[2:]} >= {"weak", "strong", "further", "as_it_came"}
    shown = {one.name: one.description for one in draw_pictures(summary)}
    assert "strong alpha FPR" in shown["groups-val"] and "weak" not in shown["groups-val"]


def test_the_readiness_table_is_the_gates(summary: Summary) -> None:
    text = section(render_summary(summary), "Production Readiness Assessment")
    rows = {row[0]: row for row in tables(text)[0][2:]}
    assert rows["F1 \u2265 0.615"][1] == "PASS"
    assert "Met by always_hate (0.6216)." in rows["F1 \u2265 0.615"][6]
    assert rows["F1 \u2265 0.70"][3] == "\u2265 0.70"
    assert rows["F1 \u2265 0.70"][1] == "UNDECIDED"
    assert (
        "About 2,310 rows in all would settle it in four cases of five."
        in rows["F1 \u2265 0.70"][6]
    )
    assert rows["Bias"][1:5] == [
        "CONDITION NOT MET",
        "60.0% [54.0%, 66.0%] (alpha)",
        "\u2264 50% for each group",
        "condition",
    ]
    assert "Met by always_normal (0.0%)." in rows["Bias"][6]
    assert rows["Generalisation"][2] == "-1.6 pp"
    assert "Met by always_hate (0.0 pp)." in rows["Generalisation"][6]
    assert "the results say nothing about the model" in text
    assert "- **Bias**: Monitor alpha FPR; by 2026-02-01, tune the threshold (owner: team)." in text
    assert "**Verdict**: NO VERDICT: always_hate meets every required criterion\n" in text
    assert "| strong | production | PASS" in section(render_summary(summary), "Comparison Summary")


def test_the_threshold_is_told_before_and_after(summary: Summary) -> None:
    text = section(render_summary(summary), "Threshold and Calibration")
    assert "no group's FPR above 30.0%" in text
    assert "95% confidence: fixed-sequence testing" in text
    header = tables(text)[0][0]
    assert header[1:3] == ["At 0.5", "At 0.6200"]
    assert "Temperature scaling: 1.310, fitted on 120 validation rows." in text


def test_deployment_and_stated_figures_are_told(summary: Summary) -> None:
    text = render_summary(summary)
    status = section(text, "Deployment Status")
    assert "**Status**: APPROVED WITH CONDITIONS" in status
    assert "**Next action**: review alpha false positives (due 2026-02-01).\n" in status
    assert "Bias: monitor alpha FPR; by 2026-02-01, tune the threshold (owner: team).\n" in status
    stated = section(text, "Phase 2: strong - COMPLETED")
    assert "| production.f1 | 0.9 | contradicted | 0.7 |" in stated
    assert "| date | 2026-01-01 | stated, not verified | - |" in stated
    assert immediate_action(summary)[0].startswith("APPROVED WITH CONDITIONS")


def test_recommendations_have_every_part(summary: Summary) -> None:
    options = recommendations(summary)
    assert [one.title[:8] for one in options] == [f"Option {letter}" for letter in "ABCD"]
    assert all(all(dataclasses.astuple(one)) for one in options)
    assert options[0].status == "Done: 0.6200 in place of 0.5."
    text = section(render_summary(summary), "Recommendations")
    for key in ("Purpose", "Method", "Current", "Expected", "Time", "Status"):
        assert text.count(f"- **{key}**: ") == 4


def test_nothing_undefined_leaks_out_of_decisions(summary: Summary) -> None:
    for text in (render_summary(summary), render_digest(summary)):
        assert not re.search(r"\b(nan|None|null|inf|True|False)\b", text)
        assert "object at" not in text


def test_the_digest_tells_what_was_decided(summary: Summary) -> None:
    lines = render_digest(summary).splitlines()
    assert any(line.startswith("production: strong  F1 ") for line in lines)
    assert any(
        line.startswith("production, tuned: strong  F1 ") and "at the threshold 0.6200" in line
        for line in lines
    )
    (gate,) = [line for line in lines if line.startswith("gate: ")]
    verdict, _, rest = gate.partition("; ")
    assert verdict == (
        "gate: strong  NO VERDICT: always_hate meets every required criterion on production"
    )
    assert rest == "conditions: Bias (by 2026-02-01)"
    assert (
        "audit: 2 errors (1 accepted), 0 warnings and 1 note, from 2 checks. "
        "Errors: exact_overlap (train / production)."
    ) in lines
    assert 1 <= sum(line.startswith("- ") for line in lines) <= 6


@pytest.mark.parametrize(
    ("metric", "difference", "verdict", "kind"),
    [
        ("f1", 0.08, "better", "worked"),
        ("f1", -0.08, "worse", "did_not"),
        ("fpr", -0.2, "better", "worked"),
        ("f1", 0.08, "no_evidence", "undecided"),
    ],
)
def test_what_worked_is_what_a_paired_test_shows(
    metric: str, difference: float, verdict: str, kind: str
) -> None:
    built = with_comparison(compared(paired(metric, difference, verdict)))
    found = analyse_phase(built, built.phases[1])
    for name in ("worked", "did_not", "undecided"):
        told = any(
            "against weak" in text or "from weak on val" in text for text in getattr(found, name)
        )
        assert told == (name == kind)


def test_a_pair_in_the_other_order_is_turned_round() -> None:
    built = with_comparison(compared(paired("f1", 0.08, "better"), first="strong", second="weak"))
    test = built.paired_test("val", ("weak", "strong"), metric="f1")
    assert test is not None
    assert test.verdict == "worse"
    assert test.difference.value == -0.08
    assert test.difference.low == pytest.approx(-0.09)
    assert (test.first, test.second) == (pytest.approx(0.68), 0.6)


def test_no_evidence_names_what_could_have_been_found() -> None:
    built = with_comparison(compared(paired("f1", 0.01, "no_evidence")))
    found = analyse_phase(built, built.phases[1])
    assert any("true difference in F1 of about 4.0 pp" in text for text in found.undecided)
    # 120 rows show 4 points; a quarter of that takes sixteen times as many.
    assert any("about 1,920 rows like those of val would show" in t for t in open_questions(built))
    assert any("none is shown to differ" in text for text in practices(built))
    learned = section(render_summary(built), "Experimental Conclusions")
    assert "no evidence of a difference" in learned


def test_without_a_test_nothing_is_claimed() -> None:
    built = build_summary()
    found = analyse_phase(built, built.phases[1])
    assert found.worked == ()
    assert "Not compared with weak by a paired test." in found.undecided
    assert any("paired test before preferring" in text for text in practices(built))


def ratio(value: float, low: float, high: float) -> MetricValue:
    return MetricValue(value=value, low=low, high=high, method="mantel_haenszel")


def with_gap(
    item: Evaluation, *, adjusted: MetricValue, explained: float = 0.88, left_out: int = 0
) -> Evaluation:
    rate = MetricValue(value=0.3, low=0.2, high=0.4, method="newcombe")
    rates = RateRatio(
        crude=ratio(2.15, 1.71, 2.70),
        adjusted=adjusted,
        explained=explained,
        strata=3,
        left_out=left_out,
    )
    confusion = item.confusion
    return item.model_copy(
        update={
            "gaps": {"alpha": Gap(fpr=rate, fnr=rate, rest=confusion)},
            "composition": {
                "alpha": Composition(by=("source", "fine_label"), fpr=rates, fnr=rates)
            },
        }
    )


@pytest.mark.parametrize(
    ("adjusted", "explained", "left_out", "words", "status"),
    [
        ((1.09, 0.92, 1.30), 0.88, 0, "explains much of the gap, about 88%", "Review the label"),
        ((1.60, 1.20, 2.10), 0.40, 0, "higher beyond composition", "Augmentation is indicated"),
        ((1.60, 0.80, 3.10), 0.40, 0, "nor that composition explains", "Undetermined for alpha: l"),
        ((1.09, 0.92, 1.30), 0.88, 40, "normal rows: no difference", "Review the label"),
    ],
)
def test_composition_decides_between_label_policy_and_data(
    adjusted: tuple[float, float, float], explained: float, left_out: int, words: str, status: str
) -> None:
    built = build_summary()
    weak, strong, *others = built.phases
    item = with_gap(
        strong.evaluations["production"],
        adjusted=ratio(*adjusted),
        explained=explained,
        left_out=left_out,
    )
    strong = dataclasses.replace(strong, evaluations={**strong.evaluations, "production": item})
    built = dataclasses.replace(built, phases=(weak, strong, *others))
    assert words in composition_words(item, "alpha")
    labels = item.groups["alpha"].negatives.labels
    over = f"over {labels - left_out} of its {labels} normal rows"
    assert (over in composition_words(item, "alpha")) == (left_out > 0)
    option = recommendations(built)[1]
    assert option.status.startswith(status)
    assert f"{adjusted[0]:.2f} [{adjusted[1]:.2f}, {adjusted[2]:.2f}]" in option.expected


def test_nothing_is_said_of_composition_over_less_than_half_of_the_rows() -> None:
    item = build_summary().phases[1].evaluations["production"]
    labels = item.groups["alpha"].negatives.labels
    for adjusted in (ratio(1.09, 0.92, 1.30), ratio(1.60, 1.20, 2.10)):
        half = with_gap(item, adjusted=adjusted, left_out=labels // 2)
        most = with_gap(item, adjusted=adjusted, left_out=labels // 2 + 1)
        assert read_gap(half, "alpha").kind != "undetermined"
        reading = read_gap(most, "alpha")
        assert (reading.kind, reading.missing) == ("undetermined", "strata")
        words = composition_words(most, "alpha")
        assert "cannot be said, since only" in words
        assert "1.09" not in words and "1.60" not in words


def test_open_questions_never_ask_for_fewer_rows_than_there_are() -> None:
    built = with_comparison(compared(paired("f1", 0.08, "no_evidence")))
    question = next(text for text in open_questions(built) if text.startswith("Does F1 of"))
    assert "These 120 rows of val would have shown" in question
    assert "in four cases of five" in question


def test_the_level_of_the_detectable_difference_is_named() -> None:
    three = compared(paired("f1", 0.01, "no_evidence")).model_copy(update={"n_primary": 3})
    built = with_comparison(three)
    found = analyse_phase(built, built.phases[1]).undecided
    level = "tested at a level of 1.7% (5% over 3 tests, Holm's first step)"
    assert any(level in text for text in found)
    assert any(level in text for text in open_questions(built))


def test_small_groups_are_not_ranked() -> None:
    item = build_summary().phases[1].evaluations["production"]
    beta = item.groups["beta"]
    high = MetricValue(value=1.0, low=0.4, high=1.0, method="wilson")
    small = beta.model_copy(
        update={"fpr": high, "negatives": beta.negatives.model_copy(update={"too_small": True})}
    )
    item = item.model_copy(update={"groups": {**item.groups, "beta": small}})
    assert worst_group_fpr(item) == ("alpha", item.groups["alpha"].fpr)
    assert unranked_words(item) == " (not ranked, too few normal rows: beta)"


def test_a_vacuous_gate_passes_nowhere(summary: Summary) -> None:
    for text in (render_summary(summary), render_digest(summary)):
        assert "NO VERDICT: always\\_hate" in text or "NO VERDICT: always_hate" in text
        assert "PASS WITH CONDITIONS" not in text
    assert comparison_table(summary)["phases"]["strong"]["verdict"] == "NO VERDICT"


@pytest.mark.parametrize(
    ("losses", "status"),
    [
        ((0.9, 0.7, 0.5), "Indicated"),
        ((0.9, 0.5), "A hint, untested"),
        ((0.9, 0.5, 0.499), "A hint, untested"),
        ((0.9, 0.5, 0.6), "Not indicated"),
    ],
)
def test_continued_training_needs_a_trend(losses: tuple[float, ...], status: str) -> None:
    built = build_summary()
    weak, strong, _, last = built.phases
    checkpoints = [
        {"checkpoint": f"c{i}", "step": i, "eval_loss": loss, "best": loss == min(losses)}
        for i, loss in enumerate(losses)
    ]
    strong = dataclasses.replace(strong, training={"checkpoints": checkpoints})
    built = dataclasses.replace(built, phases=(weak, strong, last))
    assert recommendations(built)[3].status.startswith(status)


def test_a_production_change_is_only_told_where_its_interval_shows_it(summary: Summary) -> None:
    text = section(render_summary(summary), "Production Validation")
    header = next(t for t in tables(text) if t[0][0] == "Metric")[0]
    assert header[4:] == ["Change from val"]
    for line in text.splitlines():
        if " here:" in line and line.startswith("- "):
            low, high = map(float, re.findall(r"pp \[([-+.\d]+), ([-+.\d]+)\]", line)[0])
            assert ("not shown to have changed" in line) == (low <= 0 <= high)


def test_a_functional_suite_is_told_per_functionality() -> None:
    rows = [
        Row(
            id=f"{number:03}",
            text="t",
            label="hate" if number % 4 < 2 else "normal",
            groups=("alpha",),
            fine_label=f"function {number % 4}",
            cluster=f"template {number // 2}",
        )
        for number in range(80)
    ]
    scores = np.where(np.arange(80) % 4 == 3, 0.9, [row.label == "hate" for row in rows])
    answers = predictions_from_rows(rows, scores=scores.astype(float))
    suite = evaluate(answers, name="suite", rng=np.random.default_rng(0), n_bootstrap=100)
    built = build_summary()
    weak, strong, *others = built.phases
    strong = dataclasses.replace(strong, evaluations={**strong.evaluations, "suite": suite})
    text = render_summary(dataclasses.replace(built, phases=(weak, strong, *others)))
    part = section(text, "Functional Suite: suite")
    by_function = {row[0]: row for row in tables(part)[0][2:]}
    assert by_function["function 0"][1:4] == ["hate", "20", "100.0%"]
    assert by_function["function 3"][1:4] == ["normal", "20", "0.0%"]
    assert "Uncovered: the suite has no case for beta." in part
    assert "Functional Suite: val" not in text
