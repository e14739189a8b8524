"""Summaries built from seeded scores, for the tests of the report."""

from __future__ import annotations

import dataclasses

import numpy as np

from evenhand.core.decisions import (
    Audit,
    Binding,
    Calibration,
    CriterionResult,
    Deployment,
    Finding,
    FittedOn,
    GateVerdict,
    Threshold,
    ThresholdReport,
    ThresholdRule,
)
from evenhand.core.evaluation import Evaluation, MetricValue
from evenhand.core.predictions import Predictions, predictions_from_rows
from evenhand.core.records import Row
from evenhand.decide.compare import compare
from evenhand.measure.classification import evaluate
from evenhand.report.records import (
    ErrorExample,
    PhaseReport,
    ScoredRows,
    Selection,
    SetReport,
    Summary,
)

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


def predictions(n: int, *, lift: float, unparseable: int = 0, groups: bool = True) -> Predictions:
    label = np.arange(n) % 9 < 4
    rows = [_row(i, hate=bool(hate), groups=groups) for i, hate in enumerate(label)]
    noise = np.random.default_rng(n).normal(size=n)
    score = 1 / (1 + np.exp(-(noise + lift * (label - 0.5))))
    score[:unparseable] = np.nan
    statuses = ["unparseable"] * unparseable + ["ok"] * (n - unparseable)
    return predictions_from_rows(rows, scores=score, statuses=statuses)


def evaluation(
    n: int, *, lift: float, name: str, unparseable: int = 0, groups: bool = True
) -> Evaluation:
    answers = predictions(n, lift=lift, unparseable=unparseable, groups=groups)
    rows = [_row(i, hate=bool(i % 9 < 4), groups=groups) for i in range(n)]
    return evaluate(
        answers,
        name=name,
        rng=np.random.default_rng(0),
        n_bootstrap=200,
        baselines={"always_hate": predictions_from_rows(rows, scores=np.ones(n))},
        dataset_sha256="ab" * 32,
    )


def _row(number: int, *, hate: bool, groups: bool) -> Row:
    return Row(
        id=f"{number:04}",
        text="t",
        label="hate" if hate else "normal",
        groups=(("alpha", "beta")[number % 7 < 1],) if groups else (),
        source="s|t",
        fine_label=f"plain {number % 9}",
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


def build_summary() -> Summary:
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


def section(text: str, title: str) -> str:
    """Return a section of a rendered summary."""
    start = text.index(f"\n## {title}\n")
    end = text.find("\n## ", start + 1)
    return text[start : end if end > 0 else None]


BINDING = Binding(run="ab", adapter=None, prompt=None, base=None)


def build_full_summary(*, post: str | None = None, post_id: str = "0001") -> Summary:
    """The same experiment with every decision made, and an error whose post may be shown."""
    summary = build_summary()
    weak, strong, *others = summary.phases
    answers = {
        "weak": predictions(120, lift=0.0),
        "strong": predictions(120, lift=2.0),
    }
    comparison = compare(answers, set_name="val", rng=np.random.default_rng(1), n_bootstrap=200)
    frame = predictions(400, lift=1.5).frame
    scored = ScoredRows((frame["label"] == "hate").to_numpy(bool), frame["score"].to_numpy(float))
    strong = dataclasses.replace(
        strong,
        threshold=_threshold(),
        threshold_report=_threshold_report(),
        verdict=_verdict(),
        deployment=_deployment(),
        stated={
            "production.f1": {"value": 0.9, "status": "contradicted", "found": 0.7},
            "date": {"value": "2026-01-01", "status": "stated, not verified", "found": None},
        },
        history=tuple({"step": step, "loss": 1 / step} for step in (1, 2, 3)),
        scored={"production": scored},
        examples={
            "production": (
                ErrorExample(post_id, "alpha", "normal", "hate", "plain 1", 0.93, post),
                ErrorExample("0002", "beta", "hate", "normal", None, None, None),
            )
        },
    )
    return dataclasses.replace(
        summary,
        phases=(weak, strong, *others),
        comparisons=(comparison,),
        audit=_audit(),
        commands=("evenhand run toy.json",),
    )


def _audit() -> Audit:
    return Audit(
        findings=(
            Finding(
                check="small_groups",
                subject="val",
                severity="note",
                message="beta is small.",
                remedy="Label more rows.",
            ),
            Finding(
                check="exact_overlap",
                subject="train / val",
                severity="error",
                message="73 of 100 rows of val stand word for word in train.",
                evidence={
                    "rows": 73,
                    "matches": [
                        {"similarity": 1.0, "rows": {"train": [f"row-{i}"], "val": [str(i)]}}
                        for i in range(73)
                    ],
                },
                remedy="Take them out.",
                accepted="it is the reference's own leak",
            ),
            Finding(
                check="exact_overlap",
                subject="train / production",
                severity="error",
                message="1 of 400 rows of production stands word for word in train.",
                remedy="Take them out.",
            ),
        ),
        checks=("exact_overlap", "small_groups"),
        skipped={"prompt_drift": "the prompt is not known"},
    )


def _threshold() -> Threshold:
    return Threshold(
        value=0.62,
        rule=ThresholdRule(
            maximise="f1",
            max_group_fpr=0.3,
            max_fpr_gap=None,
            confidence=0.95,
            procedure="fixed-sequence testing",
        ),
        fitted_on=FittedOn(set="val", rows_sha256="cd", n=120, share=None),
        binding=BINDING,
        calibration=Calibration(
            temperature=1.31,
            n=120,
            nll_before=0.61,
            nll_after=0.59,
            brier_before=0.21,
            brier_after=0.2,
            ece_before=0.09,
            ece_after=0.04,
        ),
        created="2026-01-02T00:00:00+00:00",
    )


def _threshold_report() -> ThresholdReport:
    before, after = predictions(400, lift=1.5), predictions(400, lift=1.6)
    comparison = compare(
        {"0.5": before, "0.62": after},
        set_name="production",
        rng=np.random.default_rng(2),
        n_bootstrap=200,
    )
    production = evaluation(400, lift=1.5, name="production")
    return ThresholdReport(
        set="production",
        share=None,
        n=400,
        default=0.5,
        value=0.62,
        before=production.confusion,
        after=production.confusion,
        comparison=comparison,
        calibration_before={"ece": 0.09},
        calibration_after={"ece": 0.04},
    )


_DUTY = {
    "monitor": "alpha FPR",
    "owner": "team",
    "action": "Tune the threshold.",
    "due": "2026-02-01",
}


def _criterion(name: str, **changes: object) -> CriterionResult:
    values = {
        "name": name,
        "role": "required",
        "metric": "f1",
        "unit": "plain",
        "group": None,
        "measured": MetricValue(value=0.7, low=0.66, high=0.74, method="bootstrap_percentile"),
        "required": ">= 0.615",
        "judged_on": "lower",
        "status": "pass",
        "note": "The lower bound is above it.",
        "labels_needed": None,
        "constants": {},
        "duty": None,
    } | changes
    return CriterionResult(**values)


def _verdict() -> GateVerdict:
    return GateVerdict(
        outcome="PASS WITH CONDITIONS",
        set="production",
        n=400,
        n_scored=400,
        criteria_name="seed",
        criteria_sha256="ef" * 32,
        results=(
            _criterion("F1 >= 0.615", constants={"always_hate": 0.6216}),
            _criterion(
                "F1 >= 0.70",
                role="stretch",
                required=">= 0.70",
                status="undecided",
                labels_needed=2301,
                label_unit="rows",
                settling="about 2,310 rows in all would settle it in four cases of five",
                note="The interval contains it.",
            ),
            _criterion(
                "Bias",
                role="condition",
                metric="fpr",
                unit="share",
                group="alpha",
                measured=MetricValue(value=0.6, low=0.54, high=0.66, method="wilson"),
                required="<= 50% for each group",
                status="fail",
                note="alpha is above.",
                constants={"always_normal": 0.0},
                duty=_DUTY,
            ),
            _criterion(
                "Generalisation",
                role="condition",
                unit="points",
                against="val (stated, not verified)",
                measured=MetricValue(value=-0.016, reason="stated_not_verified"),
                required=">= -2.5 pp against val",
                status="not_evaluated",
                note="Not evaluated: there is no interval to judge on.",
                constants={"always_hate": 0.0},
            ),
        ),
        vacuous=("always_hate",),
        threshold=0.62,
        binding=BINDING,
        created="2026-01-02T00:00:00+00:00",
    )


def _deployment() -> Deployment:
    return Deployment(
        status="approved_with_conditions",
        date="2026-01-02",
        model="strong",
        set="production",
        outcome="PASS WITH CONDITIONS",
        threshold=0.62,
        binding=BINDING,
        conditions=({"criterion": "Bias", **_DUTY},),
        next_action="review alpha false positives.",
        due="2026-02-01",
    )
