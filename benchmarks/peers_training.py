"""How others train the same adapter on the same rows: TRL's SFTTrainer, the reference's recipe."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from arithmetic import Shape, Span
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
)
from transformers.trainer_callback import PrinterCallback
from workload import LEARNING_RATE, LORA, ROWS_A_STEP, Workload, answered

from evenhand.core.records import Row
from evenhand.finetune.devices import choose_device
from evenhand.finetune.encoding import PromptEncoder, build_encoder
from evenhand.finetune.folders import locate

REFERENCE_LENGTH = 512
_REFERENCE_ROWS = 4  # its per_device_train_batch_size, accumulated to ROWS_A_STEP


class StepClock(TrainerCallback):
    """Notes when each step ended; the first is the warm-up."""

    def __init__(self) -> None:
        self.ended: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ended.append(time.perf_counter())


def make_encoder(work: Workload) -> PromptEncoder:
    """Return the prompt in the model's tokens, the same for every arm."""
    location = locate(work.model)
    return build_encoder(
        AutoTokenizer.from_pretrained(location),
        work.prompt,
        max_length=REFERENCE_LENGTH,
        model_type=AutoConfig.from_pretrained(location).model_type,
    )


def fast_format() -> str:
    """Return the number format that is faster here, by the product's own probe."""
    return choose_device("cpu", dtype="auto", bf16=False).dtype_name


def load_model(work: Workload, number_format: str) -> Any:
    """Return the base model as a user of transformers would load it."""
    return AutoModelForCausalLM.from_pretrained(
        locate(work.model), dtype=getattr(torch, number_format), attn_implementation="sdpa"
    )


def _lora(work: Workload) -> LoraConfig:
    values = work.config()
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=values.lora_r,
        lora_alpha=values.lora_alpha,
        lora_dropout=values.lora_dropout,
        target_modules=list(LORA["lora_target_modules"]),
    )


def _spans(encoder: PromptEncoder, rows: Sequence[Row]) -> tuple[list[Span], int]:
    """Return each row as a sequence of its own, unpadded, and its answer's positions."""
    pairs = [answered(encoder, row) for row in rows]
    spans = [Span(0, len(question) + len(answer)) for question, answer in pairs]
    return spans, sum(len(answer) for _, answer in pairs)


def train_with_trl(
    work: Workload,
    batches: Sequence[Sequence[Row]],
    folder: Path,
    *,
    micro_rows: int = ROWS_A_STEP,
    number_format: str | None = None,
    padding_free: bool = False,
    grouped: bool = True,
) -> tuple[Any, StepClock, str]:
    """Train with SFTTrainer: loss over the answer alone, dynamic padding, no checkpointing.

    ``grouped``: the batches have rows of like length already; else the trainer groups by length.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    number_format = number_format or fast_format()
    encoder = make_encoder(work)
    rows = [answered(encoder, row) for batch in batches for row in batch]
    # The tokens are given, labels too, so that every arm trains on the very same ones.
    examples = [
        {"input_ids": [*question, *answer], "labels": [*[-100] * len(question), *answer]}
        for question, answer in rows
    ]
    clock = StepClock()
    trainer = SFTTrainer(
        model=load_model(work, number_format),
        args=SFTConfig(
            output_dir=str(folder),
            per_device_train_batch_size=micro_rows,
            gradient_accumulation_steps=ROWS_A_STEP // micro_rows,
            learning_rate=LEARNING_RATE,
            num_train_epochs=1,
            train_sampling_strategy="sequential" if grouped else "group_by_length",
            padding_free=padding_free,
            max_length=None,
            gradient_checkpointing=False,
            bf16=number_format == "bfloat16",
            optim="adamw_torch_fused",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=False,
            use_cpu=True,
            seed=work.seed,
        ),
        train_dataset=Dataset.from_list(examples),
        processing_class=encoder.tokenizer,
        peft_config=_lora(work),
        callbacks=[clock],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer, clock, number_format


def measure_trl(work: Workload, **options: Any) -> dict[str, Any]:
    """Time TRL's SFTTrainer after one step of warm-up."""
    encoder = make_encoder(work)
    batches = draw_batches(work, encoder)
    with tempfile.TemporaryDirectory() as folder:
        trainer, clock, number_format = train_with_trl(work, batches, Path(folder), **options)
    timed = [row for batch in batches[1:] for row in batch]
    spans, logits = _spans(encoder, timed)
    return {
        "rows": len(timed),
        "seconds": clock.ended[-1] - clock.ended[0],
        "number_format": number_format,
        "tokens": sum(span.tokens for span in spans),
        "flops": Shape.of(trainer.model).training(spans, logits=logits),
    }


def draw_batches(work: Workload, encoder: PromptEncoder) -> list[list[Row]]:
    """Return a batch of warm-up and those that are timed.

    The first is the one of middling length, so that what it takes away is the average.
    """

    def tokens(batch: Sequence[Row]) -> int:
        return sum(len(encoder.encode(row).ids) for row in batch)

    batches = sorted(work.draw_grouped(encoder, 1 + max(1, work.rows // ROWS_A_STEP)), key=tokens)
    return [batches.pop(len(batches) // 2), *batches]


class _Padded(torch.utils.data.Dataset):
    def __init__(self, encoder: PromptEncoder, rows: Sequence[Row]) -> None:
        self.encoder = encoder
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> dict[str, list[int]]:
        question, answer = answered(self.encoder, self.rows[place])
        ids = [*question, *answer]
        missing = REFERENCE_LENGTH - len(ids)
        return {
            "input_ids": ids + [0] * missing,
            "attention_mask": [1] * len(ids) + [0] * missing,
            "labels": ids + [-100] * missing,
        }


def measure_reference(work: Workload) -> dict[str, Any]:
    """Time the reference's recipe: pad to 512, loss over every token, activation checkpointing.

    Every batch has the same shape, so a few are enough: one row warms up, then batches of 4 are
    accumulated, as many as the rows make, and one update made.
    """
    encoder = make_encoder(work)
    rows = work.draw(max(_REFERENCE_ROWS, work.rows))
    number_format = fast_format()
    model = get_peft_model(load_model(work, number_format), _lora(work))
    model(**_one(_Padded(encoder, rows))).loss.backward()
    model.zero_grad()
    clock = StepClock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=_REFERENCE_ROWS,
                gradient_accumulation_steps=len(rows) // _REFERENCE_ROWS,
                max_steps=1,
                learning_rate=LEARNING_RATE,
                optim="adamw_torch",
                activation_checkpointing=True,
                activation_checkpointing_kwargs={"use_reentrant": False},
                bf16=number_format == "bfloat16",
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                dataloader_pin_memory=False,
                use_cpu=True,
                seed=work.seed,
            ),
            train_dataset=_Padded(encoder, rows),
            data_collator=default_data_collator,
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    timed = len(rows) // _REFERENCE_ROWS * _REFERENCE_ROWS
    spans, _ = _spans(encoder, rows[:timed])
    tokens = sum(span.tokens for span in spans)
    return {
        "rows": timed,
        "seconds": clock.ended[-1] - clock.began,
        "number_format": number_format,
        "tokens": tokens,
        "flops": Shape.of(model).training(spans, logits=tokens),
    }


def _one(dataset: _Padded) -> dict[str, torch.Tensor]:
    return {key: torch.tensor([values]) for key, values in dataset[0].items()}
