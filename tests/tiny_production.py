"""A tiny run in the place of the demo's, and live posts that it knows how to judge.

The base model is trained, in seconds, on posts of the starter corpus' training templates, and a
LoRA phase on further ones; evaluation and live posts come from the same templates with other words,
since so small a model knows nothing of others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tests.finetune.conftest import CHATML, SETTINGS, SPECIAL
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from evenhand.config.schema import PhaseConfig
from evenhand.core.records import HATE, NORMAL, Row
from evenhand.data.sources import write_rows
from evenhand.data.starter import generate
from evenhand.finetune.classifier import load_classifier
from evenhand.finetune.train import train_phase
from evenhand.prompts.template import load_prompt

QUOTED = "quoted"
_KINDS = ("neutral_mention", "positive_mention", "pride", "everyday_talk")
_KEYS = {
    "device": "cpu",
    "dtype": "float32",
    "max_seq_length": 256,
    "learning_rate": 0.01,
    "num_train_epochs": 1,
    "per_device_train_batch_size": 16,
    "warmup_steps": 0.1,
    "report_to": "none",
    "optim": "adamw_torch",
    "seed": 7,
}
_NOT_SURE = 0.8
_LORA = {"lora_r": 8, "lora_alpha": 16, "lora_target_modules": ["q_proj", "v_proj"]}


def make_tiny_demo(folder: Path) -> Path:
    """Make ``demo/`` with one run, evaluated and with a threshold; return its live posts' file."""
    from evenhand.cli.main import run

    rows = generate(0)["train"]
    base = _train_base(rows[:1300], folder)
    validation, production = (generate(seed)["train"] for seed in (1, 2))
    data = folder / "demo" / "data"
    write_rows(rows[1300:1460], data / "train.jsonl")
    write_rows(validation[:120], data / "validation.jsonl")
    write_rows(production[:160], data / "production.jsonl")
    files = {name: str(data / f"{name}.jsonl") for name in ("train", "validation", "production")}
    phase = folder / "phase.json"
    keys = {"train_file": files["train"], "validation_file": files["validation"]}
    changed = {"model_name_or_path": str(base), "learning_rate": 0.001, **_LORA, **keys}
    phase.write_text(json.dumps({**_KEYS, **changed}), encoding="utf-8")
    path = str(folder / "demo" / "runs" / "high_capacity")
    for command in (
        ["train", str(phase), "--out", path],
        ["evaluate", path, "--data", files["validation"], "--name", "validation"],
        ["evaluate", path, "--data", files["production"], "--name", "production"],
        ["threshold", path, "--fit-on", "validation", "--report-on", "production"],
    ):
        assert run(command) == 0, command
    live = generate(3)["train"]
    about = [row for row in live if row.label == HATE and "lgbtq" in row.groups]
    kept = [row for row in live if row.label == HATE or row.fine_label in _KINDS]
    file = folder / "live.jsonl"
    numbered = enumerate([*kept, *_quoted(Path(path), about)])
    write_rows([replace(row, id=f"live-{number}") for number, row in numbered], file)
    return file


def _quoted(path: Path, rows: Sequence[Row]) -> list[Row]:
    """Return normal posts that quote hateful ones and that the tiny model takes for hate.

    It is not sure of them, so that a higher threshold lets many pass.
    """
    document = json.loads((path / "config.json").read_text("utf-8"))["config"]
    config = PhaseConfig.model_validate(document)
    classifier = load_classifier(path, config, load_prompt(path / "prompt.json"))
    quoted = [replace(row, text=f"Seen here: {row.text}") for row in rows]
    scores = classifier.score(quoted, advance=lambda _: None)
    threshold = json.loads((path / "threshold.json").read_text("utf-8"))["value"]
    return [
        replace(row, label=NORMAL, fine_label=QUOTED)
        for row, score in zip(quoted, scores, strict=True)
        if threshold + 0.02 < score < _NOT_SURE
    ]


def _train_base(rows: Sequence[Row], folder: Path) -> Path:
    """Train all weights of a small random llama; return the folder of what came of it."""
    prompt = load_prompt()
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = [prompt.system_prompt, prompt.before, HATE, NORMAL]
    backend.train_from_iterator([*(row.text for row in rows), *words * 50], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = CHATML
    start = folder / "start"
    settings = {
        **SETTINGS["llama"],
        "vocab_size": len(tokenizer),
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings)).save_pretrained(start)
    tokenizer.save_pretrained(start)
    config = PhaseConfig.model_validate(
        {**_KEYS, "model_name_or_path": str(start), "tuning": "full"}
    )
    train_phase(config, rows, rows[:16], prompt, run=folder / "base", resume=False)
    tokenizer.save_pretrained(folder / "base" / "model")
    return folder / "base" / "model"
