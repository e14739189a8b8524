"""A comparison as a whole: its record, Holm's correction, refusals, seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from statsmodels.stats.multitest import multipletests

from evenhand.core.decisions import Comparison, PairedTest
from evenhand.core.errors import ConfigError, DataError
from evenhand.core.predictions import Predictions, predictions_from_rows
from evenhand.core.records import Row
from evenhand.decide.compare import compare, seed_groups

GROUPS = ("alpha", "beta")


def make_rows(n: int, *, clusters: int | None = None, groups: bool = True) -> list[Row]:
    return [
        Row(
            id=f"r{i:04}",
            text="...",
            label=("hate", "normal")[i % 2],
            groups=(GROUPS[i // 2 % 2],) if groups else (),
            cluster=None if clusters is None else f"c{i % clusters}",
        )
        for i in range(n)
    ]


def model(rows: Sequence[Row], *, right: float, seed: int) -> Predictions:
    luck = np.random.default_rng(seed).random(len(rows))
    other = {"hate": "normal", "normal": "hate"}
    return predictions_from_rows(
        rows,
        decisions=[
            row.label if x < right else other[str(row.label)]
            for row, x in zip(rows, luck, strict=True)
        ],
    )


def run(models: Mapping[str, Predictions], **options: Any) -> Comparison:
    options = {"n_bootstrap": 300, **options}
    return compare(models, set_name="test", rng=np.random.default_rng(0), **options)


def three(n: int = 400, **options: Any) -> dict[str, Predictions]:
    rows = make_rows(n, **options)
    chances = {"weak": 0.6, "middle": 0.7, "strong": 0.95}
    return {
        name: model(rows, right=chance, seed=seed)
        for seed, (name, chance) in enumerate(chances.items())
    }


def all_tests(comparison: Comparison) -> list[PairedTest]:
    return [test for pair in comparison.pairs for test in pair.tests]


def test_every_pair_and_metric_is_tested_once() -> None:
    found = run(three())
    assert [(pair.first, pair.second) for pair in found.pairs] == [
        ("weak", "middle"),
        ("weak", "strong"),
        ("middle", "strong"),
    ]
    names = [(test.metric, test.group) for test in found.pairs[0].tests]
    overall = [(metric, None) for metric in ("f1", "accuracy", "fpr", "fnr")]
    assert names == overall + [(m, g) for g in GROUPS for m in ("fpr", "fnr")]
    assert (found.n, found.n_left_out, found.n_clusters) == (400, 0, None)
    first = found.pairs[0].test("fpr", "alpha")
    assert first is not None
    assert (first.n, first.test) == (100, "mcnemar_exact")
    assert found.pairs[0].test("f1", "alpha") is None


def test_a_clear_difference_has_a_direction_and_a_small_one_is_no_evidence() -> None:
    pair = run(three()).pair("weak", "strong")
    assert pair is not None
    assert pair.verdict == "better"
    assert {test.verdict for test in pair.tests} == {"better"}
    fpr, f1 = pair.test("fpr"), pair.test("f1")
    assert fpr is not None and f1 is not None
    assert fpr.difference.value is not None and fpr.difference.value < 0
    assert f1.difference.value is not None and f1.difference.value > 0
    turned = run(three(), pairs=[("strong", "weak")]).pairs[0]
    assert turned.verdict == "worse"
    rows = make_rows(60)
    alike = {"a": model(rows, right=0.7, seed=1), "b": model(rows, right=0.7, seed=2)}
    assert run(alike).pairs[0].verdict == "no_evidence"


def test_values_are_those_of_the_models_and_lie_in_their_interval() -> None:
    for test in all_tests(run(three())):
        assert test.first is not None and test.second is not None
        gain = test.difference
        assert gain.value == pytest.approx(test.second - test.first)
        assert gain.low is not None and gain.high is not None
        assert -1.0 <= gain.low <= gain.value <= gain.high <= 1.0
        assert test.minimum_detectable is not None and 0.0 < test.minimum_detectable <= 1.0


def test_p_values_are_adjusted_within_two_families() -> None:
    found = run(three())
    tests = all_tests(found)
    for primary, size in ((True, 3), (False, 21)):
        family = [test for test in tests if test.is_primary == primary]
        assert (found.n_primary if primary else found.n_secondary) == len(family) == size
        adjusted = multipletests([test.p_value for test in family], method="holm")[1]
        np.testing.assert_allclose([test.p_holm for test in family], adjusted)
    alone = run(three(), pairs=[("weak", "strong")]).pairs[0].test("f1")
    among = run(three()).pairs[1].test("f1")
    assert alone is not None and among is not None
    assert alone.p_value == among.p_value
    assert alone.p_holm < among.p_holm


def test_the_level_decides_the_verdict() -> None:
    test = run(three()).pairs[0].test("accuracy")
    assert test is not None and test.p_holm is not None
    for alpha, verdict in ((test.p_holm * 1.01, "better"), (test.p_holm * 0.99, "no_evidence")):
        found = run(three(), alpha=alpha).pairs[0].test("accuracy")
        assert found is not None and found.verdict == verdict


@settings(max_examples=8)
@given(st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_nothing(random: Any) -> None:
    models = three(60)
    order = list(range(60))
    random.shuffle(order)
    shuffled = {name: Predictions(one.frame.iloc[order]) for name, one in models.items()}
    assert run(shuffled) == run(models)


def test_a_model_against_itself_is_no_evidence_with_an_honest_interval() -> None:
    rows = make_rows(100)
    same = model(rows, right=0.8, seed=0)
    for test in run({"a": same, "b": same}).pairs[0].tests:
        assert (test.difference.value, test.p_value, test.n_discordant) == (0.0, 1.0, 0)
        assert test.verdict == "no_evidence"
        assert test.difference.low is not None and test.difference.low < 0.0


def test_rows_without_a_decision_are_left_out_of_every_pair() -> None:
    rows = make_rows(50)
    models = {name: model(rows, right=0.8, seed=seed) for seed, name in enumerate("abc")}
    decisions = ["hate" if row.label == "hate" else None for row in rows[:10]]
    decisions += ["hate"] * 40
    models["b"] = predictions_from_rows(rows, decisions=decisions)
    found = run(models)
    assert (found.n, found.n_left_out) == (45, 5)
    assert {test.n for pair in found.pairs for test in pair.tests if test.metric == "f1"} == {45}


def test_a_test_of_too_few_disagreements_costs_its_family_nothing() -> None:
    rows = make_rows(400, groups=False)
    small = [Row(id=f"s{i}", text="...", label="normal", groups=("tiny",)) for i in range(3)]
    every = [*rows, *small]
    found = run({"a": model(every, right=0.7, seed=0), "b": model(every, right=0.8, seed=1)})
    tiny = found.pairs[0].test("fpr", "tiny")
    assert tiny is not None and tiny.least_p_value is not None and tiny.p_holm is not None
    assert tiny.least_p_value >= 0.25
    # Accuracy, FPR and FNR count; FNR of the group is undefined, its FPR can show nothing.
    assert (found.n_primary, found.n_secondary) == (1, 3)
    assert tiny.verdict == "no_evidence"
    assert tiny.p_holm > found.alpha


def test_the_detectable_difference_is_that_of_the_first_step_of_the_correction() -> None:
    alone = run(three(), pairs=[("weak", "middle")]).pairs[0].test("f1")
    among = run(three()).pairs[0].test("f1")
    assert alone is not None and among is not None
    assert alone.minimum_detectable is not None and among.minimum_detectable is not None
    z = norm.ppf([1 - 0.05 / 2, 1 - 0.05 / 6, 0.8])
    ratio = (z[1] + z[2]) / (z[0] + z[2])
    assert among.minimum_detectable / alone.minimum_detectable == pytest.approx(ratio, rel=0.03)


def test_leaving_rows_undecided_makes_no_model_better() -> None:
    rows = make_rows(400, groups=False)
    steady, shy = model(rows, right=0.7, seed=0), model(rows, right=0.65, seed=1)
    frame = shy.frame.copy()
    wrong = np.flatnonzero((frame["decision"] != frame["label"]).to_numpy())[:60]
    frame.loc[wrong, ["decision", "status"]] = [None, "unparseable"]
    found = run({"steady": steady, "shy": Predictions(frame)})
    accuracy = found.pairs[0].test("accuracy")
    assert accuracy is not None and accuracy.p_holm is not None
    assert accuracy.p_holm <= 0.05 < (accuracy.difference.value or 0.0) * 2
    assert (accuracy.verdict, accuracy.depends_on_unanswered) == ("no_evidence", True)
    # One that is better even so stays better.
    strong = model(rows, right=0.98, seed=1)
    frame = strong.frame.copy()
    frame.loc[:4, ["decision", "status"]] = [None, "unparseable"]
    better = run({"steady": steady, "strong": Predictions(frame)}).pairs[0].test("accuracy")
    assert better is not None
    assert (better.verdict, better.depends_on_unanswered) == ("better", False)


def test_what_is_undefined_says_so() -> None:
    rows = [Row(id=f"r{i}", text="...", label="normal", groups=("alpha",)) for i in range(40)]
    models = {name: model(rows, right=0.7, seed=seed) for seed, name in enumerate("ab")}
    pair = run(models).pairs[0]
    f1, fnr, fpr = pair.test("f1"), pair.test("fnr", "alpha"), pair.test("fpr", "alpha")
    assert f1 is not None and fnr is not None and fpr is not None
    assert (pair.verdict, f1.verdict, f1.difference.reason) == (
        "undefined",
        "undefined",
        "no_positives",
    )
    assert (fnr.n, fnr.first, fnr.p_value, fnr.p_holm) == (0, None, None, None)
    assert fpr.p_holm is not None
    unanswered = predictions_from_rows(rows, decisions=[None] * 40)
    nothing = run({"a": unanswered, "b": unanswered})
    assert (nothing.n, nothing.n_left_out) == (0, 40)
    assert {test.difference.reason for test in nothing.pairs[0].tests} == {"no_scored_rows"}


def test_clusters_are_tested_by_exchanging_whole_clusters() -> None:
    found = run(three(clusters=20))
    assert found.n_clusters == 20
    assert {test.test for test in all_tests(found)} == {"randomisation_clustered"}
    one = run(three(60, clusters=1)).pairs[0].tests[0]
    assert (one.difference.reason, one.minimum_detectable) == ("one_independent_unit", None)
    assert one.p_value == 1.0


def test_a_record_survives_the_disk() -> None:
    found = run(three(clusters=20))
    assert Comparison.model_validate_json(found.model_dump_json()) == found


def refusal(models: Mapping[str, Predictions], **options: Any) -> str:
    with pytest.raises((DataError, ConfigError)) as caught:
        run(models, **options)
    return caught.value.render()


def test_other_rows_are_refused_and_the_difference_is_named() -> None:
    rows = make_rows(20)
    more = [*rows, Row(id="extra", text="...", label="hate")]
    renamed = [Row(id=f"x{row.id}", text="...", label=row.label) for row in rows[:4]] + rows[4:]
    text = refusal(
        {
            "a": model(rows, right=1.0, seed=0),
            "b": model(more, right=1.0, seed=0),
            "c": model(renamed, right=1.0, seed=0),
        }
    )
    assert "has 21 rows and a has 20; 1 id (extra) only in b" in text
    assert "4 ids (xr0000, xr0001, xr0002, ...) only in c; 4 ids (r0000, r0001, r0002" in text
    assert "--data FILE" in text


def test_other_labels_groups_and_clusters_are_refused() -> None:
    rows = make_rows(20, clusters=5)
    models = {"a": model(rows, right=1.0, seed=0)}
    other = {"label": "normal", "group": ["gamma"], "cluster": "c9"}
    for column, value in other.items():
        frame = models["a"].frame.copy()
        for place in (0, 2):
            frame.at[place, column] = value
        text = refusal({**models, "b": Predictions(frame)})
        assert f"the {column}s of 2 ids (r0000, r0002) are not those in a" in text


def test_a_model_without_groups_takes_the_others() -> None:
    with_groups, without = make_rows(40), make_rows(40, groups=False)
    first = model(without, right=0.7, seed=0)
    second = model(with_groups, right=0.8, seed=1)
    for models in ({"a": first, "b": second}, {"b": second, "a": first}):
        assert {test.group for test in run(models).pairs[0].tests} == {None, *GROUPS}


def test_rows_without_labels_are_refused() -> None:
    rows = [Row(id=f"r{i}", text="...") for i in range(4)]
    models = {name: predictions_from_rows(rows, decisions=["hate"] * 4) for name in "ab"}
    assert "4 of 4 rows have no label" in refusal(models)


def test_wrong_names_are_refused_all_at_once() -> None:
    models = three(20)
    assert "there is nothing to compare" in refusal({"weak": models["weak"]})
    text = refusal(models, pairs=[("weak", "stong"), ("weak", "weak")], seedless=["midle"])
    assert 'did you mean "middle"?' in text
    assert 'did you mean "strong"?' in text
    assert "is paired with itself" in text
    text = refusal(models, replicates={"weak": ["middle", "stronk"], "one": ["strong"]})
    assert '"stronk" is not compared; did you mean "strong"?' in text
    assert "is a model's name already" in text
    assert "seeds need two" in text
    assert "named more than once" in refusal(
        models, replicates={"x": ["weak", "middle"], "y": ["middle", "strong"]}
    )


@pytest.mark.parametrize("options", [{"n_bootstrap": 99}, {"alpha": 0.0}, {"alpha": 1.0}])
def test_values_out_of_range(options: Mapping[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        run(three(20), **options)


def seeds_of(rows: Sequence[Row], name: str, chances: Sequence[float], seed: int) -> dict[str, Any]:
    return {
        f"{name}-{i}": model(rows, right=chance, seed=seed + i) for i, chance in enumerate(chances)
    }


def test_seeds_are_compared_as_their_mean() -> None:
    rows = make_rows(600)
    models = {
        **seeds_of(rows, "small", (0.62, 0.66, 0.64), 0),
        **seeds_of(rows, "large", (0.80, 0.84, 0.82), 10),
    }
    groups = {name: [run for run in models if run.startswith(name)] for name in ("small", "large")}
    found = run(models, replicates=groups)
    assert found.models == ("small", "large")
    assert found.replicates["large"] == ("large-0", "large-1", "large-2")
    (pair,) = found.pairs
    single = [run(models, pairs=[("small-0", name)]).pairs[0] for name in groups["large"]]
    accuracy = pair.test("accuracy")
    assert accuracy is not None
    parts = [one.test("accuracy") for one in single]
    assert accuracy.second == pytest.approx(np.mean([one.second for one in parts if one]))
    assert (accuracy.test, accuracy.n_discordant) == ("t_rows_and_seeds", None)
    assert pair.verdict == "better"


def test_a_model_without_seeds_counts_as_equal_replicates() -> None:
    rows = make_rows(600)
    fixed = model(rows, right=0.7, seed=99)
    seeds = seeds_of(rows, "large", (0.70, 0.80, 0.90), 10)
    copies = {f"copy-{number}": fixed for number in range(3)}
    groups = {"large": list(seeds)}

    def against(name: str, **options: Any) -> Any:
        models = copies if name == "copies" else {name: fixed}
        return run({**models, **seeds}, pairs=[(name, "large")], **options).pairs[0]

    found = against("fixed", replicates=groups, seedless=["fixed"])
    same = against("copies", replicates={"copies": list(copies), **groups})
    assert found.tests == same.tests
    borrowing = against("fixed", replicates=groups)
    widths = [
        one.test("accuracy").difference.high - one.test("accuracy").difference.low
        for one in (found, borrowing)
    ]
    # Three seeds that differ by 10 points: their mean's variance is a quarter of what was borrowed.
    assert widths[0] < 0.8 * widths[1]


def test_a_model_without_seeds_meets_a_single_one_in_the_exact_test() -> None:
    models = three(60)
    plain, seedless = (run(models, seedless=names).pairs for names in ((), ("weak", "middle")))
    assert plain == seedless


def test_a_lucky_seed_is_no_evidence() -> None:
    rows = make_rows(1000)
    models = {
        **seeds_of(rows, "small", (0.55, 0.80), 0),
        **seeds_of(rows, "large", (0.60, 0.90), 10),
    }
    groups = {"small": ["small-0", "small-1"], "large": ["large-0", "large-1"]}
    assert run(models, replicates=groups).pairs[0].verdict == "no_evidence"
    assert run(models, pairs=[("small-0", "large-1")]).pairs[0].verdict == "better"


def test_seeds_are_found_from_the_configurations() -> None:
    base = {"lora_r": 32, "learning_rate": 2e-4}
    configs = {
        "default-seed1": {**base, "seed": 1, "output_dir": "a", "logging_steps": 1},
        "default-seed2": {**base, "seed": 2, "output_dir": "b", "logging_steps": 5},
        "large": {**base, "lora_r": 64, "seed": 1},
        "again": {**base, "lora_r": 8, "seed": 1},
        "again-too": {**base, "lora_r": 8, "seed": 1},
        "first": {**base, "lora_r": 4, "seed": 1},
        "other": {**base, "lora_r": 4, "seed": 2},
    }
    assert seed_groups(configs) == {
        "default (2 seeds)": ("default-seed1", "default-seed2"),
        "first (2 seeds)": ("first", "other"),
    }
    alike = {
        f"run_{seed}": {"lora_r": 1 if seed < 44 else 2, "seed": seed} for seed in range(42, 46)
    }
    assert seed_groups(alike) == {
        "run (2 seeds)": ("run_42", "run_43"),
        "run (2 seeds) #2": ("run_44", "run_45"),
    }
    assert seed_groups({}) == {}
    assert seed_groups({"a": {}, "b": {}}) == {}
