"""Each check on small inputs: what it finds, what it leaves alone, what it says it lacks."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenhand.core.decisions import Audit, Binding, CriterionResult, Finding, GateVerdict
from evenhand.core.evaluation import Composition, MetricValue, RateRatio
from evenhand.core.predictions import predictions_from_rows
from evenhand.core.records import Dataset, Row
from evenhand.decide.audit.checks import CHECKS, accept, audit
from evenhand.decide.audit.factors import changed_keys
from evenhand.decide.audit.inputs import (
    AuditEvaluation,
    AuditInputs,
    AuditPhase,
    AuditSet,
    Target,
)
from evenhand.decide.audit.schedule import Schedule, plan_schedule
from evenhand.decide.audit.targets import telling_forms
from evenhand.measure.baselines import baseline_predictions
from evenhand.measure.classification import evaluate
from evenhand.prompts.template import PromptTemplate

PROMPT = PromptTemplate(
    strategy="plain", system_prompt="You classify posts.", before='Text: "', after='"'
)


def made(inputs: AuditInputs, check: str) -> list[Finding]:
    found = audit(inputs)
    assert check in found.checks, found.skipped
    return [finding for finding in found.findings if finding.check == check]


def dataset(rows: list[Row], name: str = "data") -> Dataset:
    return Dataset(name, tuple(rows))


def posts(n: int, *, prefix: str = "p", start: int = 0) -> list[Row]:
    return [
        Row(
            id=f"{prefix}{at}",
            text=f"post {at * 7919} about town number {at * 104729}",
            label=("hate", "normal")[at % 2],
            groups=(("a", "b")[at // 2 % 2],),
            source="s",
            fine_label=("hate", "plain", "hate", "offensive")[at % 4],
        )
        for at in range(start, start + n)
    ]


def chat(row: Row, answer: str, *, system: str = "You classify posts.", persona: str = "") -> Row:
    asked = f'{persona}Text: "{row.text}"'
    turns = (("system", system), ("user", asked), ("assistant", answer))
    return replace(row, messages=turns)


def chats(n: int, form: dict[str, str], **wording: str) -> list[Row]:
    return [chat(row, form[str(row.label)], **wording) for row in posts(n)]


def evaluation(rows: list[Row], scores: np.ndarray | None = None, **options):
    rng = np.random.default_rng(0)
    hate = np.array([row.label == "hate" for row in rows])
    if scores is None:
        scores = 1 / (1 + np.exp(-(2.0 * hate - 1 + rng.normal(size=len(rows)))))
    method = options.pop("method", "score")
    answers = options.pop("answers", None) or predictions_from_rows(rows, scores=scores)
    return evaluate(answers, name="test", rng=rng, n_bootstrap=100, method=method, **options)


def evaluated(found, model: str = "model", name: str = "test") -> AuditInputs:
    return AuditInputs(evaluations=(AuditEvaluation(model, name, found),))


def test_without_inputs_every_check_is_skipped_and_says_why():
    found = audit(AuditInputs())
    assert found.findings == () and found.checks == ()
    assert set(found.skipped) == set(CHECKS) and all(found.skipped.values())


def test_what_was_not_checked_has_a_true_reason():
    assert audit(AuditInputs()).skipped["composition"] == "nothing was evaluated yet"
    bare = [replace(row, source=None, fine_label=None) for row in posts(40)]
    skipped = audit(evaluated(evaluation(bare))).skipped
    assert skipped["composition"] == "the rows have groups, but neither source nor fine label"
    alone = [replace(row, groups=()) for row in posts(40)]
    assert audit(evaluated(evaluation(alone))).skipped["composition"] == "the rows have no groups"
    configured = AuditInputs(phases=(AuditPhase("p", {"warmup_steps": 100}),))
    assert "the updates are not known" in audit(configured).skipped["warmup_share"]
    assert "configuration" in audit(AuditInputs()).skipped["warmup_share"]
    assert "no imported set is one" in audit(configured).skipped["test_reuse"]


class TestData:
    def test_rows_of_the_training_set_in_each_evaluation_set(self):
        train = posts(20)
        test = [*posts(8, prefix="t", start=100), replace(train[3], id="t-copy")]
        inputs = AuditInputs(
            sets=(
                AuditSet("train", "train", dataset(train)),
                AuditSet("clean", "validation", dataset(posts(5, prefix="c", start=300))),
                AuditSet("test", "production", dataset(test)),
            )
        )
        [finding] = made(inputs, "exact_overlap")
        assert (finding.severity, finding.subject) == ("error", "train / test")
        assert finding.evidence["rows"] == 1 and finding.evidence["of"] == 9
        [match] = finding.evidence["matches"]
        assert match["rows"] == {"train": ["p3"], "test": ["t-copy"]}
        assert train[3].text not in finding.model_dump_json()

    def test_near_copies_are_a_warning_and_exact_ones_are_not_counted_again(self):
        post = "the neighbours moved out of the old town before the winter came"
        train = [Row("a", post, "hate")]
        test = [Row("x", post + "!", "hate"), Row("y", post, "hate")]
        inputs = AuditInputs(
            sets=(AuditSet("train", "train", dataset(train)), AuditSet("t", "test", dataset(test)))
        )
        [finding] = made(inputs, "near_overlap")
        assert finding.severity == "warning" and finding.evidence["rows"] == 1

    def test_sets_of_different_roles_share_rows(self):
        rows = posts(6)
        sets = (
            AuditSet("one", "validation", dataset(rows)),
            AuditSet("two", "validation", dataset(rows)),
            AuditSet("three", "production", dataset(rows[:2])),
        )
        found = made(AuditInputs(sets=sets), "evaluation_overlap")
        assert [one.subject for one in found] == ["one / three", "two / three"]

    def test_conflicting_labels_within_and_across(self):
        first = [
            Row("a", "the same", "hate"),
            Row("b", "The  same", "normal"),
            Row("c", "x y", "hate"),
        ]
        second = [Row("d", "X Y", "normal"), Row("e", "the same", "hate"), Row("f", "x y", None)]
        sets = (AuditSet("one", "train", dataset(first)), AuditSet("two", "test", dataset(second)))
        found = made(AuditInputs(sets=sets), "conflicting_labels")
        assert [(one.subject, one.evidence["texts"]) for one in found] == [
            ("one", 1),
            ("one / two", 1),
        ]
        assert found[0].evidence["conflicts"] == [{"rows": {"one": {"a": "hate", "b": "normal"}}}]
        assert found[1].evidence["conflicts"][0]["rows"]["one"] == {"c": "hate"}


class TestTargets:
    @pytest.mark.parametrize(
        ("form", "feature"),
        [
            ({"hate": '{"label": "hate"}', "normal": '{{"label": "normal"}}'}, "opening:2"),
            ({"hate": " hate", "normal": "normal"}, "opening:1"),
            (
                {
                    "hate": '{"label": "hate", "why": null}',
                    "normal": '{"label": "normal", "why": "so"}',
                },
                "shape",
            ),
        ],
    )
    def test_forms_that_tell(self, form, feature):
        inputs = AuditInputs(sets=(AuditSet("train", "train", dataset(chats(60, form))),))
        [finding] = made(inputs, "format_predicts_label")
        assert finding.severity == ("error" if feature.startswith("opening") else "warning")
        forms = {one["feature"]: one["accuracy"] for one in finding.evidence["forms"]}
        assert forms[feature] == 1.0

    @pytest.mark.parametrize(
        "form",
        [
            {"hate": "hate", "normal": "normal"},
            {"hate": '{"label": "hate"}', "normal": '{"label": "normal"}'},
        ],
    )
    def test_the_label_word_itself_is_no_form(self, form):
        inputs = AuditInputs(sets=(AuditSet("train", "train", dataset(chats(60, form))),))
        assert made(inputs, "format_predicts_label") == []

    def test_a_file_that_is_rendered_anew_is_a_note(self):
        form = {"hate": '{"label": "hate"}', "normal": '{{"label": "normal"}}'}
        sets = (AuditSet("train", "train", dataset(chats(60, form))),)
        severities = {
            verbatim: made(
                AuditInputs(sets=sets, phases=(AuditPhase("p", verbatim=verbatim),)),
                "format_predicts_label",
            )[0].severity
            for verbatim in (True, None, False)
        }
        assert severities == {True: "error", None: "error", False: "note"}

    @given(
        st.lists(st.sampled_from(["{", "{{", "[", " "]), min_size=30, max_size=120),
        st.integers(0, 2**32 - 1),
    )
    def test_forms_at_random_do_not_tell(self, openings, seed):
        labels = np.random.default_rng(seed).permutation(["hate", "normal"] * len(openings))
        targets = [
            (f'{one}"label": "{label}"', str(label))
            for one, label in zip(openings, labels, strict=False)
        ]
        _, forms = telling_forms(targets)
        assert all(form.p_value < 0.001 and form.accuracy <= 1 for form in forms)

    def test_values_that_never_repeat_do_not_tell(self):
        targets = [(f'{at}"label": "{("hate", "normal")[at % 2]}"', ("hate", "normal")[at % 2])
                   for at in range(100, 200)]  # fmt: skip
        assert telling_forms(targets)[1] == []


class TestPrompts:
    def test_wording_persona_and_label_words(self):
        form = {"hate": "hate", "normal": "not_hate"}
        rows = chats(10, form, system="You moderate.", persona="Persona: A\n")
        sets = (AuditSet("train", "train", dataset(rows)),)
        inputs = AuditInputs(sets=sets, phases=(AuditPhase("p", prompt=PROMPT, verbatim=True),))
        [finding] = made(inputs, "prompt_drift")
        assert finding.severity == "error"
        assert finding.evidence["rows"] == {
            "another system prompt": 10,
            "a Persona line in training only": 10,
        }
        assert all(row.text not in finding.model_dump_json() for row in rows)
        [words] = made(inputs, "label_word_drift")
        assert words.evidence["training"]["normal"] == {"not_hate": 5}
        assert "hate" not in words.message.split('"')[1:2]

    def test_the_same_prompt_drifts_nowhere(self):
        rows = chats(10, {"hate": "hate", "normal": "normal"})
        inputs = AuditInputs(
            sets=(AuditSet("train", "train", dataset(rows)),),
            phases=(AuditPhase("p", prompt=PROMPT, verbatim=True),),
        )
        assert made(inputs, "prompt_drift") == made(inputs, "label_word_drift") == []

    def test_phases_that_share_file_and_prompt_are_one_finding_with_the_worst_use(self):
        rows = chats(10, {"hate": "yes", "normal": "no"}, system="Other.")
        phases = tuple(
            AuditPhase(name, prompt=PROMPT, verbatim=verbatim)
            for name, verbatim in (("a", False), ("b", True))
        )
        inputs = AuditInputs(sets=(AuditSet("train", "train", dataset(rows)),), phases=phases)
        [finding] = made(inputs, "prompt_drift")
        assert finding.severity == "error"


class TestTraining:
    @given(
        st.integers(1, 5000),
        st.integers(1, 5),
        st.integers(1, 32),
        st.integers(1, 8),
        st.integers(1, 8),
    )
    def test_updates_as_the_trainer_counts_them(self, rows, epochs, batch, accumulation, processes):
        plan = plan_schedule(
            rows=rows,
            epochs=epochs,
            batch=batch,
            accumulation=accumulation,
            warmup=0.1,
            processes=processes,
        )
        # accelerate gives each process as many batches, the last ones repeated.
        batches = math.ceil(math.ceil(rows / batch) / processes)
        whole, rest = divmod(batches, accumulation)
        assert plan.total == epochs * max(whole + (rest > 0), 1)
        assert plan.warmup == math.ceil(0.1 * plan.total)

    @pytest.mark.parametrize(
        ("warmup", "severity"), [(10, None), (50, None), (51, "warning"), (100, "error")]
    )
    def test_warmup(self, warmup, severity):
        phase = AuditPhase("p", schedule=Schedule(100, warmup))
        found = made(AuditInputs(phases=(phase,)), "warmup_share")
        assert [one.severity for one in found] == ([severity] if severity else [])

    def test_confounded_against_the_nearest_earlier_phase(self):
        base = {"tuning": "lora", "lora_r": 8, "lora_alpha": 8, "learning_rate": 1e-4, "seed": 1}
        phases = (
            AuditPhase("base", base),
            AuditPhase("rank", {**base, "lora_r": 16, "lora_alpha": 16}),
            AuditPhase("rate", {**base, "learning_rate": 1e-3}),
            AuditPhase("both", {**base, "learning_rate": 2e-3, "seed": 2}),
            AuditPhase("untuned", {**base, "tuning": "none", "seed": 5, "learning_rate": 9.0}),
            AuditPhase("child", {**base, "seed": 3, "lora_r": 4}, parent="both"),
        )
        found = made(AuditInputs(phases=phases), "confounded_phases")
        assert [one.subject for one in found] == ["rate / both", "both / child"]
        assert set(found[0].evidence["changes"]) == {"learning_rate", "seed"}

    @pytest.mark.parametrize(("size", "is_one_factor"), [(101, True), (120, False), (None, False)])
    def test_layers_at_equal_size_are_one_factor(self, size, is_one_factor):
        layers = {"lora_r": 64, "lora_alpha": 64, "lora_target_modules": ["q_proj"]}
        other = {"lora_r": 32, "lora_alpha": 32, "lora_target_modules": ["q_proj", "o_proj"]}
        counts = {} if size is None else {"trainable_parameters": size}
        phases = (
            AuditPhase("q", layers, count={"trainable_parameters": 100}.copy),
            AuditPhase("qo", other, count=counts.copy),
        )
        found = made(AuditInputs(phases=phases), "confounded_phases")
        assert (not found) == is_one_factor

    def test_the_rank_is_a_factor_where_its_scale_changes_too(self):
        layers = {"lora_r": 64, "lora_alpha": 64, "lora_target_modules": ["q_proj"]}
        other = {"lora_r": 32, "lora_alpha": 64, "lora_target_modules": ["q_proj", "o_proj"]}
        changed = changed_keys(layers, other, same_size=True)
        assert changed == ("lora_r", "lora_target_modules")

    def test_nothing_is_counted_where_no_check_needs_it(self):
        def count():
            raise AssertionError("counted")

        base = {"lora_r": 8, "lora_alpha": 8, "learning_rate": 1e-4}
        phases = (
            AuditPhase("base", base, count=count),
            AuditPhase("both", {**base, "lora_r": 4, "learning_rate": 1e-3}, count=count),
        )
        assert made(AuditInputs(phases=phases), "confounded_phases")

    def test_a_treatment_is_a_factor(self):
        base = {"tuning": "full", "learning_rate": 1e-4}
        treated = {**base, "label_policy": {"offensive": "hate"}, "row_weights": "group_label"}
        assert changed_keys(base, treated) == ("label_policy", "row_weights")
        assert changed_keys(base, {**base, "augment": {"ratio": 0.2}}) == ("augment",)

    def test_alpha_is_a_factor_where_the_scale_changes(self):
        before = {"lora_r": 8, "lora_alpha": 8}
        assert changed_keys(before, {"lora_r": 16, "lora_alpha": 16}) == ("lora_r",)
        assert changed_keys(before, {"lora_r": 16, "lora_alpha": 64}) == ("lora_r", "lora_alpha")

    def test_parameters_that_are_stated(self):
        count = {"trainable_parameters": 21_135_360}.copy
        right = AuditPhase("right", count=count, stated={"trainable_parameters": 21_135_360})
        wrong = AuditPhase("wrong", count=count, stated={"trainable_parameters": 23_887_872})
        [finding] = made(AuditInputs(phases=(right, wrong)), "wrong_parameter_count")
        assert "23,887,872" in finding.message and "21,135,360" in finding.message

    def test_number_formats_that_a_machine_chose(self):
        def phase(name: str, asked: str, found: str) -> AuditPhase:
            return AuditPhase(name, {"dtype": asked}, training={"dtype": found})

        chosen = phase("a", "auto", "float32"), phase("b", "auto", "bfloat16")
        stated = phase("a", "float32", "float32"), phase("b", "bfloat16", "bfloat16")
        equal = phase("a", "auto", "float32"), phase("b", "float32", "float32")
        third = phase("c", "float32", "float32")
        [finding] = made(AuditInputs(phases=(*chosen, third)), "mixed_number_formats")
        assert (finding.severity, finding.subject) == ("warning", "bfloat16 / float32")
        assert "b in bfloat16; a and c in float32" in finding.message
        for phases in (stated, equal):  # stated by all, the format is a factor like any other
            assert made(AuditInputs(phases=phases), "mixed_number_formats") == []

    @pytest.mark.parametrize(("tokens", "found"), [(512, 1), (20, 0)])
    def test_padding(self, tokens, found):
        rows = chats(40, {"hate": "hate", "normal": "normal"})
        training = {"rows": 40, "final_epoch": 2.0, "total_flos": 6 * 1_000_000 * tokens * 80}
        phase = AuditPhase(
            "p",
            {"max_seq_length": 512},
            count={"trainable_parameters": 0, "total_parameters": 1_500_000}.copy,
            embedding_parameters=500_000,
            training=training,
        )
        inputs = AuditInputs(sets=(AuditSet("t", "train", dataset(rows)),), phases=(phase,))
        findings = made(inputs, "padding_waste")
        assert len(findings) == found
        if findings:
            assert findings[0].evidence["tokens_per_row"] == pytest.approx(512)


class TestBars:
    def test_a_bar_that_a_constant_reaches(self):
        sets = (AuditSet("test", "production", dataset(posts(100))),)
        low = AuditInputs(sets=sets, targets=(Target("f1", 0.6),))
        [finding] = made(low, "constant_passes")
        assert finding.severity == "error"
        assert finding.evidence["values"]["f1 >= 0.6"] == pytest.approx(2 / 3)
        high = (Target("f1", 0.6), Target("accuracy", 0.9))
        [finding] = made(AuditInputs(sets=sets, targets=high), "constant_passes")
        assert finding.severity == "warning"
        beside = AuditInputs(sets=sets, targets=(Target("recall", 0.75),), more_required=True)
        assert made(beside, "constant_passes") == []

    def test_a_gate_that_a_constant_passes(self):
        def verdict(vacuous: tuple[str, ...]) -> GateVerdict:
            result = CriterionResult(
                name="F1 >= 0.6",
                metric="f1",
                group=None,
                role="required",
                measured=MetricValue(value=0.7, reason="no_interval"),
                required=">= 0.6",
                judged_on="point",
                status="pass",
                note="",
                labels_needed=None,
                constants={"always_hate": 0.62},
                duty=None,
            )
            return GateVerdict(
                outcome="PASS",
                set="test",
                n=100,
                n_scored=100,
                criteria_name="mine",
                criteria_sha256="0",
                results=(result,),
                vacuous=vacuous,
                threshold=None,
                binding=Binding(run="r", adapter=None, prompt=None, base=None),
                created="2025-01-01",
            )

        [error] = made(AuditInputs(verdicts=(verdict(("always_hate",)),)), "constant_passes")
        [warning] = made(AuditInputs(verdicts=(verdict(()),)), "constant_passes")
        assert (error.severity, warning.severity) == ("error", "warning")
        assert 'Answering "hate" always' in error.message and "0.6200" in warning.message

    def test_production_rows_that_were_used_twice(self):
        use = {"set": "production", "rows": "h", "at": "now"}
        once = ({**use, "run": "1", "phase": "a"}, {**use, "run": "1", "phase": "a"})
        assert made(AuditInputs(uses=once), "test_reuse") == []
        [finding] = made(AuditInputs(uses=(*once, {**use, "run": "2", "phase": "b"})), "test_reuse")
        assert finding.evidence["runs"] == {"1": "a", "2": "b"}


class TestResults:
    def test_a_model_with_scores_that_learned_has_no_finding_but_small_groups(self):
        found = audit(evaluated(evaluation(posts(60))))
        assert {one.check for one in found.findings} == {"small_groups"}
        assert all(one.severity == "note" for one in found.findings)

    def test_decisions_without_scores_unparseable_ones_and_nothing_learned(self):
        rows = posts(80)
        decisions = [None if at < 3 else ("hate", "normal")[at // 4 % 2] for at in range(80)]
        answers = predictions_from_rows(rows, decisions=decisions)
        inputs = evaluated(evaluation(rows, answers=answers, method="generate"))
        found = {one.check: one for one in audit(inputs).findings}
        assert set(found) >= {"no_scores", "unparseable_answers", "learned_nothing"}
        assert found["unparseable_answers"].evidence["n_scored"] == 77
        assert sum(found["unparseable_answers"].evidence["groups"].values()) == 3

    def test_a_baseline_that_does_as_well(self):
        train = [replace(row, text=f"{row.label} {row.text}") for row in posts(40)]
        rows = [replace(row, text=f"{row.label} {row.text}") for row in posts(60, start=100)]
        compared = baseline_predictions(train, rows, seed=0)
        scores = np.random.default_rng(3).random(60)
        found = made(evaluated(evaluation(rows, scores, baselines=compared)), "baseline_not_beaten")
        assert "model / test / tfidf_logreg" in [one.subject for one in found]
        perfect = np.array([0.9 if row.label == "hate" else 0.1 for row in rows])
        inputs = evaluated(
            evaluation(rows, perfect, baselines={"always_hate": compared["always_hate"]})
        )
        assert made(inputs, "baseline_not_beaten") == []

    def test_a_gap_that_is_composition(self):
        rng = np.random.default_rng(1)
        rows, scores = [], []
        for at in range(2000):
            group = ("a", "b")[at % 2]
            offensive = rng.random() < (0.8 if group == "a" else 0.2)
            rate = 0.9 if offensive else 0.1
            rows.append(
                Row(
                    f"r{at}",
                    f"post {at}",
                    "normal" if at % 3 else "hate",
                    (group,),
                    "s",
                    "offensive" if offensive else "plain",
                )
            )
            scores.append(0.9 if rng.random() < rate else 0.1)
        found = made(evaluated(evaluation(rows, np.array(scores))), "composition")
        subjects = {one.subject: one for one in found}
        finding = subjects["model / test / a FPR"]
        assert finding.evidence["explained"] > 0.8
        offensive = next(
            one for one in finding.evidence["strata"] if one["fine_label"] == "offensive"
        )
        assert offensive["share_of_group"] == pytest.approx(0.8, abs=0.05)
        assert offensive["rate"] == pytest.approx(0.9, abs=0.05)
        assert "offensive" in finding.message

    def ratio(self, *, low: float, explained: float | None, left_out: int) -> AuditInputs:
        """An evaluation whose group a has this ratio of FPRs to the others."""
        found = evaluation(posts(80))
        gap = RateRatio(
            crude=MetricValue(value=2.0, low=1.4, high=2.9, method="katz"),
            adjusted=MetricValue(value=1.9, low=low, high=3.9, method="mantel_haenszel"),
            explained=explained,
            strata=2,
            left_out=left_out,
        )
        none = gap.model_copy(update={"crude": MetricValue(value=1.0, low=0.5, high=2.0)})
        parts = {"a": Composition(by=("source", "fine_label"), fpr=gap, fnr=none)}
        return evaluated(found.model_copy(update={"composition": parts}))

    @pytest.mark.parametrize(
        ("low", "explained", "left_out", "severity"),
        [
            (0.9, 0.7, 0, "warning"),
            (1.1, 0.5, 10, "warning"),
            (0.9, 0.09, 0, "note"),
            (0.9, -0.4, 0, "note"),
            (0.9, 0.8, 11, "note"),
            (0.9, None, 20, "note"),
            (1.1, 0.8, 11, None),
            (1.1, 0.2, 0, None),
        ],
    )
    def test_a_gap_is_called_composition_only_where_that_is_shown(
        self, low, explained, left_out, severity
    ):
        inputs = self.ratio(low=low, explained=explained, left_out=left_out)
        assert inputs.evaluations[0].evaluation.groups["a"].confusion.negatives == 20
        found = made(inputs, "composition")
        assert [one.severity for one in found] == ([severity] if severity else [])
        if severity == "note":
            said = f"spans 0.90 to 3.90; {left_out} of 20 rows had no counterpart"
            assert said in found[0].message and "much of the gap" not in found[0].message
            assert "-" not in found[0].message.replace("non-", "")


class TestImported:
    def test_labels_and_figures_that_the_files_contradict(self):
        facts = {
            "evaluations": {
                "test": {
                    "rows": 100,
                    "parser_failures": 90,
                    "responses": {"responses": 25, "differ": 3, "label_without_reading": 5},
                },
                "clean": {"rows": 10, "parser_failures": 0, "responses": None},
            },
            "stated": {
                "test.f1": {"value": 0.7, "status": "contradicted", "found": 0.63},
                "trainable_parameters": {"value": 5, "status": "contradicted", "found": 6},
                "test.fpr": {"value": 0.5, "status": "verified", "found": 0.5},
            },
        }
        inputs = AuditInputs(imported={"model": facts})
        [finding] = made(inputs, "contradicted_responses")
        assert finding.subject == "model / test" and "90 of 100 rows" in finding.message
        [finding] = made(inputs, "contradicted_figures")
        assert list(finding.evidence["figures"]) == ["test.f1"]


class TestAcceptance:
    @pytest.fixture
    def found(self) -> Audit:
        rows = posts(20)
        sets = (
            AuditSet("train", "train", dataset(rows)),
            AuditSet("one", "test", dataset(rows[:5])),
            AuditSet("two", "test", dataset(rows[5:])),
        )
        return audit(AuditInputs(sets=sets))

    def test_by_check_by_subject_and_by_part_of_it(self, found):
        assert len(found.errors) == 2
        assert accept(found, {"exact_overlap": "known"}).errors == ()
        part = accept(found, {"exact_overlap:one": "known"})
        assert [one.subject for one in part.errors] == ["train / two"]
        whole = accept(found, {"exact_overlap:train / two": "known"})
        assert [one.subject for one in whole.errors] == ["train / one"]
        assert [one.accepted for one in found.findings] == [None, None]

    def test_an_acceptance_that_matches_nothing(self, found):
        after = accept(found, {"exact_overlaps": "x", "near_overlap": "y", "exact_overlap:on": "z"})
        idle = [one for one in after.findings if one.check == "accepts_nothing"]
        assert [one.subject for one in idle] == [
            "exact_overlaps",
            "near_overlap",
            "exact_overlap:on",
        ]
        assert 'did you mean "exact_overlap"' in idle[0].message
        # A check that was not made yet may still find it.
        assert accept(found, {"composition": "later"}).findings == found.findings

    def test_the_worst_comes_first(self, found):
        severities = [one.severity for one in accept(found, {"nonsense": "x"}).findings]
        assert severities == ["error", "error", "warning"]
