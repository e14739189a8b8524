"""What the summary says of mitigations that were judged."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from tests.report.built import build_full_summary, build_summary

from evenhand.config.experiment_schema import AcceptanceConfig
from evenhand.core.acceptance import Acceptance
from evenhand.core.predictions import Predictions, predictions_from_rows
from evenhand.core.records import Row
from evenhand.decide.acceptance import Versus, accept
from evenhand.report.comparison import comparison_table
from evenhand.report.digest import render_digest
from evenhand.report.html import render_html
from evenhand.report.mitigations import (
    acceptance_sentence,
    condition_table,
    outcome_table,
    render_acceptance,
)
from evenhand.report.recommendations import Recommendation, recommendations
from evenhand.report.summary import render_summary

ROWS = [
    Row(
        id=f"r{i:03}",
        text="-",
        label=("hate", "normal")[i % 2],
        groups=("small|" if i % 40 < 2 else "alpha",),
    )
    for i in range(600)
]


def answers(flagged: float, found: float) -> Predictions:
    luck = np.random.default_rng(3).random(len(ROWS))
    scores = [
        x < (found if row.label == "hate" else flagged) for row, x in zip(ROWS, luck, strict=True)
    ]
    return predictions_from_rows(ROWS, scores=np.array(scores, dtype=float))


def judged(name: str, flagged: float, found: float) -> Acceptance:
    models = {"plain": answers(0.6, 0.9), name: answers(flagged, found)}
    versus = Versus("plain", name, {"plain": ("plain",), name: (name,)}, models)
    rule = AcceptanceConfig(set="val", groups=("alpha",), group_margin=0.25)
    rng = np.random.default_rng(0)
    return accept(versus, rule=rule, rng=rng, thresholds={"plain": 0.5, name: 0.61})


@pytest.fixture(scope="module")
def good() -> Acceptance:
    return judged("mended", 0.3, 0.9)


@pytest.fixture(scope="module")
def bad() -> Acceptance:
    return judged("trading|", 0.3, 0.3)


def test_an_accepted_one_in_words(good: Acceptance) -> None:
    assert good.accepted
    text = acceptance_sentence(good)
    assert text.startswith("mended against plain on val: accepted (FPR of alpha -")
    assert " and F1 +" in text and "Undecided" not in text and "Violated" not in text
    shown = render_acceptance(good)
    assert "Decisions: plain at 0.5 and mended at 0.61." in shown
    assert "Functional cases were not judged" in shown


def test_what_was_traded_and_what_is_open_in_words(bad: Acceptance) -> None:
    assert not bad.accepted and bad.falls == ("alpha",)
    text = acceptance_sentence(bad)
    assert "not accepted (FPR of alpha -" in text
    assert re.search(r"Violated: F1 \(-\d+\.\d pp \[.*\], allowed: \u2265 -3\.0 pp\)", text)
    assert "FNR of alpha (+" in text and "allowed: \u2264 +25.0 pp" in text
    rows = condition_table(bad).splitlines()[2:]
    assert len(rows) == len(bad.conditions)
    assert any("| FNR of small\\| holds |" in row for row in rows)
    assert all(row.count(" | ") == rows[0].count(" | ") for row in rows)


def test_an_undecided_condition_names_the_labels_that_would_settle_it() -> None:
    found = judged("close", 0.595, 0.9)
    assert "The FPR of that group is not shown to fall." in acceptance_sentence(found)
    assert re.search(r"FPR of alpha .*\]: not shown to fall \|", outcome_table([found]))
    assert re.search(
        r"undecided: about [\d,]+ normal rows in all would settle", condition_table(found)
    )


def test_the_section_stands_in_both_forms(good: Acceptance, bad: Acceptance) -> None:
    summary = dataclasses.replace(build_full_summary(), acceptances=(good, bad))
    text = render_summary(summary)
    assert "## Mitigations\n" in text and "[Mitigations](#mitigations)" in text
    assert "Accepted 1 of 2 mitigations on held-out rows: mended." in text
    assert re.search(r"\| mended \| accepted \| FPR of alpha -.* \| none \| none \|", text)
    assert re.search(
        r"\| trading\\\| \| not accepted \|.*\| F1; FNR of alpha \| FNR of small", text
    )
    page = render_html(text, title="t")
    assert 'id="mitigations"' in page
    assert "<summary>Every condition of mended against plain</summary>" in page
    assert [one["accepted"] for one in comparison_table(summary)["acceptances"]] == [True, False]
    assert "## Mitigations" not in render_summary(build_full_summary())


def test_option_b_reads_from_it(good: Acceptance, bad: Acceptance) -> None:
    def option_b(*found: Acceptance) -> Recommendation:
        return recommendations(dataclasses.replace(build_summary(), acceptances=found))[1]

    untried = option_b()
    for key in ("augment", "row_weights", "counterfactual_pairing", "label_policy"):
        assert key in untried.method
    both = option_b(bad, good)
    assert both.status.startswith("Accepted: mended. Tried and not accepted: trading|.")
    assert "Measured: mended against plain on val: accepted (FPR of alpha -" in both.expected
    refused = option_b(bad)
    assert refused.status.startswith("Tried and not accepted: trading|.")
    assert "not accepted (FPR of alpha -" in refused.expected
    assert "Violated" not in refused.expected and "Can be tried" not in refused.method


def test_many_conditions_are_named_without_their_figures(bad: Acceptance) -> None:
    groups = [f"group{number}" for number in range(9)]
    open_one = bad.of("fnr_holds")[0].model_copy(update={"status": "undecided"})
    many = [open_one.model_copy(update={"subject": name}) for name in groups]
    text = acceptance_sentence(bad.model_copy(update={"conditions": (*bad.conditions, *many)}))
    assert text.endswith("Undecided: FNR of small|, " + ", ".join(groups[:-1]) + " and group8.")


def test_remarks_speak_of_the_two_sides_only(good: Acceptance) -> None:
    runs = {name: (f"{name}-seed1", f"{name}-seed2") for name in ("plain", "mended", "other")}
    thresholds = {run: 0.5 for seeds in runs.values() for run in seeds} | {"other-seed1": 0.7}
    shown = render_acceptance(
        good.model_copy(update={"replicates": runs, "thresholds": thresholds})
    )
    assert "other" not in shown and "Every run decides at 0.5." in shown
    assert "mended is the mean over mended-seed1 and mended-seed2." in shown
    assert "Two seeds say little" in shown and "One run stands" not in shown


def test_the_terminal_tells_the_outcomes(good: Acceptance, bad: Acceptance) -> None:
    summary = build_summary()
    assert "mitigations:" not in render_digest(summary)
    lines = render_digest(dataclasses.replace(summary, acceptances=(good, bad))).splitlines()
    place = lines.index("mitigations: Accepted 1 of 2 mitigations on held-out rows: mended.")
    assert lines[place + 1].startswith("  mended against plain on val: accepted (FPR of alpha -")
    assert lines[place + 2].startswith("  trading| against plain on val: not accepted (")


def test_a_chosen_run_that_is_not_accepted_is_pointed_at(bad: Acceptance) -> None:
    summary = build_summary()
    assert summary.chosen is not None
    name = summary.chosen.name
    of_chosen = bad.model_copy(update={"replicates": {bad.treated: (name, "other")}})
    text = render_digest(dataclasses.replace(summary, acceptances=(of_chosen,)))
    assert f"{name} was chosen all the same: the choice does not ask whether trading|" in text
    text = render_digest(dataclasses.replace(summary, acceptances=(bad,)))
    assert "chosen all the same" not in text
