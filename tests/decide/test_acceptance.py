"""Acceptance of a mitigation: conditions against references, and how often it is accepted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from evenhand.config.experiment_schema import AcceptanceConfig
from evenhand.core.acceptance import Acceptance, Condition, ConditionKind
from evenhand.core.errors import ConfigError
from evenhand.core.predictions import Predictions, predictions_from_rows
from evenhand.core.records import Row
from evenhand.decide.acceptance import Versus, accept
from evenhand.decide.alignment import Answers
from evenhand.decide.effects import template_effect

GROUPS = ("a", "b", "c")


def make_rows(n: int, *, groups: Sequence[str] = GROUPS, clusters: int | None = None) -> list[Row]:
    return [
        Row(
            id=f"r{i:05}",
            text="-",
            label="hate" if (i // len(groups)) % 2 else "normal",
            groups=(groups[i % len(groups)],),
            cluster=None if clusters is None else f"c{i % clusters}",
        )
        for i in range(n)
    ]


ROWS = make_rows(900)
HATE = np.array([row.label == "hate" for row in ROWS])
IN_A = np.array(["a" in row.groups for row in ROWS])


def answers(
    wrong: np.ndarray, rows: Sequence[Row] = ROWS, *, missing: np.ndarray | None = None
) -> Predictions:
    """Return predictions that are wrong on some rows and missing on others."""
    hate = np.array([row.label == "hate" for row in rows])
    scores = np.where(wrong, ~hate, hate).astype(float)
    if missing is not None:
        scores[missing] = np.nan
    return predictions_from_rows(rows, scores=scores)


def judge(
    control: Predictions | Sequence[Predictions],
    treated: Predictions | Sequence[Predictions],
    *,
    cases: tuple[Predictions, Predictions] | None = None,
    seed: int = 0,
    **rule: Any,
) -> Acceptance:
    models: dict[str, Predictions] = {}
    runs: dict[str, Sequence[str]] = {}
    for name, given_ones in (("plain", control), ("treated", treated)):
        several = [given_ones] if isinstance(given_ones, Predictions) else given_ones
        own = {f"{name}-{i}": one for i, one in enumerate(several)}
        models |= own
        runs[name] = tuple(own)
    functional = None if cases is None else dict(zip(models, cases, strict=True))
    return accept(
        Versus("plain", "treated", runs, models, functional),
        rule=AcceptanceConfig(set="test", functional="cases", **rule),
        rng=np.random.default_rng(seed),
        n_bootstrap=300,
    )


def one(found: Acceptance, kind: ConditionKind, subject: str | None = None) -> Condition:
    (condition,) = (part for part in found.of(kind) if part.subject == subject)
    return condition


def draw(
    rng: np.random.Generator, *, fall: float = 0.0, lost: float = 0.0
) -> tuple[Predictions, Predictions]:
    """Draw a control, and a treated model with shares of A's false positives mended and hate lost.

    Beside that the treated model answers 15% of the rows anew, at the control's error rates.
    """
    rates = np.where(HATE, 0.3, 0.4)
    plain = rng.random(len(ROWS)) < rates
    again = np.where(rng.random(len(ROWS)) < 0.15, rng.random(len(ROWS)) < rates, plain)
    mended = ~HATE & IN_A & (rng.random(len(ROWS)) < fall)
    missed = HATE & (rng.random(len(ROWS)) < lost)
    return answers(plain), answers((again & ~mended) | missed)


def share_accepted(n: int, **effect: float) -> float:
    rng = np.random.default_rng(7)
    found = [judge(*draw(rng, **effect), groups=("a",), seed=i) for i in range(n)]
    return float(np.mean([each.accepted for each in found]))


@pytest.mark.parametrize("n", [20, pytest.param(150, marks=pytest.mark.slow)])
def test_without_an_effect_it_is_accepted_at_most_as_often_as_its_level_says(n: int) -> None:
    assert share_accepted(n) * n <= binom.ppf(0.999, n, 0.05)


@pytest.mark.parametrize("n", [8, pytest.param(40, marks=pytest.mark.slow)])
def test_a_real_fall_is_accepted_and_one_paid_for_with_recall_is_not(n: int) -> None:
    assert share_accepted(n, fall=0.5) >= 0.75
    assert share_accepted(n, fall=0.5, lost=0.2) == 0.0


@pytest.mark.parametrize(("targeted", "margin"), [("b", 0.1), ("a", 0.15)])
@pytest.mark.parametrize("n", [20, pytest.param(150, marks=pytest.mark.slow)])
def test_a_true_loss_at_its_margin_is_seldom_passed(n: int, targeted: str, margin: float) -> None:
    """A targeted group's own FNR has the wider margin, another group's the narrower one."""
    rng = np.random.default_rng(3)
    passed = 0
    for seed in range(n):
        plain = rng.random(len(ROWS)) < 0.3
        lost = HATE & IN_A & ~plain & (rng.random(len(ROWS)) < margin / 0.7)
        found = judge(answers(plain), answers(plain | lost), seed=seed, groups=(targeted,))
        condition = one(found, "fnr_holds", "a")
        assert condition.margin == margin
        passed += condition.status == "met"
    assert passed <= binom.ppf(0.999, n, 0.05)


def test_falls_are_tested_as_statsmodels_does() -> None:
    rng = np.random.default_rng(1)
    plain = rng.random(len(ROWS)) < 0.4
    treated = np.where(rng.random(len(ROWS)) < 0.3, rng.random(len(ROWS)) < 0.2, plain)
    found = judge(answers(plain), answers(treated))
    p_values = []
    for group in GROUPS:
        rows = ~HATE & np.array([group in row.groups for row in ROWS])
        table = np.array(
            [[np.sum(rows & (plain == p) & (treated == t)) for t in (0, 1)] for p in (0, 1)]
        )
        p_values.append(float(mcnemar(table, exact=True).pvalue))
    holm = multipletests(p_values, method="holm")[1]
    parts = found.of("fpr_falls")
    assert [part.p_value for part in parts] == pytest.approx(p_values)
    assert [part.p_holm for part in parts] == pytest.approx(list(holm))
    assert found.falls == tuple(group for group, p in zip(GROUPS, holm, strict=True) if p <= 0.05)


def test_bounds_are_those_of_one_sided_tests() -> None:
    control, treated = draw(np.random.default_rng(2), fall=0.5)
    found = judge(control, treated, groups=("a",))
    rate = one(found, "fnr_holds", "b")
    rows = HATE & np.array(["b" in row.groups for row in ROWS])
    flagged = [
        (each.frame["decision"] == "hate").to_numpy(bool)[rows] for each in (control, treated)
    ]
    change = flagged[0].astype(float) - flagged[1]
    error = np.sqrt(change.var() / len(change) + 2 / len(change) ** 2)
    reach = norm.ppf(0.95) * error
    assert rate.difference.value == pytest.approx(change.mean())
    assert rate.difference.low == pytest.approx(change.mean() - reach, abs=0.015)
    assert rate.difference.high == pytest.approx(change.mean() + reach, abs=0.015)
    assert (rate.confidence, rate.margin) == (0.9, 0.1)
    fall = one(found, "fpr_falls", "a")
    assert (fall.confidence, fall.margin, fall.n) == (0.95, None, 150)


def test_equal_models_hold_but_nothing_falls() -> None:
    same = answers(np.random.default_rng(0).random(len(ROWS)) < 0.3)
    found = judge(same, same)
    assert not found.accepted and found.falls == ()
    assert {part.status for part in found.conditions if part.kind != "fpr_falls"} == {"met"}
    assert {part.status for part in found.missing} == {"undecided"}
    assert one(found, "f1_holds").difference.value == 0.0


def test_a_small_group_is_undecided_and_more_labels_are_asked_for() -> None:
    rows = [
        *ROWS,
        *(
            Row(id=f"x{i}", text="-", label=("hate", "normal")[i % 2], groups=("small",))
            for i in range(12)
        ),
    ]
    rng = np.random.default_rng(4)
    hate = np.array([row.label == "hate" for row in rows])
    plain = rng.random(len(rows)) < 0.4
    mended = ~hate & np.array(["a" in row.groups for row in rows]) & (rng.random(len(rows)) < 0.7)
    found = judge(answers(plain, rows), answers(plain & ~mended, rows), groups=("a",))
    small = one(found, "fnr_holds", "small")
    assert (small.status, small.n, small.label_unit) == ("undecided", 6, "hate rows")
    # Nothing changed in it: two additional disagreements among n rows must weigh little enough.
    needed = np.sqrt(2) * (norm.ppf(0.95) + norm.ppf(0.8)) / 0.1
    assert small.labels_needed == pytest.approx(needed, rel=0.15)
    assert found.falls == ("a",) and not found.accepted
    assert {part.subject for part in found.missing} == {"small"}


def test_a_group_without_hate_rows_cannot_be_shown_to_hold() -> None:
    rows = [*ROWS, *(Row(id=f"x{i}", text="-", label="normal", groups=("d",)) for i in range(90))]
    same = answers(np.zeros(len(rows), dtype=bool), rows)
    part = one(judge(same, same), "fnr_holds", "d")
    assert (part.status, part.n, part.difference.reason) == ("undecided", 0, "no_positives")
    assert part.labels_needed is None


def test_rows_left_unanswered_win_nothing() -> None:
    plain = np.random.default_rng(5).random(len(ROWS)) < 0.4
    false_alarms = plain & ~HATE & IN_A
    mended = answers(plain & ~false_alarms)
    silent = answers(plain, missing=false_alarms)
    assert judge(answers(plain), mended, groups=("a",)).accepted
    found = judge(answers(plain), silent, groups=("a",))
    assert not found.accepted and found.n_left_out == false_alarms.sum()
    # The rows that are left have no false alarm in either model, so nothing falls there.
    assert one(found, "fpr_falls", "a").difference.value == 0.0


def test_what_only_answered_rows_show_is_undecided() -> None:
    plain = np.zeros(len(ROWS), dtype=bool)
    silent = answers(plain, missing=HATE & IN_A & (np.arange(len(ROWS)) % 4 == 1))
    part = one(judge(answers(plain), silent), "fnr_holds", "a")
    assert (part.status, part.depends_on_unanswered) == ("undecided", True)


def test_clusters_are_the_units() -> None:
    rows = make_rows(900, clusters=30)
    plain = np.random.default_rng(6).random(len(rows)) < 0.4
    mended = plain & ~(~HATE & IN_A & (np.arange(len(rows)) % 30 < 4))
    loose = judge(answers(plain), answers(mended), groups=("a",))
    tied = judge(answers(plain, rows), answers(mended, rows), groups=("a",))
    first, second = (one(found, "fpr_falls", "a") for found in (loose, tied))
    assert first.status == "met" and second.status == "undecided"
    assert (first.n_clusters, second.n_clusters) == (None, 5)


def test_seeds_are_replicates_and_their_spread_counts() -> None:
    rng = np.random.default_rng(8)
    pairs = [draw(rng, fall=0.6) for _ in range(3)]
    control, treated = ([pair[side] for pair in pairs] for side in (0, 1))
    found = judge(control, treated, groups=("a",))
    assert found.replicates == {
        "plain": ("plain-0", "plain-1", "plain-2"),
        "treated": ("treated-0", "treated-1", "treated-2"),
    }
    assert one(found, "fpr_falls", "a").difference.method == "t_rows_and_seeds"
    assert found.falls == ("a",)
    uneven = [answers((np.arange(len(ROWS)) % 10) < k) for k in (0, 4, 9)]
    part = one(judge(control, uneven, groups=("a",)), "fnr_holds", "b")
    assert part.status == "undecided" and part.labels_needed is None


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "least", "most"), [(3, 0.3, 0.8), (5, 0.75, 1.0)])
def test_power_on_groups_of_a_hundred_labels(seeds: int, least: float, most: float) -> None:
    """A fall from 35% to 20% at no cost: five seeds show that no group loses 10 points."""
    counts = {"a": (260, 183), "b": (120, 105), "c": (123, 146)}
    rows = [
        Row(id=f"{group}-{label}-{i:03}", text="-", label=label, groups=(group,))
        for group, sizes in counts.items()
        for label, n in zip(("normal", "hate"), sizes, strict=True)
        for i in range(n)
    ]
    hate = np.array([row.label == "hate" for row in rows])
    in_a = np.array([row.groups == ("a",) for row in rows])
    rates = np.where(hate, 0.18, 0.35)
    rng = np.random.default_rng(11)

    def train(hard: np.ndarray, chance: np.ndarray) -> list[Predictions]:
        """Seeds answer an eighth of the rows differently, and flag 3 points more or fewer."""
        found = []
        for _ in range(seeds):
            shift = np.where(hate, -1, 1) * rng.normal(0.0, 0.08)
            luck = np.sqrt(1 - 0.35**2) * hard + 0.35 * rng.standard_normal(len(rows)) + shift
            found.append(answers(luck > norm.ppf(1 - chance), rows))
        return found

    accepted = 0
    for seed in range(40):
        hard = rng.standard_normal(len(rows))
        treated = np.where(in_a & ~hate, 0.20, rates)
        found = judge(train(hard, rates), train(hard, treated), groups=("a",), seed=seed)
        accepted += found.accepted
    print(f"{seeds} seeds: accepted in {accepted} of 40")  # shown with -s
    assert least <= accepted / 40 <= most


def functional(functions: Sequence[str], *, templates: int = 40, each: int = 5) -> list[Row]:
    return [
        Row(
            id=f"{name}-{t:02}-{i}",
            text="-",
            label="normal",
            groups=("a",),
            fine_label=name,
            cluster=f"{name}-{t}",
        )
        for name in functions
        for t in range(templates)
        for i in range(each)
    ]


@pytest.mark.parametrize(
    ("identity", "counter"),
    [("neutral_mention", "negated_hate"), ("ident_neutral_nh", "counter_quote_nh")],
)
def test_identity_and_counter_speech_cases_must_hold(identity: str, counter: str) -> None:
    plain, treated = draw(np.random.default_rng(9), fall=0.6)
    rows = functional([identity, counter, "profanity"])
    wrong = np.zeros(len(rows), dtype=bool)
    lost = np.array([row.fine_label == counter and row.id.endswith(("1", "2")) for row in rows])
    right = answers(wrong, rows)
    good = judge(plain, treated, groups=("a",), cases=(right, right))
    assert good.accepted and good.functional_margin == 0.15
    assert [(part.subject, part.n, part.n_clusters) for part in good.of("functional_holds")] == [
        ("identity", 200, 40),
        ("counter_speech", 200, 40),
    ]
    bad = judge(plain, treated, groups=("a",), cases=(right, answers(lost, rows)))
    assert one(bad, "functional_holds", "identity").status == "met"
    part = one(bad, "functional_holds", "counter_speech")
    assert (part.status, part.difference.value) == ("violated", pytest.approx(-0.4))
    assert not bad.accepted and bad.missing == (part,)


def test_a_family_without_cases_is_undecided_and_no_case_at_all_an_error() -> None:
    plain, treated = draw(np.random.default_rng(9), fall=0.6)
    rows = functional(["pride"])
    same = answers(np.zeros(len(rows), dtype=bool), rows)
    found = judge(plain, treated, cases=(same, same))
    part = one(found, "functional_holds", "counter_speech")
    assert (part.status, part.n, part.difference.reason) == ("undecided", 0, "no_cases")
    rows = functional(["threat_dir_h"])
    same = answers(np.zeros(len(rows), dtype=bool), rows)
    with pytest.raises(ConfigError) as caught:
        judge(plain, treated, cases=(same, same))
    assert "no identity or counter-speech case" in caught.value.problems[0].message


def test_the_spread_of_templates_is_the_cluster_robust_one() -> None:
    rng = np.random.default_rng(10)
    template = np.repeat(np.arange(20), 5)[:-3]
    first, second = rng.random((2, len(template))) < 0.3
    data = Answers(
        ("x", "y"), np.zeros(len(template), dtype=bool), np.stack([first, second]), {}, template, 0
    )
    found = template_effect(data, (0,), (1,), np.ones(len(template), dtype=bool))
    change = first.astype(float) - second  # a false alarm less is one right answer more
    fitted = sm.OLS(change, np.ones((len(change), 1))).fit(
        cov_type="cluster", cov_kwds={"groups": template}
    )
    turned = np.abs(np.bincount(template, weights=change))
    step = max(1.0, turned[turned > 0].mean()) / len(change)
    assert found.value == pytest.approx(change.mean())
    assert found.error**2 - 2 * step**2 == pytest.approx(float(fitted.bse[0]) ** 2)


@settings(max_examples=15)
@given(st.integers(0, 50), st.floats(0.02, 0.2), st.floats(0.02, 0.2))
def test_a_wider_margin_never_refuses_what_a_narrower_one_accepts(
    seed: int, narrow: float, more: float
) -> None:
    control, treated = draw(np.random.default_rng(seed), fall=0.5, lost=0.05)
    keys = ("f1_margin", "group_margin", "target_fnr_margin")
    strict, lax = (
        judge(control, treated, groups=("a",), **dict.fromkeys(keys, margin))
        for margin in (narrow, narrow + more)
    )
    order = {"met": 0, "undecided": 1, "violated": 2}
    for first, second in zip(strict.conditions, lax.conditions, strict=True):
        assert order[second.status] <= order[first.status]
    assert lax.accepted or not strict.accepted


def test_a_group_that_is_not_there() -> None:
    same = answers(np.zeros(len(ROWS), dtype=bool))
    with pytest.raises(ConfigError) as caught:
        judge(same, same, groups=("women",))
    assert "no row of test is of this group" in caught.value.problems[0].message
    rows = [Row(id=f"r{i}", text="-", label=("hate", "normal")[i % 2]) for i in range(8)]
    same = answers(np.zeros(8, dtype=bool), rows)
    with pytest.raises(ConfigError) as caught:
        judge(same, same)
    assert "name no group" in caught.value.problems[0].message


def test_nothing_was_answered() -> None:
    nothing = answers(np.zeros(len(ROWS), dtype=bool), missing=np.ones(len(ROWS), dtype=bool))
    found = judge(nothing, nothing)
    assert not found.accepted and found.n == 0
    assert {part.status for part in found.conditions} == {"undecided"}
