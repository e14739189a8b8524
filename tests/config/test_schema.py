from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from evenhand.config.checking import check_experiment, check_phase
from evenhand.config.experiment_schema import ColumnsConfig, ExperimentConfig
from evenhand.config.schema import PhaseConfig

REFERENCE_KEYS = [
    "model_name_or_path",
    "cache_dir",
    "load_in_4bit",
    "bnb_4bit_quant_type",
    "bnb_4bit_compute_dtype",
    "train_file",
    "validation_file",
    "max_seq_length",
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "lora_target_modules",
    "lora_bias",
    "early_stopping_patience",
    "early_stopping_threshold",
    "learning_rate",
    "num_train_epochs",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "lr_scheduler_type",
    "bf16",
    "gradient_checkpointing",
    "optim",
    "output_dir",
    "logging_steps",
    "eval_strategy",
    "save_strategy",
    "save_total_limit",
    "load_best_model_at_end",
    "metric_for_best_model",
    "greater_is_better",
    "report_to",
    "dataloader_num_workers",
    "remove_unused_columns",
]


def experiment(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": "one",
        "phases": [{"name": "a"}, {"name": "b"}],
        "sets": [
            {"name": "train", "role": "train", "file": "train.csv"},
            {"name": "val", "role": "validation", "file": "val.csv"},
            {"name": "test", "role": "test", "file": "test.csv"},
        ],
        "selection": {"set": "val"},
    }
    return {**document, **changes}


def problems_of(values: dict[str, Any]) -> dict[str, str]:
    _, found = check_phase(values)
    return {one.place: one.message for one in found}


def experiment_problems(document: dict[str, Any]) -> dict[str, str]:
    _, found = check_experiment(document)
    return {one.place: one.message for one in found}


def test_the_reference_keys_are_all_there() -> None:
    assert set(REFERENCE_KEYS) <= set(PhaseConfig.model_fields)


def test_configurations_are_frozen() -> None:
    with pytest.raises(ValidationError):
        PhaseConfig().lora_r = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_every_field_has_a_one_line_description() -> None:
    for name, field in PhaseConfig.model_fields.items():
        assert field.description, name
        assert "\n" not in field.description


@pytest.mark.parametrize(
    ("values", "key", "expected"),
    [
        ({"report_to": "tensorboard"}, "report_to", ("tensorboard",)),
        ({"report_to": ["none"]}, "report_to", ("none",)),
        ({"metric_for_best_model": "f1"}, "metric_for_best_model", "eval_f1"),
        ({"metric_for_best_model": "eval_roc_auc"}, "metric_for_best_model", "eval_roc_auc"),
        ({"lora_target_modules": ["q_proj"]}, "lora_target_modules", ("q_proj",)),
        ({"lora_target_modules": "all-linear"}, "lora_target_modules", "all-linear"),
        ({"warmup_steps": 0.1}, "warmup_steps", 0.1),
        ({"warmup_steps": 100}, "warmup_steps", 100),
        ({"warmup_steps": 100.0}, "warmup_steps", 100),
        ({"num_train_epochs": 3}, "num_train_epochs", 3.0),
        ({"early_stopping_patience": None}, "early_stopping_patience", None),
    ],
)
def test_values_are_normalised(values: dict[str, Any], key: str, expected: Any) -> None:
    value = getattr(PhaseConfig(**values), key)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lora_r": "16"}, 'must be a whole number, not "16"'),
        ({"lora_r": 16.5}, "must be a whole number"),
        ({"lora_r": True}, "must be a whole number, not true"),
        ({"lora_r": 0}, "must be at least 1, not 0"),
        ({"lora_dropout": 1}, "must be less than 1"),
        ({"bf16": "yes"}, 'must be true or false, not "yes"'),
        ({"learning_rate": float("nan")}, "must be a finite number"),
        ({"learning_rate": 0}, "must be more than 0"),
        ({"objective": "labell"}, 'did you mean "label"?'),
        ({"model_name_or_path": ""}, "must not be empty"),
        ({"warmup_steps": 1.5}, "a share of all steps below 1"),
        ({"lora_target_modules": "q_proj"}, 'must be a list such as ["q_proj"]'),
        ({"lora_target_modules": []}, "must name at least one module"),
        ({"lora_target_modules": [1]}, "must be a list of module names"),
        ({"output_dir": 3}, "must be a text in quotes"),
        ({"lora_target_parameters": "experts"}, "must be a list"),
        ({"report_to": "wandb"}, 'must be "tensorboard" or "none"'),
    ],
)
def test_wrong_values_are_explained(values: dict[str, Any], message: str) -> None:
    (found,) = problems_of(values).values()
    assert message in found


@pytest.mark.parametrize(
    ("values", "place", "message"),
    [
        (
            {"eval_strategy": "no", "save_strategy": "no"},
            "load_best_model_at_end",
            "needs evaluation",
        ),
        ({"save_strategy": "no"}, "save_strategy", 'eval_strategy is "epoch"'),
        (
            {"eval_strategy": "steps", "save_strategy": "steps"},
            "eval_steps",
            "is missing",
        ),
        (
            {
                "eval_strategy": "steps",
                "save_strategy": "steps",
                "eval_steps": 30,
                "save_steps": 100,
            },
            "save_steps",
            "no multiple of eval_steps (30)",
        ),
        (
            {
                "eval_strategy": "steps",
                "save_strategy": "steps",
                "eval_steps": 0.1,
                "save_steps": 100,
            },
            "save_steps",
            "same kind as eval_steps",
        ),
        (
            {
                "early_stopping_patience": 2,
                "eval_strategy": "no",
                "load_best_model_at_end": False,
            },
            "early_stopping_patience",
            "needs",
        ),
        (
            {"early_stopping_patience": 2, "load_best_model_at_end": False},
            "early_stopping_patience",
            "needs load_best_model_at_end",
        ),
        ({"greater_is_better": True}, "greater_is_better", "a smaller eval_loss is better"),
        (
            {"greater_is_better": False, "metric_for_best_model": "f1"},
            "greater_is_better",
            "a larger eval_f1 is better",
        ),
        (
            {"lora_target_parameters": ["mlp.experts.down_proj"], "lora_dropout": 0.1},
            "lora_dropout",
            "must be 0",
        ),
        (
            {"task": "sequence_classification", "objective": "completion"},
            "objective",
            'needs task "causal_lm"',
        ),
        (
            {"task": "sequence_classification", "prompt_file": "p.json"},
            "prompt_file",
            "reads the bare text",
        ),
        ({"tuning": "full", "init_adapter": "runs/a"}, "init_adapter", 'tuning is "full"'),
        ({"tuning": "none", "init_adapter": "runs/a"}, "init_adapter", 'tuning is "none"'),
        ({"tuning": "full", "load_in_4bit": True}, "load_in_4bit", "cannot be trained"),
        ({"bf16": True, "dtype": "float32"}, "bf16", "contradicts"),
        ({"optim": "adamw_8bit", "device": "cpu"}, "optim", "needs CUDA"),
        ({"report_to": ["none", "tensorboard"]}, "report_to", "cannot be combined"),
    ],
)
def test_fields_that_contradict_each_other(
    values: dict[str, Any], place: str, message: str
) -> None:
    assert message in problems_of(values)[place]
    with pytest.raises(ValidationError, match=place):
        PhaseConfig(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False},
        {
            "eval_strategy": "steps",
            "save_strategy": "steps",
            "eval_steps": 0.1,
            "save_steps": 0.3,
        },
        {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 50},
        {"tuning": "none", "eval_strategy": "no"},
        {"task": "sequence_classification", "tuning": "full"},
        {"greater_is_better": True, "metric_for_best_model": "f1"},
    ],
)
def test_fields_that_go_together(values: dict[str, Any]) -> None:
    assert problems_of(values) == {}


def test_all_problems_at_once() -> None:
    values = {
        "lora_r": 0,
        "lora_rr": 1,
        "evaluation_strategy": "epoch",
        "bf16": True,
        "dtype": "float32",
        "save_strategy": "no",
    }
    assert set(problems_of(values)) == {
        "lora_r",
        "lora_rr",
        "evaluation_strategy",
        "bf16",
        "save_strategy",
    }


def test_a_rule_that_needs_a_wrong_value_is_not_judged() -> None:
    assert set(problems_of({"bf16": True, "dtype": "float16"})) == {"dtype"}


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("lora_rr", 'did you mean "lora_r"?'),
        ("evaluation_strategy", "is called eval_strategy here"),
        ("warmup_ratio", "warmup_steps, a number below 1"),
        ("max_length", "is called max_seq_length here"),
        ("max_seq_len", "is called max_seq_length here"),
        ("fp16", "use bf16"),
        ("torch_dtype", "is called dtype here"),
        ("trust_remote_code", "never run"),
    ],
)
def test_unknown_keys_name_the_right_one(key: str, message: str) -> None:
    assert message in problems_of({key: 1})[key]


def test_facts_about_a_phase() -> None:
    assert PhaseConfig().uses_adapter
    assert not PhaseConfig(tuning="full").uses_adapter
    assert not PhaseConfig().is_greater_better
    assert PhaseConfig(metric_for_best_model="eval_f1").is_greater_better
    assert not PhaseConfig(report_to=("none",)).writes_tensorboard


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "lora_r": st.integers(1, 4096),
            "lora_dropout": st.floats(0, 1, exclude_max=True),
            "lora_target_modules": st.just("all-linear")
            | st.lists(st.text(min_size=1), min_size=1),
            "lora_target_parameters": st.just([]),
            "learning_rate": st.floats(1e-12, 10),
            "num_train_epochs": st.floats(0.01, 100),
            "warmup_steps": st.integers(0, 10_000)
            | st.floats(0, 1, exclude_max=True, allow_subnormal=False),
            "metric_for_best_model": st.sampled_from(["loss", "f1", "eval_accuracy"]),
            "report_to": st.sampled_from(["none", ["tensorboard"]]),
            "max_train_rows": st.none() | st.integers(1, 10**9),
            "model_name_or_path": st.text(min_size=1),
            "seed": st.integers(0, 2**32 - 1),
            "early_stopping_patience": st.none() | st.integers(1, 10),
        },
    )
)
def test_phases_survive_json(values: dict[str, Any]) -> None:
    config = PhaseConfig.model_validate(values)
    text = json.dumps(config.model_dump(mode="json"), allow_nan=False)
    assert PhaseConfig.model_validate(json.loads(text)) == config


def test_experiments_survive_json() -> None:
    config = ExperimentConfig.model_validate(
        experiment(columns={"group": ["a", "b"]}, labels={"toxic": "hate"})
    )
    text = json.dumps(config.model_dump(mode="json"))
    assert ExperimentConfig.model_validate(json.loads(text)) == config


@pytest.mark.parametrize(
    ("changes", "place", "message"),
    [
        ({"phases": []}, "phases", "at least one"),
        ({"phases": [{"name": "a"}, {"name": "A"}]}, "phases[1].name", "phases[0]"),
        ({"phases": [{"name": "a/b"}]}, "phases[0].name", "letters, digits"),
        ({"phases": [{"name": ".."}]}, "phases[0].name", "letters, digits"),
        ({"phases": [{}]}, "phases[0].name", "is missing"),
        ({"phases": ["a"]}, "phases[0]", "must be an object"),
        ({"phases": [{"name": "a", "config": 3}]}, "phases[0].config", "a file name"),
        ({"phases": [{"name": "a", "lora_r": 3}]}, "phases[0].lora_r", "put it in overrides"),
        ({"phases": [{"name": "a", "hypotesis": ""}]}, "phases[0].hypotesis", '"hypothesis"'),
        ({"lora_r": 3}, "lora_r", "put it in defaults"),
        ({"selecton": {}}, "selecton", 'did you mean "selection"?'),
        ({"selection": {"set": "vall"}}, "selection.set", 'did you mean "val"?'),
        ({"selection": {"set": "test"}}, "selection.set", 'has role "test"'),
        ({"selection": {"set": "val", "metric": "roc_auk"}}, "selection.metric", "roc_auc"),
        (
            {"phases": [{"name": "a", "continue_from": "b"}, {"name": "b"}]},
            "phases[0].continue_from",
            "not an EARLIER phase",
        ),
        (
            {"phases": [{"name": "a", "continue_from": "a"}]},
            "phases[0].continue_from",
            "not an EARLIER phase",
        ),
        (
            {"phases": [{"name": "aa"}, {"name": "b", "continue_from": "ab"}]},
            "phases[1].continue_from",
            "is not a phase",
        ),
        ({"labels": {"toxic": "bad"}}, "labels.toxic", 'must be "hate" or "normal"'),
        ({"columns": {"grup": "x"}}, "columns.grup", 'did you mean "group"?'),
        ({"columns": {"group": []}}, "columns.group", "at least one column"),
        ({"on_bad_row": "ignore"}, "on_bad_row", '"stop" or "skip"'),
        ({"seeds": []}, "seeds", "at least one"),
        ({"seeds": [1, 1]}, "seeds", "twice"),
        ({"seeds": [1], "defaults": {"seed": 2}}, "defaults.seed", "leave it out"),
        (
            {"seeds": [1], "phases": [{"name": "a", "overrides": {"seed": 2}}]},
            "phases[0].overrides.seed",
            "leave it out",
        ),
        ({"phases": [{"name": "plain"}], "control": "plane"}, "control", 'mean "plain"?'),
        ({"acceptance": {"set": "test"}}, "acceptance", 'needs "control"'),
        ({"acceptance": {"set": "tst"}}, "acceptance.set", 'did you mean "test"?'),
        ({"acceptance": {"set": "train"}}, "acceptance.set", 'has role "train"'),
        ({"acceptance": {"fitted_on": "val"}}, "acceptance.fitted_on", '"at_recall"'),
        (
            {"acceptance": {"set": "val", "at_recall": 0.7, "fitted_on": "val"}},
            "acceptance.fitted_on",
            "other rows",
        ),
        ({"acceptance": {"set": "test", "f1_margn": 1}}, "acceptance.f1_margn", '"f1_margin"'),
    ],
)
def test_wrong_experiments(changes: dict[str, Any], place: str, message: str) -> None:
    assert message in experiment_problems(experiment(**changes))[place]


@pytest.mark.parametrize(
    ("values", "place", "message"),
    [
        ({"augment": {}}, "augment.methods", "is missing"),
        ({"augment": {"methods": []}}, "augment.methods", "at least one"),
        ({"augment": {"methods": ["template"]}}, "augment.methods[0]", '"templates"'),
        ({"augment": {"methods": ["corpus"]}}, "augment.corpus", "is missing"),
        ({"augment": {"methods": ["swaps"], "corpus": "x"}}, "augment.corpus", "only used by"),
        ({"augment": {"methods": ["swaps", "swaps"]}}, "augment.methods", "twice"),
        ({"augment": {"methods": ["swaps"], "ratio": 9}}, "augment.ratio", "at most 4"),
        ({"augment": {"methods": ["swaps"], "rato": 1}}, "augment.rato", '"ratio"'),
        (
            {"augment": {"methods": ["swaps"]}, "objective": "full_sequence"},
            "augment",
            "no chat",
        ),
        ({"label_policy": {"offensive": "hateful"}}, "label_policy.offensive", '"hate"'),
        ({"row_weights": "group"}, "row_weights", '"group_label"'),
        ({"row_weights": "group_label", "objective": "completion"}, "row_weights", "label"),
        ({"counterfactual_pairing": 0}, "counterfactual_pairing", "more than 0"),
        (
            {"counterfactual_pairing": 1, "objective": "completion"},
            "counterfactual_pairing",
            "label",
        ),
    ],
)
def test_wrong_mitigations(values: dict[str, Any], place: str, message: str) -> None:
    found = {one.place: one.message for one in check_phase(values)[1]}
    assert message in found[place]
    assert len(found) == 1


def test_wrong_sets_of_an_experiment() -> None:
    sets = [
        *experiment()["sets"],
        {"name": "more", "role": "train", "file": "more.csv"},
        {"name": "TEST", "role": "tests", "file": "x.csv"},
        {
            "name": "chats",
            "role": "test",
            "file": "c.jsonl",
            "format": "chat",
            "columns": {"text": "t"},
        },
    ]
    found = experiment_problems(experiment(sets=sets))
    assert set(found) == {"sets[3].role", "sets[4].name", "sets[4].role", "sets[5].columns"}


def test_problems_of_an_experiment_all_at_once() -> None:
    document = experiment(
        phases=[{"name": "a", "continue_from": "b"}, {"name": "a", "x": 1}], baselines=1
    )
    del document["selection"]
    assert set(experiment_problems(document)) == {
        "selection",
        "baselines",
        "phases[1].x",
        "phases[1].name",
        "phases[0].continue_from",
    }


def test_chosen_columns() -> None:
    assert ColumnsConfig().chosen() == {}
    assert ColumnsConfig(group="g", id="n").chosen() == {"group": "g", "id": "n"}
