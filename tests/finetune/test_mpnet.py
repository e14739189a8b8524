"""MPNet as a classifier: padding and positions, adapters, and the embedded model if it is there."""

from __future__ import annotations

import json
import shutil
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    MPNetTokenizer,
)

from evenhand.config.schema import PhaseConfig
from evenhand.core.errors import ConfigError
from evenhand.core.records import LABELS, Row
from evenhand.finetune.adapters import attach
from evenhand.finetune.classifier import load_classifier
from evenhand.finetune.devices import choose_device
from evenhand.finetune.embedded import EMBEDDED, find_source
from evenhand.finetune.models import load_base
from evenhand.finetune.params import count_parameters
from evenhand.finetune.train import TrainedPhase
from evenhand.prompts.template import PromptTemplate

MakeConfig = Callable[..., PhaseConfig]
CPU = choose_device("cpu", dtype="float32", bf16=False)
TEXTS = (
    "kind neighbours",
    "they moved in next door, and all the people in town were kind to them " * 3,
    "",
    "out!",
    "a word that spells <s> or </s> or [UNK]",
    "Ünïcödé ça va",
    "all of them are next",
)
# Spelt by a post, these are plain text to Evenhand and the tokens themselves to the tokenizer.
RESERVED = ("<s>", "</s>", "[UNK]")


@pytest.fixture(scope="module")
def tiny_mpnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random MPNet with its own tokenizer."""
    folder = tmp_path_factory.mktemp("mpnet")
    letters = [*string.ascii_lowercase, *string.punctuation]
    pieces = [*letters, *(f"##{one}" for one in string.ascii_lowercase), "kind", "people", "town"]
    words = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", *pieces, "<mask>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = MPNetTokenizer(vocab=vocabulary, model_max_length=48)
    settings = AutoConfig.for_model(
        "mpnet",
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=50,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    AutoModel.from_config(settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def make_mpnet(tiny_mpnet: Path, make_config: MakeConfig) -> MakeConfig:
    def make(**changes: Any) -> PhaseConfig:
        values = {
            "model_name_or_path": str(tiny_mpnet),
            "task": "sequence_classification",
            "lora_target_modules": ["q", "v"],
        }
        return make_config("bert", **{**values, **changes})

    return make


def embedded_or_skip() -> str:
    if find_source(EMBEDDED["mpnet-base"]) is None:
        pytest.skip("mpnet-base is not here; `evenhand models fetch mpnet-base` gets it")
    return "mpnet-base"


def check_scores(config: PhaseConfig, prompt: PromptTemplate, folder: Path) -> None:
    """Compare a classifier's scores with the tokenizer's own call and a plain forward pass."""
    texts = [text for text in TEXTS if not any(one in text for one in RESERVED)]
    classifier = load_classifier(folder, config, prompt)
    assert classifier.layout.name == "classifier"
    rows = [Row(str(number), text) for number, text in enumerate(texts)]
    scores = classifier.score(rows)
    location = classifier.base.location
    tokenizer = AutoTokenizer.from_pretrained(location)
    torch.manual_seed(config.seed)  # the same new head
    model = AutoModelForSequenceClassification.from_pretrained(
        location, num_labels=len(LABELS), dtype=torch.float32
    ).eval()
    length = min(config.max_seq_length, tokenizer.model_max_length)
    with torch.no_grad():
        alone = [
            model(**tokenizer(text, truncation=True, max_length=length, return_tensors="pt")).logits
            for text in texts
        ]
        batch = tokenizer(
            list(texts), truncation=True, max_length=length, padding=True, return_tensors="pt"
        )
        padded = model(**batch).logits
    hate = LABELS.index("hate")
    assert len(np.unique(np.round(scores, 4))) > 3  # the texts are told apart
    assert scores == pytest.approx(torch.cat(alone).softmax(1)[:, hate].numpy(), abs=1e-5)
    assert scores == pytest.approx(padded.softmax(1)[:, hate].numpy(), abs=1e-5)


@pytest.mark.parametrize("length", [16, 48])
def test_tiny_mpnet_scores_like_transformers(
    make_mpnet: MakeConfig, prompt: PromptTemplate, tmp_path: Path, length: int
) -> None:
    check_scores(make_mpnet(tuning="none", max_seq_length=length), prompt, tmp_path)


def test_texts_are_framed_and_nothing_in_them_is_special(
    make_mpnet: MakeConfig, prompt: PromptTemplate, tmp_path: Path
) -> None:
    classifier = load_classifier(tmp_path, make_mpnet(tuning="none"), prompt)
    tokenizer = classifier.base.tokenizer
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    for number, text in enumerate(TEXTS):
        ids = classifier.layout.encode(Row(str(number), text)).ids
        assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
        assert not special & set(ids[1:-1])


def test_scores_of_a_full_length_text_do_not_depend_on_company(
    make_mpnet: MakeConfig, prompt: PromptTemplate, tmp_path: Path
) -> None:
    config = make_mpnet(tuning="none", max_seq_length=48)
    classifier = load_classifier(tmp_path, config, prompt)
    rows = [Row("long", "kind " * 100), Row("short", "town"), Row("none", "")]
    assert len(classifier.layout.encode(rows[0]).ids) == 48  # the last position there is
    together = classifier.score(rows)
    alone = np.concatenate([classifier.score([row]) for row in rows])
    assert together == pytest.approx(alone, abs=1e-6)


def test_without_a_limit_of_the_tokenizer_the_positions_are_the_limit(
    tiny_mpnet: Path, make_mpnet: MakeConfig, prompt: PromptTemplate, tmp_path: Path
) -> None:
    """50 positions, of which the first is padding's and the one before it no token's."""
    model = tmp_path / "unlimited"
    shutil.copytree(tiny_mpnet, model)
    settings = json.loads((model / "tokenizer_config.json").read_text())
    settings["model_max_length"] = int(1e30)
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    config = make_mpnet(model_name_or_path=str(model), tuning="none", max_seq_length=512)
    classifier = load_classifier(tmp_path, config, prompt)
    row = Row("long", "kind " * 100)
    assert len(classifier.layout.encode(row).ids) == 48
    assert np.isfinite(classifier.score([row])).all()


HEAD = 32 * 32 + 32 + 32 * 2 + 2
SQUARE = 4 * (32 + 32)  # rank 4
WIDE = 4 * (32 + 64)


@pytest.mark.parametrize(
    ("targets", "adapters"),
    [
        (["q", "v"], 2 * 2 * SQUARE),
        (["q", "k", "v"], 2 * 3 * SQUARE),
        (["o"], 2 * SQUARE),
        (["dense"], 2 * 2 * WIDE),
        ("all-linear", 2 * (4 * SQUARE + 2 * WIDE)),
    ],
)
def test_targets_leave_the_head_to_itself(
    make_mpnet: MakeConfig, targets: Sequence[str] | str, adapters: int
) -> None:
    config = make_mpnet(lora_target_modules=targets)
    assert count_parameters(config).trainable == adapters + HEAD
    tuned = attach(load_base(config, CPU).model, config)
    names = [name for name, one in tuned.named_parameters() if one.requires_grad]
    assert sum("classifier.modules_to_save" in name for name in names) == 4
    assert all(".encoder.layer." in name for name in names if "lora_" in name)


@pytest.mark.parametrize(
    ("name", "suggested"),
    [("q_proj", ""), ("query", ""), ("denze", '; did you mean "dense"?'), ("out_proj", "")],
)
def test_wrong_targets_are_named_with_those_there_are(
    make_mpnet: MakeConfig, name: str, suggested: str
) -> None:
    """The head's own layers are no targets: it is trained whole, without an adapter."""
    with pytest.raises(ConfigError) as caught:
        count_parameters(make_mpnet(lora_target_modules=["q", name]))
    (problem,) = caught.value.problems
    assert problem.place == "lora_target_modules"
    assert f'"{name}" is not a linear layer' in problem.message
    assert problem.message.endswith(f"{suggested}; it has dense, k, o, q, v")


def test_training_lowers_the_loss_and_is_loaded_back(
    train: Callable[..., TrainedPhase],
    make_mpnet: MakeConfig,
    make_rows: Callable[..., tuple[Row, ...]],
    prompt: PromptTemplate,
    tmp_path: Path,
) -> None:
    config = make_mpnet(lora_target_modules="all-linear", num_train_epochs=6)
    changes = {
        "model_name_or_path": config.model_name_or_path,
        "lora_target_modules": "all-linear",
        "num_train_epochs": 6,
    }
    trained = train(model="bert", run="a", rows=make_rows(32), **changes)
    rows = make_rows(12, seed=3)
    scores = trained.classifier.score(rows)
    truth = np.array([row.label == "hate" for row in rows])
    assert scores[truth].mean() > scores[~truth].mean() + 0.1
    again = load_classifier(tmp_path / "a", config, prompt)
    assert again.score(rows) == pytest.approx(scores, abs=1e-6)


# The embedded model itself


def test_embedded_mpnet_scores_like_transformers(
    make_mpnet: MakeConfig, prompt: PromptTemplate, tmp_path: Path
) -> None:
    name = embedded_or_skip()
    config = make_mpnet(model_name_or_path=name, tuning="none", max_seq_length=64)
    check_scores(config, prompt, tmp_path)


@pytest.mark.parametrize(
    ("targets", "trainable"),
    [
        (["q", "v"], 887_042),
        (["q", "k", "v"], 1_034_498),
        ("all-linear", 1_919_234),
    ],
)
def test_embedded_mpnet_is_counted(
    make_mpnet: MakeConfig, targets: Sequence[str] | str, trainable: int
) -> None:
    config = make_mpnet(model_name_or_path="mpnet-base", lora_target_modules=targets, lora_r=8)
    found = count_parameters(config)
    assert (found.trainable, found.total) == (trainable, 109_488_002)
