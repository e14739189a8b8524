"""Keys that a user set and that change nothing here: named in a warning, never just ignored."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from evenhand.config.schema import PhaseConfig

EMBEDDED_MODELS = ("smollm2-135m", "minilm-l6", "mpnet-base")


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known, besides the configuration, when a phase is about to run.

    Attributes:
        device: the device that was chosen.
        model_type: the model's architecture as its configuration names it, if known.
        is_prequantized: whether the model's own files are quantised already (gpt-oss: MXFP4).
        bf16_is_fast: what the probe of the device found.
        inside_experiment: whether the phase is one of an experiment.
        has_train_set: whether an experiment's train set replaces the phase's training file.
    """

    device: Literal["cuda", "mps", "cpu"]
    model_type: str | None = None
    is_prequantized: bool = False
    bf16_is_fast: bool = True
    inside_experiment: bool = False
    has_train_set: bool = False


class Ineffective(NamedTuple):
    """A key without effect, and why."""

    key: str
    reason: str


Found = Iterator[tuple[Iterable[str], str]]

_BNB = ("bnb_4bit_quant_type", "bnb_4bit_compute_dtype")
_LORA = tuple(key for key in PhaseConfig.model_fields if key.startswith("lora_"))
_STOPPING = ("early_stopping_threshold", "early_stopping_mode")
_BEST = ("metric_for_best_model", "greater_is_better")
_TRAINING = (
    "train_file",
    "validation_file",
    "max_train_rows",
    "objective",
    "augment",
    "label_policy",
    "row_weights",
    "counterfactual_pairing",
    "learning_rate",
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "lr_scheduler_type",
    "optim",
    "gradient_checkpointing",
    "eval_strategy",
    "eval_steps",
    "save_strategy",
    "save_steps",
    "save_total_limit",
    "load_best_model_at_end",
    "early_stopping_patience",
    "logging_steps",
    "report_to",
    "dataloader_num_workers",
    "remove_unused_columns",
    *_STOPPING,
    *_BEST,
)


def ineffective_keys(
    config: PhaseConfig, situation: Situation, *, explicit: Collection[str]
) -> tuple[Ineffective, ...]:
    """Return the keys in ``explicit`` that have no effect, each once, in the schema's order.

    A key that is set to null asks for nothing and is passed over.

    >>> config = PhaseConfig(load_in_4bit=True)
    >>> ineffective_keys(config, Situation("cpu"), explicit={"load_in_4bit"})
    (Ineffective(key='load_in_4bit', reason='4-bit loading needs CUDA; the device is cpu'),)
    """
    reasons: dict[str, str] = {}
    for find in _FINDERS:
        for keys, reason in find(config, situation):
            for key in keys:
                reasons.setdefault(key, reason)
    return tuple(
        Ineffective(key, reasons[key])
        for key in PhaseConfig.model_fields
        if key in reasons and key in explicit and getattr(config, key) is not None
    )


def _nothing_trained(config: PhaseConfig, _: Situation) -> Found:
    if config.tuning == "none":
        yield _TRAINING, 'nothing is trained with tuning "none"'


def _quantisation(config: PhaseConfig, situation: Situation) -> Found:
    if situation.device != "cuda":
        reason = f"4-bit loading needs CUDA; the device is {situation.device}"
        yield ("load_in_4bit", *_BNB), reason
    elif situation.is_prequantized:
        name = situation.model_type or "the model"
        reason = f"{name} is quantised in its own way already and is loaded as bfloat16"
        yield ("load_in_4bit", *_BNB), reason
    elif not config.load_in_4bit:
        yield _BNB, "only used with load_in_4bit"


def _number_format(config: PhaseConfig, situation: Situation) -> Found:
    if config.dtype == "float32":
        return  # bf16 true is refused, bf16 false says the same
    if config.dtype == "bfloat16":
        if not config.bf16:
            yield ("bf16",), 'dtype "bfloat16" decides'
    elif config.bf16 and not situation.bf16_is_fast:
        reason = f"bfloat16 is slow on this {situation.device}, so float32 is used; dtype forces it"
        yield ("bf16",), reason
    elif not config.bf16 and situation.bf16_is_fast:
        reason = (
            'dtype "auto" chose bfloat16, which is fast here; set dtype "float32" to prevent it'
        )
        yield ("bf16",), reason


def _adapter(config: PhaseConfig, situation: Situation) -> Found:
    if not config.uses_adapter:
        yield _LORA, f'no adapter is trained with tuning "{config.tuning}"'
    elif config.init_adapter is not None and not situation.inside_experiment:
        # In an experiment the loader has made sure that they equal the parent's.
        yield _LORA, "the adapter that is continued brings its own"


def _stopping(config: PhaseConfig, _: Situation) -> Found:
    if config.early_stopping_patience is None:
        yield _STOPPING, "early stopping is off: early_stopping_patience is not set"
        if not config.load_best_model_at_end:
            yield _BEST, "neither early stopping nor load_best_model_at_end uses it"


def _moments(config: PhaseConfig, _: Situation) -> Found:
    if config.eval_strategy != "steps":
        yield ("eval_steps",), f'eval_strategy is "{config.eval_strategy}"'
    if config.save_strategy != "steps":
        yield ("save_steps",), f'save_strategy is "{config.save_strategy}"'
    if config.save_strategy == "no":
        yield ("save_total_limit",), "no checkpoints are saved"
    if config.eval_strategy == "no":
        yield ("validation_file",), "nothing is evaluated during training"
    if config.lr_scheduler_type == "constant":
        yield ("warmup_steps",), 'lr_scheduler_type "constant" has no warm-up'


def _model(config: PhaseConfig, _: Situation) -> Found:
    name = config.model_name_or_path
    if name in EMBEDDED_MODELS:
        yield ("cache_dir",), f"{name} is an embedded model"
    elif Path(name).expanduser().is_dir():
        yield ("cache_dir",), "the model is a local folder"
    if config.task == "sequence_classification":
        yield ("prompt_file", "strategy"), "a sequence classifier reads the bare text"


def _surroundings(_: PhaseConfig, situation: Situation) -> Found:
    if situation.inside_experiment:
        yield ("output_dir",), "the experiment's folder holds its phases"
    if situation.has_train_set:
        yield ("train_file",), "the experiment's train set replaces it"
    yield ("remove_unused_columns",), "batches hold only what the model reads"


_FINDERS: tuple[Callable[[PhaseConfig, Situation], Found], ...] = (
    _nothing_trained,
    _quantisation,
    _number_format,
    _adapter,
    _stopping,
    _moments,
    _model,
    _surroundings,
)
