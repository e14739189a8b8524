"""The comparison in words: sentences and tables say what the record says, and no more."""

from __future__ import annotations

from typing import Any

import pytest

from evenhand.core.decisions import Comparison, Pair, PairedTest
from evenhand.core.evaluation import MetricValue
from evenhand.report.paired import comparison_section, pair_sentence, paired_table


def make_test(metric: str = "f1", group: str | None = None, **changes: Any) -> PairedTest:
    fields = {
        "first": 0.7443,
        "second": 0.7421,
        "difference": MetricValue(
            value=-0.0022, low=-0.0251, high=0.0209, method="paired_bootstrap"
        ),
        "test": "randomisation_exact",
        "p_value": 0.4,
        "p_holm": 0.83,
        "n": 513,
        "n_discordant": 25,
        "minimum_detectable": 0.0331,
        "verdict": "no_evidence",
    }
    return PairedTest(metric=metric, group=group, **{**fields, **changes})


def make_comparison(*tests: PairedTest, **changes: Any) -> Comparison:
    pair = Pair(first="q_v", second="k_proj", tests=tests, verdict=tests[0].verdict)
    fields = {
        "set": "unified_val",
        "n": 513,
        "n_left_out": 0,
        "n_clusters": None,
        "models": ("q_v", "k_proj"),
        "replicates": {},
        "alpha": 0.05,
        "n_bootstrap": 10_000,
        "pairs": (pair,),
    }
    return Comparison(**{**fields, **changes})


def sentence_of(comparison: Comparison) -> str:
    return pair_sentence(comparison.pairs[0], comparison)


def test_no_evidence_names_what_could_have_been_missed() -> None:
    assert sentence_of(make_comparison(make_test())) == (
        "k_proj against q_v on unified_val: no evidence of a difference in F1 "
        "(-0.2 pp [-2.5, +2.1], p = 0.830 after Holm; differences under about 3.3 pp may go "
        "unnoticed with these 513 rows)."
    )


@pytest.mark.parametrize("verdict", ["better", "worse"])
def test_a_difference_names_its_figures(verdict: str) -> None:
    text = sentence_of(make_comparison(make_test(verdict=verdict, p_holm=0.0002)))
    assert text == (
        f"k_proj against q_v on unified_val: {verdict} in F1 "
        "(-0.2 pp [-2.5, +2.1], p below 0.001 after Holm)."
    )


def test_other_metrics_that_differ_are_not_left_out() -> None:
    gain = MetricValue(value=-0.12, low=-0.2, high=-0.04, method="paired_bootstrap")
    better = make_test("fpr", "lgbtq", verdict="better", p_holm=0.01, difference=gain)
    worse = make_test("accuracy", verdict="worse", p_holm=0.02)
    text = sentence_of(make_comparison(make_test(), better, worse, make_test("fnr")))
    assert text.endswith(
        "It has better FPR of lgbtq (-12.0 pp [-20.0, -4.0], p = 0.010 after Holm) and worse "
        "accuracy (-0.2 pp [-2.5, +2.1], p = 0.020 after Holm)."
    )
    assert "FNR" not in text


def test_undefined_is_said() -> None:
    undefined = make_test(
        difference=MetricValue(reason="no_positives"),
        first=None,
        second=None,
        p_value=None,
        p_holm=None,
        minimum_detectable=None,
        verdict="undefined",
    )
    comparison = make_comparison(undefined)
    assert "F1 cannot be compared (no positives)" in sentence_of(comparison)
    assert "| F1 | - | - | undefined (no positives) | - | - | - |" in paired_table(
        comparison.pairs[0]
    )


def test_the_table_flags_few_rows() -> None:
    table = paired_table(make_comparison(make_test(), make_test("fpr", "mexican", n=12)).pairs[0])
    lines = table.splitlines()
    assert lines[2].endswith("| 513 | 25 | no evidence of a difference |")
    assert lines[3].startswith("| FPR, mexican |")
    assert lines[3].endswith("| 12 | 25 | no evidence of a difference, too few rows |")


def test_the_section_says_what_was_compared() -> None:
    text = comparison_section(
        make_comparison(
            make_test(),
            n_primary=1,
            n_left_out=3,
            n_clusters=40,
            replicates={"k_proj": ("k1", "k2")},
        ),
        level=4,
    )
    assert "Over the same 513 rows in 40 clusters of unified_val. 3 rows of the set are" in text
    assert "k_proj is the mean over k1 and k2." in text
    assert "adjusted (Holm) in two families: F1 over all rows (1 test)" in text
    assert "\n#### k_proj against q_v\n" in text
