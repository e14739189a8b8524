"""A small random model of the same kind as a phase's: same layers, widths cut, few of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from evenhand.config.schema import PhaseConfig
from evenhand.core.records import LABELS
from evenhand.finetune import adapters, attention
from evenhand.finetune.encoding import EncodedRow, PromptEncoder
from evenhand.finetune.layouts import ClassifierLayout, Layout, PaddedLayout, TreeLayout

_VOCABULARY = 256
_INTERMEDIATE = 128
_NARROW = 16
_PREFIX = 100
_WINDOW = 32
_ROWS = 6
_LONGEST_ROW = 45
_EMBEDDING_SCALE = 0.2


@dataclass(frozen=True, slots=True)
class Kernels:
    """Which implementations of attention and of experts a model uses; None: transformers' own."""

    attention: str | None = None
    experts: str | None = None


EAGER = Kernels("eager", "eager")


def shrink(settings: Any) -> Any:
    """Return a configuration of the same class with a layer of each type and small widths.

    The width of a head, the ratio of query to key-value heads, positions and activations stay.

    Raises:
        ValueError, TypeError, AttributeError: the class needs something that is not known here.
    """
    values = settings.to_dict()
    heads = settings.num_attention_heads
    key_value = values.get("num_key_value_heads") or heads
    width = values.get("head_dim") or settings.hidden_size // heads
    few = min(2, key_value)
    changes: dict[str, Any] = {
        "num_hidden_layers": 2,
        "num_attention_heads": few * heads // key_value,
        "vocab_size": _VOCABULARY,
        "initializer_range": _EMBEDDING_SCALE,
    }
    # Decoders take the width of a head as a setting of its own; encoders divide the hidden size.
    is_decoder = "num_key_value_heads" in values
    changes["hidden_size"] = changes["num_attention_heads"] * (_NARROW if is_decoder else width)
    if is_decoder:
        changes["head_dim"] = width
    limits = {
        "num_key_value_heads": few,
        "intermediate_size": _INTERMEDIATE,
        "moe_intermediate_size": _INTERMEDIATE,
        "num_local_experts": 8,
        "num_experts": 8,
        "sliding_window": _WINDOW,
    }
    changes |= {key: min(values[key], most) for key, most in limits.items() if values.get(key)}
    if values.get("layer_types"):
        kinds = list(dict.fromkeys(values["layer_types"]))
        changes["layer_types"] = kinds if len(kinds) > 1 else kinds * 2
        changes["num_hidden_layers"] = len(changes["layer_types"])
    dropped = ("quantization_config", "model_type", "transformers_version", "dtype")
    kept = {key: value for key, value in values.items() if key not in dropped}
    tokens = {key: None for key in kept if key.endswith("_token_id")}
    return AutoConfig.for_model(settings.model_type, **{**kept, **tokens, **changes})


def build_model(
    settings: Any, config: PhaseConfig, kernels: Kernels, *, dtype: torch.dtype, device: str
) -> Any:
    """Return a model of these settings with what the phase trains, and the embedding trainable."""
    options: dict[str, Any] = {"dtype": dtype}
    if kernels.attention is not None:
        options["attn_implementation"] = kernels.attention
    if kernels.experts is not None:
        options["experts_implementation"] = kernels.experts
    family: Any = AutoModelForCausalLM
    own = AutoConfig.for_model(settings.model_type, **_without_type(settings))
    if config.task == "sequence_classification":
        family = AutoModelForSequenceClassification
        own.num_labels, own.pad_token_id = len(LABELS), 0
    attention.register()
    model = family.from_config(own, **options)
    changes = {"lora_dropout": 0.0, "init_adapter": None, "lora_r": min(config.lora_r, 8)}
    tuned = adapters.attach(model, config.model_copy(update=changes))
    if kernels.experts == "eager":
        for module in tuned.modules():
            if isinstance(module, ParamWrapper):
                vars(module).pop("forward", None)  # PEFT's own sum of matrices, not ours
    tuned.get_input_embeddings().weight.requires_grad_(True)
    return tuned.to(device).eval()


def _without_type(settings: Any) -> dict[str, Any]:
    values = settings.to_dict()
    return {key: value for key, value in values.items() if key not in ("model_type", "dtype")}


def fill(model: Any, rng: np.random.Generator) -> None:
    """Give a model random weights under which every part matters.

    An adapter's second half would be zero and pass no gradient on; a sink of an untrained model
    would weigh no more than one key of many.
    """
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))

    def normal(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator).to(like)

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("sinks"):
                weight.copy_(normal(weight) + float(np.log(_PREFIX)))
            elif "lora_B" in name:
                weight.copy_(0.05 * normal(weight))
            elif name.endswith("bias"):
                weight.copy_(0.1 * normal(weight))
            elif weight.dim() > 1:
                weight.copy_(normal(weight) * weight.shape[-1] ** -0.5)


def make_layout(config: PhaseConfig, settings: Any, name: str) -> Layout:
    """Return the layout of that name with a made-up prompt: no tokenizer is needed."""
    if config.task == "sequence_classification":
        return ClassifierLayout(None, 512, begin=(), end=(), pad=0)
    ids = list(range(10, _VOCABULARY))
    encoder = PromptEncoder(
        prefix=tuple(ids[place % len(ids)] for place in range(_PREFIX)),
        tail=(),
        labels=((3, 4, 1), (5, 1)),
        tokenizer=None,
        max_length=4 * _PREFIX,
    )
    if name == "tree":
        return TreeLayout(encoder, window=getattr(settings, "sliding_window", None))
    return PaddedLayout(encoder, pad=0)


def make_rows(rng: np.random.Generator) -> list[EncodedRow]:
    """Return rows of random tokens, some longer than the sliding window."""
    sizes = np.linspace(2, _LONGEST_ROW, _ROWS).astype(int)
    return [
        EncodedRow(tuple(rng.integers(10, _VOCABULARY, size).tolist()), place % 2, False)
        for place, size in enumerate(sizes)
    ]
