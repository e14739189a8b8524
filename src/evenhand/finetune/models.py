"""Base models and tokenizers: embedded, a local folder, or a hub name. Safetensors only."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
)
from transformers.utils import logging
from transformers.utils.quantization_config import Mxfp4Config

from evenhand.config.schema import PhaseConfig
from evenhand.core.errors import ModelError
from evenhand.core.paths import sha256_file, sha256_json
from evenhand.core.records import LABELS
from evenhand.finetune import attention
from evenhand.finetune.devices import Device
from evenhand.finetune.folders import locate
from evenhand.finetune.layouts import TREE_MODELS
from evenhand.finetune.processes import is_sharded


@dataclass(frozen=True)
class BaseModel:
    """A loaded base model with its tokenizer and its origin.

    ``parameters`` is their number before anything is added to the model.
    """

    model: Any
    tokenizer: Any
    model_type: str
    location: str
    parameters: int

    @property
    def uses_tree(self) -> bool:
        """Whether the shared-prefix tree is exact for this architecture."""
        return self.model_type in TREE_MODELS


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a model's configuration file says."""

    model_type: str
    is_prequantized: bool


def inspect_model(config: PhaseConfig) -> ModelFacts:
    """Read a model's configuration file, not its weights.

    Raises:
        ModelError: there is none.
    """
    with _load_errors(config.model_name_or_path):
        settings = AutoConfig.from_pretrained(
            locate(config.model_name_or_path), cache_dir=config.cache_dir, trust_remote_code=False
        )
    return ModelFacts(settings.model_type, _is_quantised(settings))


def load_base(config: PhaseConfig, device: Device) -> BaseModel:
    """Load the base model and tokenizer that a phase names.

    The frozen base of an adapter is held in the device's number format; weights that are trained
    themselves are held in float32.

    Raises:
        ModelError: missing, truncated, pickled or unreadable files.
    """
    location = locate(config.model_name_or_path)
    common: dict[str, Any] = {"cache_dir": config.cache_dir, "trust_remote_code": False}
    family: Any = AutoModelForCausalLM
    with _load_errors(config.model_name_or_path):
        settings = AutoConfig.from_pretrained(location, **common)
        tokenizer = AutoTokenizer.from_pretrained(location, **common)
        options = common | load_options(config, device, settings)
        if config.task == "sequence_classification":
            family = AutoModelForSequenceClassification
            names = dict(enumerate(LABELS))
            options |= {"num_labels": len(LABELS), "id2label": names}
            options["label2id"] = {label: number for number, label in names.items()}
            torch.manual_seed(config.seed)  # the head is new: the seed decides it
        with _no_bars():
            model, info = family.from_pretrained(
                location, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
    unfit = [*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])]
    _check_complete(model, unfit, config)
    if _is_mxfp4(settings):
        # Else save_pretrained would store the decoded weights under the names of packed blocks.
        model._weight_conversions = None
    return BaseModel(
        model=model,
        tokenizer=tokenizer,
        model_type=settings.model_type,
        location=location,
        parameters=sum(one.numel() for one in model.parameters()),
    )


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """Keep transformers' own progress bars away, also where it was imported before Evenhand."""
    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            with warnings.catch_warnings():
                # huggingface_hub warns that its own bars stay off.
                warnings.simplefilter("ignore", UserWarning)
                logging.enable_progress_bar()


@contextlib.contextmanager
def _load_errors(name: str) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ModelError(
            f'model "{name}" is truncated or damaged: {error}',
            hint="download or copy its files again",
        ) from error
    except ImportError as error:
        raise ModelError(
            f'model "{name}" needs a package that is not installed: {error}',
            hint="install it beside Evenhand; load_in_4bit needs bitsandbytes",
        ) from error
    except RuntimeError as error:
        if "conversion of the weights" not in str(error):
            raise
        raise ModelError(
            f'the weights of model "{name}" cannot be decoded; the report above names them',
            hint="its *_blocks and *_scales are incomplete or do not fit each other: download or "
            "copy its files again. If the report says out of memory, a larger GPU is needed",
        ) from error
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ModelError(
            f'cannot load model "{name}": {first}',
            hint="a model folder needs config.json, tokenizer files and model.safetensors",
        ) from error


def _check_complete(model: Any, unfit: Iterable[str], config: PhaseConfig) -> None:
    # transformers fills weights that are missing or of another shape with random numbers; only a
    # new head may be so.
    if config.task == "sequence_classification":
        body = f"{model.base_model_prefix}."
        unfit = [one for one in unfit if one.startswith(body) and ".pooler." not in one]
    lost = sorted(unfit)
    if lost:
        raise ModelError(
            f'model "{config.model_name_or_path}" lacks {len(lost)} of its weights, or has them '
            f"in another shape: {', '.join(lost[:3])}{', ...' if len(lost) > 3 else ''}",
            hint="download or copy its files again",
        )


def trains_own_weights(config: PhaseConfig) -> bool:
    """Return whether weights of the model itself are trained: all of them, or a new head.

    They are held in float32, since small updates are lost in bfloat16; bfloat16 then means
    automatic mixed precision in training.
    """
    return config.tuning == "full" or config.task == "sequence_classification"


def load_options(config: PhaseConfig, device: Device, settings: Any) -> dict[str, Any]:
    """Return what transformers is told about loading a phase's base model."""
    dtype = torch.float32 if trains_own_weights(config) else device.dtype
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True}
    if _is_mxfp4(settings):
        options["quantization_config"] = Mxfp4Config(dequantize=True)
    elif config.load_in_4bit and not _is_quantised(settings) and device.name == "cuda":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=config.bnb_4bit_quant_type,
            bnb_4bit_compute_dtype=getattr(torch, config.bnb_4bit_compute_dtype),
        )
    if config.task == "causal_lm" and settings.model_type in TREE_MODELS:
        attention.register()
        options["attn_implementation"] = attention.NAME
    if device.name == "cuda" and not is_sharded():
        # Each tensor goes to this process's GPU and is dequantised there: the host never holds the
        # whole model. FSDP shards what the host holds.
        options["device_map"] = {"": torch.cuda.current_device()}
    return options


def _is_quantised(settings: Any) -> bool:
    return getattr(settings, "quantization_config", None) is not None


def _is_mxfp4(settings: Any) -> bool:
    quantised = getattr(settings, "quantization_config", None)
    return isinstance(quantised, dict) and quantised.get("quant_method") == "mxfp4"


def hash_model(base: BaseModel) -> dict[str, str]:
    """Return sha256 of the base weights' files and of the tokenizer, for the manifest."""
    folder = Path(base.location)
    if folder.is_dir():
        weights = {one.name: sha256_file(one) for one in sorted(folder.glob("*.safetensors"))}
        hashed = sha256_json(weights)
    else:
        hashed = f"hub commit {getattr(base.model.config, '_commit_hash', None)}"
    tokenizer = json.loads(base.tokenizer.backend_tokenizer.to_str())
    return {"model": hashed, "tokenizer": sha256_json(tokenizer)}
