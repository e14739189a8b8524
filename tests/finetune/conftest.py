"""Tiny random models with a tiny tokenizer, saved once a session; rows; one way to train."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedTokenizerFast

from evenhand.config.schema import PhaseConfig
from evenhand.core.records import Row
from evenhand.finetune.train import TrainedPhase, train_phase
from evenhand.prompts.template import PromptTemplate

# The libraries' own objects live for ever: without them the Trainer's collections take no time.
gc.collect()
gc.freeze()

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|start|>",
    "<|end|>",
    "<|message|>",
    "<|channel|>",
    "<|return|>",
)
CHATML = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)
SENTENCES = (
    "You read posts and say hate or normal. Answer with one word.",
    "Post: the people who moved in next door are kind neighbours",
    "Post: they should all be thrown out of this town",
    "system user assistant normal hate word answer people town neighbours",
)
WORDS = ("people", "town", "kind", "thrown", "out", "neighbours", "they", "all", "moved", "next")

_SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 1024,
}
_DECODER = {"num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": True}
SETTINGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "attention_bias": True, **_SHAPE, **_DECODER},
    "qwen2": {"model_type": "qwen2", **_SHAPE, "num_key_value_heads": 2},
    "qwen3": {"model_type": "qwen3", **_SHAPE, **_DECODER},
    "gpt_oss": {
        "model_type": "gpt_oss",
        **_SHAPE,
        **_DECODER,
        "tie_word_embeddings": False,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "bert": {"model_type": "bert", **_SHAPE, "max_position_embeddings": 64},
}


def make_tokenizer(*, chat_template: str | None = CHATML) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL[3:]),
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def make_encoder_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *dict.fromkeys(WORDS)]
    backend = Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )


def save_model(name: str, folder: Path, **changes: Any) -> Path:
    is_encoder = name == "bert"
    tokenizer = make_encoder_tokenizer() if is_encoder else make_tokenizer()
    settings = {
        **SETTINGS[name],
        "vocab_size": len(tokenizer),
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **changes,
    }
    torch.manual_seed(0)
    family = AutoModel if is_encoder else AutoModelForCausalLM
    model = family.from_config(AutoConfig.for_model(**settings))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``tiny("llama")``: the folder of a tiny random model."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = save_model(name, tmp_path_factory.mktemp(name))
        return made[name]

    return folder


@pytest.fixture(scope="session")
def prompt() -> PromptTemplate:
    return PromptTemplate(
        strategy="test",
        system_prompt="You read posts. Answer hate or normal.",
        before="Post: ",
        after="\nanswer",
        parameters={"max_tokens": 3},
    )


@pytest.fixture(scope="session")
def make_rows() -> Callable[..., tuple[Row, ...]]:
    """``make_rows(12)``: labelled rows of different lengths that a model can learn."""

    def make(count: int, *, seed: int = 0, max_words: int = 12) -> tuple[Row, ...]:
        rng = random.Random(seed)
        rows = []
        for number in range(count):
            label = ("hate", "normal")[number % 2]
            words = rng.choices(WORDS, k=rng.randint(1, max_words))
            words.insert(0, "thrown" if label == "hate" else "kind")
            rows.append(Row(id=f"{seed}-{number}", text=" ".join(words), label=label))
        return tuple(rows)

    return make


@pytest.fixture(scope="session")
def make_config(tiny: Callable[[str], Path]) -> Callable[..., PhaseConfig]:
    """``make_config("llama", lora_r=4)``: a phase of a tiny model, quick to train."""

    def make(model: str = "llama", **changes: Any) -> PhaseConfig:
        values: dict[str, Any] = {
            "model_name_or_path": str(tiny(model)),
            "device": "cpu",
            "dtype": "float32",
            "max_seq_length": 128,
            "lora_r": 4,
            "lora_alpha": 8,
            "lora_target_modules": ["q_proj", "v_proj"],
            "learning_rate": 0.01,
            "num_train_epochs": 1,
            "per_device_train_batch_size": 4,
            "logging_steps": 1,
            "report_to": "none",
            "seed": 7,
            "optim": "adamw_torch",
        }
        if model == "bert":
            values |= {
                "task": "sequence_classification",
                "lora_target_modules": ["query", "value"],
                "max_seq_length": 32,
            }
        return PhaseConfig(**{**values, **changes})

    return make


@pytest.fixture
def train(
    make_config: Callable[..., PhaseConfig],
    make_rows: Callable[..., tuple[Row, ...]],
    prompt: PromptTemplate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., TrainedPhase]:
    """``train(run="a", lora_r=4)``: train a tiny phase into a folder of its own."""
    monkeypatch.setenv("EVENHAND_QUIET", "1")

    def train_tiny(
        *,
        run: str = "run",
        model: str = "llama",
        rows: Sequence[Row] | None = None,
        validation: Sequence[Row] | None = None,
        resume: bool = False,
        prompt: PromptTemplate = prompt,
        **changes: Any,
    ) -> TrainedPhase:
        return train_phase(
            make_config(model, **changes),
            make_rows(16) if rows is None else rows,
            make_rows(6, seed=1) if validation is None else validation,
            prompt,
            run=tmp_path / run,
            resume=resume,
        )

    return train_tiny
