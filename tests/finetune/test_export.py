"""Exported files give the scores of the run, in Evenhand and in plain transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.finetune.conftest import save_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from evenhand.config.schema import PhaseConfig
from evenhand.core.progress import Advance
from evenhand.core.records import LABELS, Row
from evenhand.finetune.classifier import load_classifier
from evenhand.finetune.export import ExportedModel, export_model
from evenhand.prompts.template import PromptTemplate

BOTH = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
NO_LORA = {"lora_r": 8, "lora_alpha": 8, "lora_target_modules": "all-linear"}


def silent(n: int = 1, /, **fields: float | str) -> None:
    pass


@pytest.fixture
def export(
    tmp_path: Path,
    prompt: PromptTemplate,
    make_rows: Callable[..., tuple[Row, ...]],
) -> Callable[..., tuple[ExportedModel, Path]]:
    """``export(run, config, form="merged")``: the record and the folder."""

    def do(
        run: Path, config: PhaseConfig, *, form: Any = "merged", advance: Advance = silent
    ) -> tuple[ExportedModel, Path]:
        out = tmp_path / f"exported-{form}"
        out.mkdir()
        rows = make_rows(9, seed=5)
        return (
            export_model(run, config, prompt, out=out, form=form, posts=rows, advance=advance),
            out,
        )

    return do


def plain_scores(folder: Path, procedure: Any, texts: list[str]) -> np.ndarray:
    """p(hate) as the card describes it, with transformers alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    scores = []
    for text in texts:
        post = tokenizer(text, add_special_tokens=False)["input_ids"][: procedure["room"]]
        sums = []
        for name in LABELS:
            label = procedure["labels"][name]
            head = [*procedure["prefix"], *post, *procedure["tail"]]
            ids = torch.tensor([[*head, *label]])
            with torch.no_grad():
                logs = model(input_ids=ids).logits[0].log_softmax(-1)
            sums.append(sum(float(logs[len(head) + k - 1, one]) for k, one in enumerate(label)))
        hate, normal = sums
        scores.append(1 / (1 + np.exp(normal - hate)))
    return np.array(scores)


CASES = {
    "lora": ("llama", {}),
    "lora everywhere": ("llama", {"lora_target_modules": "all-linear"}),
    "biases": ("llama", {"lora_bias": "lora_only"}),
    "qwen": ("qwen3", {}),
    "full": ("llama", {"tuning": "full", **NO_LORA}),
    "not trained": ("llama", {"tuning": "none", **NO_LORA}),
    "attention of gpt-oss": ("gpt_oss", {"max_seq_length": 256}),
    "experts of gpt-oss": ("gpt_oss", {"lora_target_parameters": BOTH, "max_seq_length": 256}),
}


@pytest.mark.parametrize("case", CASES)
def test_merged_files_give_the_runs_scores_in_plain_transformers(
    case: str,
    train: Callable[..., Any],
    make_rows: Callable[..., tuple[Row, ...]],
    prompt: PromptTemplate,
    export: Callable[..., tuple[ExportedModel, Path]],
    tmp_path: Path,
) -> None:
    model, changes = CASES[case]
    trained = train(model=model, **changes)
    config = trained.classifier.config
    exported, out = export(tmp_path / "run", config)
    assert exported.dtype == "float32"
    assert exported.max_difference <= 1e-5
    rows = make_rows(9, seed=5)
    expected = load_classifier(tmp_path / "run", config, prompt).score(rows)
    found = plain_scores(out, exported.procedure, [row.text for row in rows])
    assert found == pytest.approx(expected, abs=1e-4)
    assert (out / "generation_config.json").is_file()
    assert not list(out.glob("adapter*"))


def test_a_classifier_head_is_exported_with_the_body(
    train: Callable[..., Any],
    make_rows: Callable[..., tuple[Row, ...]],
    export: Callable[..., tuple[ExportedModel, Path]],
    tmp_path: Path,
) -> None:
    trained = train(model="bert")
    config = trained.classifier.config
    rows = make_rows(9, seed=5)
    expected = trained.classifier.score(rows)
    for form in ("merged", "adapter"):
        exported, out = export(tmp_path / "run", config, form=form)
        assert exported.max_difference <= 1e-5
    out = tmp_path / "exported-merged"
    tokenizer = AutoTokenizer.from_pretrained(out)
    model = AutoModelForSequenceClassification.from_pretrained(out).eval()
    assert model.config.id2label == dict(enumerate(LABELS))
    with torch.no_grad():
        logits = [model(**tokenizer(row.text, return_tensors="pt")).logits for row in rows]
    found = torch.cat(logits).softmax(1)[:, LABELS.index("hate")].numpy()
    assert found == pytest.approx(expected, abs=1e-5)


def test_the_adapter_alone_names_its_base_without_a_path(
    train: Callable[..., Any],
    export: Callable[..., tuple[ExportedModel, Path]],
    tmp_path: Path,
) -> None:
    trained = train()
    exported, out = export(tmp_path / "run", trained.classifier.config, form="adapter")
    assert (exported.dtype, exported.max_difference) == ("float32", 0.0)
    document = json.loads((out / "adapter_config.json").read_text())
    name = document["base_model_name_or_path"]
    assert name == Path(trained.classifier.config.model_name_or_path).name
    stored = (tmp_path / "run" / "adapter" / "adapter_model.safetensors").read_bytes()
    assert (out / "adapter_model.safetensors").read_bytes() == stored


def test_a_base_in_16_bits_stays_in_16_bits(
    train: Callable[..., Any],
    export: Callable[..., tuple[ExportedModel, Path]],
    tmp_path: Path,
) -> None:
    folder = save_model("llama", tmp_path / "llama")
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    trained = train(model_name_or_path=str(folder))
    exported, out = export(tmp_path / "run", trained.classifier.config)
    assert exported.dtype == "bfloat16"
    assert 0 < exported.max_difference < 0.05
    with safe_open(out / "model.safetensors", framework="pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118


def test_weights_that_are_no_numbers_are_not_merged(
    train: Callable[..., Any],
    export: Callable[..., tuple[ExportedModel, Path]],
    tmp_path: Path,
) -> None:
    trained = train()
    weights = tmp_path / "run" / "adapter" / "adapter_model.safetensors"
    tensors = {name: one * float("nan") for name, one in load_file(weights).items()}
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(Exception, match="not a number"):
        export(tmp_path / "run", trained.classifier.config)
