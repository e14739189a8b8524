"""A phase's fields: types, defaults (here and nowhere else) and one line on each.

``PhaseConfig`` has the flat keys that users of Hugging Face's Trainer and PEFT know, and
Evenhand's own on top; an experiment's fields are in :mod:`evenhand.config.experiment_schema`.
Rules that concern several fields at once are in :mod:`evenhand.config.rules`.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from evenhand.config import rules
from evenhand.config.values import (
    AugmentMethod,
    LabelPolicy,
    Loggers,
    Metric,
    Modules,
    Moment,
    Positive,
    Steps,
    WarmupSteps,
)


def raise_broken(broken: list[rules.Broken]) -> None:
    """Raise the rules that are broken, if any, as one validation error."""
    if broken:
        text = "; ".join(f"{rule.keys[0]}: {rule.message}" for rule in broken)
        raise PydanticCustomError("rules", "{message}", {"message": text, "broken": broken})


class StrictModel(BaseModel):
    """Base of every configuration object: frozen, no unknown keys, no silent conversion."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=()
    )


class AugmentConfig(StrictModel):
    """Rows to add to a phase's training rows, against false positives of a target group."""

    methods: tuple[AugmentMethod, ...] = Field(
        strict=False,
        min_length=1,
        description="Where rows come from: templates, swaps, corpus; several share the ratio.",
    )
    groups: tuple[str, ...] | None = Field(
        default=None,
        strict=False,
        min_length=1,
        description="Groups that the rows are about; null: every group of the training rows.",
    )
    labels: tuple[Literal["hate", "normal"], ...] = Field(
        default=("normal",),
        strict=False,
        min_length=1,
        description="Labels of the added rows.",
    )
    ratio: float = Field(
        default=0.2,
        gt=0,
        le=4,
        description="Most rows to add, as a share of the training rows.",
    )
    corpus: str | None = Field(
        default=None, description='File that method "corpus" selects rows from.'
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of what is drawn.")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        raise_broken(rules.broken_augment_rules(self))
        return self


class PhaseConfig(StrictModel):
    """One training run: model, data, adapter, schedule.

    >>> PhaseConfig(lora_r=16, metric_for_best_model="f1").metric_for_best_model
    'eval_f1'
    """

    # Model
    model_name_or_path: str = Field(
        default="smollm2-135m",
        min_length=1,
        description="Base model: an embedded model's name, a local folder, or a hub name.",
    )
    task: Literal["causal_lm", "sequence_classification"] = Field(
        default="causal_lm",
        description="Score label words with a causal LM, or train a classifier head.",
    )
    cache_dir: str | None = Field(
        default=None,
        description="Folder for models downloaded from the hub; null: the hub's own default.",
    )
    load_in_4bit: bool = Field(
        default=False, description="Quantise the base model to 4 bits on loading (CUDA only)."
    )
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = Field(
        default="fp4", description="4-bit number format, with load_in_4bit."
    )
    bnb_4bit_compute_dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="Number format of the computation, with load_in_4bit."
    )
    device: Literal["auto", "cuda", "mps", "cpu"] = Field(
        default="auto",
        description="Where to compute; auto takes CUDA, else Apple's MPS, else the CPU.",
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Number format; auto takes bfloat16 where a short probe finds it fast.",
    )
    bf16: bool = Field(
        default=False, description="Ask for bfloat16, as in Hugging Face; false leaves it to dtype."
    )

    # Data and prompt
    train_file: str | None = Field(
        default=None, description="Training rows; an experiment's train set replaces it."
    )
    validation_file: str | None = Field(
        default=None,
        description="Rows for early stopping; null in an experiment: the set of its selection.",
    )
    max_train_rows: Positive | None = Field(
        default=None, description="Train on at most this many rows, drawn with the seed; null: all."
    )
    max_seq_length: int = Field(
        default=512,
        ge=8,
        description="Longest sequence in tokens, the prompt included; the text is cut.",
    )
    prompt_file: str | None = Field(
        default=None, description="Prompt file; null: the built-in short prompt."
    )
    strategy: str | None = Field(
        default=None,
        min_length=1,
        description="Strategy of the prompt file; null: its only or first one.",
    )
    objective: Literal["label", "completion", "full_sequence"] = Field(
        default="label",
        description="What the loss covers: the choice among labels, the answer, or every token.",
    )

    # Mitigation: fewer false positives in a group
    augment: AugmentConfig | None = Field(
        default=None, description="Rows to add to the training rows; null: none."
    )
    label_policy: LabelPolicy | None = Field(
        default=None,
        description="What rows of a fine label are trained as: hate, normal, drop; null: as read.",
    )
    row_weights: Literal["group_label"] | None = Field(
        default=None,
        description="Weigh rows so that group and label are independent; null: all rows alike.",
    )
    counterfactual_pairing: float | None = Field(
        default=None,
        gt=0,
        description="Weight of the loss on how a group's swap changes a normal row's logit.",
    )

    # What is trained
    tuning: Literal["lora", "full", "none"] = Field(
        default="lora",
        description="Train an adapter, every weight, or nothing (evaluate the base model).",
    )
    lora_r: Positive = Field(default=8, description="Rank of the adapter.")
    lora_alpha: Positive = Field(
        default=8, description="Adapter's scale: alpha / r multiplies its output."
    )
    lora_dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the adapter's inputs that is dropped in training.",
    )
    lora_target_modules: Modules = Field(
        default="all-linear",
        description='Layers that get an adapter: a list of names, or "all-linear".',
    )
    lora_target_parameters: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="Parameters that are no layers (a mixture's experts) to adapt, by name.",
    )
    lora_bias: Literal["none", "all", "lora_only"] = Field(
        default="none", description="Which biases are trained beside the adapter."
    )
    init_adapter: str | None = Field(
        default=None, description="Finished adapter (run folder or PEFT folder) to continue from."
    )

    # Schedule
    learning_rate: float = Field(default=5e-5, gt=0, description="Peak learning rate.")
    num_train_epochs: float = Field(default=3.0, gt=0, description="Passes over the training rows.")
    per_device_train_batch_size: Positive = Field(
        default=8, description="Rows a step on each device."
    )
    per_device_eval_batch_size: Positive = Field(
        default=8,
        description="Rows a batch where answers are written, or other losses than label validated.",
    )
    eval_tokens_per_batch: Positive | None = Field(
        default=None,
        description="Tokens a batch in scoring; null: 4,096 on a CPU, 65,536 on a GPU.",
    )
    gradient_accumulation_steps: Positive = Field(
        default=1, description="Batches whose gradients are added before each update."
    )
    warmup_steps: WarmupSteps = Field(
        default=0,
        description="Updates in which the learning rate rises; below 1: a share of all updates.",
    )
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's weight decay.")
    max_grad_norm: float = Field(
        default=1.0, ge=0, description="Gradient clipping norm; 0: no clipping."
    )
    lr_scheduler_type: Literal[
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "constant",
        "constant_with_warmup",
        "inverse_sqrt",
    ] = Field(default="linear", description="How the learning rate falls after the warm-up.")
    optim: Literal[
        "adamw_torch",
        "adamw_torch_fused",
        "adafactor",
        "sgd",
        "adagrad",
        "rmsprop",
        "adamw_8bit",
        "adamw_bnb_8bit",
        "paged_adamw_8bit",
        "paged_adamw_32bit",
    ] = Field(default="adamw_torch_fused", description="Optimiser; 8-bit and paged ones need CUDA.")
    gradient_checkpointing: bool = Field(
        default=False,
        description="Recompute activations in the backward pass: less memory, slower.",
    )
    seed: int = Field(
        default=42, ge=0, lt=2**32, description="Seed of row order, initial adapter and dropout."
    )

    # Evaluation, checkpoints, early stopping
    eval_strategy: Moment = Field(
        default="epoch", description="When to evaluate on the validation rows."
    )
    eval_steps: Steps | None = Field(
        default=None, description='Updates between evaluations, with eval_strategy "steps".'
    )
    save_strategy: Moment = Field(default="epoch", description="When to write a checkpoint.")
    save_steps: Steps = Field(
        default=500, description='Updates between checkpoints, with save_strategy "steps".'
    )
    save_total_limit: Positive | None = Field(
        default=None, description="Checkpoints to keep, the best among them; null: all."
    )
    load_best_model_at_end: bool = Field(
        default=True, description="Keep the best checkpoint as the result, not the last."
    )
    metric_for_best_model: Metric = Field(
        default="eval_loss",
        description='What makes a checkpoint best; the "eval_" may be left out.',
    )
    greater_is_better: bool | None = Field(
        default=None, description="Direction of that metric; null: known from the metric."
    )
    early_stopping_patience: Positive | None = Field(
        default=None,
        description="Evaluations without improvement before stopping; null: never stop early.",
    )
    early_stopping_threshold: float = Field(
        default=0.0, ge=0, description="Smallest change that counts as an improvement."
    )
    early_stopping_mode: Literal["absolute", "relative"] = Field(
        default="absolute",
        description="The threshold is a difference (Hugging Face), or a share of the best so far.",
    )

    # Records and machinery
    output_dir: str | None = Field(
        default=None, description="Run folder when neither --out nor an experiment names one."
    )
    logging_steps: Steps = Field(
        default=500, description="Updates between lines of the training history."
    )
    report_to: Loggers = Field(
        default=("tensorboard",),
        description='Further logs beside history.jsonl: "tensorboard" or "none".',
    )
    dataloader_num_workers: int = Field(
        default=0, ge=0, description="Processes that prepare batches; 0: the main one."
    )
    remove_unused_columns: bool = Field(
        default=True, description="Accepted for Hugging Face's sake; packs carry no unused columns."
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        raise_broken(rules.broken_phase_rules(self))
        return self

    @property
    def uses_adapter(self) -> bool:
        """Whether the phase trains a LoRA adapter."""
        return self.tuning == "lora"

    @property
    def is_greater_better(self) -> bool:
        """Whether a larger value of ``metric_for_best_model`` is better."""
        return self.metric_for_best_model != "eval_loss"

    @property
    def writes_tensorboard(self) -> bool:
        """Whether TensorBoard events are written."""
        return "tensorboard" in self.report_to
