"""Row weights and counterfactual pairs in training, against plain computations of the same loss."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.finetune.conftest import save_model
from torch import Tensor
from torch.nn.functional import cross_entropy

from evenhand.config.effects import Situation, ineffective_keys
from evenhand.config.schema import PhaseConfig
from evenhand.core.errors import ConfigError
from evenhand.core.records import LABELS, Row
from evenhand.data.weighing import group_label_weights
from evenhand.finetune import treatment
from evenhand.finetune.callbacks import read_history
from evenhand.finetune.classifier import Classifier, prepare
from evenhand.finetune.encoding import EncodedRow
from evenhand.finetune.layouts import PaddedLayout
from evenhand.finetune.objective import LabelObjective
from evenhand.finetune.preflight.lengths import largest_step, measure_lengths
from evenhand.finetune.preflight.step import measure_steps
from evenhand.finetune.train import TrainedPhase
from evenhand.finetune.trainer import PackTrainer
from evenhand.finetune.treatment import TreatedRow, encode_treated, treat_rows
from evenhand.prompts.template import PromptTemplate

Train = Callable[..., TrainedPhase]
MakeConfig = Callable[..., PhaseConfig]
MakeRows = Callable[..., tuple[Row, ...]]

LAMBDA = 0.7
NO_VALIDATION: dict[str, Any] = {
    "eval_strategy": "no",
    "save_strategy": "no",
    "load_best_model_at_end": False,
}
BOTH: dict[str, Any] = {"row_weights": "group_label", "counterfactual_pairing": LAMBDA}
HATE, NORMAL = LABELS.index("hate"), LABELS.index("normal")


def exchange(row: Row, *, rng: np.random.Generator) -> Row | None:
    """A stand-in for the term lists: one word of the tiny models' vocabulary for another."""
    other = str(rng.choice(["town", "they"]))
    if "neighbours" not in row.text:
        return None
    text = row.text.replace("neighbours", f"{other} {other}")
    return dataclasses.replace(row, id=f"{row.id}-swapped", text=text, groups=(other,))


@pytest.fixture
def swaps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(treatment, "counterfactual", exchange)


@pytest.fixture
def rows(make_rows: MakeRows) -> tuple[Row, ...]:
    """16 rows of which some name a group, more often when they are hateful."""
    groups = (("women",), (), ("women",), (), ("lgbtq", "women"), ("lgbtq", "women"))
    made = [
        dataclasses.replace(row, groups=groups[place % len(groups)])
        for place, row in enumerate(make_rows(16))
    ]
    made[0] = dataclasses.replace(made[0], label="normal", text="kind neighbours")
    return tuple(made)


def adapter(run: Path) -> dict[str, Tensor]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


def assert_same_adapter(ours: Path, theirs: Path, *, within: float) -> None:
    one, other = adapter(ours), adapter(theirs)
    assert one.keys() == other.keys()
    assert max((one[name] - other[name]).abs().max().item() for name in one) < within


def logged(run: Path, key: str) -> list[float]:
    return [line[key] for line in read_history(run / "history.jsonl") if key in line]


# The loss, against one plain forward pass for each text


def plain_log_probs(classifier: Classifier, row: EncodedRow) -> Tensor:
    """Each label's log-probability from sequences of its own, without packing or padding."""
    model, encoder = classifier.model, classifier.encoder
    if encoder is None:
        return model(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(0)
    sums = []
    for label in encoder.labels:
        ids = torch.tensor([(*encoder.prefix, *row.ids, *label)])
        logits = model(input_ids=ids).logits[0].log_softmax(-1)
        start = ids.shape[1] - len(label) - 1
        sums.append(sum((logits[start + i, t] for i, t in enumerate(label)), torch.tensor(0.0)))
    return torch.stack(sums)


def plain_loss(classifier: Classifier, rows: Sequence[EncodedRow], pairing: float) -> Tensor:
    """The weighted cross-entropy and the pairs' differences, row by row, as defined."""
    total = torch.tensor(0.0)
    for row in rows:
        own = plain_log_probs(classifier, row)
        total = total - row.weight * own.log_softmax(0)[row.label or 0]
        if row.pair is not None:
            other = plain_log_probs(classifier, row.pair)
            gap = (own[HATE] - own[NORMAL]) - (other[HATE] - other[NORMAL])
            total = total + pairing * gap.abs()
    return total


def gradients(model: Any, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {
        name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None
    }


def assert_same_gradients(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    found, wanted = (torch.cat([one[name].flatten() for name in theirs]) for one in (ours, theirs))
    assert wanted.norm() > 0
    assert (found - wanted).norm() < 1e-4 * wanted.norm()


def load(make_config: MakeConfig, prompt: PromptTemplate, model: str) -> Classifier:
    """A model whose adapter does something: B of a fresh one is zero and passes nothing to A."""
    classifier = prepare(make_config(model, max_seq_length=512), prompt)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in classifier.model.named_parameters():
            if "lora_B" in name:
                weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    return classifier


@pytest.mark.usefixtures("swaps")
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"row_weights": "group_label"}, id="weights"),
        pytest.param({"counterfactual_pairing": LAMBDA}, id="pairs"),
        pytest.param(BOTH, id="both"),
    ],
)
@pytest.mark.parametrize(
    ("model", "is_padded"),
    [("llama", False), ("llama", True), ("gpt_oss", False), ("bert", False)],
)
def test_loss_and_gradient_are_those_of_separate_texts(
    make_config: MakeConfig,
    prompt: PromptTemplate,
    rows: tuple[Row, ...],
    model: str,
    is_padded: bool,
    changes: dict[str, Any],
) -> None:
    classifier = load(make_config, prompt, model)
    layout = classifier.layout
    if is_padded and classifier.encoder is not None:
        layout = PaddedLayout(classifier.encoder, pad=0)
    objective = LabelObjective(layout, changes.get("counterfactual_pairing") or 0.0)
    encoded = encode_treated(treat_rows(rows, make_config(model, **changes)), objective)
    assert any(row.weight != 1 or row.pair is not None for row in encoded)
    batch = objective.collate(encoded)
    assert batch["count"] == len(rows)
    loss = objective.loss_sum(classifier.model, batch)
    found = gradients(classifier.model, loss)
    if model != "bert":
        classifier.model.set_attn_implementation("eager")
    expected = plain_loss(classifier, encoded, LAMBDA)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert_same_gradients(found, gradients(classifier.model, expected))


@pytest.mark.parametrize("model", ["llama", "bert"])
def test_weights_by_label_are_torchs_class_weights(
    make_config: MakeConfig, prompt: PromptTemplate, rows: tuple[Row, ...], model: str
) -> None:
    classifier = load(make_config, prompt, model)
    objective = LabelObjective(classifier.layout)
    by_label = {"hate": 0.25, "normal": 1.75}
    encoded = encode_treated(
        [TreatedRow(row, by_label[row.label or ""]) for row in rows], objective
    )
    loss = objective.loss_sum(classifier.model, objective.collate(encoded))
    found = gradients(classifier.model, loss)
    bare = [dataclasses.replace(row, weight=1.0) for row in encoded]
    batch = classifier.layout.collate(bare)
    expected = cross_entropy(
        classifier.layout.log_probs(classifier.model, batch),
        batch["gold"],
        weight=torch.tensor([by_label[name] for name in LABELS]),
        reduction="sum",
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert_same_gradients(found, gradients(classifier.model, expected))


def test_plain_rows_make_the_batch_that_they_always_made(
    make_config: MakeConfig, prompt: PromptTemplate, rows: tuple[Row, ...]
) -> None:
    classifier = prepare(make_config(), prompt)
    objective = LabelObjective(classifier.layout)
    encoded = encode_treated(treat_rows(rows, make_config()), objective)
    assert encoded == [classifier.layout.encode(row) for row in rows]
    batch = objective.collate(encoded)
    assert batch.keys() == {*classifier.layout.collate(encoded), "count"}


# Which rows, and what of them


@pytest.mark.usefixtures("swaps")
def test_normal_rows_are_paired_whatever_else_is_trained_on(
    make_config: MakeConfig, rows: tuple[Row, ...]
) -> None:
    config = make_config(counterfactual_pairing=LAMBDA)
    treated = treat_rows(rows, config)
    paired = {one.row.id: one.counterfactual for one in treated if one.counterfactual is not None}
    assert set(paired) == {r.id for r in rows if r.label == "normal" and "neighbours" in r.text}
    assert 1 < len(paired) < len(rows)
    assert {one.weight for one in treated} == {1.0}
    for one in treat_rows(rows[::-2], config):
        assert one.counterfactual == paired.get(one.row.id)
    # Another seed exchanges some terms for others.
    texts = set()
    for seed in range(4):
        others = treat_rows(rows, make_config(counterfactual_pairing=1.0, seed=seed))
        texts.add(tuple(o.counterfactual.text for o in others if o.counterfactual is not None))
    assert len(texts) > 1


def test_pairs_come_from_the_term_lists(train: Train, rows: tuple[Row, ...]) -> None:
    text = "My neighbour is a Mexican and loves chess."
    told = [
        Row("paired", text, "normal", ("mexican",)),
        Row("hateful", text, "hate", ("mexican",)),
        Row("of no group", text, "normal"),
    ]
    (pair,) = [
        one.counterfactual
        for one in treat_rows(told, PhaseConfig(counterfactual_pairing=1.0))
        if one.counterfactual is not None
    ]
    assert (pair.label, pair.text == text, len(pair.groups)) == ("normal", False, 1)
    assert pair.text.endswith("and loves chess.")
    assert pair.groups != ("mexican",)
    trained = train(rows=[*told, *rows], **BOTH, **NO_VALIDATION)
    assert trained.statistics["paired_rows"] == 1


@pytest.mark.usefixtures("swaps")
def test_a_pair_that_is_cut_to_the_same_tokens_is_left_out(
    train: Train, rows: tuple[Row, ...]
) -> None:
    long = dataclasses.replace(rows[0], id="long", text="kind " * 200 + "neighbours")
    trained = train(rows=[long, *rows], **BOTH, **NO_VALIDATION)
    statistics = trained.statistics
    paired = [r for r in rows if r.label == "normal" and "neighbours" in r.text]
    assert statistics["paired_rows"] == len(paired)
    assert statistics["truncated_rows"] == 1


@pytest.mark.usefixtures("swaps")
def test_the_record_says_what_was_done_to_the_rows(
    train: Train, rows: tuple[Row, ...], tmp_path: Path
) -> None:
    plain = train(run="plain", rows=rows, **NO_VALIDATION).statistics
    assert (plain["row_weights"], plain["paired_rows"]) == (None, None)
    weighed = train(run="weighed", rows=rows, row_weights="group_label", **NO_VALIDATION)
    weights = group_label_weights(rows)
    assert weighed.statistics["row_weights"] == {
        "cells": len({(row.groups, row.label) for row in rows}),
        "distinct": len(set(weights.round(9))),
        "min": pytest.approx(weights.min()),
        "max": pytest.approx(weights.max()),
        "effective_rows": pytest.approx(len(rows) ** 2 / (weights**2).sum()),
    }
    written = json.loads((tmp_path / "weighed" / "training.json").read_text())
    assert written["row_weights"] == dict(weighed.statistics["row_weights"])
    assert written["paired_rows"] is None


@pytest.mark.usefixtures("swaps")
def test_pairing_without_a_pair_is_refused_before_anything_is_written(
    train: Train, make_config: MakeConfig, prompt: PromptTemplate, tmp_path: Path
) -> None:
    rows = [Row("a", "kind neighbours", "hate"), Row("b", "kind people", "normal")]
    with pytest.raises(ConfigError) as caught:
        train(rows=rows, counterfactual_pairing=1.0)
    assert caught.value.problems[0].place == "counterfactual_pairing"
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError):
        config = make_config(counterfactual_pairing=1.0)
        measure_steps(config, prompt, rows, steps=1, rng=np.random.default_rng(0))
    # The base model is not trained, so nothing is asked of the rows.
    train(rows=rows, counterfactual_pairing=1.0, tuning="none")


def test_without_training_the_mitigations_have_no_effect() -> None:
    keys = {
        "augment": {"methods": ["templates"]},
        "label_policy": {"offensive": "drop"},
        **BOTH,
    }
    config = PhaseConfig(tuning="none", load_best_model_at_end=False, **keys)
    found = ineffective_keys(config, Situation("cpu"), explicit=set(keys))
    assert {one.key for one in found} == set(keys)
    trained = PhaseConfig(**keys)
    assert not ineffective_keys(trained, Situation("cpu"), explicit=set(keys))


# In training


@pytest.mark.usefixtures("swaps")
@pytest.mark.parametrize("model", ["llama", "bert"])
def test_accumulated_batches_equal_one_large_batch(
    train: Train, rows: tuple[Row, ...], tmp_path: Path, model: str
) -> None:
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    folder = save_model(model, tmp_path / "base", **(still if model == "bert" else {}))
    changes = {
        "model": model,
        "model_name_or_path": str(folder),
        "rows": rows,
        **BOTH,
        **NO_VALIDATION,
    }
    train(run="one", per_device_train_batch_size=8, **changes)
    train(run="split", per_device_train_batch_size=2, gradient_accumulation_steps=4, **changes)
    assert_same_adapter(tmp_path / "one", tmp_path / "split", within=1e-5)
    losses = [logged(tmp_path / run, "loss") for run in ("one", "split")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.usefixtures("swaps")
def test_first_loss_is_the_mean_over_all_rows_of_the_step(
    train: Train,
    rows: tuple[Row, ...],
    make_config: MakeConfig,
    prompt: PromptTemplate,
    tmp_path: Path,
) -> None:
    train(rows=rows, per_device_train_batch_size=16, **BOTH, **NO_VALIDATION)
    classifier = prepare(make_config(**BOTH), prompt)  # B is zero: any adapter is the base model
    objective = LabelObjective(classifier.layout, LAMBDA)
    encoded = encode_treated(treat_rows(rows, make_config(**BOTH)), objective)
    expected = plain_loss(classifier, encoded, LAMBDA).item() / len(rows)
    assert logged(tmp_path / "run", "loss") == pytest.approx([expected], abs=1e-4)


@pytest.mark.usefixtures("swaps")
def test_validation_loss_knows_no_weights_and_no_pairs(
    train: Train, rows: tuple[Row, ...], tmp_path: Path
) -> None:
    validation = rows[:7]
    trained = train(rows=rows, validation=validation, **BOTH)
    scores = trained.classifier.score(validation)
    is_hate = np.array([row.label == "hate" for row in validation])
    expected = -np.log(np.where(is_hate, scores, 1 - scores)).mean()
    assert logged(tmp_path / "run", "eval_loss")[-1] == pytest.approx(expected, abs=1e-5)


@pytest.mark.usefixtures("swaps")
def test_a_strong_pairing_brings_the_logits_of_pairs_together(
    train: Train, rows: tuple[Row, ...]
) -> None:
    def mean_gap(trained: TrainedPhase) -> float:
        config = trained.classifier.config.model_copy(update={"counterfactual_pairing": 1.0})
        pairs = [one for one in treat_rows(rows, config) if one.counterfactual is not None]
        own = trained.classifier.score([one.row for one in pairs])
        other = trained.classifier.score([one.counterfactual or one.row for one in pairs])
        logits = [np.log(scores / (1 - scores)) for scores in (own, other)]
        return float(np.abs(logits[0] - logits[1]).mean())

    changes = {"rows": rows, "num_train_epochs": 6, **NO_VALIDATION}
    without = mean_gap(train(run="without", **changes))
    paired = mean_gap(train(run="paired", counterfactual_pairing=5.0, **changes))
    assert paired < 0.5 * without


@pytest.mark.usefixtures("swaps")
def test_resumed_training_equals_uninterrupted(
    train: Train, rows: tuple[Row, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    step = PackTrainer.training_step

    def interrupted(self: PackTrainer, *args: Any, **options: Any) -> Tensor:
        if self.state.global_step == 6:
            raise Killed
        return step(self, *args, **options)

    changes = {"rows": rows, "num_train_epochs": 2, "lora_dropout": 0.3, **BOTH}
    whole = train(run="whole", **changes)
    with monkeypatch.context() as patched:
        patched.setattr(PackTrainer, "training_step", interrupted)
        with pytest.raises(Killed):
            train(run="parts", **changes)
    parts = train(run="parts", resume=True, **changes)
    assert_same_adapter(tmp_path / "parts", tmp_path / "whole", within=1e-6)
    for key in ("checkpoints", "row_weights", "paired_rows"):
        assert parts.statistics[key] == whole.statistics[key]


# Beforehand


@pytest.mark.usefixtures("swaps")
def test_preflight_counts_the_tokens_of_pairs(
    make_config: MakeConfig, prompt: PromptTemplate, rows: tuple[Row, ...]
) -> None:
    config = make_config(counterfactual_pairing=1.0)
    plain = measure_lengths(make_config(), prompt, rows, model_type="llama")
    paired = measure_lengths(config, prompt, rows, model_type="llama")
    assert (plain.rows, plain.pairs) == (paired.rows, ())
    assert [size > 0 for size in paired.pairs] == [
        one.counterfactual is not None for one in treat_rows(rows, config)
    ]
    step = largest_step(paired, batch_rows=16, rng=np.random.default_rng(0))
    objective = LabelObjective(prepare(config, prompt).layout, 1.0)
    batch = objective.collate(encode_treated(treat_rows(rows, config), objective))
    assert step.tokens == batch["input_ids"].numel()
    assert step.rows == batch["rows"]
    measured = measure_steps(config, prompt, rows, steps=1, rng=np.random.default_rng(0))
    assert measured.rows_per_step == config.per_device_train_batch_size


# Several processes

SCRIPT = """
import dataclasses, json, sys
from pathlib import Path
from evenhand.config.schema import PhaseConfig
from evenhand.core.records import Row
from evenhand.finetune import treatment
from evenhand.finetune.train import train_phase
from evenhand.prompts.template import PromptTemplate

def exchange(row, *, rng):
    other = str(rng.choice(["town", "they"]))
    if "neighbours" not in row.text:
        return None
    text = row.text.replace("neighbours", f"{other} {other}")
    return dataclasses.replace(row, id=f"{row.id}-swapped", text=text, groups=(other,))

treatment.counterfactual = exchange
task = json.loads(Path(sys.argv[1]).read_text())
rows = [Row(**{**row, "groups": tuple(row["groups"])}) for row in task["rows"]]
prompt = PromptTemplate(**task["prompt"])
train_phase(PhaseConfig(**task["config"]), rows, [], prompt, run=Path(task["run"]))
"""


@pytest.mark.slow
@pytest.mark.usefixtures("swaps")
def test_two_processes_train_like_one(
    train: Train,
    make_config: MakeConfig,
    prompt: PromptTemplate,
    rows: tuple[Row, ...],
    tmp_path: Path,
) -> None:
    train(run="one", rows=rows, validation=[], per_device_train_batch_size=8, **BOTH)
    config = make_config(per_device_train_batch_size=4, **BOTH)
    told = {
        "config": config.model_dump(mode="json"),
        "rows": [
            {"id": row.id, "text": row.text, "label": row.label, "groups": row.groups}
            for row in rows
        ],
        "prompt": {
            "strategy": prompt.strategy,
            "system_prompt": prompt.system_prompt,
            "before": prompt.before,
            "after": prompt.after,
        },
        "run": str(tmp_path / "two"),
    }
    (tmp_path / "task.json").write_text(json.dumps(told))
    (tmp_path / "script.py").write_text(SCRIPT)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2"]
    launcher += ["--master_addr", "127.0.0.1", "--master_port", str(port)]
    environment = {**os.environ, "EVENHAND_QUIET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, *launcher, str(tmp_path / "script.py"), str(tmp_path / "task.json")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[:4000]
    assert json.loads((tmp_path / "two" / "training.json").read_text())["processes"] == 2
    assert_same_adapter(tmp_path / "one", tmp_path / "two", within=1e-5)
    losses = [logged(tmp_path / run, "loss") for run in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
